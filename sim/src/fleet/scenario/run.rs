//! Carries a scenario out.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longhaul_protocol::value::UnixMillis;
use serde_json::json;

use super::{Certificates, Renewed, Scenario, Step};
use crate::bench::{BenchError, cpu};
use crate::fleet::actor::{Deed, Habits};
use crate::fleet::members;
use crate::fleet::servers;
use crate::fleet::site::{Crowd, Site};
use crate::process::Process;
use crate::system::{self, Programs, SystemError};
use crate::wait::until;

/// Boxes that are sent a command after each step.
const COMMANDED: usize = 5;
/// How long a command may take.
const COMMAND: Duration = Duration::from_mins(1);

/// Where a scenario is played.
#[derive(Clone, Debug)]
pub struct Stage {
    /// A folder for everything.
    pub folder: PathBuf,
    /// Address of the cloud's database, if it is not the embedded one.
    pub database: Option<String>,
    /// The time: certificates begin with it.
    pub now: UnixMillis,
}

/// The fleet while it plays.
struct Play {
    site: Site,
    crowd: Crowd,
    boxes: usize,
}

/// Carries `scenario` out; a line for each step says how it went.
///
/// # Errors
///
/// [`BenchError`]; one is that somebody was not back in time.
pub async fn carry_out(scenario: &Scenario, stage: &Stage) -> Result<Vec<String>, BenchError> {
    let began = Instant::now();
    let boxes = usize::try_from(scenario.boxes.get()).unwrap_or(usize::MAX);
    servers::allow_connections(boxes)?;
    let mut place = system::Stage::new(&stage.folder, Programs::find()?)?;
    place.database.clone_from(&stage.database);
    let clock = || stage.now.plus_millis(millis(began.elapsed()));
    let site = Site::new(place, stage.now, |pki| {
        let made = members::enrolling(pki, validity(scenario), clock());
        made.map_err(|e| BenchError::Unexpected(e.to_string()))
    });
    let site = site.await?;
    let renewed = scenario.certificates.map(|c| c.renewed);
    let habits = Habits {
        telemetry: secs(scenario.telemetry_secs.get()),
        journal: false,
        renews_late: renewed == Some(Renewed::AfterTheEnd),
    };
    let crowd = site.crowd(clock(), boxes, habits);
    let mut play = Play { site, crowd, boxes };
    let mut lines = Vec::new();
    for step in &scenario.steps {
        let before = play.figures()?;
        let started = Instant::now();
        let said = play.step(*step).await?;
        let seconds = started.elapsed().as_secs_f64();
        play.obeys().await?;
        let after = play.figures()?;
        let line = format!(
            "{said} ({seconds:.1} s): {} births, {} sessions lost, {} attempts failed, {} samples, {} certificates; the cloud: {:.1} CPU s, {} MiB",
            after.births - before.births,
            after.lost - before.lost,
            after.refused - before.refused,
            after.samples - before.samples,
            after.enrolled - before.enrolled,
            // A cloud that was started again counts from zero.
            if after.cpu < before.cpu {
                after.cpu
            } else {
                after.cpu - before.cpu
            },
            after.memory >> 20,
        );
        println!("  {line}");
        lines.push(line);
    }
    play.site.process.stop().await?;
    Ok(lines)
}

/// How long each box's first certificate is valid, in seconds.
fn validity(scenario: &Scenario) -> impl Iterator<Item = u64> {
    let boxes = u64::from(scenario.boxes.get());
    let of = scenario.certificates;
    (0..boxes).map(move |number| match of {
        None => 72 * 3_600,
        Some(Certificates {
            first_ends_secs,
            wave_secs,
            ..
        }) => u64::from(first_ends_secs.get()) + u64::from(wave_secs) * number / boxes,
    })
}

struct Figures {
    births: u64,
    lost: u64,
    refused: u64,
    samples: u64,
    enrolled: u64,
    cpu: f64,
    memory: u64,
}

impl Play {
    fn figures(&self) -> Result<Figures, BenchError> {
        let counts = &self.crowd.counts;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let id = self.site.id()?;
        Ok(Figures {
            births: get(&counts.settled),
            lost: get(&counts.lost),
            refused: get(&counts.refused),
            samples: get(&counts.telemetry),
            enrolled: get(&counts.enrolled),
            cpu: cpu::of_process(id).map_err(BenchError::io("read the cloud's processor time"))?,
            memory: cpu::memory(id).map_err(BenchError::io("read the cloud's memory"))?,
        })
    }

