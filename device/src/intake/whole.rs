//! The checksums of an object made of parts, from the parts' own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum_combine};
use longhaul_vault::{Checksums, PartInfo, UploadInfo};
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Sha1, Sha256};
use s3s::dto::{ChecksumType, CompleteMultipartUploadInput};
use s3s::{S3Result, s3_error};

use super::checksum::Algorithm;
use super::multipart::CHOSEN_TYPE;

/// The checksums of the whole object: CRC-64/NVME always, and what the client's algorithm makes of
/// the parts' own. What the client says of the whole is compared before the object exists.
pub(super) fn whole_checksums(
    input: &CompleteMultipartUploadInput,
    info: &UploadInfo,
    parts: &[PartInfo],
    what: &str,
) -> S3Result<Checksums> {
    let mut sums = Checksums::new();
    let whole = parts.iter().fold((0, 0), |(crc, size), part| {
        let (next, len) = (part.digests.crc64nvme, part.digests.size);
        let crc = if size == 0 {
            next
        } else {
            checksum_combine(CrcAlgorithm::Crc64Nvme, crc, next, len)
        };
        (crc, size + len)
    });
    sums.insert(
        Algorithm::Crc64Nvme.name().to_owned(),
        STANDARD.encode(whole.0.to_be_bytes()),
    );
    let full_object = input
        .checksum_type
        .as_ref()
        .map(ChecksumType::as_str)
        .or(info.checksums.get(CHOSEN_TYPE).map(String::as_str))
        == Some(ChecksumType::FULL_OBJECT);
    let said = [
        (Algorithm::Crc32, &input.checksum_crc32),
        (Algorithm::Crc32c, &input.checksum_crc32c),
        (Algorithm::Crc64Nvme, &input.checksum_crc64nvme),
        (Algorithm::Sha1, &input.checksum_sha1),
        (Algorithm::Sha256, &input.checksum_sha256),
    ];
    for (algorithm, said) in said {
        if algorithm != Algorithm::Crc64Nvme
            && let Some(computed) = joined(algorithm, parts, full_object)
        {
            sums.insert(algorithm.name().to_owned(), computed);
        }
        let Some(said) = said else { continue };
        let computed = sums.get(algorithm.name()).ok_or_else(|| {
            s3_error!(
                InvalidRequest,
                "{what}: {} of the whole cannot be checked, because not every part came with one",
                algorithm.api_name()
            )
        })?;
        // Clients leave out the number of parts, or do not.
        let bare = computed.split('-').next().unwrap_or_default();
        if said != computed && said != bare {
            return Err(s3_error!(
                BadDigest,
                "{what}: {} of the whole is {computed}, the client says {said}; nothing was stored",
                algorithm.api_name()
            ));
        }
    }
    Ok(sums)
}

/// One checksum over the parts' checksums: combined where the algorithm is linear and the client
/// wants that, else the checksum of their digests in a row with the number of parts (S3 user
/// guide, "Checking object integrity").
fn joined(algorithm: Algorithm, parts: &[PartInfo], full_object: bool) -> Option<String> {
    let digests: Vec<Vec<u8>> = parts
        .iter()
        .map(|part| STANDARD.decode(part.checksums.get(algorithm.name())?).ok())
        .collect::<Option<_>>()?;
    let linear = match algorithm {
        Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        Algorithm::Crc64Nvme | Algorithm::Sha1 | Algorithm::Sha256 => None,
    };
    if full_object {
        let linear = linear?;
        let mut whole: Option<u64> = None;
        for (digest, part) in digests.iter().zip(parts) {
            let next = u64::from(u32::from_be_bytes(digest.as_slice().try_into().ok()?));
            whole = Some(match whole {
                None => next,
                Some(crc) => checksum_combine(linear, crc, next, part.digests.size),
            });
        }
        let whole = u32::try_from(whole?).ok()?;
        return Some(STANDARD.encode(whole.to_be_bytes()));
    }
    let row = digests.concat();
    let digest = match algorithm {
        Algorithm::Crc32 => Crc32::checksum(&row).to_vec(),
        Algorithm::Crc32c => Crc32c::checksum(&row).to_vec(),
        Algorithm::Sha1 => Sha1::checksum(&row).to_vec(),
        Algorithm::Sha256 => Sha256::checksum(&row).to_vec(),
        Algorithm::Crc64Nvme => return None,
    };
    Some(format!("{}-{}", STANDARD.encode(digest), parts.len()))
}
