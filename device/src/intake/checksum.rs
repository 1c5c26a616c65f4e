//! Checksums that clients send with bytes: computed in one pass, compared before anything counts.
//!
//! s3s parses checksum headers and trailers; comparing them is done here. CRC-64/NVME comes from the
//! vault, which computes it anyway. MD5 is computed only for a client that sends `Content-MD5`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use longhaul_vault::Checksums;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Md5, Sha1, Sha256};
use s3s::dto::ChecksumAlgorithm;
use s3s::{S3Request, S3Result, s3_error};

/// The algorithms of S3, by the name that ends their header.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
    ];

    /// Its name in [`Checksums`] and at the end of its header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Its header or trailer.
    pub const fn header(self) -> HeaderName {
        match self {
            Self::Crc32 => HeaderName::from_static("x-amz-checksum-crc32"),
            Self::Crc32c => HeaderName::from_static("x-amz-checksum-crc32c"),
            Self::Crc64Nvme => HeaderName::from_static("x-amz-checksum-crc64nvme"),
            Self::Sha1 => HeaderName::from_static("x-amz-checksum-sha1"),
            Self::Sha256 => HeaderName::from_static("x-amz-checksum-sha256"),
        }
    }

    /// Its name as the API spells it.
    pub const fn api_name(self) -> &'static str {
        match self {
            Self::Crc32 => ChecksumAlgorithm::CRC32,
            Self::Crc32c => ChecksumAlgorithm::CRC32C,
            Self::Crc64Nvme => ChecksumAlgorithm::CRC64NVME,
            Self::Sha1 => ChecksumAlgorithm::SHA1,
            Self::Sha256 => ChecksumAlgorithm::SHA256,
        }
    }

    /// The algorithm called `name` by the API.
    pub fn from_api_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|a| a.api_name().eq_ignore_ascii_case(name))
    }
}

/// What a client promised about the bytes that it is about to send.
pub(super) struct Promise {
    sums: Vec<(Algorithm, Promised)>,
    md5: Option<[u8; 16]>,
}

enum Promised {
    /// The value came in a header.
    Value(Vec<u8>),
    /// The value comes behind the bytes.
    Trailer,
}

impl Promise {
    /// Reads the headers of a request that carries bytes.
    pub fn read<T>(request: &S3Request<T>) -> S3Result<Self> {
        let mut sums = Vec::new();
        for algorithm in Algorithm::ALL {
            if let Some(value) = request.headers.get(algorithm.header()) {
                sums.push((algorithm, Promised::Value(decode(algorithm, value)?)));
            }
        }
        for name in request.headers.get_all("x-amz-trailer") {
            let names = name.to_str().unwrap_or_default();
            for name in names.split(',').map(str::trim) {
                let found = Algorithm::ALL
                    .into_iter()
                    .find(|a| a.header().as_str().eq_ignore_ascii_case(name));
                match found {
                    Some(algorithm) => sums.push((algorithm, Promised::Trailer)),
                    None => {
                        return Err(s3_error!(
                            InvalidRequest,
                            "trailer {name:?} is not a checksum that this box knows"
                        ));
                    }
                }
            }
        }
        let md5 = match request.headers.get("content-md5") {
            None => None,
            Some(value) => Some(
                STANDARD
                    .decode(value)
                    .ok()
                    .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
                    .ok_or_else(|| {
                        s3_error!(InvalidDigest, "Content-MD5 is not the base64 of 16 bytes")
                    })?,
            ),
        };
        Ok(Self { sums, md5 })
    }

    /// A hasher for what was promised, and nothing else.
    pub fn hasher(&self) -> Hasher {
        self.hasher_and(None)
    }

    /// A hasher for what was promised, and for an algorithm that was agreed on before.
    pub fn hasher_and(&self, agreed: Option<Algorithm>) -> Hasher {
        let has =
            |algorithm| agreed == Some(algorithm) || self.sums.iter().any(|(a, _)| *a == algorithm);
        Hasher {
            crc32: has(Algorithm::Crc32).then(Crc32::new),
            crc32c: has(Algorithm::Crc32c).then(Crc32c::new),
            sha1: has(Algorithm::Sha1).then(Sha1::new),
            sha256: has(Algorithm::Sha256).then(Sha256::new),
            md5: self.md5.is_some().then(Md5::new),
        }
    }

