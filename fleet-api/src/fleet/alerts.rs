//! What operators do about alerts, and who else is told.

use serde_json::json;

use super::{Actor, Fleet, FleetError, FleetEventKind, audit};
use crate::alerts::message::Message;
use crate::alerts::watch::tell;
use crate::alerts::{address, email, webhook};
use crate::store::alert_channels::{
    ChannelKind, ChannelRow, channel_delete, channel_get, channel_insert, channel_list,
    delivery_insert,
};
use crate::store::alert_rules::Severity;
use crate::store::alerts::{
    AlertRow, AlertState, alert_acknowledge, alert_event_append, alert_get,
};
use crate::store::boxes::box_get;
use crate::store::{Tx, new_id};

/// Channels at the most: each alert is written down for each.
const MAX_CHANNELS: usize = 50;

/// A channel to be made.
#[derive(Clone, Debug)]
pub struct NewChannel {
    /// Its name for people.
    pub name: String,
    /// How it tells.
    pub kind: ChannelKind,
    /// URL or address.
    pub target: String,
    /// The least severity that is told.
    pub severity: Severity,
}

impl Fleet {
    /// Says that `actor` looks into an alert. Saying it twice is harmless, and whoever was first stays.
    pub async fn alert_acknowledge(
        &self,
        actor: &Actor,
        id: &str,
        note: &str,
    ) -> Result<AlertRow, FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let missing = || FleetError::not_found(format!("there is no alert {id}"));
        let changed = alert_acknowledge(&mut tx, id, &actor.0, now.0).await?;
        let row = alert_get(&mut tx, id).await?.ok_or_else(missing)?;
        if !changed {
            if row.state == AlertState::Resolved {
                return Err(FleetError::conflict(format!("alert {id} is over")));
            }
            return Ok(row);
        }
        alert_event_append(&mut tx, id, "acknowledged", &actor.0, note, now.0).await?;
        let place = box_get(&mut tx, &row.box_id).await?;
        let place = place.as_ref().map_or(("", ""), |b| (&b.label, &b.site));
        let message = Message::about(&row, place, "acknowledged", &actor.0, row.measured, now.0);
        tell(&mut tx, &message, row.severity, now.0).await?;
        let what = json!({ "box": row.box_id, "rule": row.rule_id });
        audit(&mut tx, actor, "alert.acknowledge", id, what, now).await?;
        tx.commit().await?;
        let kind = FleetEventKind::Alert {
            id: id.to_owned(),
            change: "acknowledged".into(),
        };
        self.tell(Some(&row.box_id), kind);
        Ok(row)
    }

    /// Makes a channel; yields it and, for a webhook, the secret that its messages are signed with,
    /// which cannot be shown again. The caller commits.
    pub async fn channel_create(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        new: NewChannel,
    ) -> Result<(ChannelRow, Option<String>), FleetError> {
        let now = self.now();
        let channel_id = new_id("ch");
        let (target, secret) = match new.kind {
            ChannelKind::Webhook => {
                let url = address::parse(&new.target, self.inner.parts.reach)
                    .map_err(|e| FleetError::invalid(e.to_string()))?;
                let failed = |e| FleetError::internal("failed to make a secret", e);
                let secret = webhook::new_secret().map_err(failed)?;
                (url.to_string(), Some(secret))
            }
            ChannelKind::Email => {
                let checked = new.target.parse::<email::Address>();
                checked.map_err(|e| FleetError::invalid(e.to_string()))?;
                (new.target, None)
            }
        };
        let seal = |secret: &String| self.seal().seal(&channel_id, secret.as_bytes());
        let sealed = secret.as_ref().map(seal).transpose();
        let row = ChannelRow {
            secret_sealed: sealed
                .map_err(|e| FleetError::internal("failed to seal a secret", e))?,
            name: new.name,
            kind: new.kind,
            target,
            severity: new.severity,
            created_by: actor.0.clone(),
            created: now.0,
            channel_id,
        };
        if channel_list(tx).await?.len() >= MAX_CHANNELS {
            return Err(FleetError::conflict(format!(
                "there are {MAX_CHANNELS} channels already: remove one that is not needed"
            )));
        }
        channel_insert(tx, &row).await?;
        let what = json!({ "name": row.name, "kind": row.kind });
        audit(tx, actor, "channel.create", &row.channel_id, what, now).await?;
        Ok((row, secret))
    }

    /// Removes a channel, and what it was still to be told.
    pub async fn channel_remove(&self, actor: &Actor, id: &str) -> Result<(), FleetError> {
        let mut tx = self.db().write().await?;
        if !channel_delete(&mut tx, id).await? {
            return Err(FleetError::not_found(format!("there is no channel {id}")));
        }
        let what = serde_json::Value::Null;
        audit(&mut tx, actor, "channel.delete", id, what, self.now()).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Sends a message by a channel, to see that it works; yields the delivery's id.
    pub async fn channel_test(&self, actor: &Actor, id: &str) -> Result<String, FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        if channel_get(&mut tx, id).await?.is_none() {
            return Err(FleetError::not_found(format!("there is no channel {id}")));
        }
        let body = serde_json::to_string(&Message::test(now.0))
            .map_err(|e| FleetError::internal("failed to write a message", e))?;
        let delivery = new_id("msg");
        delivery_insert(&mut tx, &delivery, id, &body, now.0).await?;
        audit(
            &mut tx,
            actor,
            "channel.test",
            id,
            serde_json::Value::Null,
            now,
        )
        .await?;
        tx.commit().await?;
        Ok(delivery)
    }
}
