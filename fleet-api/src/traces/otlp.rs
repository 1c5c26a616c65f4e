//! OTLP over HTTP, in its JSON form: one request for a batch of commands.
//!
//! The form is fixed by the OpenTelemetry protocol, 1.x: ids in hexadecimal, times in nanoseconds as text.

use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::{Part, Span, spans};
use crate::store::command_traces::TraceRow;

/// The longest that one export takes.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a collector did not take a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The request could not be made.
    #[error("the request failed")]
    Request(#[from] reqwest::Error),
    /// The collector did not take it.
    #[error("the collector answered {0}")]
    Refused(u16),
}

/// Sends to one collector.
#[derive(Clone, Debug)]
pub struct Exporter {
    http: reqwest::Client,
    url: String,
}

impl Exporter {
    /// To the collector at `url`, as `OTEL_EXPORTER_OTLP_ENDPOINT` names it: without `/v1/traces`.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn new(url: &str, tls: &Arc<ClientConfig>) -> Result<Self, ExportError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(tls))
            .no_proxy()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .build()?;
        let url = format!("{}/v1/traces", url.trim_end_matches('/'));
        Ok(Self { http, url })
    }

    /// Sends the spans of these commands.
    pub(super) async fn export(&self, rows: &[TraceRow]) -> Result<(), ExportError> {
        let answer = self
            .http
            .post(&self.url)
            .json(&request(rows))
            .send()
            .await?;
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(ExportError::Refused(status.as_u16()))
        }
    }
}

/// `ExportTraceServiceRequest`.
fn request(rows: &[TraceRow]) -> Value {
    let all = rows.iter();
    let all = all.flat_map(|row| spans(row).into_iter().map(move |one| span(row, &one)));
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            text("service.name", "longhaul-cloud"),
            text("service.version", env!("CARGO_PKG_VERSION")),
        ]},
        "scopeSpans": [{ "scope": { "name": "longhaul.commands" }, "spans": all.collect::<Vec<_>>() }],
    }]})
}

fn span(row: &TraceRow, span: &Span) -> Value {
    let nanos = |millis: i64| format!("{}000000", millis.max(0));
    let done = row.state == "done";
    let mut out = json!({
        "traceId": row.trace_id,
        "spanId": span.id,
        "name": span.name,
        "kind": kind(span.part),
        "startTimeUnixNano": nanos(span.time.0),
        "endTimeUnixNano": nanos(span.time.1),
        "attributes": [
            text("longhaul.command.id", &row.command_id),
            text("longhaul.command.kind", &row.kind),
            text("longhaul.command.state", &row.state),
            text("longhaul.box.id", &row.box_id),
        ],
    });
    if let Some(parent) = &span.parent {
        out["parentSpanId"] = json!(parent);
    }
    if matches!(span.part, Part::Whole | Part::OnTheBox) {
        out["status"] = json!({ "code": if done { 1 } else { 2 }, "message": row.reason.as_deref().unwrap_or_default() });
    }
    out
}

/// `SpanKind`.
const fn kind(part: Part) -> u8 {
    match part {
        Part::Whole | Part::Waiting => 1,
        Part::Request => 2,
        Part::Sending => 4,
        Part::OnTheBox => 5,
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}
