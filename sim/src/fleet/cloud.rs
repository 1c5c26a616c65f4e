//! Boxes at the real cloud: what each costs, how soon a command is done, how soon all are back
//! after `kill -9`, how fast journals are committed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use longhaul_fleet_api::store::boxes::{BoxState, NewBox, box_import, box_set_state};
use longhaul_fleet_api::store::twins::{DesiredRow, desired_set};
use longhaul_fleet_api::store::{Db, StoreError};
use longhaul_protocol::value::{Digest32, Jws};
use longhaul_provisioning::ca::Pki;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::task::JoinSet;

use super::Run;
use super::actor::{Actor, Counts, Habits};
use super::members::Member;
use crate::bench::row::{self, Better, Metric, median};
use crate::bench::{BenchError, cpu, float};
use crate::operator::Operator;
use crate::process::Process;
use crate::system::{CloudReady, Stage, SystemError};
use crate::wait::until;

const CPU_PER_BOX: Metric = Metric {
    name: "a connected box with telemetry every 60 s: processor",
    unit: "ms of the cloud's CPU per minute",
    better: Better::Lower,
    target: None,
};
const MEMORY_PER_BOX: Metric = Metric {
    name: "a connected box: memory",
    unit: "KiB of the cloud's",
    better: Better::Lower,
    target: None,
};
const BACK: Metric = Metric {
    name: "all back after kill -9 of the cloud, last birth committed",
    unit: "s per 10,000 boxes",
    better: Better::Lower,
    target: None,
};
const COMMAND_P50: &str = "command, API call to committed result, p50";
const COMMAND_P99: &str = "command, API call to committed result, p99";
const COMMITTED: Metric = Metric {
    name: "journal entries committed",
    unit: "entries/s",
    better: Better::Higher,
    target: None,
};
const COMMITTED_COST: Metric = Metric {
    name: "journal entries committed by a second of the cloud's CPU",
    unit: "entries",
    better: Better::Higher,
    target: None,
};

/// A new cloud's first boxes may take so long for each thousand.
const PATIENCE: Duration = Duration::from_mins(10);
/// Boxes that fill their journals.
const WRITERS: usize = 50;
/// Boxes are put into the database in transactions of so many.
const GROUP: usize = 1_000;

/// A cloud, its boxes' identities, and who operates it.
struct Site {
    stage: Stage,
    process: Process,
    ready: CloudReady,
    operator: Operator,
    members: Vec<Member>,
}

impl Site {
    /// A cloud that knows `count` boxes. They are written into its database: enrolment is
    /// measured elsewhere, and takes a TPM.
    async fn new(run: &Run<'_>, folder: &Path, count: usize) -> Result<Self, BenchError> {
        let stage = Stage::new(folder, run.programs.clone())?;
        Self::on(run, stage, count).await
    }

    async fn on(run: &Run<'_>, stage: Stage, count: usize) -> Result<Self, BenchError> {
        let (process, ready) = stage.cloud(None).await?;
        let (name, password) = stage.first_admin()?;
        process.stop().await?;
        let pki = Pki::open(&ready.pki)
            .map_err(|e| BenchError::Unexpected(format!("failed to open the authorities: {e}")))?;
        let members = run.members(&pki, count)?;
        let db = match &stage.database {
            Some(url) => Db::open_postgres(url).await,
            None => Db::open_sqlite(&stage.path("cloud").join("cloud.db")).await,
        };
        let now = run.settings.now.0;
        let filled = match db {
            Ok(db) => fill(&db, &members, now).await,
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

    fn id(&self) -> Result<u32, BenchError> {
        let ended = || BenchError::Unexpected("the cloud has ended".to_owned());
        self.process.id().ok_or_else(ended)
    }

    fn mqtt(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ready.mqtt_port))
    }

    /// Lets the first `count` boxes live.
    fn crowd(&self, run: &Run<'_>, count: usize, habits: Habits) -> Crowd {
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        for (number, member) in self.members.iter().take(count).enumerate() {
            let random = SmallRng::seed_from_u64((count as u64) << 32 | number as u64);
            let (member, counts) = (member.clone(), Arc::clone(&counts));
            let now = run.settings.now;
            let actor = Actor::new(member, number, self.mqtt(), habits, counts, random, now);
            tasks.spawn(actor.live());
        }
        Crowd {
            counts,
            count: count as u64,
            _tasks: tasks,
        }
    }
}

