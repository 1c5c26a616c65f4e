//! Traces of commands: from the request over the database and the box to the committed result, exported
//! by OTLP when the command has ended. Off unless a collector is configured.
//!
//! A trace is in the database like the command, so that whichever process sees a step takes it down, and no
//! step is lost with a process. Span ids follow from the command's: whoever needs one computes it.

mod otlp;

use std::time::Duration;

use longhaul_protocol::ids::CommandId;
use longhaul_protocol::trace::{TraceParent, bytes, hex};

pub use otlp::{ExportError, Exporter};

use crate::fleet::{Fleet, FleetError};
use crate::store::command_traces::{TraceRow, trace_delete, trace_list_ended};

/// How often ended commands are looked for.
const LOOK: Duration = Duration::from_secs(2);
/// Commands in one export.
const BATCH: u32 = 200;
/// A trace that no collector takes is given up a day after its command ended, in milliseconds.
const KEPT_MS: i64 = 86_400 * 1000;

/// The request that is being carried out.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// Where the caller says that it belongs.
    pub parent: Option<TraceParent>,
    /// When it came.
    pub begun: i64,
}

tokio::task_local! {
    /// Set while a request is carried out.
    pub static CALLED: Called;
}

/// The part of a command's life that a span covers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Whole,
    Request,
    Waiting,
    Sending,
    OnTheBox,
}

/// A span, as it is exported.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    part: Part,
    name: String,
    id: String,
    parent: Option<String>,
    /// Begin and end, milliseconds.
    time: (i64, i64),
}

/// The trace of a command that no caller gave one.
pub fn own_trace(id: &CommandId) -> String {
    digest(id.as_str(), "trace")[..32].to_owned()
}

/// What a box is told of the trace that its command belongs to.
pub fn told(id: &CommandId, trace_id: &str) -> Option<TraceParent> {
    Some(TraceParent {
        trace: bytes(trace_id).ok()?,
        span: bytes(&span_id(id.as_str(), Part::Sending)).ok()?,
        sampled: true,
    })
}

fn span_id(command_id: &str, part: Part) -> String {
    digest(command_id, &format!("{part:?}"))[..16].to_owned()
}

fn digest(id: &str, what: &str) -> String {
    hex(blake3::hash(format!("{id} {what}").as_bytes()).as_bytes())
}

/// The spans of a command that has ended.
fn spans(row: &TraceRow) -> Vec<Span> {
    let whole = span_id(&row.command_id, Part::Whole);
    let mut spans = vec![Span {
        part: Part::Whole,
        name: format!("command {}", row.kind),
        id: whole.clone(),
        parent: row.parent_id.clone(),
        time: (row.begun, row.ended),
    }];
    // What never came lasted until the end.
    let accepted = row.accepted.unwrap_or(row.ended);
    let sent = row.sent.unwrap_or(accepted);
    for (part, name, time, there) in [
        (Part::Request, "request", (row.begun, row.created), true),
        (Part::Waiting, "wait for the box", (row.created, sent), true),
        (
            Part::Sending,
            "send to the box",
            (sent, accepted),
            row.sent.is_some(),
        ),
        (
            Part::OnTheBox,
            "carry out on the box",
            (accepted, row.ended),
            row.accepted.is_some(),
        ),
    ] {
        // A box's answer may be committed before the mark that its command was sent.
        let time = (time.0.min(time.1), time.1);
        if there {
            spans.push(Span {
                part,
                name: name.to_owned(),
                id: span_id(&row.command_id, part),
                parent: Some(whole.clone()),
                time,
            });
        }
    }
    spans
}

/// Exports for as long as it is this process's turn.
pub async fn run(fleet: Fleet, exporter: Exporter) {
    loop {
        match export_due(&fleet, &exporter).await {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "exporting traces failed");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Exports a batch of what has ended; how many commands there were.
pub(crate) async fn export_due(fleet: &Fleet, exporter: &Exporter) -> Result<usize, FleetError> {
    let mut tx = fleet.db().read().await?;
    let ended = trace_list_ended(&mut tx, BATCH).await?;
    drop(tx);
    if ended.is_empty() {
        return Ok(0);
    }
    let taken = exporter.export(&ended).await;
    let given_up = fleet.now().0.saturating_sub(KEPT_MS);
    let mut tx = fleet.db().write().await?;
    for row in &ended {
        if taken.is_ok() || row.ended < given_up {
            trace_delete(&mut tx, &row.command_id).await?;
        }
    }
    tx.commit().await?;
    taken.map_err(|e| FleetError::internal("the collector did not take a batch of traces", e))?;
    Ok(ended.len())
}

#[cfg(test)]
mod tests;
