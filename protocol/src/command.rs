//! Signed commands and what the box answers at once.

use serde::{Deserialize, Serialize};

use crate::envelope::Message;
use crate::forms::{Form, Takes, Way};
use crate::ids::{BoxId, CommandId, ObjectKey};
use crate::release::Assignment;
use crate::trace::TraceParent;
use crate::value::{Jws, UnixMillis};

/// What the signature of a command covers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CommandClaims {
    /// Version of these claims; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The command's name.
    pub id: CommandId,
    /// The one box that may carry it out.
    pub box_id: BoxId,
    /// Rises with every command to this box; a box refuses one that does not rise.
    pub counter: u64,
    /// Not to be carried out before.
    pub not_before: UnixMillis,
    /// Not to be carried out after.
    pub expires: UnixMillis,
    /// Who asked for it, for the audit.
    pub issued_by: String,
    /// Who approved it; always there, and somebody else, where [`CommandKind::is_destructive`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// What to do.
    pub command: CommandKind,
}

/// What a box can be told to do.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CommandKind {
    /// Blink and say on every indicator which box this is.
    Identify {
        /// For how long, 1 to 600 seconds.
        seconds: u16,
    },
    /// Send telemetry and reported state now.
    ReportNow,
    /// Send telemetry at this interval from now on, also after a restart.
    SetTelemetryInterval {
        /// 1 to 3,600 seconds.
        seconds: u16,
    },
    /// Update to a release.
    Update(Assignment),
    /// Try again to deliver objects that were given up.
    Retry(RetryScope),
    /// Destroy the key of everything that a bucket holds on the box, delivered or not.
    EraseBucket {
        /// The bucket.
        bucket: String,
    },
}

/// Which of the objects that were given up are tried again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "scope", rename_all = "snake_case")]
pub enum RetryScope {
    /// Every one.
    All,
    /// Those bound for one bucket.
    Bucket {
        /// The bucket.
        bucket: String,
    },
    /// One object.
    Object {
        /// The bucket.
        bucket: String,
        /// Its name there.
        key: ObjectKey,
    },
}

impl RetryScope {
    /// The bucket, where not all of them are meant.
    pub fn bucket(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::Bucket { bucket } | Self::Object { bucket, .. } => Some(bucket),
        }
    }
}

impl CommandKind {
    /// The kind's name, as in its JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identify { .. } => "identify",
            Self::ReportNow => "report_now",
            Self::SetTelemetryInterval { .. } => "set_telemetry_interval",
            Self::Update(_) => "update",
            Self::Retry(_) => "retry",
            Self::EraseBucket { .. } => "erase_bucket",
        }
    }

    /// Checks that the parameters are within their ranges.
    ///
    /// # Errors
    ///
    /// [`InvalidCommand`] names the parameter and its range.
    pub fn check(&self) -> Result<(), InvalidCommand> {
        let (parameter, value) = match self {
            Self::Identify { seconds } => ("identify.seconds", *seconds),
            Self::SetTelemetryInterval { seconds } => ("set_telemetry_interval.seconds", *seconds),
            Self::ReportNow | Self::Update(_) | Self::Retry(_) | Self::EraseBucket { .. } => {
                return Ok(());
            }
        };
        let fields = Form::of(self.name()).map_or(&[][..], |form| form.fields);
        for field in fields {
            if let Takes::Seconds(min, max) = field.takes
                && !(min..=max).contains(&value)
            {
                return Err(InvalidCommand {
                    parameter,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(())
    }

    /// Whether it takes something away that nobody can bring back: the cloud asks two people.
    pub fn is_destructive(&self) -> bool {
        Form::of(self.name()).is_some_and(|form| form.way == Way::TwoPeople)
    }
}

/// A parameter out of its range.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{parameter} is {value}; it must be {min} to {max}")]
pub struct InvalidCommand {
    /// Which parameter.
    pub parameter: &'static str,
    /// What it is.
    pub value: u16,
    /// The least allowed.
    pub min: u16,
    /// The most allowed.
    pub max: u16,
}

/// A command on its way: [`CommandClaims`] as JSON under an Ed25519 signature.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SignedCommand {
    /// The claims and their signature, with the signer's certificate chain in `x5c`.
    pub jws: Jws,
    /// The trace that it belongs to, for people; it is not signed, and one that cannot be read is none.
    #[serde(
        default,
        deserialize_with = "crate::trace::lenient",
        skip_serializing_if = "Option::is_none"
    )]
    pub traceparent: Option<TraceParent>,
}

impl Message for SignedCommand {
    const NAME: &'static str = "signed command";
}

/// What the box says about a command before its result, which travels in the journal.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CommandUpdate {
    /// Which command; absent if the message was so broken that it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<CommandId>,
    /// Where it stands.
    pub state: CommandState,
}

impl Message for CommandUpdate {
    const NAME: &'static str = "command update";
}

/// Where a command stands on the box.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum CommandState {
    /// Verified, written down, begun.
    Accepted,
    /// Refused; it will not be carried out.
    Rejected {
        /// Why.
        reason: Rejection,
        /// Details for a person.
        text: String,
    },
    /// Being carried out.
    Progress {
        /// 0 to 100.
        percent: u8,
        /// What is being done.
        text: String,
    },
}

/// Why a box refuses a command.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// Not a command at all.
    Malformed,
    /// Not signed by a signer that the fleet root trusts for commands.
    Unsigned,
    /// Meant for another box.
    WrongBox,
    /// It takes something away for good and does not name two people.
    Unapproved,
    /// Its time has not come.
    TooEarly,
    /// Its time has passed.
    Expired,
    /// Its counter does not rise.
    Replayed,
    /// The agent does not know this kind or its parameters are out of range.
    Unsupported,
    /// Something else is under way that it would disturb.
    Busy,
}
