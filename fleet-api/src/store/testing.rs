//! Databases for tests: a SQLite file, and a PostgreSQL cluster of the test's own.

mod postgres;

use std::time::{Duration, Instant};

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::{Digest32, Jws};
use sqlx::postgres::PgConnectOptions;
use tempfile::TempDir;

use self::postgres::Cluster;
use super::Db;
use super::boxes::{NewBox, box_import};

/// A database that ends with the test.
pub struct TestDb {
    /// The database.
    pub db: Db,
    _cluster: Option<Cluster>,
    _folder: Option<TempDir>,
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
        _cluster: None,
        _folder: Some(folder),
    }
}

/// An empty PostgreSQL cluster on a socket in a folder of its own.
pub async fn postgres() -> TestDb {
    let cluster = Cluster::start();
    let options: PgConnectOptions = cluster.url().parse().expect("a URL");
    let give_up = Instant::now() + Duration::from_mins(1);
    let db = loop {
        match Db::open_postgres_with(options.clone()).await {
            Ok(db) => break db,
            Err(e) => assert!(Instant::now() < give_up, "postgres does not answer: {e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    TestDb {
        db,
        _cluster: Some(cluster),
        _folder: None,
    }
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
