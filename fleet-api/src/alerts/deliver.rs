//! Sends what is written down, until it is taken or given up.

use std::time::Duration;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::email::{MailError, Mailer};
use super::message::Message;
use super::webhook::{WebhookError, Webhooks};
use crate::fleet::{Fleet, FleetError};
use crate::store::alert_channels::{
    ChannelKind, DeliveryRow, DeliveryState, channel_get, delivery_claim, delivery_settle,
};

/// How often work is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Attempts at a time: one that is slow holds up no others.
const AT_ONCE: usize = 8;
/// How long an attempt of a process that is no more is its own, in milliseconds.
const CLAIM_MS: i64 = 120_000;
/// The first wait; each further is twice as long, in milliseconds.
const FIRST_WAIT_MS: i64 = 5_000;
/// The longest wait, in milliseconds.
const LONGEST_WAIT_MS: i64 = 3_600_000;
/// Attempts at the most: with the waits between them, they last for half a day.
pub const MAX_ATTEMPTS: i64 = 20;

/// What messages go out by.
#[derive(Clone, Debug)]
pub struct Senders {
    /// By HTTPS.
    pub webhooks: Webhooks,
    /// By mail, where a server is configured.
    pub mailer: Option<Mailer>,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error(transparent)]
    Mail(#[from] MailError),
    #[error("the channel's secret does not open")]
    Secret,
    #[error("the message does not read")]
    Message(#[from] serde_json::Error),
}

/// Sends until `stop`.
pub async fn run(fleet: Fleet, senders: Senders, stop: CancellationToken) {
    loop {
        let sent = tokio::select! {
            () = stop.cancelled() => return,
            sent = send_due(&fleet, &senders) => sent,
        };
        match sent {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "telling of alerts failed");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Makes one attempt at each message that is due, some at a time; how many there were.
///
/// # Errors
///
/// [`FleetError`] if the database fails.
pub async fn send_due(fleet: &Fleet, senders: &Senders) -> Result<usize, FleetError> {
    let mut claimed = Vec::new();
    while claimed.len() < AT_ONCE {
        let now = fleet.now().0;
        let mut tx = fleet.db().write().await?;
        let next = delivery_claim(&mut tx, now, now.saturating_add(CLAIM_MS)).await?;
        tx.commit().await?;
        let Some(next) = next else { break };
        claimed.push(next);
    }
    let count = claimed.len();
    let mut attempts = futures::stream::iter(claimed)
        .map(|row| attempt(fleet, senders, row))
        .buffer_unordered(AT_ONCE);
    while let Some(attempted) = attempts.next().await {
        attempted?;
    }
    Ok(count)
}

async fn attempt(fleet: &Fleet, senders: &Senders, row: DeliveryRow) -> Result<(), FleetError> {
    let sent = send(fleet, senders, &row).await?;
    let now = fleet.now().0;
    let (state, reason) = match &sent {
        Ok(()) => (DeliveryState::Sent, None),
        Err(error) => {
            let reason = told(error);
            tracing::warn!(
                delivery = row.delivery_id,
                channel = row.channel_id,
                attempts = row.attempts,
                reason,
                "an alert was not delivered"
            );
            let state = if row.attempts >= MAX_ATTEMPTS {
                DeliveryState::Failed
            } else {
                DeliveryState::Waiting
            };
            (state, Some(reason))
        }
    };
    let due = now.saturating_add(wait_ms(row.attempts, rand::random::<u16>()));
    let mut tx = fleet.db().write().await?;
    delivery_settle(
        &mut tx,
        &row.delivery_id,
        state,
        reason.as_deref(),
        due,
        now,
    )
    .await?;
    tx.commit().await?;
    Ok(())
}

async fn send(
    fleet: &Fleet,
    senders: &Senders,
    row: &DeliveryRow,
) -> Result<Result<(), SendError>, FleetError> {
    let mut tx = fleet.db().read().await?;
    let Some(channel) = channel_get(&mut tx, &row.channel_id).await? else {
        // Removed a moment ago, and this message with it.
        return Ok(Ok(()));
    };
    drop(tx);
    let now = fleet.now().0;
    let attempt = async {
        match channel.kind {
            ChannelKind::Webhook => {
                let sealed = channel.secret_sealed.as_deref().ok_or(SendError::Secret)?;
                let secret = fleet.seal().open(&channel.channel_id, sealed);
                let secret = secret.ok().and_then(|s| String::from_utf8(s).ok());
                let secret = secret.ok_or(SendError::Secret)?;
                let message = (row.delivery_id.as_str(), row.body.as_str());
                let sent = senders
                    .webhooks
                    .send(&channel.target, &secret, message, now);
                Ok(sent.await?)
            }
            ChannelKind::Email => {
                let mailer = senders.mailer.as_ref().ok_or(MailError::NoServer)?;
                let message: Message = serde_json::from_str(&row.body)?;
                let sent = mailer.send(&channel.target, &row.delivery_id, &message);
                Ok(sent.await?)
            }
        }
    };
    Ok(attempt.await)
}

/// An error with its causes, in a line that is not too long.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.chars().take(500).collect()
}

/// How long to wait after that many attempts: twice as long each time, with jitter, so that those
/// that failed together do not come together again.
fn wait_ms(attempts: i64, dice: u16) -> i64 {
    let doublings = u32::try_from(attempts.clamp(1, 16) - 1).unwrap_or(0);
    let full = (FIRST_WAIT_MS << doublings).min(LONGEST_WAIT_MS);
    full / 2 + full / 2 * i64::from(dice) / i64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        assert_eq!(wait_ms(1, u16::MAX), 5_000);
        assert_eq!(wait_ms(1, 0), 2_500);
        assert_eq!(wait_ms(2, u16::MAX), 10_000);
        assert_eq!(wait_ms(MAX_ATTEMPTS, u16::MAX), LONGEST_WAIT_MS);
        assert_eq!(wait_ms(i64::MAX, 0), LONGEST_WAIT_MS / 2);
    }
}
