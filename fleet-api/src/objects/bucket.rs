//! The cloud's view of the object store, ours or somebody else's: the boxes get presigned
//! requests and never a credential.

mod error;
mod multipart;
mod probe;
mod read;
mod staging;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_sdk_s3::error::ProvideErrorMetadata as _;
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_smithy_http_client::tls::{self, TrustStore};
use bytes::Bytes;
use longhaul_protocol::probe::Need;
use longhaul_protocol::upload::{PresignedPut, StoreTrust};
use parking_lot::Mutex;

use super::names::STAGING;

pub use error::BucketError;
pub use multipart::Unfinished;
pub use probe::{Abilities, Checksums, PROBES};
pub use read::Content;
pub use staging::Staging;

/// How long a presigned request may be used: a slow line needs hours for a part.
const PRESIGNED_FOR: Duration = Duration::from_hours(6);

/// Where the object store is and how to log in to it.
#[derive(Clone)]
pub struct BucketTarget {
    /// Its URL, as boxes reach it too; absent for Amazon's own.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Certificates to trust instead of the system's, PEM.
    pub root_pem: Option<String>,
    /// Who vouches for it, to boxes.
    pub trust: StoreTrust,
    /// Where packs wait; absent: a bucket of its own, but none at Amazon, where a bucket's name may
    /// be anybody's.
    pub staging: Option<Staging>,
}

/// What a presigned PUT sets beside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct PutHeaders<'a> {
    /// Content type.
    pub content_type: Option<&'a str>,
    /// User metadata.
    pub metadata: &'a BTreeMap<String, String>,
    /// Those of [`KEPT_HEADERS`](longhaul_protocol::upload::KEPT_HEADERS) that are set.
    pub kept: &'a BTreeMap<String, String>,
    /// Whether an object that exists already stays as it is.
    pub only_new: bool,
}

impl PutHeaders<'_> {
    fn condition(&self) -> Option<String> {
        self.only_new.then(|| "*".to_owned())
    }

    fn kept(&self, name: &str) -> Option<String> {
        self.kept.get(name).cloned()
    }
}

/// Texts by name, as the database keeps them.
pub fn texts(json: &str) -> BTreeMap<String, String> {
    serde_json::from_str(json).unwrap_or_default()
}

/// Sets what travels beside the bytes on a request that makes an object.
macro_rules! described {
    ($request:expr, $headers:expr) => {{
        let headers: $crate::objects::bucket::PutHeaders<'_> = $headers;
        let mut request = $request
            .set_content_type(headers.content_type.map(str::to_owned))
            .set_cache_control(headers.kept("cache-control"))
            .set_content_disposition(headers.kept("content-disposition"))
            .set_content_encoding(headers.kept("content-encoding"))
            .set_content_language(headers.kept("content-language"));
        if let Some(at) = headers.kept.get("expires") {
            request = request.set_expires($crate::objects::names::http_date(at));
        }
        for (name, value) in headers.metadata {
            request = request.metadata(name, value);
        }
        request
    }};
}
use described;

/// The object store. Clones share connections.
#[derive(Clone)]
pub struct Buckets {
    client: Client,
    trust: StoreTrust,
    /// Buckets that are known to exist.
    known: Arc<Mutex<HashSet<String>>>,
    /// Where packs wait; absent where they cannot.
    staging: Option<Arc<Staging>>,
    /// The store's host and port, where it is not Amazon's.
    way: Option<Arc<Need>>,
}

/// The way out to a store at this URL.
fn way(endpoint: &str) -> Option<Need> {
    let url: url::Url = endpoint.parse().ok()?;
    Some(Need {
        host: url.host_str()?.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default()?,
        what: "object store".to_owned(),
    })
}

impl Buckets {
    /// The way out that boxes need to the store; for Amazon's own, none is known.
    pub fn way(&self) -> Option<Need> {
        self.way.as_deref().cloned()
    }

