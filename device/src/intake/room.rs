//! What can never fit is refused: before its bytes come where their number is known, and otherwise as
//! soon as it is certain, with its space given back at once.

use longhaul_vault::{Error as VaultError, PartNumber, UploadId, Vault};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::error::from_vault;

/// Parts that are looked at together.
const STEP: usize = 1000;

/// Why an object of so many bytes will never be taken, in words; `None` if it may be.
pub(crate) fn never_fits(vault: &Vault, bytes: u64) -> Option<String> {
    let most = vault.largest_object();
    (bytes > most).then(|| {
        format!(
            "{bytes} bytes are more than the whole box holds, which is {most}; nothing of it was kept: \
             cut the file into pieces, or ask whoever sent the box for a larger one"
        )
    })
}

/// Refuses `what`, of so many bytes as the client says, if it can never fit.
pub(super) fn check(vault: &Vault, bytes: Option<u64>, what: &str) -> S3Result<()> {
    match bytes.and_then(|bytes| never_fits(vault, bytes)) {
        Some(why) => Err(too_large(&format!("{what}: {why}"))),
        None => Ok(()),
    }
}

/// What is said where the vault has no room for a part. An upload that would not fit though nothing else
/// were on the box is ended: nobody could finish it, and it would keep everybody out.
pub(super) async fn none_for_part(
    vault: &Vault,
    upload: &UploadId,
    (number, bytes): (PartNumber, u64),
    error: &VaultError,
    what: &str,
) -> S3Error {
    let refusal = from_vault(error, what);
    if !matches!(error, VaultError::SlowDown | VaultError::DiskFull) {
        return refusal;
    }
    let (mut sum, mut after) = (bytes, None);
    while let Ok(page) = vault.parts(upload, after, STEP) {
        let others = page.items.iter().filter(|part| part.number != number);
        sum += others.map(|part| part.digests.size).sum::<u64>();
        after = page.items.last().map(|part| part.number);
        if !page.more {
            break;
        }
    }
    if sum <= vault.largest_upload() || vault.abort_upload(upload).await.is_err() {
        return refusal;
    }
    tracing::warn!(what, sum, "an upload that can never fit is ended");
    too_large(&format!(
        "{what}: with it the upload has {sum} bytes, more than the whole box holds; the upload is ended \
         and its parts are gone: cut the file into pieces, or ask whoever sent the box for a larger one"
    ))
}

fn too_large(message: &str) -> S3Error {
    S3Error::with_message(S3ErrorCode::EntityTooLarge, message.to_owned())
}
