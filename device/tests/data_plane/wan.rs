//! A bucket on a real S3 server behind a line that can be cut, and a small cloud in front of it that
//! hands out presigned URLs and compares.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo};
use longhaul_device::uplink::cloud::{AskError, Cloud};
use longhaul_protocol::ids::{PackId, UploadId};
use longhaul_protocol::pack::{Decoder, Event};
use longhaul_protocol::upload::{
    AbortUploads, BucketRefused, BucketState, CompleteResult, CompleteUpload, CompleteUploads,
    Completed, PackCompleted, PackSent, PackStarted, PartUrls, PartUrlsRequest, PresignedPut,
    StartPack, StartResult, StartUploads, Started, StoreTrust, UploadObject,
};
use parking_lot::Mutex;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Where packs go.
pub const STAGING: &str = "staging";
/// The smallest part that S3 takes.
pub const PART_BYTES: u64 = 5 << 20;

/// Serves `dir` as S3, over plain HTTP on loopback.
pub async fn bucket_server(dir: &Path) -> SocketAddr {
    let files = s3s_fs::FileSystem::new(dir).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(files);
    builder.set_auth(s3s::auth::SimpleAuth::from_single("cloud", "cloud-secret"));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    address
}

pub fn client(url: &str) -> Client {
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(url)
        .force_path_style(true)
        .credentials_provider(Credentials::new(
            "cloud",
            "cloud-secret",
            None,
            None,
            "test",
        ))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build();
    Client::from_conf(config)
}

/// A line to the bucket that cuts connections.
#[derive(Clone, Default)]
pub struct Line {
    /// Connections that are still to be cut.
    pub cuts: Arc<AtomicI64>,
    /// Bytes that went to the bucket.
    pub sent: Arc<AtomicUsize>,
    /// Connections that are open.
    pub open: Arc<AtomicUsize>,
}

