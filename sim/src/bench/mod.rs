//! Benchmarks of the transfer, beside the tools that people use today.
//!
//! Data moves one way: `topic -> rig and peers -> samples -> rows -> report`. A topic brings up a
//! real box with everything around it ([`rig`]), runs our client and the peers' ([`peers`]) against
//! it and against the peers' servers in the same run, and makes [`row`]s of what the kernel counted
//! ([`cpu`]). Nothing here reads a clock for a date or draws randomness: both come in.

mod bulk;
pub mod cpu;
pub mod delay;
mod far;
pub mod files;
mod load;
mod memory;
mod million;
mod peers;
pub mod plot;
mod puts;
pub mod report;
mod rig;
pub mod row;
mod small;

use std::io;
use std::path::{Path, PathBuf};

use crate::process::ProcessError;
use crate::system::{Programs, SystemError};
use crate::wait::TimedOut;
use peers::{Command, Peers};
use report::Detail;
use row::{Beside, Metric, Origin, Row};

/// What can be measured; `--only` takes one of these names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Topic {
    /// Large files: what a GB costs box and client.
    Bulk,
    /// Many small files by `longhaul push`.
    Small,
    /// Many small files, each its own S3 `PUT`.
    Puts,
    /// Small files to a bucket 100 ms away.
    Far,
    /// Memory of the box at full speed.
    Memory,
    /// A million objects.
    Million,
}

impl Topic {
    /// All, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Bulk,
        Self::Small,
        Self::Puts,
        Self::Far,
        Self::Memory,
        Self::Million,
    ];

    /// Its name on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bulk => "bulk",
            Self::Small => "small",
            Self::Puts => "puts",
            Self::Far => "far",
            Self::Memory => "memory",
            Self::Million => "million",
        }
    }
}

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The system around the box did not stand.
    #[error(transparent)]
    System(#[from] SystemError),
    /// A program did not run as it should.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A condition did not come true.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The machine did not do as asked.
    #[error("failed to {what}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The vault did not do as asked.
    #[error("the vault failed to {what}: {why}")]
    Vault {
        /// What was being done.
        what: &'static str,
        /// What it said.
        why: String,
    },
    /// Something was not as it should be.
    #[error("{0}")]
    Unexpected(String),
}

impl BenchError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Little data and one run: to see that it works, not to know.
    pub quick: bool,
    /// Where the systems under test live; each topic makes and removes its own folder in it.
    pub folder: PathBuf,
    /// Seed of the files' contents.
    pub seed: u64,
    /// The time, as `20130524T000000Z`: requests are signed with it.
    pub now: String,
    /// What rows have in common.
    pub origin: Origin,
}

impl Settings {
    /// `full`, or `quick` in a quick run.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How often each thing is measured.
    fn runs(&self) -> usize {
        self.size(3, 1)
    }
}

/// What a topic has found out.
#[derive(Debug, Default)]
pub struct Found {
    /// Its rows.
    pub rows: Vec<Row>,
    /// What stands behind them.
    pub detail: Detail,
}

/// One topic being measured.
struct Bench<'a> {
    settings: &'a Settings,
    programs: Programs,
    peers: Peers,
    folder: PathBuf,
    found: Found,
}

/// Measures `topic`.
///
/// # Errors
///
/// [`BenchError`]; nothing is half measured.
pub async fn measure(topic: Topic, settings: &Settings) -> Result<Found, BenchError> {
    let folder = settings.folder.join(topic.name());
    remove(&folder)?;
    std::fs::create_dir_all(&folder).map_err(BenchError::io("make a folder"))?;
    let load = || cpu::load().map_err(BenchError::io("read the load"));
    let before = load()?;
    let mut bench = Bench {
        settings,
        programs: Programs::find()?,
        peers: Peers::find(),
        folder,
        found: Found::default(),
    };
    bench.found.detail.topic = topic.name();
    match topic {
        Topic::Bulk => bulk::measure(&mut bench).await?,
        Topic::Small => small::measure(&mut bench).await?,
        Topic::Puts => puts::measure(&mut bench).await?,
        Topic::Far => far::measure(&mut bench).await?,
        Topic::Memory => memory::measure(&mut bench).await?,
        Topic::Million => million::measure(&mut bench).await?,
    }
    bench.found.detail.load = (before, load()?);
    remove(&bench.folder)?;
    Ok(bench.found)
}

impl Bench<'_> {
    /// Adds a row beside each of `peers`, one row alone if there is none.
    fn add(&mut self, metric: Metric, samples: &[f64], peers: &[Beside]) {
        let listed: Vec<String> = samples
            .iter()
            .map(|s| row::rounded(*s).to_string())
            .collect();
        self.note(format!(
            "{}: {} {}",
            metric.name,
            listed.join(", "),
            metric.unit
        ));
        let origin = &self.settings.origin;
        let measured: Vec<&Beside> = peers.iter().filter(|p| !p.samples.is_empty()).collect();
        if measured.is_empty() {
            self.found.rows.extend(metric.row(samples, None, origin));
            return;
        }
        for peer in measured {
            self.found
                .rows
                .extend(metric.row(samples, Some(peer), origin));
        }
    }

    /// Says something about what is measured, here and in the details.
    fn note(&mut self, line: String) {
        println!("  {line}");
        self.found.detail.lines.push(line);
    }

    /// What a peer's run has cost; `None`, and a note, if the peer failed: that is its affair.
    async fn peer(
        &mut self,
        server: u32,
        command: &Command,
    ) -> Result<Option<rig::Spent>, BenchError> {
        match rig::measured(server, command, &self.folder).await {
            Ok(spent) => Ok(Some(spent)),
            Err(BenchError::Process(error)) => {
                self.note(format!("{} failed: {}", command.name, chain(&error)));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

pub(crate) fn remove(folder: &Path) -> Result<(), BenchError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BenchError::Io {
            what: format!("remove {}", folder.display()),
            source,
        }),
        _ => Ok(()),
    }
}

/// An error with everything that it says of its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A whole number as a sample.
#[expect(clippy::cast_precision_loss, reason = "counts and bytes below 2^52")]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}
