//! Places in a list, opaque to the caller.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Longest cursor that is read, in bytes.
const MAX_BYTES: usize = 4096;

/// Writes a place.
pub fn encode<T: Serialize>(place: &T) -> Result<String, Problem> {
    let json = serde_json::to_vec(place).map_err(|e| Problem::internal("cursor", &e))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// Reads a place, if there is one.
pub fn decode<T: DeserializeOwned>(cursor: Option<&str>) -> Result<Option<T>, Problem> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let refuse = || Problem::invalid("cursor is not one that an answer gave");
    if cursor.len() > MAX_BYTES {
        return Err(refuse());
    }
    let json = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refuse())?;
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|_| refuse())
}