impl Line {
    /// Forwards to `target`; a connection that is to be cut lives for some hundred kilobytes.
    pub async fn lay(&self, target: SocketAddr) -> SocketAddr {
        const CUT_AFTER: usize = 300_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = self.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(target).await.unwrap();
                let cut = line.cuts.fetch_sub(1, Ordering::Relaxed) > 0;
                let sent = Arc::clone(&line.sent);
                let open = Opened::new(&line.open);
                tokio::spawn(async move {
                    let _open = open;
                    let (mut near_in, mut near_out) = near.into_split();
                    let (mut far_in, mut far_out) = far.into_split();
                    let back = tokio::spawn(async move {
                        let _ = tokio::io::copy(&mut far_in, &mut near_out).await;
                    });
                    let mut through = 0;
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(read) = near_in.read(&mut buffer).await
                        && read > 0
                    {
                        through += read;
                        sent.fetch_add(read, Ordering::Relaxed);
                        if cut && through > CUT_AFTER {
                            back.abort();
                            return;
                        }
                        if far_out.write_all(&buffer[..read]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }
}

/// Counts a connection while it is open.
struct Opened(Arc<AtomicUsize>);

impl Opened {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Upload {
    object: UploadObject,
    s3: Option<String>,
}

/// The cloud's side: starts, signs, completes and compares.
pub struct TestCloud {
    /// Straight to the bucket.
    pub bucket: Client,
    /// Signs URLs that lead through the line.
    signer: Client,
    uploads: Mutex<HashMap<UploadId, Upload>>,
    started: AtomicUsize,
    /// Every part number that a URL was signed for.
    pub signed: Mutex<Vec<u32>>,
    pub aborted: Mutex<Vec<UploadId>>,
    /// Of these, what was not begun anew.
    given_up: Mutex<Vec<UploadId>>,
    /// Who vouches for the bucket, as the box is told.
    pub trust: Mutex<StoreTrust>,
    /// Why the bucket is refused to the cloud as well, and how often a box asked.
    pub held: Mutex<Option<String>>,
    pub refusals: AtomicUsize,
    /// No completion is answered while set; how many were not.
    pub mute: AtomicBool,
    pub unheard: AtomicUsize,
    /// Keys that will not be taken.
    pub refused: Mutex<Vec<String>>,
    /// Completions that are still to be answered with `Restart`.
    pub restarts: AtomicI64,
    /// Questions that are still to fail.
    pub failures: AtomicI64,
    /// What each pack carries.
    pub packs: Mutex<HashMap<PackId, Vec<UploadId>>>,
    /// Questions about packs that are still to be answered with `Unpacking`.
    pub unpacking: AtomicI64,
}

impl TestCloud {
    pub fn new(bucket: SocketAddr, line: SocketAddr) -> Arc<Self> {
        Self::at(bucket, &format!("http://{line}"))
    }

    /// Signs URLs at `signed`.
    pub fn at(bucket: SocketAddr, signed: &str) -> Arc<Self> {
        Arc::new(Self {
            bucket: client(&format!("http://{bucket}")),
            signer: client(signed),
            trust: Mutex::default(),
            uploads: Mutex::default(),
            started: AtomicUsize::new(0),
            signed: Mutex::default(),
            aborted: Mutex::default(),
            given_up: Mutex::default(),
            held: Mutex::default(),
            refusals: AtomicUsize::new(0),
            mute: AtomicBool::new(false),
            unheard: AtomicUsize::new(0),
            refused: Mutex::default(),
            restarts: AtomicI64::new(0),
            failures: AtomicI64::new(0),
            packs: Mutex::default(),
            unpacking: AtomicI64::new(0),
        })
    }

    fn fail(&self) -> Result<(), AskError> {
        if self.failures.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Err(AskError::Later("the cloud is away".to_owned()));
        }
        Ok(())
    }

    /// How often an object was begun.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// What the box said about an object.
    pub fn asked(&self, key: &str) -> Option<UploadObject> {
        let uploads = self.uploads.lock();
        let mut objects = uploads.values().map(|upload| &upload.object);
        objects
            .find(|object| object.object.key.as_str() == key)
            .cloned()
    }

    async fn begin(&self, object: UploadObject) -> StartResult {
        let (bucket, key) = (object.object.bucket.clone(), object.object.key.clone());
        if self.refused.lock().contains(&key.to_string()) {
            let reason = "not in this bucket".to_owned();
            return StartResult::Refused { reason };
        }
        let upload: UploadId = format!("up-{}", object.object.version).parse().unwrap();
        self.given_up.lock().retain(|gone| *gone != upload);
        let known = self.uploads.lock().get(&upload).map(|u| u.s3.clone());
        if object.bytes <= PART_BYTES {
            let s3 = None;
            self.uploads
                .lock()
                .insert(upload.clone(), Upload { object, s3 });
            let put = self.signer.put_object().bucket(bucket).key(key.as_str());
            let put = put.presigned(soon()).await.unwrap();
            return StartResult::Single {
                upload,
                put: presigned(&put, *self.trust.lock()),
            };
        }
        if known.flatten().is_none() {
            let begun = self
                .bucket
                .create_multipart_upload()
                .bucket(bucket)
                .key(key.as_str())
                .send()
                .await
                .unwrap();
            let s3 = begun.upload_id;
            let started = Upload {
                object: object.clone(),
                s3,
            };
            self.uploads.lock().insert(upload.clone(), started);
        }
        StartResult::Multipart {
            upload,
            part_bytes: PART_BYTES,
            parts: u32::try_from(object.bytes.div_ceil(PART_BYTES)).unwrap(),
        }
    }

    async fn finish(&self, upload: CompleteUpload) -> CompleteResult {
        let (object, s3) = {
            let uploads = self.uploads.lock();
            let known = &uploads[&upload.upload];
            (known.object.clone(), known.s3.clone())
        };
        let (bucket, key) = (object.object.bucket, object.object.key);
        if let Some(s3) = s3 {
            let parts = (1..).zip(upload.etags).map(|(number, etag)| {
                CompletedPart::builder()
                    .part_number(number)
                    .e_tag(etag)
                    .build()
            });
            let parts = CompletedMultipartUpload::builder()
                .set_parts(Some(parts.collect()))
                .build();
            let done = self
                .bucket
                .complete_multipart_upload()
                .bucket(&bucket)
                .key(key.as_str())
                .upload_id(s3)
                .multipart_upload(parts)
                .send()
                .await;
            done.unwrap();
        }
        if self.restarts.fetch_sub(1, Ordering::Relaxed) > 0 {
            self.uploads.lock().remove(&upload.upload);
            let reason = "it differs".to_owned();
            return CompleteResult::Restart { reason };
        }
        let got = self
            .bucket
            .get_object()
            .bucket(&bucket)
            .key(key.as_str())
            .send()
            .await;
        let bytes = got.unwrap().body.collect().await.unwrap().to_vec();
        assert_eq!(*blake3::hash(&bytes).as_bytes(), object.blake3.0, "{key}");
        CompleteResult::Verified
    }
}

fn soon() -> PresigningConfig {
    PresigningConfig::expires_in(Duration::from_mins(5)).unwrap()
}

fn presigned(request: &PresignedRequest, trust: StoreTrust) -> PresignedPut {
    let headers: BTreeMap<_, _> = request
        .headers()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    PresignedPut {
        url: request.uri().to_owned(),
        headers,
        trust,
    }
}

/// Speaks TLS as `certified` in front of `target`.
pub async fn tls_front(certified: CertifiedKey, target: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else {
                    return;
                };
                let mut far = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

impl TestCloud {
    /// Takes a staged pack apart, as the cloud does beside the bucket.
    async fn unpack(&self, pack: &PackId) -> PackCompleted {
        let lost = |reason: &str| PackCompleted::Restart {
            reason: reason.to_owned(),
        };
        let Some(wanted) = self.packs.lock().get(pack).cloned() else {
            return lost("no such pack");
        };
        let question = self.bucket.get_object().bucket(STAGING).key(pack.as_str());
        let Ok(staged) = question.send().await else {
            return lost("it is not there");
        };
        let bytes = staged.body.collect().await.unwrap().into_bytes();
        let mut input = &bytes[..];
        let (mut reader, mut found) = (Decoder::default(), HashMap::new());
        let mut current: Option<(String, Vec<u8>)> = None;
        while let Some(event) = reader.next(&mut input).unwrap() {
            match event {
                Event::Entry(header) => current = Some((header.key, Vec::new())),
                Event::Body(bytes) => current.as_mut().unwrap().1.extend(bytes),
                Event::EntryEnd => found.extend(current.take()),
                Event::End => {}
            }
        }
        reader.finish().unwrap();
        let mut uploads = BTreeMap::new();
        for upload in wanted {
            // As the cloud does: what was given up is not put.
            if self.given_up.lock().contains(&upload) {
                let reason = "it was given up".to_owned();
                uploads.insert(upload, CompleteResult::Restart { reason });
                continue;
            }
            let object = self.uploads.lock()[&upload].object.clone();
            let (bucket, key) = (object.object.bucket, object.object.key);
            let Some(bytes) = found.remove(key.as_str()) else {
                let reason = "not in the pack".to_owned();
                uploads.insert(upload, CompleteResult::Restart { reason });
                continue;
            };
            assert_eq!(*blake3::hash(&bytes).as_bytes(), object.blake3.0, "{key}");
            let order = self.bucket.put_object().bucket(bucket).key(key.as_str());
            order.body(bytes.into()).send().await.unwrap();
            uploads.insert(upload, CompleteResult::Verified);
        }
        PackCompleted::Unpacked { uploads }
    }
}

impl Cloud for TestCloud {
    fn start_pack(&self, request: StartPack) -> BoxFuture<'_, Result<PackStarted, AskError>> {
        Box::pin(async move {
            self.fail()?;
            let mut uploads = Vec::new();
            let mut members = Vec::new();
            for object in request.objects {
                uploads.push(match self.begin(object).await {
                    StartResult::Single { upload, .. } => {
                        members.push(upload.clone());
                        StartResult::Packed { upload }
                    }
                    other => other,
                });
            }
            let name: PackId = {
                let mut known = self.packs.lock();
                let name: PackId = format!("pk-{}", known.len()).parse().unwrap();
                known.insert(name.clone(), members);
                name
            };
            let put = self.signer.put_object().bucket(STAGING).key(name.as_str());
            let put = presigned(&put.presigned(soon()).await.unwrap(), *self.trust.lock());
            Ok(PackStarted {
                pack: name,
                put,
                uploads,
            })
        })
    }

    fn pack_sent(&self, request: PackSent) -> BoxFuture<'_, Result<PackCompleted, AskError>> {
        Box::pin(async move {
            self.fail()?;
            let asked = self.unpacking.fetch_sub(1, Ordering::Relaxed);
            if asked > 0 {
                return Ok(PackCompleted::Unpacking);
            }
            Ok(self.unpack(&request.pack).await)
        })
    }

    fn start(&self, request: StartUploads) -> BoxFuture<'_, Result<Started, AskError>> {
        Box::pin(async move {
            self.fail()?;
            let mut uploads = Vec::new();
            for object in request.objects {
                self.started.fetch_add(1, Ordering::Relaxed);
                uploads.push(self.begin(object).await);
            }
            Ok(Started { uploads })
        })
    }

    fn parts(&self, request: PartUrlsRequest) -> BoxFuture<'_, Result<PartUrls, AskError>> {
        Box::pin(async move {
            self.fail()?;
            let (object, s3) = {
                let uploads = self.uploads.lock();
                let known = &uploads[&request.upload];
                (known.object.object.clone(), known.s3.clone().unwrap())
            };
            let mut puts = Vec::new();
            for number in request.parts {
                self.signed.lock().push(number);
                let part = self
                    .signer
                    .upload_part()
                    .bucket(&object.bucket)
                    .key(object.key.as_str())
                    .upload_id(&s3)
                    .part_number(i32::try_from(number).unwrap())
                    .presigned(soon())
                    .await
                    .unwrap();
                puts.push(presigned(&part, *self.trust.lock()));
            }
            Ok(PartUrls { puts })
        })
    }

    fn complete(&self, request: CompleteUploads) -> BoxFuture<'_, Result<Completed, AskError>> {
        Box::pin(async move {
            self.fail()?;
            if self.mute.load(Ordering::Relaxed) {
                self.unheard.fetch_add(1, Ordering::Relaxed);
                return Err(AskError::Later("the cloud is away".to_owned()));
            }
            let mut uploads = Vec::new();
            for upload in request.uploads {
                uploads.push(self.finish(upload).await);
            }
            Ok(Completed { uploads })
        })
    }

    fn refused(&self, _: BucketRefused) -> BoxFuture<'_, Result<BucketState, AskError>> {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let held = self.held.lock().clone();
        Box::pin(async move { Ok(BucketState { held, again: false }) })
    }

    fn abort(&self, request: AbortUploads) -> BoxFuture<'_, Result<(), AskError>> {
        Box::pin(async move {
            self.given_up.lock().extend(request.uploads.clone());
            self.aborted.lock().extend(request.uploads);
            Ok(())
        })
    }
}
