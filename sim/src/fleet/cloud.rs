//! Boxes at the real cloud: what each costs, how soon a command is done, how soon all are back
//! after `kill -9`, how fast journals are committed.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::Run;
use super::actor::Habits;
use super::site::{Crowd, Site};
use crate::bench::row::{self, Better, Metric, median};
use crate::bench::{BenchError, cpu, float};
use crate::system::{Stage, SystemError};

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

/// Boxes that fill their journals.
const WRITERS: usize = 50;

/// What boxes cost that are connected, how soon they obey, how soon they are back.
pub(super) async fn boxes(run: &mut Run<'_>, folder: &Path) -> Result<(), BenchError> {
    let mut site = site_of(
        run,
        Stage::new(&folder.join("site"), run.programs.clone())?,
        run.settings.boxes,
    )
    .await?;
    let minute = run.settings.minute;
    let habits = Habits {
        telemetry: minute,
        journal: false,
        renews_late: false,
    };
    let memory_before = memory(site.id()?)?;
    let mut flat = None;
    let steps = [run.settings.boxes / 10, run.settings.boxes];
    for count in steps {
        let began = Instant::now();
        let crowd = site.crowd(run.settings.now, count, habits);
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
        renews_late: false,
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
        let site = site_of(run, stage, WRITERS).await?;
        let id = site.id()?;
        let crowd = site.crowd(run.settings.now, WRITERS, habits);
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

/// A cloud that knows so many boxes.
async fn site_of(run: &Run<'_>, stage: Stage, count: usize) -> Result<Site, BenchError> {
    Site::new(stage, run.settings.now, |pki| run.members(pki, count)).await
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