    /// Compares, and says what is to be kept: what the client sent, and the CRC-64/NVME always.
    pub fn verify(
        &self,
        hasher: Hasher,
        crc64nvme: u64,
        trailers: Option<&HeaderMap>,
    ) -> S3Result<Checksums> {
        let computed = hasher.finish(crc64nvme);
        let value = |algorithm: Algorithm| {
            computed
                .sums
                .iter()
                .find(|(a, _)| *a == algorithm)
                .map(|(_, bytes)| bytes.as_slice())
                .unwrap_or_default()
        };
        for (algorithm, promised) in &self.sums {
            let expected = match promised {
                Promised::Value(bytes) => bytes.clone(),
                Promised::Trailer => {
                    let header = algorithm.header();
                    let sent = trailers.and_then(|t| t.get(&header)).ok_or_else(|| {
                        s3_error!(
                            BadDigest,
                            "trailer {header} was announced and did not come; nothing was stored"
                        )
                    })?;
                    decode(*algorithm, sent)?
                }
            };
            if expected != value(*algorithm) {
                return Err(bad_digest(
                    algorithm.api_name(),
                    &expected,
                    value(*algorithm),
                ));
            }
        }
        if let (Some(expected), Some(md5)) = (self.md5, computed.md5)
            && expected != md5
        {
            return Err(bad_digest("Content-MD5", &expected, &md5));
        }
        Ok(computed.kept())
    }
}

fn bad_digest(what: &str, expected: &[u8], computed: &[u8]) -> s3s::S3Error {
    s3_error!(
        BadDigest,
        "{what} of the bytes that arrived is {}, the client sent {}; nothing was stored, send it again",
        STANDARD.encode(computed),
        STANDARD.encode(expected)
    )
}

fn decode(algorithm: Algorithm, value: &http::HeaderValue) -> S3Result<Vec<u8>> {
    let len = match algorithm {
        Algorithm::Crc32 | Algorithm::Crc32c => 4,
        Algorithm::Crc64Nvme => 8,
        Algorithm::Sha1 => 20,
        Algorithm::Sha256 => 32,
    };
    STANDARD
        .decode(value)
        .ok()
        .filter(|bytes| bytes.len() == len)
        .ok_or_else(|| {
            s3_error!(
                BadDigest,
                "{} is not the base64 of {len} bytes",
                algorithm.header()
            )
        })
}

/// Hashes what was promised.
#[derive(Default)]
pub(super) struct Hasher {
    crc32: Option<Crc32>,
    crc32c: Option<Crc32c>,
    sha1: Option<Sha1>,
    sha256: Option<Sha256>,
    md5: Option<Md5>,
}

struct Computed {
    sums: Vec<(Algorithm, Vec<u8>)>,
    md5: Option<[u8; 16]>,
}

impl Computed {
    fn kept(self) -> Checksums {
        self.sums
            .into_iter()
            .map(|(a, bytes)| (a.name().to_owned(), STANDARD.encode(bytes)))
            .collect()
    }
}

impl Hasher {
    /// A hasher for one algorithm, or for nothing.
    pub fn of(algorithm: Option<Algorithm>) -> Self {
        let nothing = Promise {
            sums: Vec::new(),
            md5: None,
        };
        nothing.hasher_and(algorithm)
    }

    /// What was computed, to be kept.
    pub fn kept(self, crc64nvme: u64) -> Checksums {
        self.finish(crc64nvme).kept()
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        fn feed<H: s3s::crypto::Checksum>(hasher: &mut Option<H>, bytes: &[u8]) {
            if let Some(hasher) = hasher {
                hasher.update(bytes);
            }
        }
        feed(&mut self.crc32, bytes);
        feed(&mut self.crc32c, bytes);
        feed(&mut self.sha1, bytes);
        feed(&mut self.sha256, bytes);
        feed(&mut self.md5, bytes);
    }

    fn finish(self, crc64nvme: u64) -> Computed {
        let mut sums = vec![(Algorithm::Crc64Nvme, crc64nvme.to_be_bytes().to_vec())];
        let mut keep = |algorithm, bytes: Option<Vec<u8>>| {
            sums.extend(bytes.map(|bytes| (algorithm, bytes)));
        };
        keep(Algorithm::Crc32, self.crc32.map(|h| h.finalize().to_vec()));
        keep(
            Algorithm::Crc32c,
            self.crc32c.map(|h| h.finalize().to_vec()),
        );
        keep(
            Algorithm::Sha1,
            self.sha1.map(|h| h.finalize().as_ref().to_vec()),
        );
        keep(
            Algorithm::Sha256,
            self.sha256.map(|h| h.finalize().as_ref().to_vec()),
        );
        Computed {
            sums,
            md5: self.md5.map(|h| {
                let mut bytes = [0; 16];
                bytes.copy_from_slice(h.finalize().as_ref());
                bytes
            }),
        }
    }
}