struct Crowd {
    counts: Arc<Counts>,
    count: u64,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Until the cloud has committed so many births in all.
    async fn settled(&self, births: u64) -> Result<(), BenchError> {
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
}

async fn fill(db: &Db, members: &[Member], now: i64) -> Result<(), StoreError> {
    // As long as what a cloud signs; simulated boxes do not verify it.
    let jws = "x".repeat(1_800);
    for (group, members) in members.chunks(GROUP).enumerate() {
        let mut tx = db.write().await?;
        for (place, member) in members.iter().enumerate() {
            let mut ek = [0; 32];
            ek[..8].copy_from_slice(&((group * GROUP + place) as u64).to_le_bytes());
            let new = NewBox {
                box_id: &member.id,
                order: None,
                hardware: "simulated",
                inventory_jws: &Jws("simulated".to_owned()),
                ek_sha256: &Digest32(ek),
                iak_name: &[0],
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

/// What boxes cost that are connected, how soon they obey, how soon they are back.
pub(super) async fn boxes(run: &mut Run<'_>, folder: &Path) -> Result<(), BenchError> {
    let mut site = Site::new(run, &folder.join("site"), run.settings.boxes).await?;
    let minute = run.settings.minute;
    let habits = Habits {
        telemetry: minute,
        journal: false,
    };
    let memory_before = memory(site.id()?)?;
    let mut flat = None;
    let steps = [run.settings.boxes / 10, run.settings.boxes];
    for count in steps {
        let began = Instant::now();
        let crowd = site.crowd(run, count, habits);
        crowd.settled(crowd.count).await?;
        let connected = began.elapsed().as_secs_f64();
        let id = site.id()?;
        // What a restart or a first birth leaves behind settles within one interval.
        tokio::time::sleep(minute / 2).await;
        let before = (
            processor(id)?,
            crowd.counts.telemetry.load(Ordering::Relaxed),
        );
        tokio::time::sleep(minute).await;
        let spent = processor(id)? - before.0;
        let samples = crowd.counts.telemetry.load(Ordering::Relaxed) - before.1;
        let held = (float(memory(id)?) - float(memory_before)) / float(crowd.count) / 1024.0;
        let minutes = minute.as_secs_f64() / 60.0;
        let each = 1000.0 * spent / float(crowd.count) / minutes;
        run.note(format!(
            "{count} boxes: all born after {connected:.1} s; {samples} samples in {minute:?} for {spent:.2} CPU s, {each:.3} ms a box and minute; {held:.1} KiB a box; {} attempts failed, {} sessions lost",
            crowd.counts.refused.load(Ordering::Relaxed),
            crowd.counts.lost.load(Ordering::Relaxed),
        ));
        run.add_at(CPU_PER_BOX, count, &[each]);
        run.add_at(MEMORY_PER_BOX, count, &[held]);
        let p99 = commands(run, &site, count, flat).await?;
        // Flat: ten times the boxes may take twice the time.
        flat = flat.or(Some(2.0 * p99));
        if count == run.settings.boxes {
            back(run, &mut site, &crowd).await?;
        }
    }
    site.process.stop().await?;
    Ok(())
}

/// From the API call to the committed result, one after the other at boxes drawn at random; the
/// 99th percentile in milliseconds, which should be `most` at the most.
async fn commands(
    run: &mut Run<'_>,
    site: &Site,
    boxes: usize,
    most: Option<f64>,
) -> Result<f64, BenchError> {
    let mut random = SmallRng::seed_from_u64(1);
    let (mut times, order) = (Vec::new(), json!({"kind": "report_now"}));
    let longest = Duration::from_secs(30);
    for _ in 0..run.settings.commands {
        let member = &site.members[random.random_range(0..boxes)];
        let began = Instant::now();
        let path = format!("/v1/boxes/{}/commands", member.id);
        let sent = site.operator.post(&path, &order).await;
        let sent = sent.map_err(SystemError::from)?;
        let id = sent["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("/v1/commands/{id}");
        loop {
            let command = site.operator.get(&path).await.map_err(SystemError::from)?;
            match command["state"].as_str() {
                Some("done") => break,
                Some("queued" | "sent" | "accepted") if began.elapsed() < longest => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                _ => {
                    return Err(BenchError::Unexpected(format!(
                        "a command ended: {command}"
                    )));
                }
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let p50 = median(&times).unwrap_or_default();
    let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
    run.note(format!(
        "{boxes} boxes: {} commands, p50 {p50:.1} ms, p99 {p99:.1} ms",
        times.len()
    ));
    run.add_at(milliseconds(COMMAND_P50, None), boxes, &[p50]);
    run.add_at(milliseconds(COMMAND_P99, most), boxes, &[p99]);
    Ok(p99)
}

/// Kills the cloud, starts it again and waits for everybody.
async fn back(run: &mut Run<'_>, site: &mut Site, crowd: &Crowd) -> Result<(), BenchError> {
    let settled = crowd.counts.settled.load(Ordering::Relaxed);
    let refused = crowd.counts.refused.load(Ordering::Relaxed);
    site.process.kill().await?;
    let killed = Instant::now();
    let (process, _) = site.stage.cloud(Some(site.ready.ports())).await?;
    site.process = process;
    let started = killed.elapsed().as_secs_f64();
    let id = site.id()?;
    crowd.settled(settled + crowd.count).await?;
    let seconds = killed.elapsed().as_secs_f64();
    run.note(format!(
        "kill -9 with {} boxes: the cloud listened after {started:.1} s, the last birth was committed after {seconds:.1} s; {} attempts failed meanwhile; {:.1} CPU s of the cloud",
        crowd.count,
        crowd.counts.refused.load(Ordering::Relaxed) - refused,
        processor(id)?,
    ));
    run.add_at(
        BACK,
        run.settings.boxes,
        &[seconds * 10_000.0 / float(crowd.count)],
    );
    Ok(())
}

/// Entries committed, in all and for each second of the cloud's processor, for each database.
pub(super) async fn journals(run: &mut Run<'_>, folder: &Path) -> Result<(), BenchError> {
    let habits = Habits {
        telemetry: Duration::from_mins(1),
        journal: true,
    };
    for database in ["SQLite", "PostgreSQL"] {
        let mut stage = Stage::new(&folder.join(database), run.programs.clone())?;
        if database == "PostgreSQL" {
            let Some(url) = &run.settings.postgres else {
                run.note(
                    "PostgreSQL was not measured: give its address with --postgres".to_owned(),
                );
                continue;
            };
            stage.database = Some(url.clone());
        }
        let site = Site::on(run, stage, WRITERS).await?;
        let id = site.id()?;
        let crowd = site.crowd(run, WRITERS, habits);
        crowd.settled(crowd.count).await?;
        let (mut rates, mut costs) = (Vec::new(), Vec::new());
        for _ in 0..run.settings.runs {
            let began = Instant::now();
            let before = (
                processor(id)?,
                crowd.counts.committed.load(Ordering::Relaxed),
            );
            tokio::time::sleep(run.settings.seconds).await;
            let committed = float(crowd.counts.committed.load(Ordering::Relaxed) - before.1);
            let spent = processor(id)? - before.0;
            rates.push(committed / began.elapsed().as_secs_f64());
            costs.push(committed / spent);
        }
        run.note(format!("{database}: {WRITERS} journals at once"));
        run.add_named(COMMITTED, database, &rates);
        run.add_named(COMMITTED_COST, database, &costs);
        drop(crowd);
        site.process.stop().await?;
    }
    Ok(())
}

fn milliseconds(name: &'static str, target: Option<f64>) -> Metric {
    Metric {
        name,
        unit: "ms",
        better: Better::Lower,
        target: target.map(row::rounded),
    }
}

fn memory(id: u32) -> Result<u64, BenchError> {
    cpu::memory(id).map_err(BenchError::io("read the cloud's memory"))
}

fn processor(id: u32) -> Result<f64, BenchError> {
    cpu::of_process(id).map_err(BenchError::io("read the cloud's processor time"))
}
