//! The processes, the database that they share, and an administrator.

use std::path::{Path, PathBuf};

use longhaul_fleet_api::store::Db;
use longhaul_fleet_api::store::boxes::{BoxState, NewBox, box_import, box_set_state};
use longhaul_fleet_api::store::seal::SealKey;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use reqwest::header::{COOKIE, SET_COOKIE};
use serde_json::{Value, json};

use crate::boxes::LightBox;
use crate::database::Cluster;
use crate::process::Process;
use crate::servers::Servers;
use crate::until;

/// One process of the cloud, and where it listens.
pub struct Part {
    pub process: Process,
    pub ready: Value,
    role: &'static str,
    folder: PathBuf,
}

impl Part {
    pub fn port(&self, name: &str) -> u16 {
        let port = self.ready[format!("{name}_port")].as_u64();
        port.and_then(|p| u16::try_from(p).ok()).expect("a port")
    }
}

pub struct System {
    pub servers: Servers,
    pub db: Db,
    pub pki: Pki,
    pub pool: sqlx::PgPool,
    database: Cluster,
    folder: tempfile::TempDir,
}

impl System {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Cluster::start();
        let servers = Servers::start(&folder.path().join("nats")).await;
        let url = database.url();
        let db = until("the database answers", || async {
            Db::open_postgres(&url).await.map_err(|e| format!("{e:?}"))
        })
        .await;
        let shared = folder.path().join("shared");
        std::fs::create_dir(&shared).expect("made");
        let pki = Pki::init(&shared.join("pki"), now()).expect("authorities");
        SealKey::load_or_create(&shared.join("seal.key")).expect("a key");
        let Db::Postgres(pool) = &db else {
            panic!("it is PostgreSQL");
        };
        Self {
            servers,
            pool: pool.clone(),
            db,
            pki,
            database,
            folder,
        }
    }

    /// Starts a process that does a part of the work.
    pub fn part(&self, role: &'static str, name: &str) -> Part {
        let folder = self.folder.path().join(name);
        copy(&self.folder.path().join("shared"), &folder);
        Part {
            process: self.launch(role, &folder, &json!({})),
            ready: Value::Null,
            role,
            folder,
        }
    }

    /// Starts a process again that was killed, on the same ports.
    pub fn restart(&self, part: &mut Part) {
        part.process = self.launch(part.role, &part.folder, &part.ready);
    }

    fn launch(&self, role: &str, folder: &Path, ports: &Value) -> Process {
        let certificate = match role {
            "edge" => "edge.pem",
            _ => "cloud.pem",
        };
        let path = |name: &str| self.servers.path(name).display().to_string();
        let mut arguments = vec![
            format!("--data={}", folder.display()),
            format!("--role={role}"),
            format!("--backbone={}", self.servers.urls().join(",")),
            format!("--backbone-certificate={}", path(certificate)),
            format!("--backbone-roots={}", path("ca.pem")),
            format!("--database={}", self.database.url()),
            // Nobody delivers here.
            "--s3-endpoint=http://127.0.0.1:1".to_owned(),
            "--s3-access-key=none".to_owned(),
            "--s3-secret-key=none".to_owned(),
        ];
        for port in ["people", "boxes", "mqtt"] {
            let number = ports[format!("{port}_port")].as_u64().unwrap_or(0);
            arguments.push(format!("--listen-{port}=127.0.0.1:{number}"));
        }
        // What an earlier one has left says nothing of this one.
        let _ = std::fs::remove_file(folder.join("ready.json"));
        let program = Path::new(env!("CARGO_BIN_EXE_longhaul-cloud"));
        Process::start(program, &arguments, &folder.join("log"))
    }

    /// Waits until a process is up.
    pub async fn ready(&self, part: &mut Part) {
        let path = part.folder.join("ready.json");
        part.ready = until("a process is up", || {
            let read = std::fs::read(&path).ok();
            let parsed = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let log = part.process.text();
            assert!(part.process.is_running(), "{log}");
            async { parsed.ok_or(log) }
        })
        .await;
    }

    /// A box as it is after it has enrolled.
    pub async fn enrolled(&self, number: u8) -> LightBox {
        let ek = Digest32([number; 32]);
        let id = BoxId::from_ek_sha256(&ek.0);
        let new = NewBox {
            box_id: &id,
            order: None,
            hardware: "light",
            inventory_jws: &Jws("none".to_owned()),
            ek_sha256: &ek,
            iak_name: &[2],
            made_at: 1,
        };
        let mut tx = self.db.write().await.expect("begins");
        let at = now().0;
        box_import(&mut tx, &new, at).await.expect("imported");
        box_set_state(&mut tx, &id, BoxState::Active, at)
            .await
            .expect("set");
        tx.commit().await.expect("committed");
        LightBox::new(&self.pki, id)
    }

    /// Whether the cloud says that a box is online, and at which edge.
    pub async fn presence(&self, id: &BoxId) -> (bool, Option<String>) {
        sqlx::query_as("SELECT connected, edge_id FROM boxes WHERE box_id = $1")
            .bind(id.as_str())
            .fetch_one(&self.pool)
            .await
            .expect("a row")
    }

    /// Waits until the cloud says so.
    pub async fn online(&self, id: &BoxId, expected: bool) {
        until("the cloud knows who is online", || async {
            match self.presence(id).await {
                (connected, _) if connected == expected => Ok(()),
                other => Err(format!("{id}: {other:?}")),
            }
        })
        .await;
    }
}

pub fn now() -> UnixMillis {
    longhaul_fleet_api::clock::Clock::System.now()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).expect("copied");
        }
    }
}

/// The administrator that the first start made.
pub struct Admin {
    client: reqwest::Client,
    url: String,
    cookie: String,
}

impl Admin {
    pub async fn log_in(system: &System, api: &Part) -> Self {
        let text = api.process.text();
        let after = |label: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(label));
            line.expect("printed once").trim().to_owned()
        };
        let login = json!({
            "name": after("first administrator:"), "password": after("password:"),
        });
        let mut admin = Self {
            client: crate::boxes::https(&system.pki),
            url: format!("https://localhost:{}", api.port("people")),
            cookie: String::new(),
        };
        let answer = admin.post("/v1/session", &login).await;
        let cookie = answer.headers()[SET_COOKIE].to_str().expect("text");
        let first = cookie.split(';').next().expect("a cookie");
        first.clone_into(&mut admin.cookie);
        admin
    }

    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Response {
        let request = self.client.post(format!("{}{path}", self.url));
        let request = request.header(COOKIE, &self.cookie);
        let request = request.header("x-longhaul-csrf", "1");
        // One that has no body wants none.
        let request = if body.is_null() {
            request
        } else {
            request.json(body)
        };
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer
    }
}
