//! Checksums that a client sends along: `s3s` parses them, verifying is ours to do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::Checksum;
use s3s::{S3Result, TrailingHeaders, s3_error};

/// Computes the checksums that were announced while the bytes pass.
pub struct Checking {
    announced: Checksum,
    hasher: ChecksumHasher,
    md5: Option<(Md5, Vec<u8>)>,
}

/// Prepares to check what the headers of a PUT announce, and the algorithm that a trailer will use.
/// A whole object and a part have the same headers in types of their own.
macro_rules! checking {
    ($input:expr) => {
        $crate::objects::s3::checksum::Checking::new(
            s3s::dto::Checksum {
                checksum_crc32: $input.checksum_crc32.clone(),
                checksum_crc32c: $input.checksum_crc32c.clone(),
                checksum_crc64nvme: $input.checksum_crc64nvme.clone(),
                checksum_sha1: $input.checksum_sha1.clone(),
                checksum_sha256: $input.checksum_sha256.clone(),
                ..s3s::dto::Checksum::default()
            },
            $input.checksum_algorithm.as_ref().map(|a| a.as_str()),
            $input.content_md5.as_deref(),
        )
    };
}
pub(super) use checking;

impl Checking {
    pub fn new(
        announced: Checksum,
        algorithm: Option<&str>,
        content_md5: Option<&str>,
    ) -> S3Result<Self> {
        let mut hasher = ChecksumHasher::default();
        let wanted = |header: &Option<String>, name| header.is_some() || algorithm == Some(name);
        if wanted(&announced.checksum_crc32, "CRC32") {
            hasher.crc32 = Some(Crc32::default());
        }
        if wanted(&announced.checksum_crc32c, "CRC32C") {
            hasher.crc32c = Some(Crc32c::default());
        }
        if wanted(&announced.checksum_crc64nvme, "CRC64NVME") {
            hasher.crc64nvme = Some(Crc64Nvme::default());
        }
        if wanted(&announced.checksum_sha1, "SHA1") {
            hasher.sha1 = Some(Sha1::default());
        }
        if wanted(&announced.checksum_sha256, "SHA256") {
            hasher.sha256 = Some(Sha256::default());
        }
        let md5 = content_md5
            .map(|text| {
                let want = STANDARD.decode(text).ok().filter(|d| d.len() == 16);
                want.map(|want| (Md5::new(), want))
                    .ok_or_else(|| s3_error!(InvalidDigest, "Content-MD5 is not an MD5 in base64"))
            })
            .transpose()?;
        Ok(Self {
            announced,
            hasher,
            md5,
        })
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some((md5, _)) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    /// Compares with what the headers and, by now, the trailers announced.
    pub fn verify(self, trailers: Option<&TrailingHeaders>) -> S3Result<()> {
        if let Some((md5, want)) = self.md5
            && md5.finalize().as_ref() != want.as_slice()
        {
            return Err(s3_error!(
                BadDigest,
                "the body does not match its Content-MD5"
            ));
        }
        let computed = self.hasher.finalize();
        let announced = self.announced;
        let pairs = [
            ("crc32", announced.checksum_crc32, computed.checksum_crc32),
            (
                "crc32c",
                announced.checksum_crc32c,
                computed.checksum_crc32c,
            ),
            (
                "crc64nvme",
                announced.checksum_crc64nvme,
                computed.checksum_crc64nvme,
            ),
            ("sha1", announced.checksum_sha1, computed.checksum_sha1),
            (
                "sha256",
                announced.checksum_sha256,
                computed.checksum_sha256,
            ),
        ];
        for (name, in_header, computed) in pairs {
            let in_trailer = trailers.and_then(|t| {
                t.read(|headers| {
                    let value = headers.get(format!("x-amz-checksum-{name}"))?;
                    value.to_str().ok().map(str::to_owned)
                })
                .flatten()
            });
            // A trailer of an algorithm that was not announced cannot be checked any more.
            if let (Some(want), Some(have)) = (in_trailer.or(in_header), computed)
                && want != have
            {
                return Err(s3_error!(
                    BadDigest,
                    "the body's {name} is {have}, not {want} as announced"
                ));
            }
        }
        Ok(())
    }
}
