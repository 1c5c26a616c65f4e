//! The frame around every MQTT message: a version, the sender's clock, the body.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::value::UnixMillis;

/// The version that this build writes and the only one that it reads.
pub const VERSION: u16 = 1;

/// A body that travels in an [`Envelope`].
pub trait Message: Serialize + DeserializeOwned {
    /// The message's name, for errors.
    const NAME: &'static str;
    /// The longest encoding that a reader accepts, in bytes.
    const MAX_BYTES: usize = 64 * 1024;
}

/// One message on the wire.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Envelope<T> {
    /// Version of the message format.
    pub v: u16,
    /// The sender's clock when it sent this; informative, a box's clock may be wrong.
    pub sent: UnixMillis,
    /// What the message says.
    pub body: T,
}

/// Why bytes are not the message that they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Longer than any honest message of this kind.
    #[error("{name} of {bytes} bytes is longer than the {limit} allowed")]
    TooLong {
        /// The message that was expected.
        name: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The longest allowed, in bytes.
        limit: usize,
    },
    /// Written by a newer or foreign program.
    #[error("{name} has version {version}; this program reads version {VERSION}")]
    UnknownVersion {
        /// The message that was expected.
        name: &'static str,
        /// The version that it carries.
        version: u16,
    },
    /// Not such a message.
    #[error("malformed {name}")]
    Malformed {
        /// The message that was expected.
        name: &'static str,
        /// What is wrong with it, and where.
        source: serde_json::Error,
    },
}

/// Encodes `body` as sent at `sent`.
///
/// # Errors
///
/// [`DecodeError::TooLong`] if no reader would accept it.
pub fn encode<T: Message>(body: &T, sent: UnixMillis) -> Result<Vec<u8>, DecodeError> {
    let bytes = serde_json::to_vec(&Envelope {
        v: VERSION,
        sent,
        body,
    })
    .map_err(|source| DecodeError::Malformed {
        name: T::NAME,
        source,
    })?;
    if bytes.len() > T::MAX_BYTES {
        return Err(DecodeError::TooLong {
            name: T::NAME,
            bytes: bytes.len(),
            limit: T::MAX_BYTES,
        });
    }
    Ok(bytes)
}

/// Decodes one message. The version is looked at before the body, so that a message from a newer
/// program is refused by its version and not by a field that this one does not know.
///
/// # Errors
///
/// [`DecodeError`] says which message is wrong and how.
pub fn decode<T: Message>(bytes: &[u8]) -> Result<Envelope<T>, DecodeError> {
    #[derive(Deserialize)]
    struct Version {
        v: u16,
    }
    let name = T::NAME;
    if bytes.len() > T::MAX_BYTES {
        return Err(DecodeError::TooLong {
            name,
            bytes: bytes.len(),
            limit: T::MAX_BYTES,
        });
    }
    let malformed = |source| DecodeError::Malformed { name, source };
    let Version { v } = serde_json::from_slice(bytes).map_err(malformed)?;
    if v != VERSION {
        return Err(DecodeError::UnknownVersion { name, version: v });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}
