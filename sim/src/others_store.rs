//! An object store that is somebody else's, in this process: its owner may shut a bucket against
//! everybody who holds keys to it, and open it again.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use longhaul_fleet_api::clock::Clock;
use longhaul_fleet_api::objects::disk::{DiskError, DiskStore};
use longhaul_fleet_api::objects::s3;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const ACCESS_KEY: &str = "others";
const SECRET_KEY: &str = "others-secret";
const REFUSAL: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>AccessDenied</Code>\
                       <Message>access was withdrawn</Message></Error>";

/// Why the store does not stand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Its folder cannot be used.
    #[error("failed to open the store's folder")]
    Folder(#[from] DiskError),
    /// It cannot listen.
    #[error("failed to listen")]
    Listen(#[from] io::Error),
}

/// The store; it ends when this is dropped. Plain HTTP on loopback.
pub struct OthersStore {
    address: SocketAddr,
    shut: Arc<Mutex<BTreeSet<String>>>,
    serving: JoinHandle<()>,
}

impl OthersStore {
    /// A store below `folder`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn stand(folder: &Path) -> Result<Self, StoreError> {
        let store = DiskStore::open(folder).await?;
        let service = s3::service(store, Clock::System, ACCESS_KEY, SECRET_KEY);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shut: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let known = Arc::clone(&shut);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, shut) = (service.clone(), Arc::clone(&known));
                let answer = service_fn(move |request: Request<Incoming>| {
                    let bucket = request.uri().path().split('/').nth(1).unwrap_or_default();
                    let refused = shut.lock().contains(bucket);
                    let service = service.clone();
                    async move {
                        if refused {
                            read_out(request.into_body()).await;
                            return Ok(refusal());
                        }
                        Service::call(&service, request).await
                    }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(socket), answer);
                // A connection that breaks is its client's affair.
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        Ok(Self {
            address,
            shut,
            serving,
        })
    }

    /// From now on, `bucket` refuses everybody.
    pub fn shut(&self, bucket: &str) {
        self.shut.lock().insert(bucket.to_owned());
    }

    /// It refuses nobody who has the keys any more.
    pub fn open(&self, bucket: &str) {
        self.shut.lock().remove(bucket);
    }

    /// What a cloud must be told so that it delivers here.
    pub fn settings(&self) -> Vec<String> {
        vec![
            format!("--s3-endpoint=http://{}", self.address),
            "--s3-region=us-east-1".to_owned(),
            format!("--s3-access-key={ACCESS_KEY}"),
            format!("--s3-secret-key={SECRET_KEY}"),
        ]
    }
}

impl Drop for OthersStore {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A client that is answered before it has said everything hears of a broken line instead.
async fn read_out(mut body: Incoming) {
    while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {}
}

fn refusal() -> Response<s3s::Body> {
    let mut answer = Response::new(s3s::Body::from(REFUSAL.to_owned()));
    *answer.status_mut() = StatusCode::FORBIDDEN;
    answer
}
