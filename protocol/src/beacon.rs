//! The status beacon: a small signed file, served apart from the cloud, that says how the cloud is.

use serde::{Deserialize, Serialize};

use crate::value::UnixMillis;

/// The longest beacon that anybody reads, in bytes of its signed form.
pub const MAX_BEACON_BYTES: usize = 16 * 1024;

/// How the cloud is, signed as a JWS; a box that cannot reach the cloud reads it to tell its side
/// from ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Beacon {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// How the cloud is.
    pub state: BeaconState,
    /// A sentence for people; may be empty.
    #[serde(default)]
    pub text: String,
    /// When it was made.
    pub made_at: UnixMillis,
    /// From when on it says nothing any more.
    pub expires: UnixMillis,
}

/// What a beacon says.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BeaconState {
    /// The cloud works.
    Well,
    /// It does not, and we know.
    Trouble,
}
