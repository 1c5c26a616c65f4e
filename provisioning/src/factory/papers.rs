//! A box's papers as files: what is copied to the box, and what stays in the factory.

use std::fs;
use std::path::{Path, PathBuf};

use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::value::{Jws, UnixMillis};
use serde::Deserialize;

use super::MadeBox;
use crate::files::{self, FileError};
use crate::jws::{self, JwsError, Kind, Verified};
use crate::trust::{Anchors, certificates_to_pem};

/// The fleet's root certificates, PEM.
pub const ROOT_FILE: &str = "root.pem";
/// The box's configuration, signed.
pub const BOX_CONFIG_FILE: &str = "box-config.jws";
/// The IDevID certificate and its issuers, PEM.
pub const IDEVID_FILE: &str = "idevid.pem";
/// The IAK certificate and its issuers, PEM.
pub const IAK_FILE: &str = "iak.pem";
/// The inventory record, signed; for the cloud.
pub const INVENTORY_FILE: &str = "inventory.jws";

/// The root of the release repository (TUF): what the box trusts for updates.
pub const TUF_ROOT_FILE: &str = "tuf-root.json";

/// Why papers could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PapersError {
    /// A file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no such record.
    #[error("{0} is missing")]
    Missing(PathBuf),
    /// A document is not signed by one who may.
    #[error("{path} is not signed by this fleet")]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: JwsError,
    },
    /// A record says nothing that this program understands.
    #[error("malformed record {path}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl MadeBox {
    /// Writes the box's papers to `dir`, and its inventory record to `inventory`.
    pub fn write(&self, dir: &Path, inventory: &Path) -> Result<(), PapersError> {
        files::make_dir(dir)?;
        files::make_dir(inventory)?;
        let Jws(record) = &self.inventory;
        let Jws(config) = &self.config;
        // The factory's own record first: a box without one can never enrol.
        let kept = inventory.join(format!("{}.jws", self.box_id));
        files::write(&kept, record.as_bytes())?;
        files::write(&dir.join(INVENTORY_FILE), record.as_bytes())?;
        files::write(&dir.join(ROOT_FILE), self.root_pem.as_bytes())?;
        let idevid = certificates_to_pem(&self.idevid);
        files::write(&dir.join(IDEVID_FILE), idevid.as_bytes())?;
        let iak = certificates_to_pem(&self.iak);
        files::write(&dir.join(IAK_FILE), iak.as_bytes())?;
        files::write(&dir.join(BOX_CONFIG_FILE), config.as_bytes())?;
        Ok(())
    }
}

/// Reads and verifies an inventory record, as of the day on which it says that it was made.
pub fn read_record(path: &Path, anchors: &Anchors) -> Result<InventoryRecord, PapersError> {
    let compact = read_jws(path)?;
    let payload = verified(path, &compact, Kind::Inventory, anchors)?.payload;
    serde_json::from_slice(&payload).map_err(|source| PapersError::Malformed {
        path: path.to_owned(),
        source,
    })
}

/// Reads and verifies any document that the fleet signed, as of the day on which it says that it
/// was made: its kind, who signed it, and what it says.
pub fn read_document(
    path: &Path,
    anchors: &Anchors,
) -> Result<(Kind, String, serde_json::Value), PapersError> {
    let compact = read_jws(path)?;
    // What claims no kind of ours is refused as the kind that is expected most.
    let kind = Kind::claimed(&compact).unwrap_or(Kind::Inventory);
    let Verified { payload, signer } = verified(path, &compact, kind, anchors)?;
    let says = serde_json::from_slice(&payload).map_err(|source| PapersError::Malformed {
        path: path.to_owned(),
        source,
    })?;
    Ok((kind, signer, says))
}

fn read_jws(path: &Path) -> Result<Jws, PapersError> {
    let bytes = files::read(path)?.ok_or_else(|| PapersError::Missing(path.to_owned()))?;
    Ok(Jws(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

fn verified(
    path: &Path,
    compact: &Jws,
    kind: Kind,
    anchors: &Anchors,
) -> Result<Verified, PapersError> {
    let made_at = claimed_time(compact).unwrap_or_default();
    jws::verify(compact, kind, anchors, made_at).map_err(|source| PapersError::Untrusted {
        path: path.to_owned(),
        source,
    })
}

/// Every record in a directory, in the order of the boxes' names.
pub fn read_records(dir: &Path, anchors: &Anchors) -> Result<Vec<InventoryRecord>, PapersError> {
    let mut paths: Vec<_> = match fs::read_dir(dir) {
        Ok(entries) => entries.flatten().map(|e| e.path()).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(source) => {
            return Err(FileError::Read {
                path: dir.to_owned(),
                source,
            }
            .into());
        }
    };
    paths.retain(|p| p.extension().is_some_and(|e| e == "jws"));
    paths.sort();
    paths.iter().map(|p| read_record(p, anchors)).collect()
}

/// When a document says that it was made, before anybody knows whether that is true.
fn claimed_time(Jws(compact): &Jws) -> Option<UnixMillis> {
    use base64::Engine as _;
    #[derive(Deserialize)]
    struct Made {
        made_at: UnixMillis,
    }
    let payload = compact.split('.').nth(1)?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .ok()?;
    Some(serde_json::from_slice::<Made>(&payload).ok()?.made_at)
}
