//! Progress on a terminal as bars, for programs as JSON lines.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use longhaul_sdk::{Progress, Snapshot};

use crate::args::ProgressKind;

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(100);
/// Time between two JSON lines.
const LINE: Duration = Duration::from_secs(1);

/// Shows `progress` until dropped futures or the caller end it; never returns.
pub async fn show(kind: ProgressKind, progress: Arc<Progress>, wait: bool) {
    match kind {
        ProgressKind::Auto if std::io::stderr().is_terminal() => bars(&progress, wait).await,
        ProgressKind::Json => lines(&progress).await,
        ProgressKind::Auto | ProgressKind::None => std::future::pending().await,
    }
}

async fn lines(progress: &Progress) {
    let mut ticks = tokio::time::interval(LINE);
    loop {
        ticks.tick().await;
        line(&progress.snapshot());
    }
}

/// One JSON line on standard error; a reader that has gone away does not stop the push.
pub fn line(snapshot: &Snapshot) {
    if let Ok(text) = serde_json::to_string(snapshot) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

async fn bars(progress: &Progress, wait: bool) {
    let drawn = Bars::new(wait);
    let mut ticks = tokio::time::interval(FRAME);
    loop {
        ticks.tick().await;
        drawn.draw(&progress.snapshot());
    }
}

/// The bars; they leave the screen when dropped.
struct Bars {
    all: MultiProgress,
    on_box: ProgressBar,
    in_cloud: Option<ProgressBar>,
}

impl Bars {
    fn new(wait: bool) -> Self {
        let all = MultiProgress::new();
        let on_box = all.add(ProgressBar::new(0));
        on_box.set_style(style(
            "{prefix:14} {bar:28} {percent:>3}%  {decimal_bytes:>9} of {decimal_total_bytes:<9}  {decimal_bytes_per_sec:>10}  {msg}",
        ));
        on_box.set_prefix("safe on box");
        let in_cloud = wait.then(|| {
            let bar = all.add(ProgressBar::new(0));
            bar.set_style(style(
                "{prefix:14} {bar:28} {percent:>3}%  {decimal_bytes:>9} of {decimal_total_bytes:<9}  {msg}",
            ));
            bar.set_prefix("safe in cloud");
            bar
        });
        Self {
            all,
            on_box,
            in_cloud,
        }
    }

    fn draw(&self, s: &Snapshot) {
        if s.files == 0 {
            self.on_box.set_message("looking at the files");
            self.on_box.tick();
            return;
        }
        // What the network has taken counts for the picture; only the numbers of files are promises.
        let moved = (s.bytes_on_box + s.bytes_moving).min(s.bytes);
        self.on_box.set_length(s.bytes);
        self.on_box.set_position(moved);
        let eta = match self.on_box.eta().as_secs() {
            _ if s.files_on_box + s.files_failed >= s.files => String::new(),
            0 => ", almost there".to_owned(),
            left => format!(
                ", {} left",
                indicatif::HumanDuration(Duration::from_secs(left))
            ),
        };
        let failed = match s.files_failed {
            0 => String::new(),
            failed => format!(", {failed} failed"),
        };
        self.on_box
            .set_message(format!("{}/{} files{failed}{eta}", s.files_on_box, s.files));
        if let Some(bar) = &self.in_cloud {
            bar.set_length(s.bytes);
            bar.set_position(s.bytes_in_cloud);
            bar.set_message(format!("{}/{} files", s.files_in_cloud, s.files));
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // The summary says it all; an error only means that the terminal is gone.
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸ ")
}
