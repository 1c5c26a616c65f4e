//! Receipts: fetched from the cloud, kept in a file, verified without anybody's help.
//!
//! A file of receipts has one receipt on each line, byte for byte as the cloud issued it. With it and
//! the fleet's root certificate, [`read`] proves what a box took and what arrived in the bucket, and
//! [`compare_folder`] that a folder still holds those very bytes.

mod compare;
mod fetch;
mod obtain;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::ticket::Ticket;
use longhaul_provisioning::receipt::{self, MAX_RECEIPT, ReceiptError};
use longhaul_provisioning::trust::TrustError;

pub use compare::{Finding, Verdict, compare_file, compare_folder};
pub use fetch::{CloudAccess, FetchError, Right, fetch, fetch_by_box_to, fetch_to};
pub use longhaul_provisioning::receipt::Proven;
pub use longhaul_provisioning::trust::Anchors;
pub use obtain::{Wanted, obtain};

/// Why a file of receipts proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptFileError {
    /// A file could not be read.
    #[error("failed to read {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The fleet's root is not a certificate.
    #[error("{path} is not the fleet's root certificate", path = path.display())]
    Root {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: TrustError,
    },
    /// A receipt does not hold.
    #[error("line {line} of {path} does not hold", path = path.display())]
    Receipt {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: Box<ReceiptError>,
    },
    /// A receipt holds, and is of another box than it should be.
    #[error(
        "line {line} of {path} is a receipt of box {found}, not of {expected}",
        path = path.display()
    )]
    OtherBox {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Whose it is.
        found: BoxId,
        /// Whose it should be.
        expected: BoxId,
    },
    /// There is no receipt in it.
    #[error("{path} has no receipt", path = path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

/// The fleet's root, from a ticket.
///
/// # Errors
///
/// [`ReceiptFileError`]; `path` is only named in it.
pub fn root_of(ticket: &Ticket, path: &Path) -> Result<Anchors, ReceiptFileError> {
    Anchors::from_pem(&ticket.root_pem).map_err(|source| ReceiptFileError::Root {
        path: path.to_owned(),
        source,
    })
}

/// The fleet's root, from a PEM file.
///
/// # Errors
///
/// [`ReceiptFileError`].
pub fn read_root(path: &Path) -> Result<Anchors, ReceiptFileError> {
    let pem = std::fs::read_to_string(path).map_err(|source| ReceiptFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    Anchors::from_pem(&pem).map_err(|source| ReceiptFileError::Root {
        path: path.to_owned(),
        source,
    })
}

/// Verifies every receipt in a file, and that `of_box` gave it where that is said. All of them hold
/// when this returns what they prove.
///
/// # Errors
///
/// [`ReceiptFileError`] names the first line that does not hold, and why.
pub fn read(
    path: &Path,
    anchors: &Anchors,
    of_box: Option<&BoxId>,
) -> Result<Vec<Proven>, ReceiptFileError> {
    let failed = |source| ReceiptFileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let mut proven = Vec::new();
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let longest = MAX_RECEIPT as u64 + 2;
        let mut line = reader.by_ref().take(longest);
        if line.read_until(b'\n', &mut bytes).map_err(failed)? == 0 {
            break;
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let one = receipt::verify(text, anchors).map_err(|source| ReceiptFileError::Receipt {
            path: path.to_owned(),
            line: proven.len() + 1,
            source: Box::new(source),
        })?;
        if let Some(expected) = of_box
            && *expected != one.box_id
        {
            return Err(ReceiptFileError::OtherBox {
                path: path.to_owned(),
                line: proven.len() + 1,
                found: one.box_id,
                expected: expected.clone(),
            });
        }
        proven.push(one);
    }
    if proven.is_empty() {
        return Err(ReceiptFileError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(proven)
}
