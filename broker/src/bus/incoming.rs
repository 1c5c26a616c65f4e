//! Boxes' messages, as one of many workers takes them.

use std::time::Instant;

use async_nats::Subscriber;
use futures::StreamExt as _;
use longhaul_protocol::backbone::{self as wire, ALL_UP, UP_HEADER, WORKERS};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Bus, BusError};
use crate::backbone::{BackboneError, Bank};
use crate::incoming::{Incoming, Upward};

/// Carries messages from the cluster to [`Incoming`]; must be run for them to arrive.
#[derive(Debug)]
pub struct Inflow {
    bus: Bus,
    subscriber: Subscriber,
    bank: Bank,
    out: mpsc::UnboundedSender<Upward>,
}

impl Bus {
    /// Joins those who take boxes' messages: each goes to one of them. Up to `backlog_bytes` wait here.
    ///
    /// # Errors
    ///
    /// [`BusError`] if it cannot be subscribed.
    pub async fn incoming(&self, backlog_bytes: usize) -> Result<(Inflow, Incoming), BusError> {
        let group = WORKERS.to_owned();
        let subscriber = self.client().queue_subscribe(ALL_UP, group).await?;
        self.flush().await?;
        let bank = Bank::new(backlog_bytes);
        let (out, queue) = mpsc::unbounded_channel();
        let incoming = Incoming::new(queue, bank.semaphore());
        let inflow = Inflow {
            bus: self.clone(),
            subscriber,
            bank,
            out,
        };
        Ok((inflow, incoming))
    }
}

impl Inflow {
    /// Carries until `stop`; what was taken until then comes out.
    ///
    /// # Errors
    ///
    /// [`BackboneError`] if the cluster does not allow it, or nobody takes the messages.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), BackboneError> {
        let bus = self.bus.clone();
        let result = tokio::select! {
            () = stop.cancelled() => Ok(()),
            failure = bus.failed() => return Err(failure),
            ended = self.carry() => ended,
        };
        // The servers give this worker no more; what they gave it so far is still taken.
        if self.subscriber.unsubscribe().await.is_ok() && bus.flush().await.is_ok() {
            self.carry().await.ok();
        }
        result
    }

    async fn carry(&mut self) -> Result<(), BackboneError> {
        while let Some(message) = self.subscriber.next().await {
            let parsed = wire::parse_up(message.subject.as_str())
                .zip(wire::parse_up_frame(&message.payload));
            let Some(((box_id, channel), edge)) = parsed else {
                self.bus.watched().garbled();
                continue;
            };
            let payload = message.payload.slice(UP_HEADER..);
            let Some(credit) = self.bank.reserve(payload.len()).await else {
                return Err(BackboneError::ConsumerGone);
            };
            credit.spend();
            let upward = Upward {
                box_id,
                channel,
                payload,
                received: Instant::now(),
                edge: Some(edge),
            };
            self.out
                .send(upward)
                .map_err(|_| BackboneError::ConsumerGone)?;
        }
        Ok(())
    }
}
