//! The key of a box's vault, encrypted for the depot: what opens a disk whose TPM is lost.

use serde::{Deserialize, Serialize};

use crate::ids::BoxId;
use crate::value::{Blob, Digest32, UnixMillis};

/// A vault's key under the fleet's recovery key: HPKE (RFC 9180), base mode,
/// DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WrappedKey {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The box whose vault it opens.
    pub box_id: BoxId,
    /// SHA-256 of the recovery key's public part: who can open it.
    pub recipient: Digest32,
    /// Names the vault's key without telling it: after a bucket was erased it is another one.
    pub key_id: Digest32,
    /// The encapsulated secret.
    pub encapsulated: Blob,
    /// The vault's key, encrypted.
    pub sealed: Blob,
    /// When the box made it.
    pub made_at: UnixMillis,
}
