//! What Prometheus reads: counters of this process, and what the database counts.
//!
//! Counting rows costs the database, so that is done at most every half minute, however often and
//! by however many it is asked for.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use longhaul_broker::Stats;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;

use crate::store::alert_rules::Severity;
use crate::store::alerts::{AlertState, alert_count};
use crate::store::boxes::{BoxState, box_count};
use crate::store::commands::{CommandState, command_count};
use crate::store::journal::journal_count;
use crate::store::uploads::{UploadState, upload_count_all};
use crate::store::{Db, StoreResult};

/// The type of the text, by the `OpenMetrics` specification.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a count of the database's rows is good for.
const COUNTED: Duration = Duration::from_secs(30);
/// Upper ends of the buckets of a request's time, in seconds.
const SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Which requests.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Asked {
    operation: &'static str,
    status: u16,
}

/// Which operation.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Operation {
    operation: &'static str,
}

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge>;

/// Counts what this process does, and keeps what was counted last.
#[derive(Debug)]
pub struct Metrics {
    requests: Family<Asked, Counter>,
    seconds: Family<Operation, Histogram, fn() -> Histogram>,
    counted: Mutex<Option<(Instant, Counted)>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            counted: Mutex::default(),
        }
    }
}

/// What the database counts.
#[derive(Clone, Debug, Default)]
struct Counted {
    boxes: Vec<(String, bool, i64)>,
    alerts: Vec<(String, String, i64)>,
    commands: Vec<(String, i64)>,
    uploads: Vec<(String, i64, i64)>,
    journal: i64,
}

impl Counted {
    async fn of(db: &Db) -> StoreResult<Self> {
        let mut tx = db.read().await?;
        Ok(Self {
            boxes: box_count(&mut tx).await?,
            alerts: alert_count(&mut tx).await?,
            commands: command_count(&mut tx).await?,
            uploads: upload_count_all(&mut tx).await?,
            journal: journal_count(&mut tx).await?,
        })
    }
}

impl Metrics {
    /// Counts an answered request. `operation` is its name in the API's description.
    pub fn answered(&self, operation: &'static str, status: u16, took: Duration) {
        let asked = Asked { operation, status };
        self.requests.get_or_create(&asked).inc();
        let seconds = self.seconds.get_or_create(&Operation { operation });
        seconds.observe(took.as_secs_f64());
    }

    /// Everything as text.
    ///
    /// # Errors
    ///
    /// If the database fails.
    pub async fn text(&self, db: &Db, edge: Stats) -> StoreResult<String> {
        let counted = self.counted(db).await?;
        let mut registry = Registry::with_prefix("longhaul");
        registry.register(
            "http_requests",
            "Requests that were answered",
            self.requests.clone(),
        );
        registry.register(
            "http_request_seconds",
            "How long they took until the answer began",
            self.seconds.clone(),
        );
        database(&mut registry, &counted);
        broker(&mut registry, edge);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &registry);
        Ok(text)
    }

    async fn counted(&self, db: &Db) -> StoreResult<Counted> {
        // Held while it is counted: who asks meanwhile gets the same.
        let mut kept = self.counted.lock().await;
        if let Some((at, counted)) = &*kept
            && at.elapsed() < COUNTED
        {
            return Ok(counted.clone());
        }
        let counted = Counted::of(db).await?;
        *kept = Some((Instant::now(), counted.clone()));
        Ok(counted)
    }
}

fn database(registry: &mut Registry, counted: &Counted) {
    // What there is none of is 0, not absent: a rule on it has something to look at.
    let zero = |gauges: &Gauges, labels: Labels| {
        gauges.get_or_create(&labels).set(0);
    };
    let boxes = Gauges::default();
    for state in BoxState::ALL {
        for online in ["false", "true"] {
            let labels = vec![("state", state.to_string()), ("online", online.to_owned())];
            zero(&boxes, labels);
        }
    }
    for (state, online, count) in &counted.boxes {
        let labels = vec![("state", state.clone()), ("online", online.to_string())];
        boxes.get_or_create(&labels).set(*count);
    }
    registry.register("boxes", "Boxes by state and session", boxes);
    let alerts = Gauges::default();
    for severity in Severity::ALL {
        for state in [AlertState::Open, AlertState::Acknowledged] {
            let labels = vec![
                ("severity", severity.to_string()),
                ("state", state.to_string()),
            ];
            zero(&alerts, labels);
        }
    }
    for (severity, state, count) in &counted.alerts {
        let labels = vec![("severity", severity.clone()), ("state", state.clone())];
        alerts.get_or_create(&labels).set(*count);
    }
    registry.register("alerts", "Alerts that are not over", alerts);
    let commands = Gauges::default();
    for state in CommandState::ALL {
        zero(&commands, vec![("state", state.to_string())]);
    }
    for (state, count) in &counted.commands {
        let labels = vec![("state", state.clone())];
        commands.get_or_create(&labels).set(*count);
    }
    registry.register("commands", "Commands by state", commands);
    let (uploads, bytes) = (Gauges::default(), Gauges::default());
    for state in UploadState::ALL {
        zero(&uploads, vec![("state", state.to_string())]);
        zero(&bytes, vec![("state", state.to_string())]);
    }
    for (state, count, size) in &counted.uploads {
        let labels = vec![("state", state.clone())];
        uploads.get_or_create(&labels).set(*count);
        bytes.get_or_create(&labels).set(*size);
    }
    registry.register("uploads", "Uploads by state", uploads);
    registry.register("upload_bytes", "Bytes of uploads by state", bytes);
    let journal: Counter = Counter::default();
    journal.inc_by(u64::try_from(counted.journal).unwrap_or(0));
    registry.register("journal_entries", "Journal entries committed", journal);
}

fn broker(registry: &mut Registry, edge: Stats) {
    let gauges = [
        ("connected", "Boxes connected", edge.connected),
        ("half_open", "Connections before CONNECT", edge.half_open),
    ];
    for (name, help, value) in gauges {
        let gauge = Gauge::<u64, AtomicU64>::default();
        gauge.set(value);
        registry.register(format!("edge_{name}"), help, gauge);
    }
    let counters = [
        ("accepted", "TCP connections accepted", edge.accepted),
        (
            "turned_away",
            "Closed at once: too many unfinished",
            edge.turned_away,
        ),
        (
            "handshakes_failed",
            "Handshakes that failed",
            edge.handshakes_failed,
        ),
        (
            "handshakes_timed_out",
            "Handshakes that took too long",
            edge.handshakes_timed_out,
        ),
        (
            "connects_refused",
            "CONNECTs refused",
            edge.connects_refused,
        ),
        ("connects", "CONNECTs accepted", edge.connects),
        ("messages_up", "Messages from boxes", edge.messages_up),
        ("bytes_up", "Payload bytes from boxes", edge.bytes_up),
        ("messages_down", "Messages to boxes", edge.messages_down),
        (
            "not_authorized",
            "Topics that were not the box's own",
            edge.not_authorized,
        ),
        (
            "quota_exceeded",
            "QoS 1 messages refused: backlog full",
            edge.quota_exceeded,
        ),
        (
            "qos0_dropped",
            "QoS 0 messages dropped: backlog full",
            edge.qos0_dropped,
        ),
        ("wills", "Wills published", edge.wills),
        ("panics", "Connection tasks that panicked", edge.panics),
    ];
    for (name, help, value) in counters {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(format!("edge_{name}"), help, counter);
    }
}

/// Shared by the ports that count into it.
pub type SharedMetrics = Arc<Metrics>;
