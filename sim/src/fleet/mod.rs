//! Thousands of simulated boxes, and what they cost.
//!
//! A simulated box speaks the real protocol: TLS 1.3 with its own certificate ([`members`]), MQTT 5
//! ([`frames`], [`link`]), and is born, reports and obeys ([`actor`]). Its keys are in software and it has no disk; everything that it connects
//! to is real ([`servers`]). Data moves `topic -> servers and crowd -> samples -> rows -> report`,
//! as in [`crate::bench`], whose rows and report are used.

pub mod actor;
mod cloud;
pub mod crowd;
mod edge;
pub mod enrol;
mod floods;
pub mod frames;
pub mod link;
pub mod members;
pub mod scenario;
pub mod servers;
mod site;
pub mod soft_tpm;

use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::Pki;

use crate::bench::report::Detail;
use crate::bench::row::{self, Beside, Metric, Origin};
use crate::bench::{BenchError, Found, cpu};
use crate::system::Programs;
use members::Member;
use servers::Papers;

/// What can be measured; `--only` takes one of these names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Topic {
    /// Memory of an idle connection, beside mosquitto.
    Idle,
    /// Connects a second, beside mosquitto.
    Connects,
    /// Messages a second, beside mosquitto.
    Messages,
    /// Boxes at the real cloud: cost of each, commands, and all of them back after `kill -9`.
    Boxes,
    /// Journal entries that the real cloud commits.
    Journals,
    /// What honest boxes notice of floods, beside mosquitto.
    Floods,
}

impl Topic {
    /// All, in the order of the report.
    pub const ALL: [Self; 6] = [
        Self::Idle,
        Self::Connects,
        Self::Messages,
        Self::Boxes,
        Self::Journals,
        Self::Floods,
    ];

    /// Its name on the command line and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connects => "connects",
            Self::Messages => "messages",
            Self::Boxes => "boxes",
            Self::Journals => "journals",
            Self::Floods => "floods",
        }
    }
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How often each rate is measured.
    pub runs: usize,
    /// Boxes that are connected and idle.
    pub boxes: usize,
    /// Boxes that connect at once.
    pub connects: usize,
    /// How long messages are sent.
    pub seconds: Duration,
    /// How often connected boxes send telemetry, and for how long their cost is measured.
    pub minute: Duration,
    /// Commands that are timed.
    pub commands: usize,
    /// An empty PostgreSQL database, to measure journals on.
    pub postgres: Option<String>,
    /// Where the systems under test live; each topic makes and removes its own folder in it.
    pub folder: PathBuf,
    /// The time: certificates begin with it.
    pub now: UnixMillis,
    /// What rows have in common.
    pub origin: Origin,
}

/// One topic being measured.
struct Run<'a> {
    settings: &'a Settings,
    programs: Programs,
    found: Found,
}

/// Measures `topic`.
///
/// # Errors
///
/// [`BenchError`]; nothing is half measured.
pub async fn measure(topic: Topic, settings: &Settings) -> Result<Found, BenchError> {
    servers::allow_connections(settings.boxes.max(settings.connects))?;
    let folder = settings.folder.join(topic.name());
    crate::bench::remove(&folder)?;
    std::fs::create_dir_all(&folder).map_err(BenchError::io("make a folder"))?;
    let load = || cpu::load().map_err(BenchError::io("read the load"));
    let before = load()?;
    let mut run = Run {
        settings,
        programs: Programs::find()?,
        found: Found {
            rows: Vec::new(),
            detail: Detail {
                topic: topic.name(),
                ..Detail::default()
            },
        },
    };
    measure_in(topic, &mut run, &folder).await?;
    run.found.detail.load = (before, load()?);
    crate::bench::remove(&folder)?;
    Ok(run.found)
}

async fn measure_in(topic: Topic, run: &mut Run<'_>, folder: &Path) -> Result<(), BenchError> {
    let papers = || Papers::make(folder, run.settings.now);
    match topic {
        Topic::Idle => edge::idle(run, &papers()?).await,
        Topic::Connects => edge::connects(run, &papers()?).await,
        Topic::Messages => edge::messages(run, &papers()?).await,
        Topic::Boxes => cloud::boxes(run, folder).await,
        Topic::Journals => cloud::journals(run, folder).await,
        Topic::Floods => floods::floods(run, &papers()?).await,
    }
}

impl Run<'_> {
    /// So many boxes with keys and certificates.
    fn members(&self, pki: &Pki, count: usize) -> Result<Vec<Member>, BenchError> {
        let unexpected = |text: String| BenchError::Unexpected(text);
        let ids: Result<Vec<BoxId>, _> = (0..count).map(|n| format!("B{n:011}").parse()).collect();
        let ids = ids.map_err(|e| unexpected(format!("no box can be called that: {e}")))?;
        let made = members::members(pki, &ids, self.settings.now);
        made.map_err(|e| unexpected(e.to_string()))
    }

    /// Says something about what is measured, here and in the details.
    fn note(&mut self, line: String) {
        println!("  {line}");
        self.found.detail.lines.push(line);
    }

    /// Adds a row: our samples beside the peer's.
    fn add(&mut self, metric: Metric, samples: &[Vec<f64>; 2], peer: &str) {
        let beside = Beside {
            name: peer.to_owned(),
            samples: samples[1].clone(),
        };
        let row = metric.row(&samples[0], Some(&beside), &self.settings.origin);
        self.found.rows.extend(row);
    }

    /// Adds a row of this case of a metric: our samples beside mosquitto's.
    fn add_beside(&mut self, metric: Metric, case: &str, samples: &[Vec<f64>; 2]) {
        let count = self.found.rows.len();
        self.add(metric, samples, "mosquitto");
        for row in &mut self.found.rows[count..] {
            row.metric = format!("{} ({case})", row.metric);
        }
    }

    /// Adds a row of so many boxes, without a peer.
    fn add_at(&mut self, metric: Metric, boxes: usize, samples: &[f64]) {
        self.add_named(metric, &format!("{boxes} boxes"), samples);
    }

    /// Adds a row of this case of a metric, without a peer.
    fn add_named(&mut self, metric: Metric, case: &str, samples: &[f64]) {
        if let Some(mut row) = metric.row(samples, None, &self.settings.origin) {
            row.metric = format!("{} ({case})", row.metric);
            self.found.rows.push(row);
        }
    }

    /// Adds a row beside a peer's, where the target is to be `times` as good as the peer in the same run.
    fn add_times(&mut self, metric: Metric, samples: &[Vec<f64>; 2], peer: &str, times: f64) {
        let target = row::median(&samples[1]).map(|value| row::rounded(value * times));
        self.add(Metric { target, ..metric }, samples, peer);
    }
}
