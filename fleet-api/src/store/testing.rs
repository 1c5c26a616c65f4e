//! Databases for tests: a SQLite file, and a PostgreSQL cluster of the test's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::{Digest32, Jws};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use super::Db;
use super::boxes::{NewBox, box_import};

/// A database that ends with the test.
pub struct TestDb {
    /// The database.
    pub db: Db,
    server: Option<Child>,
    _folder: TempDir,
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// Declares a test that runs once on each database.
macro_rules! on_both {
    ($(async fn $name:ident($db:ident: $type:ty) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, clippy::allow_attributes, reason = "as the test needs")]
            use super::*;

            async fn test($db: $type) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let on = $crate::store::testing::sqlite().await;
                test(on.db.clone()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let on = $crate::store::testing::postgres().await;
                test(on.db.clone()).await;
            }
        }
    )*};
}
pub(crate) use on_both;

/// An empty SQLite file.
pub async fn sqlite() -> TestDb {
    let folder = tempfile::tempdir().expect("temp dir");
    let db = Db::open_sqlite(&folder.path().join("fleet.db"))
        .await
        .expect("opens");
    TestDb {
        db,
        server: None,
        _folder: folder,
    }
}

/// An empty PostgreSQL cluster on a socket in a folder of its own.
pub async fn postgres() -> TestDb {
    let bin = postgres_bin();
    let folder = tempfile::tempdir().expect("temp dir");
    let owner = server_owner();
    let data = folder.path().join("data");
    fs::create_dir(&data).expect("data dir");
    if let Some((uid, gid)) = owner {
        // The server refuses to run as root; its user has to get into the folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("mode");
        chown(&data, Some(uid), Some(gid)).expect("owner");
    }
    let made = as_owner(owner, &bin.join("initdb"))
        .args(["--no-sync", "--auth=trust", "--username=longhaul"])
        .args([
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
            "--wal-segsize=1",
        ])
        .arg("--pgdata")
        .arg(&data)
        .stdout(Stdio::null())
        .status()
        .expect("initdb runs");
    assert!(made.success(), "initdb failed: {made}");
    let server = as_owner(owner, &bin.join("postgres"))
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&data)
        .args(["-c", "listen_addresses=", "-c", "fsync=off"])
        .args(["-c", "shared_buffers=16MB", "-c", "max_wal_size=64MB"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("postgres runs");
    let mut test = TestDb {
        db: Db::Postgres(
            sqlx::postgres::PgPoolOptions::new().connect_lazy_with(PgConnectOptions::new()),
        ),
        server: Some(server),
        _folder: folder,
    };
    let options = PgConnectOptions::new_without_pgpass()
        .socket(&data)
        .username("longhaul")
        .database("postgres");
    let give_up = Instant::now() + Duration::from_mins(1);
    test.db = loop {
        match Db::open_postgres_with(options.clone()).await {
            Ok(db) => break db,
            Err(e) => assert!(Instant::now() < give_up, "postgres does not answer: {e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    test
}

/// Debian keeps each version's programs apart; the newest there is.
fn postgres_bin() -> PathBuf {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("Debian's postgresql package is installed")
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("a version of PostgreSQL")
}

/// User and group that the server must run as; absent where this process is not root.
fn server_owner() -> Option<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let is_root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !is_root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let entry = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("Debian's postgresql package makes the user");
    let mut ids = entry.split(':').skip(2).map(|n| n.parse().expect("an id"));
    Some((ids.next().expect("uid"), ids.next().expect("gid")))
}

/// `program` as the server's user; it dies with this process, even by `SIGKILL`.
fn as_owner(owner: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = owner {
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={gid}"))
            .arg("--clear-groups");
    }
    command
        .arg("--pdeathsig=KILL")
        .arg(program)
        .current_dir("/");
    command
}

/// A box id that ends in `n`.
pub fn box_id(n: u8) -> BoxId {
    format!("TESTB0X000{n:02}").parse().expect("a box id")
}

/// Puts box `n` into the inventory.
pub async fn add_box(db: &Db, n: u8) -> BoxId {
    let id = box_id(n);
    let jws = Jws(format!("record-{n}"));
    let mut tx = db.write().await.expect("begins");
    let new = NewBox {
        box_id: &id,
        order: None,
        hardware: "bench",
        inventory_jws: &jws,
        ek_sha256: &Digest32([n; 32]),
        iak_name: &[0, 11, n],
        made_at: 1000,
    };
    assert!(box_import(&mut tx, &new, 2000).await.expect("imports"));
    tx.commit().await.expect("commits");
    id
}
