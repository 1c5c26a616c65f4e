//! The cloud's view of the object store, ours or somebody else's: the boxes get presigned
//! requests and never a credential.

mod error;

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
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use aws_smithy_http_client::tls::{self, TrustStore};
use bytes::Bytes;
use futures::Stream;
use longhaul_protocol::upload::PresignedPut;
use longhaul_protocol::value::{Digest32, UnixMillis};
use parking_lot::Mutex;

pub use error::BucketError;

use crate::fleet::{ObjectInfo, ObjectPage, ObjectQuery};

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
    /// Certificates to trust beside the system's, PEM.
    pub root_pem: Option<String>,
}

/// An unfinished multipart upload.
#[derive(Clone, Debug)]
pub struct Unfinished {
    /// The key.
    pub key: String,
    /// The store's name for it.
    pub id: String,
    /// When it began.
    pub begun: UnixMillis,
}

/// What an object consists of, by its own bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Content {
    /// Length in bytes.
    pub bytes: u64,
    /// BLAKE3 of the bytes.
    pub blake3: Digest32,
}

/// What a presigned PUT sets beside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct PutHeaders<'a> {
    /// Content type.
    pub content_type: Option<&'a str>,
    /// User metadata.
    pub metadata: &'a BTreeMap<String, String>,
}

/// The object store. Clones share connections.
#[derive(Clone)]
pub struct Buckets {
    client: Client,
    /// Buckets that are known to exist.
    known: Arc<Mutex<HashSet<String>>>,
}

impl Buckets {
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
            client: Client::from_conf(config.build()),
            known: Arc::default(),
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

    /// A request that puts a whole object.
    pub async fn presign_put(
        &self,
        bucket: &str,
        key: &str,
        headers: PutHeaders<'_>,
    ) -> Result<PresignedPut, BucketError> {
        let mut put = self.client.put_object().bucket(bucket).key(key);
        put = put.set_content_type(headers.content_type.map(str::to_owned));
        for (name, value) in headers.metadata {
            put = put.metadata(name, value);
        }
        let request = put
            .presigned(expiry()?)
            .await
            .map_err(BucketError::of("presign a PUT"))?;
        Ok(presigned(&request))
    }

    /// Begins a multipart upload; yields the store's name for it.
    pub async fn multipart_begin(
        &self,
        bucket: &str,
        key: &str,
        headers: PutHeaders<'_>,
    ) -> Result<String, BucketError> {
        let mut create = self
            .client
            .create_multipart_upload()
            .bucket(bucket)
            .key(key);
        create = create.set_content_type(headers.content_type.map(str::to_owned));
        for (name, value) in headers.metadata {
            create = create.metadata(name, value);
        }
        let answer = create
            .send()
            .await
            .map_err(BucketError::of("begin an upload"))?;
        answer
            .upload_id
            .ok_or_else(|| BucketError::new("begin an upload", "the answer names no upload"))
    }

    /// A request that puts one part.
    pub async fn presign_part(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        number: i32,
    ) -> Result<PresignedPut, BucketError> {
        let request = self
            .client
            .upload_part()
            .bucket(bucket)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .presigned(expiry()?)
            .await
            .map_err(BucketError::of("presign a part"))?;
        Ok(presigned(&request))
    }

