//! Progress on a terminal as bars, for programs as JSON lines.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use longhaul_sdk::{Progress, Snapshot};

use crate::args::ProgressKind;
use crate::human::{bytes, seconds};

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// The rate is taken over this long.
const WINDOW: Duration = Duration::from_secs(10);
/// Time between two JSON lines.
const LINE: Duration = Duration::from_secs(1);

/// What the progress is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Job {
    /// Files on their way to the box, and, where waited for, to the cloud.
    Push { wait: bool },
    /// Objects on their way from the box.
    Get,
}

/// Shows `progress` until dropped futures or the caller end it; never returns.
pub async fn show(kind: ProgressKind, progress: Arc<Progress>, job: Job) {
    match kind {
        ProgressKind::Auto if std::io::stderr().is_terminal() => bars(&progress, job).await,
        ProgressKind::Json => lines(&progress, job).await,
        ProgressKind::Auto | ProgressKind::None => std::future::pending().await,
    }
}

async fn lines(progress: &Progress, job: Job) {
    let mut ticks = tokio::time::interval(LINE);
    loop {
        ticks.tick().await;
        line(&progress.snapshot(), job);
    }
}

/// One JSON line on standard error; a reader that has gone away does not stop the push.
pub fn line(s: &Snapshot, job: Job) {
    let text = match job {
        Job::Push { .. } => serde_json::to_string(s),
        Job::Get => serde_json::to_string(&serde_json::json!({
            "files": s.files,
            "bytes": s.bytes,
            "files_here": s.files_on_box,
            "bytes_here": s.bytes_on_box,
            "bytes_moving": s.bytes_moving,
            "files_failed": s.files_failed,
            "retries": s.retries,
        })),
    };
    if let Ok(text) = text {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

async fn bars(progress: &Progress, job: Job) {
    let mut drawn = Bars::new(job);
    let mut ticks = tokio::time::interval(FRAME);
    loop {
        ticks.tick().await;
        drawn.draw(&progress.snapshot(), Instant::now());
    }
}

/// The bars; they leave the screen when dropped.
struct Bars {
    all: MultiProgress,
    on_box: ProgressBar,
    in_cloud: Option<ProgressBar>,
    rate: Rate,
}

impl Bars {
    fn new(job: Job) -> Self {
        let all = MultiProgress::new();
        let bar = |name: &'static str| {
            let bar = all.add(ProgressBar::new(0));
            bar.set_style(style());
            bar.set_prefix(name);
            bar
        };
        Self {
            on_box: bar(match job {
                Job::Push { .. } => "safe on box",
                Job::Get => "fetched",
            }),
            in_cloud: (job == Job::Push { wait: true }).then(|| bar("safe in cloud")),
            rate: Rate::default(),
            all,
        }
    }

    fn draw(&mut self, s: &Snapshot, now: Instant) {
        if s.files == 0 {
            self.on_box
                .set_message("looking for the box, then at the files");
            self.on_box.tick();
            return;
        }
        // What the network has taken counts for the picture; only the numbers of files are promises.
        // A part that is sent again does not move the bar back.
        let moved = (s.bytes_on_box + s.bytes_moving).min(s.bytes);
        let moved = moved.max(self.on_box.position());
        self.rate.add(now, moved);
        put(&self.on_box, moved, s.bytes, &self.moving(s, moved));
        if let Some(bar) = &self.in_cloud {
            let mut files = format!("{}/{} files", s.files_in_cloud, s.files);
            if let Some(code) = s.code {
                let _ = write!(files, ", {code} {}", code.entry().title);
            }
            put(bar, s.bytes_in_cloud, s.bytes, &files);
        }
    }

    fn moving(&self, s: &Snapshot, moved: u64) -> String {
        let mut words = Vec::new();
        let ended = s.files_on_box + s.files_failed >= s.files;
        if let (Some(rate), false) = (self.rate.per_second(), ended) {
            words.push(format!("{}/s", bytes(rate)));
        }
        words.push(format!("{}/{} files", s.files_on_box, s.files));
        if s.files_failed > 0 {
            words.push(format!("{} failed", s.files_failed));
        }
        if let (Some(rate @ 1..), false) = (self.rate.per_second(), ended) {
            let left = (s.bytes - moved) / rate;
            words.push(match left {
                0..10 => format!("{} s left", left.max(1)),
                _ => format!(
                    "{} left",
                    seconds(f64::from(u32::try_from(left).unwrap_or(u32::MAX)))
                ),
            });
        }
        words.join("  ")
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // The summary says it all; an error only means that the terminal is gone.
        let _ = self.all.clear();
    }
}

fn put(bar: &ProgressBar, position: u64, length: u64, message: &str) {
    bar.set_length(length);
    bar.set_position(position);
    let percent = position.saturating_mul(100) / length.max(1);
    bar.set_message(format!(
        "{percent:>3}%  {} of {}  {message}",
        bytes(position),
        bytes(length)
    ));
}

/// The rate of the last seconds.
#[derive(Default)]
struct Rate(VecDeque<(Instant, u64)>);

impl Rate {
    fn add(&mut self, now: Instant, moved: u64) {
        self.0.push_back((now, moved));
        while let Some((oldest, _)) = self.0.front()
            && now.duration_since(*oldest) > WINDOW
        {
            self.0.pop_front();
        }
    }

    /// Bytes per second; `None` until there is enough to judge by.
    fn per_second(&self) -> Option<u64> {
        let ((first, from), (last, to)) = (self.0.front()?, self.0.back()?);
        let millis = u64::try_from(last.duration_since(*first).as_millis()).ok()?;
        (millis >= 1000).then(|| (to - from).saturating_mul(1000) / millis)
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:13} {wide_bar} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let mut rate = Rate::default();
        rate.add(begin, 0);
        assert_eq!(rate.per_second(), None);

        for second in 1..=30 {
            let moved = if second <= 20 { 0 } else { 500 };
            rate.add(begin + Duration::from_secs(second), moved);
        }

        assert_eq!(rate.per_second(), Some(500 / WINDOW.as_secs()));
    }
}
