//! What the client library only mentions: kept, counted and said.

use async_nats::{Event, ServerError};
use serde::Serialize;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::backbone::BackboneError;
use crate::stats::Counter;

/// What went wrong between this process and the NATS cluster; all but the first only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct BusStats {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Connections that were lost.
    pub disconnects: u64,
    /// Times that messages were dropped because this process was slow to take them.
    pub slow: u64,
    /// Messages that were not sent.
    pub dropped: u64,
    /// Messages that were none of the fleet's.
    pub garbled: u64,
}

#[derive(Debug)]
pub struct Watched {
    failure: watch::Sender<Option<BackboneError>>,
    connected: watch::Sender<bool>,
    disconnects: Counter,
    slow: Counter,
    dropped: Counter,
    garbled: Counter,
}

impl Default for Watched {
    fn default() -> Self {
        Self {
            failure: watch::Sender::new(None),
            connected: watch::Sender::new(true),
            disconnects: Counter::default(),
            slow: Counter::default(),
            dropped: Counter::default(),
            garbled: Counter::default(),
        }
    }
}

impl Watched {
    pub fn take(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connected.send_replace(true);
                info!("connected to the NATS cluster");
            }
            Event::Disconnected => {
                self.connected.send_replace(false);
                self.disconnects.add(1);
                warn!("lost the NATS server");
            }
            Event::SlowConsumer(_) => {
                self.slow.add(1);
                // Once a thousand: it comes with each message that is dropped.
                if self.slow.get() % 1000 == 1 {
                    error!(
                        "too slow for the NATS cluster: messages are dropped, boxes send them again"
                    );
                }
            }
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.fail("the NATS cluster refuses this process's certificate");
            }
            Event::ServerError(error) => {
                let text = error.to_string();
                // The words of the server, as of 2.9: `Permissions Violation for Publish to ..`.
                if text.to_ascii_lowercase().contains("permissions violation") {
                    self.fail(&text);
                } else {
                    error!(error = text, "the NATS server reports an error");
                }
            }
            Event::ClientError(error) => error!(%error, "the NATS client reports an error"),
            Event::LameDuckMode | Event::Draining | Event::Closed => {
                info!(%event, "the NATS connection changes");
            }
        }
    }

    fn fail(&self, text: &str) {
        error!(
            error = text,
            "the NATS cluster does not allow what this role needs"
        );
        let failure = BackboneError::NotAllowed(text.chars().take(200).collect());
        self.failure.send_replace(Some(failure));
    }

    pub fn dropped(&self) {
        self.dropped.add(1);
        if self.dropped.get() % 1000 == 1 {
            error!("messages for the NATS cluster are dropped: it takes none");
        }
    }

    pub fn garbled(&self) {
        self.garbled.add(1);
        warn!("a message from the NATS cluster is none of the fleet's");
    }

    pub async fn failed(&self) -> BackboneError {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await.map(|f| f.clone()) {
            Ok(Some(failure)) => failure,
            _ => std::future::pending().await,
        }
    }

    pub fn stats(&self) -> BusStats {
        BusStats {
            connected: *self.connected.borrow(),
            disconnects: self.disconnects.get(),
            slow: self.slow.get(),
            dropped: self.dropped.get(),
            garbled: self.garbled.get(),
        }
    }
}