    async fn step(&mut self, step: Step) -> Result<String, BenchError> {
        match step {
            Step::Connect { within_secs } => {
                self.all_online(secs(within_secs.get())).await?;
                Ok(format!("{} boxes came", self.boxes))
            }
            Step::Steady { secs: time } => {
                let lost = self.crowd.counts.lost.load(Ordering::Relaxed);
                tokio::time::sleep(secs(time.get())).await;
                let now = self.crowd.counts.lost.load(Ordering::Relaxed);
                if now > lost {
                    let lost = now - lost;
                    return Err(BenchError::Unexpected(format!(
                        "{lost} sessions ended while nothing happened"
                    )));
                }
                Ok("nothing happened".to_owned())
            }
            Step::PowerCut {
                percent,
                dark_secs,
                within_secs,
            } => {
                self.power_cut(percent, dark_secs.get(), within_secs.get())
                    .await
            }
            Step::CloudDown {
                secs: time,
                within_secs,
            } => {
                self.site.process.kill().await?;
                tokio::time::sleep(secs(time.get())).await;
                self.start_cloud(within_secs.get()).await?;
                Ok(format!("the cloud was away for {time} s"))
            }
            Step::RestartBoxes {
                groups,
                within_secs,
            } => self.restart_boxes(groups.get(), within_secs.get()).await,
            Step::RestartCloud { times, within_secs } => {
                for _ in 0..times.get() {
                    self.site.process.end().await?;
                    self.start_cloud(within_secs.get()).await?;
                }
                Ok(format!("the cloud was started again {times} times"))
            }
            Step::Renewals { within_secs } => {
                let all = self.crowd.count;
                self.within(
                    "all to have another certificate",
                    secs(within_secs.get()),
                    |play| {
                        let counts = &play.crowd.counts;
                        let enrolled = counts.enrolled.load(Ordering::Relaxed);
                        let failed = counts.not_enrolled.load(Ordering::Relaxed);
                        (
                            enrolled >= all,
                            format!("{enrolled} of {all}, {failed} attempts failed"),
                        )
                    },
                )
                .await?;
                self.all_online(secs(within_secs.get())).await?;
                Ok("every certificate was followed by another".to_owned())
            }
        }
    }

    async fn power_cut(&self, percent: u8, dark: u32, within: u32) -> Result<String, BenchError> {
        let struck = (self.boxes * usize::from(percent)).div_ceil(100);
        let births = self.crowd.counts.settled.load(Ordering::Relaxed);
        for number in 0..struck {
            let deed = Deed::PowerCut { dark: secs(dark) };
            self.crowd.order(number, deed).await?;
        }
        let wanted = births + struck as u64;
        self.born(wanted, secs(dark) + secs(within)).await?;
        self.all_online(secs(within)).await?;
        Ok(format!("{struck} boxes were dark for {dark} s"))
    }

    async fn restart_boxes(&self, groups: u32, within: u32) -> Result<String, BenchError> {
        let size = self.boxes.div_ceil(usize::try_from(groups).unwrap_or(1));
        let mut begin = 0;
        while begin < self.boxes {
            let end = (begin + size).min(self.boxes);
            let births = self.crowd.counts.settled.load(Ordering::Relaxed);
            for number in begin..end {
                self.crowd.order(number, Deed::Restart).await?;
            }
            self.born(births + (end - begin) as u64, secs(within))
                .await?;
            self.all_online(secs(within)).await?;
            begin = end;
        }
        Ok(format!("all boxes started again, {size} at a time"))
    }

    async fn start_cloud(&mut self, within: u32) -> Result<(), BenchError> {
        // They are counted off as they notice.
        self.within("all to notice", secs(within), |play| {
            let online = play.crowd.counts.online.load(Ordering::Relaxed);
            (online == 0, format!("{online} believe they are online"))
        })
        .await?;
        let (process, _): (Process, _) =
            self.site.stage.cloud(Some(self.site.ready.ports())).await?;
        self.site.process = process;
        self.all_online(secs(within)).await
    }

    async fn born(&self, births: u64, limit: Duration) -> Result<(), BenchError> {
        self.within("births to be committed", limit, |play| {
            let settled = play.crowd.counts.settled.load(Ordering::Relaxed);
            (settled >= births, format!("{settled} of {births}"))
        })
        .await
    }

    /// Until every box is online, as the boxes and the cloud see it.
    async fn all_online(&self, limit: Duration) -> Result<(), BenchError> {
        let all = self.crowd.count;
        self.within("all to be online", limit, |play| {
            let online = play.crowd.counts.online.load(Ordering::Relaxed);
            (online == all, format!("{online} of {all}"))
        })
        .await?;
        let counted = until("the cloud to see all online", limit, || async {
            let summary = self.site.operator.get("/v1/summary").await;
            let summary = summary.map_err(|e| e.to_string())?;
            let items = summary["items"].as_array().into_iter().flatten();
            let online = items.filter(|item| item["online"] == true);
            let online: u64 = online.filter_map(|item| item["count"].as_u64()).sum();
            if online == all {
                Ok(())
            } else {
                Err(format!("{online} of {all}"))
            }
        });
        Ok(counted.await?)
    }

    /// Operators' commands are carried out.
    async fn obeys(&self) -> Result<(), BenchError> {
        for place in 0..COMMANDED.min(self.boxes) {
            let member = &self.site.members[place * self.boxes / COMMANDED.min(self.boxes)];
            let path = format!("/v1/boxes/{}/commands", member.id);
            let sent = self
                .site
                .operator
                .post(&path, &json!({"kind": "report_now"}))
                .await;
            let sent = sent.map_err(SystemError::from)?;
            let path = format!("/v1/commands/{}", sent["id"].as_str().unwrap_or_default());
            until("a command to be done", COMMAND, || async {
                let command = self
                    .site
                    .operator
                    .get(&path)
                    .await
                    .map_err(|e| e.to_string())?;
                if command["state"] == "done" {
                    Ok(())
                } else {
                    Err(command["state"].to_string())
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn within(
        &self,
        what: &str,
        limit: Duration,
        look: impl Fn(&Self) -> (bool, String),
    ) -> Result<(), BenchError> {
        let waited = until(what, limit, || {
            let (there, seen) = look(self);
            async move { if there { Ok(()) } else { Err(seen) } }
        });
        Ok(waited.await?)
    }
}

fn secs(secs: u32) -> Duration {
    Duration::from_secs(secs.into())
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(0)
}