    /// Prepares to talk to `target`; nothing is sent yet.
    pub fn new(target: &BucketTarget) -> Result<Self, BucketError> {
        let mut trust = TrustStore::empty().with_native_roots(target.root_pem.is_none());
        if let Some(pem) = &target.root_pem {
            trust.add_pem_certificate(pem.as_bytes());
        }
        let tls_context = tls::TlsContext::builder()
            .with_trust_store(trust)
            .build()
            .map_err(|e| BucketError::new("set up TLS", e.to_string()))?;
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(tls::Provider::Rustls(
                tls::rustls_provider::CryptoMode::AwsLc,
            ))
            .tls_context(tls_context)
            .build_https();
        let credentials = Credentials::new(
            &target.access_key,
            &target.secret_key,
            None,
            None,
            "longhaul",
        );
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(target.region.clone()))
            .credentials_provider(credentials)
            .http_client(http)
            .force_path_style(target.endpoint.is_some())
            // What the box sent is compared by BLAKE3 afterwards; a checksum header would have to
            // be signed before the bytes are known.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::standard().with_max_attempts(3))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(Duration::from_secs(5))
                    .read_timeout(Duration::from_mins(1))
                    .build(),
            );
        if let Some(endpoint) = &target.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Ok(Self {
            way: target.endpoint.as_deref().and_then(way).map(Arc::new),
            client: Client::from_conf(config.build()),
            trust: target.trust,
            known: Arc::default(),
            staging: target
                .staging
                .clone()
                .or_else(|| target.endpoint.is_some().then(Staging::own))
                .map(Arc::new),
        })
    }

    /// Makes `bucket` unless it exists.
    pub async fn ensure(&self, bucket: &str) -> Result<(), BucketError> {
        if self.known.lock().contains(bucket) {
            return Ok(());
        }
        if self
            .client
            .head_bucket()
            .bucket(bucket)
            .send()
            .await
            .is_err()
        {
            let made = self.client.create_bucket().bucket(bucket).send().await;
            match made {
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.code(),
                        Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists")
                    ) => {}
                Err(error) => return Err(BucketError::of("make a bucket")(error)),
            }
        }
        self.known.lock().insert(bucket.to_owned());
        Ok(())
    }

    /// Where packs wait to be taken apart; `None` where they cannot be sent.
    pub fn staging(&self) -> Option<&Staging> {
        self.staging.as_deref()
    }

    /// Whether a bucket is ours alone: no ticket names it, and nobody is shown it.
    pub fn is_reserved(&self, bucket: &str) -> bool {
        bucket == STAGING || self.staging().is_some_and(|s| s.bucket() == bucket)
    }

    /// The names of the buckets.
    pub async fn list_buckets(&self) -> Result<Vec<String>, BucketError> {
        let answer = self
            .client
            .list_buckets()
            .send()
            .await
            .map_err(BucketError::of("list buckets"))?;
        let names = answer.buckets.unwrap_or_default().into_iter();
        Ok(names.filter_map(|b| b.name).collect())
    }

    /// Puts a whole object; with [`PutHeaders::only_new`], `false` says that there is one already.
    pub async fn put(
        &self,
        bucket: &str,
        key: &str,
        headers: PutHeaders<'_>,
        bytes: Bytes,
    ) -> Result<bool, BucketError> {
        let put = self.client.put_object().bucket(bucket).key(key);
        let put = described!(put, headers).set_if_none_match(headers.condition());
        let put = put.body(bytes.into()).send().await;
        match put.map_err(BucketError::of("put an object")) {
            Err(error) if headers.only_new && error.is_condition() => Ok(false),
            Err(error) => Err(error),
            Ok(_) => Ok(true),
        }
    }

    /// A request that puts a whole object.
    pub async fn presign_put(
        &self,
        bucket: &str,
        key: &str,
        headers: PutHeaders<'_>,
    ) -> Result<PresignedPut, BucketError> {
        let put = self.client.put_object().bucket(bucket).key(key);
        let put = described!(put, headers).set_if_none_match(headers.condition());
        let request = put
            .presigned(expiry()?)
            .await
            .map_err(BucketError::of("presign a PUT"))?;
        Ok(self.presigned(&request))
    }

    fn presigned(&self, request: &PresignedRequest) -> PresignedPut {
        let headers = request.headers().filter(|(name, _)| *name != "host");
        PresignedPut {
            url: request.uri().to_owned(),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            trust: self.trust,
        }
    }
}

fn expiry() -> Result<PresigningConfig, BucketError> {
    PresigningConfig::expires_in(PRESIGNED_FOR)
        .map_err(|e| BucketError::new("presign a request", e.to_string()))
}
