//! A real cloud with simulated boxes: the boxes in its database, and the crowd that lives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use longhaul_fleet_api::store::boxes::{BoxState, NewBox, box_import, box_set_state};
use longhaul_fleet_api::store::twins::{DesiredRow, desired_set};
use longhaul_fleet_api::store::{Db, StoreError};
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::actor::{Actor, Counts, Deed, Habits};
use super::members::Member;
use crate::bench::BenchError;
use crate::operator::Operator;
use crate::process::Process;
use crate::system::{CloudReady, Stage, SystemError};
use crate::wait::until;

/// A new cloud's first boxes may take so long for each thousand.
const PATIENCE: Duration = Duration::from_mins(10);
/// Boxes are put into the database in transactions of so many.
const GROUP: usize = 1_000;

/// A cloud, its boxes' identities, and who operates it.
pub(super) struct Site {
    pub stage: Stage,
    pub process: Process,
    pub ready: CloudReady,
    pub operator: Operator,
    pub members: Vec<Member>,
}

impl Site {
    /// A cloud that knows the boxes that `make` makes. They are written into its database as the
    /// factory's import and a first enrolment leave them.
    pub async fn new(
        stage: Stage,
        now: UnixMillis,
        make: impl FnOnce(&Pki) -> Result<Vec<Member>, BenchError>,
    ) -> Result<Self, BenchError> {
        let (process, ready) = stage.cloud(None).await?;
        let (name, password) = stage.first_admin()?;
        process.stop().await?;
        let pki = Pki::open(&ready.pki)
            .map_err(|e| BenchError::Unexpected(format!("failed to open the authorities: {e}")))?;
        let members = make(&pki)?;
        let db = match &stage.database {
            Some(url) => Db::open_postgres(url).await,
            None => Db::open_sqlite(&stage.path("cloud").join("cloud.db")).await,
        };
        let filled = match db {
            Ok(db) => fill(&db, &members, now.0).await,
            Err(error) => Err(error),
        };
        filled
            .map_err(|e| BenchError::Unexpected(format!("failed to write the boxes down: {e}")))?;
        let (process, ready) = stage.cloud(Some(ready.ports())).await?;
        let operator = Operator::log_in(&ready.people_url, &ready.root_pem, &name, &password);
        let operator = operator.await.map_err(SystemError::from)?;
        Ok(Self {
            stage,
            process,
            ready,
            operator,
            members,
        })
    }

    /// The cloud's process.
    pub fn id(&self) -> Result<u32, BenchError> {
        let ended = || BenchError::Unexpected("the cloud has ended".to_owned());
        self.process.id().ok_or_else(ended)
    }

    fn mqtt(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ready.mqtt_port))
    }

    /// Lets the first `count` boxes live; `now` is the time.
    pub fn crowd(&self, now: UnixMillis, count: usize, habits: Habits) -> Crowd {
        let counts = Arc::new(Counts::default());
        let (mut tasks, mut orders) = (JoinSet::new(), Vec::new());
        let https = SocketAddr::from(([127, 0, 0, 1], self.ready.boxes_port));
        for (number, member) in self.members.iter().take(count).enumerate() {
            let random = SmallRng::seed_from_u64((count as u64) << 32 | number as u64);
            let (member, counts) = (member.clone(), Arc::clone(&counts));
            let (order, deeds) = mpsc::channel(1);
            orders.push(order);
            let to = (self.mqtt(), https);
            let actor = Actor::new(member, number, to, habits, counts, random, now);
            tasks.spawn(actor.live(deeds));
        }
        Crowd {
            counts,
            count: count as u64,
            orders,
            _tasks: tasks,
        }
    }
}

/// Boxes that live until this is dropped.
pub(super) struct Crowd {
    pub counts: Arc<Counts>,
    pub count: u64,
    orders: Vec<mpsc::Sender<Deed>>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Until the cloud has committed so many births in all.
    pub async fn settled(&self, births: u64) -> Result<(), BenchError> {
        let settled = until("all births to be committed", PATIENCE, || {
            let settled = self.counts.settled.load(Ordering::Relaxed);
            let lost = self.counts.lost.load(Ordering::Relaxed);
            let all = settled >= births;
            async move {
                all.then_some(())
                    .ok_or_else(|| format!("{settled} of {births}, {lost} sessions lost"))
            }
        });
        Ok(settled.await?)
    }

    /// Has this happen to one box.
    pub async fn order(&self, number: usize, deed: Deed) -> Result<(), BenchError> {
        let ended = || BenchError::Unexpected(format!("box {number} has ended"));
        let order = self.orders.get(number).ok_or_else(ended)?;
        order.send(deed).await.map_err(|_| ended())
    }
}

async fn fill(db: &Db, members: &[Member], now: i64) -> Result<(), StoreError> {
    // As long as what a cloud signs; simulated boxes do not verify it.
    let jws = "x".repeat(1_800);
    for (group, members) in members.chunks(GROUP).enumerate() {
        let mut tx = db.write().await?;
        for (place, member) in members.iter().enumerate() {
            let mut ek = [0; 32];
            ek[..8].copy_from_slice(&((group * GROUP + place) as u64).to_le_bytes());
            let simulated = (Jws("simulated".to_owned()), Digest32(ek), vec![0]);
            let papers = member.papers.as_ref();
            let (inventory_jws, ek_sha256, iak_name) = papers.map_or(simulated, |papers| {
                let record = papers.record.clone();
                (record, papers.tpm.ek_sha256(), papers.tpm.iak_name())
            });
            let new = NewBox {
                box_id: &member.id,
                order: None,
                hardware: "simulated",
                inventory_jws: &inventory_jws,
                ek_sha256: &ek_sha256,
                iak_name: &iak_name,
                made_at: now,
            };
            box_import(&mut tx, &new, now).await?;
            box_set_state(&mut tx, &member.id, BoxState::Active, now).await?;
            let desired = DesiredRow {
                box_id: member.id.clone(),
                version: 1,
                detail: "{}".to_owned(),
                jws: jws.clone(),
                updated: now,
            };
            desired_set(&mut tx, &desired).await?;
        }
        tx.commit().await?;
    }
    Ok(())
}
