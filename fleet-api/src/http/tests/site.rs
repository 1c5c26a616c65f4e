//! A people's port for a test, spoken to without a socket.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use longhaul_broker::{Edge, EdgeConfig, Incoming};
use longhaul_protocol::backbone::EdgeId;
use longhaul_protocol::upload::StoreTrust;
use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::ServerNames;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::alerts::address::Reach;
use crate::auth::secret;
use crate::clock::Clock;
use crate::fleet::{Admitted, Fleet, FleetParts, Line};
use crate::http::{People, filter};
use crate::identity::CloudIdentity;
use crate::objects::bucket::{BucketTarget, Buckets};
use crate::store::Db;
use crate::store::api_tokens::{ApiTokenRow, api_token_insert};
use crate::store::operators::Role;
use crate::store::seal::SealKey;

/// When every test begins.
pub const NOW: i64 = 1_800_000_000_000;

/// The port and what stands behind it.
pub struct Site {
    /// What the routes work on.
    pub people: Arc<People>,
    /// Nobody takes the boxes' messages in these tests.
    _incoming: Incoming,
    folder: TempDir,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.people.stop.cancel();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header's text, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |v| v.to_str().expect("text"))
    }
}

impl Site {
    /// A port on `db`, with a clock that stands still.
    pub async fn on(db: &Db) -> Self {
        Self::with(db, UnixMillis(NOW), |_| {}).await
    }

    /// The same from another moment on, and with something else in it.
    pub async fn with(db: &Db, now: UnixMillis, change: impl FnOnce(&mut People)) -> Self {
        let folder = tempfile::tempdir().expect("temp dir");
        let clock = Clock::manual(now);
        let stop = CancellationToken::new();
        let (fleet, incoming) = fleet(db, &clock, folder.path(), &stop).await;
        let mut people = People::new(db.clone(), fleet, clock, stop);
        people.heartbeat = Duration::from_millis(50);
        change(&mut people);
        Self {
            people: Arc::new(people),
            _incoming: incoming,
            folder,
        }
    }

    /// Where the cloud's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Sends a request; `body` as JSON if there is one.
    pub async fn send(&self, method: &str, path: &str, auth: &Auth, body: Option<Value>) -> Answer {
        let (kind, body) = match body {
            Some(body) => (Some("application/json"), Bytes::from(body.to_string())),
            None => (None, Bytes::new()),
        };
        self.send_bytes(method, path, auth, kind, body).await
    }

    /// Sends a request with any body.
    pub async fn send_bytes(
        &self,
        method: &str,
        path: &str,
        auth: &Auth,
        kind: Option<&str>,
        body: Bytes,
    ) -> Answer {
        let response = self.open(method, path, auth, kind, body).await;
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    /// Sends a JSON request with more headers.
    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        auth: &Auth,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let (kind, body) = (Some("application/json"), Bytes::from(body.to_string()));
        let response = self
            .open_with(method, path, auth, kind, body, headers)
            .await;
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    /// Sends a request and leaves the body to the caller.
    pub async fn open(
        &self,
        method: &str,
        path: &str,
        auth: &Auth,
        kind: Option<&str>,
        body: Bytes,
    ) -> warp::reply::Response {
        self.open_with(method, path, auth, kind, body, &[]).await
    }

    async fn open_with(
        &self,
        method: &str,
        path: &str,
        auth: &Auth,
        kind: Option<&str>,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> warp::reply::Response {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).expect("a method"))
            .uri(path);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = match auth {
            Auth::None => request,
            Auth::Token(token) => request.header("authorization", format!("Bearer {token}")),
            Auth::Basic(pair) => {
                request.header("authorization", format!("Basic {}", STANDARD.encode(pair)))
            }
            Auth::Cookie(cookie) => request
                .header("cookie", format!("other=1; {cookie}"))
                .header("x-longhaul-csrf", "1"),
            Auth::BareCookie(cookie) => request.header("cookie", cookie),
        };
        let request = request.body(Full::new(body)).expect("a request");
        self.serve(request).await
    }

