//! The answer: one line of JSON for each entry, as soon as the entry is durable.

use bytes::Bytes;
use longhaul_protocol::pack::{PackLine, StopCode};
use longhaul_vault::{JobId, Vault};
use tokio::sync::mpsc;

use super::entries::Told;
use crate::intake::Arrivals;

/// Lines are sent when they are this long together, in bytes, or when there is nothing else to do.
const GATHER: usize = 16 << 10;

/// Writes what is told to `answers`, in order, until the last line.
pub(super) async fn write(
    mut told: mpsc::Receiver<Vec<Told>>,
    answers: mpsc::Sender<Bytes>,
    arrivals: &Arrivals,
    (vault, job): (&Vault, &JobId),
) {
    let mut lines = Lines {
        answers,
        arrivals,
        held: Vec::new(),
        stored: false,
    };
    loop {
        let next = if let Ok(next) = told.try_recv() {
            next
        } else {
            if !lines.flush().await {
                return;
            }
            let Some(next) = told.recv().await else {
                return;
            };
            next
        };
        for next in next {
            if !lines.write(next, vault, job).await {
                lines.flush().await;
                return;
            }
        }
    }
}

/// Writes the only line of a pack that was not begun.
pub(super) async fn stop(answers: &mpsc::Sender<Bytes>, code: StopCode, reason: String) {
    if let Ok(mut line) = serde_json::to_vec(&PackLine::Stopped { code, reason }) {
        line.push(b'\n');
        let _ = answers.send(line.into()).await;
    }
}

struct Lines<'a> {
    answers: mpsc::Sender<Bytes>,
    arrivals: &'a Arrivals,
    held: Vec<u8>,
    stored: bool,
}

impl Lines<'_> {
    /// False after the last line, and once nobody reads the answer.
    async fn write(&mut self, told: Told, vault: &Vault, job: &JobId) -> bool {
        let line = match told {
            Told::Line(line) => line,
            Told::Written(mut written) => {
                let ended = match futures::poll!(&mut written.commit) {
                    std::task::Poll::Ready(ended) => ended,
                    std::task::Poll::Pending => {
                        if !self.flush().await {
                            return false;
                        }
                        (&mut written.commit).await
                    }
                };
                self.stored |= ended.is_ok();
                written.line(ended, vault, job)
            }
        };
        let last = matches!(line, PackLine::Stopped { .. } | PackLine::End { .. });
        self.push(&line).await && !last
    }

    /// False once nobody reads the answer.
    async fn push(&mut self, line: &PackLine) -> bool {
        if let Err(error) = serde_json::to_writer(&mut self.held, line) {
            tracing::error!(%error, "a line cannot be written");
            return false;
        }
        self.held.push(b'\n');
        self.held.len() < GATHER || self.flush().await
    }

    async fn flush(&mut self) -> bool {
        if std::mem::take(&mut self.stored) {
            self.arrivals.ring();
        }
        if self.held.is_empty() {
            return true;
        }
        let held = std::mem::take(&mut self.held);
        self.answers.send(held.into()).await.is_ok()
    }
}
