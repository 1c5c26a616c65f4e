//! What the box says about one object: length, tag, checksums, and the time of its source file.

use aws_sdk_s3::types::ChecksumMode;
use longhaul_protocol::lan::BLAKE3_HEADER;
use longhaul_protocol::value::Digest32;

use crate::client::BoxClient;
use crate::ear::Ear;
use crate::progress::Progress;
use crate::push::etag;
use crate::retry::{Patience, S3Error, persist};
use crate::source::{Crc64, Stamp};

/// An object on the box.
#[derive(Clone, Debug)]
pub struct Held {
    /// Bytes.
    pub size: u64,
    /// The tag that the box gave it.
    pub etag: String,
    /// When its source file was modified, in nanoseconds since 1970.
    pub mtime_ns: Option<i64>,
    /// CRC-64/NVME of all its bytes, where the box says it.
    pub crc: Option<Crc64>,
    /// BLAKE3 of all its bytes, where the box says it.
    pub blake3: Option<Digest32>,
}

/// Asks for one object; `None` where the box does not hold it.
pub async fn head(
    client: &BoxClient,
    key: &str,
    patience: Patience,
    progress: &Progress,
) -> Result<Option<Held>, S3Error> {
    let ear = Ear::for_header(BLAKE3_HEADER);
    let answer = persist(patience, progress, || async {
        let request = client.s3().head_object();
        Ok(request
            .bucket(&client.ticket().bucket)
            .key(key)
            .checksum_mode(ChecksumMode::Enabled)
            .customize()
            .interceptor(ear.clone())
            .send()
            .await?)
    })
    .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mtime = answer.metadata().and_then(|m| m.get("mtime"));
    Ok(Some(Held {
        size: answer
            .content_length()
            .and_then(|length| u64::try_from(length).ok())
            .ok_or_else(|| S3Error::malformed("Content-Length"))?,
        etag: etag(answer.e_tag())?,
        mtime_ns: mtime.and_then(|text| Stamp::parse_mtime(text)),
        crc: answer.checksum_crc64_nvme().and_then(Crc64::from_header),
        blake3: ear
            .heard()
            .and_then(|text| serde_json::from_value(text.into()).ok()),
    }))
}