    /// Sends a request that somebody else has put together.
    pub async fn call(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.serve(request).await.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await.expect("a body").to_bytes(),
        }
    }

    async fn serve(&self, request: Request<Full<Bytes>>) -> warp::reply::Response {
        let service = TowerToHyperService::new(warp::service(filter(Arc::clone(&self.people))));
        service.call(request).await.expect("infallible")
    }

    /// A token of a program that may do what `role` may.
    pub async fn token(&self, role: Role) -> Auth {
        self.token_of(role, None).await
    }

    /// The same for a customer of `tenant`.
    pub async fn token_of(&self, role: Role, tenant: Option<&str>) -> Auth {
        let text = secret::new_secret("lh_").expect("random");
        let row = ApiTokenRow {
            token_id: crate::store::new_id("tok"),
            name: format!("test {role}"),
            role,
            created_by: "test".into(),
            created: NOW,
            expires: None,
            revoked: None,
            tenant_id: tenant.map(str::to_owned),
            owner: Some("test".to_owned()),
        };
        let mut tx = self.people.db.write().await.expect("begins");
        api_token_insert(&mut tx, &secret::hash(&text), &row)
            .await
            .expect("inserts");
        tx.commit().await.expect("commits");
        Auth::Token(text)
    }

    /// Logs in; the answer.
    pub async fn log_in(&self, name: &str, password: &str) -> Answer {
        let body = json!({ "name": name, "password": password });
        self.send("POST", "/v1/session", &Auth::None, Some(body))
            .await
    }
}

/// Who sends.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Nobody.
    None,
    /// A program.
    Token(String),
    /// A customer's program: access key, colon, secret key.
    Basic(String),
    /// A browser with the dashboard.
    Cookie(String),
    /// A browser on a foreign site.
    BareCookie(String),
}

impl Auth {
    /// The session that a log-in gave.
    pub fn of(log_in: &Answer) -> Self {
        let cookie = log_in.header("set-cookie");
        Self::Cookie(cookie.split(';').next().expect("a cookie").to_owned())
    }
}

/// A fleet without boxes, and an object store that does not answer.
async fn fleet(
    db: &Db,
    clock: &Clock,
    folder: &Path,
    stop: &CancellationToken,
) -> (Fleet, Incoming) {
    let names = ServerNames {
        dns: vec!["localhost".into()],
        ips: Vec::new(),
    };
    let identity = CloudIdentity::open(folder, names, clock.now()).expect("an identity");
    let identity = Arc::new(identity);
    let admitted = Arc::new(Admitted::default());
    let config = EdgeConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        ..EdgeConfig::default()
    };
    let shown = Arc::clone(&identity);
    let (edge, incoming) = Edge::start(
        config,
        move || shown.tls().mqtt,
        Arc::clone(&admitted) as Arc<dyn longhaul_broker::Admission>,
        stop.clone(),
    )
    .await
    .expect("an edge");
    let target = BucketTarget {
        // Nobody listens on port 1.
        endpoint: Some("http://127.0.0.1:1".into()),
        region: "us-east-1".into(),
        access_key: "none".into(),
        secret_key: "none".into(),
        root_pem: None,
        trust: StoreTrust::Fleet,
        staging: None,
    };
    let parts = FleetParts {
        people_url: "https://cloud.example:8443".into(),
        db: db.clone(),
        clock: clock.clone(),
        identity,
        seal: SealKey::load_or_create(&folder.join("seal.key")).expect("a key"),
        line: Line::new(Some(edge), None, EdgeId(0)),
        admitted,
        buckets: Buckets::new(&target).expect("a client"),
        region: "us-east-1".into(),
        tuf_dir: folder.join("tuf"),
        endpoints: Vec::new(),
        reach: Reach {
            private: false,
            loopback: true,
        },
        traced: true,
    };
    (Fleet::new(parts), incoming)
}
