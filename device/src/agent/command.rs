//! Whether a command is to be carried out: who signed it, for whom, when, and whether it is new.

use longhaul_protocol::command::{
    CommandClaims, CommandKind, CommandState, CommandUpdate, Rejection, SignedCommand,
};
use longhaul_protocol::envelope::{self, VERSION};
use longhaul_protocol::ids::{BoxId, CommandId};
use longhaul_protocol::twin::{Desired, SignedDesired};
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::jws::{self, Kind};
use longhaul_provisioning::trust::Anchors;
use serde::Deserialize;

use super::saved::{Progress, Saved};

/// Details in an answer are cut to this, in characters.
const MAX_TEXT: usize = 300;

/// Whom the box obeys, and as whom.
#[derive(Clone, Debug)]
pub struct Judge {
    pub box_id: BoxId,
    pub anchors: Anchors,
}

/// Why a command is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("command refused ({reason:?}): {text}")]
pub struct Refusal {
    /// Which command, as far as it has a name.
    pub id: Option<CommandId>,
    pub reason: Rejection,
    pub text: String,
}

impl Refusal {
    pub fn new(id: Option<CommandId>, reason: Rejection, text: impl std::fmt::Display) -> Self {
        Self {
            id,
            reason,
            text: text.to_string().chars().take(MAX_TEXT).collect(),
        }
    }

    /// What the cloud is told.
    pub fn into_update(self) -> CommandUpdate {
        CommandUpdate {
            id: self.id,
            state: CommandState::Rejected {
                reason: self.reason,
                text: self.text,
            },
        }
    }
}

/// What to do about a verified command.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is new: write it down, then carry it out.
    New(CommandClaims),
    /// It was accepted before; this is how far it has come.
    Known(CommandId, Progress),
}

/// [`CommandClaims`] with a command that this agent may not know.
#[derive(Deserialize)]
struct Claims {
    v: u16,
    id: CommandId,
    box_id: BoxId,
    counter: u64,
    not_before: UnixMillis,
    expires: UnixMillis,
    issued_by: String,
    #[serde(default)]
    approved_by: Option<String>,
    command: serde_json::Value,
}

impl Judge {
    /// Judges one message on `dn/command` against what the box has accepted before.
    pub fn command(
        &self,
        message: &[u8],
        saved: &Saved,
        now: UnixMillis,
    ) -> Result<Verdict, Refusal> {
        let signed = envelope::decode::<SignedCommand>(message)
            .map_err(|e| Refusal::new(None, Rejection::Malformed, e))?;
        let verified = jws::verify(&signed.body.jws, Kind::Command, &self.anchors, now)
            .map_err(|e| Refusal::new(None, Rejection::Unsigned, crate::cloud::chain(&e)))?;
        let claims: Claims = serde_json::from_slice(&verified.payload)
            .map_err(|e| Refusal::new(None, Rejection::Malformed, e))?;
        if let Some(trace) = &signed.body.traceparent {
            // Whoever follows a command by its trace finds it in the box's log, too.
            tracing::info!(%trace, command = %claims.id, "a command came");
        }
        let refuse =
            |reason, text: String| Err(Refusal::new(Some(claims.id.clone()), reason, text));
        if claims.box_id != self.box_id {
            return refuse(
                Rejection::WrongBox,
                format!("the command is for box {}", claims.box_id),
            );
        }
        if claims.v != VERSION {
            return refuse(
                Rejection::Unsupported,
                format!("claims have version {}, this box reads {VERSION}", claims.v),
            );
        }
        // Before the clock: a command that was done is answered also when its time has passed.
        if let Some(known) = saved.command(&claims.id) {
            return if known.counter == claims.counter {
                Ok(Verdict::Known(claims.id, known.progress.clone()))
            } else {
                refuse(
                    Rejection::Replayed,
                    format!("the box knows this id with counter {}", known.counter),
                )
            };
        }
        if claims.counter <= saved.counter {
            return refuse(
                Rejection::Replayed,
                format!(
                    "counter {} does not rise above {}",
                    claims.counter, saved.counter
                ),
            );
        }
        if now < claims.not_before {
            return refuse(
                Rejection::TooEarly,
                format!(
                    "{} ms too early by the box's clock",
                    claims.not_before.millis_since(now)
                ),
            );
        }
        if now > claims.expires {
            return refuse(
                Rejection::Expired,
                format!(
                    "{} ms too late by the box's clock",
                    now.millis_since(claims.expires)
                ),
            );
        }
        let command: CommandKind = match serde_json::from_value(claims.command) {
            Ok(command) => command,
            Err(e) => {
                return Err(Refusal::new(Some(claims.id), Rejection::Unsupported, e));
            }
        };
        if let Err(e) = command.check() {
            return Err(Refusal::new(Some(claims.id), Rejection::Unsupported, e));
        }
        // The cloud asks two people; a cloud that was made to ask one gets nothing destroyed.
        let two = claims
            .approved_by
            .as_ref()
            .is_some_and(|by| *by != claims.issued_by);
        if command.is_destructive() && !two {
            return Err(Refusal::new(
                Some(claims.id),
                Rejection::Unapproved,
                "what takes something away for good names two people",
            ));
        }
        Ok(Verdict::New(CommandClaims {
            v: claims.v,
            id: claims.id,
            box_id: claims.box_id,
            counter: claims.counter,
            not_before: claims.not_before,
            expires: claims.expires,
            issued_by: claims.issued_by,
            approved_by: claims.approved_by,
            command,
        }))
    }

    /// Verifies one message on `dn/desired`; the error is for the log.
    pub fn desired(&self, message: &[u8], now: UnixMillis) -> Result<Desired, Refusal> {
        let refusal = |reason, text: String| Refusal::new(None, reason, text);
        let signed = envelope::decode::<SignedDesired>(message)
            .map_err(|e| refusal(Rejection::Malformed, e.to_string()))?;
        let verified = jws::verify(&signed.body.jws, Kind::Desired, &self.anchors, now)
            .map_err(|e| refusal(Rejection::Unsigned, crate::cloud::chain(&e)))?;
        let desired: Desired = serde_json::from_slice(&verified.payload)
            .map_err(|e| refusal(Rejection::Malformed, e.to_string()))?;
        if desired.box_id != self.box_id {
            return Err(refusal(
                Rejection::WrongBox,
                format!("desired state is for box {}", desired.box_id),
            ));
        }
        if desired.v != VERSION {
            return Err(refusal(
                Rejection::Unsupported,
                format!("desired state has version {}", desired.v),
            ));
        }
        Ok(desired)
    }
}