    /// Makes the parts, numbered from 1 in the order of their ETags, the object.
    pub async fn multipart_complete(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
        etags: &[String],
    ) -> Result<(), BucketError> {
        let parts = (1..).zip(etags).map(|(number, etag)| {
            CompletedPart::builder()
                .part_number(number)
                .e_tag(etag)
                .build()
        });
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(parts.collect()))
            .build();
        self.client
            .complete_multipart_upload()
            .bucket(bucket)
            .key(key)
            .upload_id(upload)
            .multipart_upload(parts)
            .send()
            .await
            .map_err(BucketError::of("complete an upload"))?;
        Ok(())
    }

    /// Gives a multipart upload up; one that is gone already is fine.
    pub async fn multipart_abort(
        &self,
        bucket: &str,
        key: &str,
        upload: &str,
    ) -> Result<(), BucketError> {
        let aborted = self
            .client
            .abort_multipart_upload()
            .bucket(bucket)
            .key(key)
            .upload_id(upload)
            .send()
            .await
            .map_err(BucketError::of("abort an upload"));
        match aborted {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }

    /// Unfinished multipart uploads of a bucket.
    pub async fn unfinished(&self, bucket: &str) -> Result<Vec<Unfinished>, BucketError> {
        let mut found = Vec::new();
        let (mut key_marker, mut id_marker) = (None, None);
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(bucket)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker)
                .send()
                .await
                .map_err(BucketError::of("list uploads"))?;
            for upload in page.uploads.unwrap_or_default() {
                let (Some(key), Some(id)) = (upload.key, upload.upload_id) else {
                    continue;
                };
                let begun = upload.initiated.and_then(|at| at.to_millis().ok());
                let begun = UnixMillis(begun.unwrap_or(0));
                found.push(Unfinished { key, id, begun });
            }
            if page.is_truncated != Some(true) || page.next_key_marker.is_none() {
                return Ok(found);
            }
            (key_marker, id_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// Reads an object back and says what it consists of; `None` if there is none.
    pub async fn content(&self, bucket: &str, key: &str) -> Result<Option<Content>, BucketError> {
        let got = self
            .client
            .get_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await;
        let mut body = match got.map_err(BucketError::of("read an object")) {
            Ok(got) => got.body,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| BucketError::new("read an object", e.to_string()))?;
            hasher.update(&chunk);
        }
        Ok(Some(Content {
            bytes: hasher.count(),
            blake3: Digest32(*hasher.finalize().as_bytes()),
        }))
    }

    /// Opens an object: length, content type, bytes. `None` if there is none.
    pub async fn open(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<crate::fleet::OpenObject>, BucketError> {
        let got = self
            .client
            .get_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await;
        let got = match got.map_err(BucketError::of("read an object")) {
            Ok(got) => got,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = got.content_length.unwrap_or(0);
        Ok(Some(crate::fleet::OpenObject {
            bytes: u64::try_from(length).unwrap_or(0),
            content_type: got.content_type,
            body: Box::pin(chunks(got.body)),
        }))
    }

    /// Deletes an object; one that is absent is deleted already.
    pub async fn delete(&self, bucket: &str, key: &str) -> Result<(), BucketError> {
        let deleted = self
            .client
            .delete_object()
            .bucket(bucket)
            .key(key)
            .send()
            .await;
        match deleted.map_err(BucketError::of("delete an object")) {
            Err(error) if !error.is_absent() => Err(error),
            _ => Ok(()),
        }
    }

    /// Lists objects; a bucket that does not exist has none.
    pub async fn list(&self, query: &ObjectQuery) -> Result<ObjectPage, BucketError> {
        let page = self
            .client
            .list_objects_v2()
            .bucket(&query.bucket)
            .prefix(&query.prefix)
            .set_delimiter(query.delimiter.clone())
            .set_continuation_token(query.after.clone())
            .max_keys(i32::from(query.limit.clamp(1, 1000)))
            .send()
            .await
            .map_err(BucketError::of("list objects"));
        let page = match page {
            Ok(page) => page,
            Err(error) if error.is_absent() => return Ok(ObjectPage::default()),
            Err(error) => return Err(error),
        };
        let objects = page.contents.unwrap_or_default().into_iter();
        let objects = objects.filter_map(|object| {
            let modified = object.last_modified.and_then(|at| at.to_millis().ok());
            Some(ObjectInfo {
                key: object.key?,
                bytes: object.size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
                modified: UnixMillis(modified.unwrap_or(0)),
            })
        });
        let prefixes = page.common_prefixes.unwrap_or_default().into_iter();
        Ok(ObjectPage {
            objects: objects.collect(),
            prefixes: prefixes.filter_map(|p| p.prefix).collect(),
            next: page.next_continuation_token,
        })
    }
}

fn chunks(
    body: aws_sdk_s3::primitives::ByteStream,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
    futures::stream::unfold(body, |mut body| async {
        let chunk = body.next().await?;
        Some((chunk.map_err(std::io::Error::other), body))
    })
}

fn expiry() -> Result<PresigningConfig, BucketError> {
    PresigningConfig::expires_in(PRESIGNED_FOR)
        .map_err(|e| BucketError::new("presign a request", e.to_string()))
}

fn presigned(request: &PresignedRequest) -> PresignedPut {
    let headers = request.headers().filter(|(name, _)| *name != "host");
    PresignedPut {
        url: request.uri().to_owned(),
        headers: headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}
