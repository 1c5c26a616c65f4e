//! A watch: what appears or changes in a folder is sent, once it has come to rest, for as long as
//! the future lives. Nothing is ever removed, neither here nor on the box.
//!
//! `events -> settling -> push`. Events are a hint: the folder is walked at the start, after
//! anything was missed, and now and then. The journal says what need not be sent again. A box that
//! does not answer is waited for, and looked for anew, because it may come back elsewhere.

mod events;
mod settle;

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_protocol::ticket::Ticket;
use tokio::task::spawn_blocking;

use crate::client::{BoxClient, ConnectError};
use crate::clock;
use crate::journal::Origin;
use crate::list::confirm;
use crate::plan::{self, Plan, PlanError};
use crate::progress::Progress;
use crate::push::{PushError, PushOptions, Sender, planned};
use crate::report::PushReport;
use crate::retry::S3Error;
use crate::source::Stamp;

use events::Events;
use settle::Settling;

/// Files sent in one round at the most, so that a report comes now and then.
const ROUND: usize = 10_000;
/// Time between two looks at a folder whose events cannot be had.
const LOOK: Duration = Duration::from_secs(10);
/// First and longest pause before a box is looked for again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// When a file that kept changing is tried again.
const BUSY: Duration = Duration::from_secs(30);

/// How to watch.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// How to send.
    pub push: PushOptions,
    /// How long a file must hold still before it is sent.
    pub settle: Duration,
    /// Longest time between two looks at the whole folder.
    pub rescan: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            push: PushOptions::default(),
            settle: Duration::from_secs(2),
            rescan: Duration::from_mins(10),
        }
    }
}

/// What a watch has to say.
#[derive(Debug)]
#[non_exhaustive]
pub enum WatchEvent<'a> {
    /// The box is there and the folder is being watched.
    Watching {
        /// Where the box is.
        address: String,
        /// Why the folder is walked every few seconds instead; `None` where the system tells of
        /// changes.
        polling: Option<String>,
    },
    /// Files were sent, or failed.
    Sent(&'a PushReport),
    /// The box does not answer; it is looked for until it does.
    Waiting {
        /// What happened.
        why: String,
    },
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The folder is gone or cannot be read.
    #[error(transparent)]
    Folder(#[from] PlanError),
    /// The ticket cannot be used, or something that is not the box answers.
    #[error(transparent)]
    Connect(Box<ConnectError>),
    /// What the box answered would be its answer to every file.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The box refuses to say what it holds.
    #[error(transparent)]
    Refused(#[from] S3Error),
}

/// Watches `folder` until it fails for good; `tell` hears of everything that happens.
///
/// # Errors
///
/// [`WatchError`], never because a box does not answer.
pub async fn watch(
    ticket: &Ticket,
    given: Option<&str>,
    folder: &Path,
    options: &WatchOptions,
    progress: &Arc<Progress>,
    mut tell: impl FnMut(WatchEvent<'_>),
) -> Result<Infallible, WatchError> {
    let (events, polling) = listen(folder).await;
    let mut watch = Watch {
        folder: folder.to_owned(),
        options,
        progress,
        rescan: match events {
            Some(_) => options.rescan,
            None => options.rescan.min(LOOK),
        },
        events,
        settling: Settling::new(options.settle),
    };
    let mut pauses = Pauses::new();
    loop {
        let why = match BoxClient::connect(ticket, given).await {
            Ok(client) => {
                tell(WatchEvent::Watching {
                    address: client.endpoint().addr.to_string(),
                    polling: polling.clone(),
                });
                watch.session(&client, &mut tell, &mut pauses).await?.why
            }
            Err(error @ (ConnectError::NotFound { .. } | ConnectError::Status { .. })) => {
                crate::error_chain(&error)
            }
            Err(error) => return Err(WatchError::Connect(Box::new(error))),
        };
        tell(WatchEvent::Waiting { why });
        tokio::time::sleep(pauses.next()).await;
    }
}

async fn listen(folder: &Path) -> (Option<Events>, Option<String>) {
    let path = folder.to_owned();
    let events = spawn_blocking(move || Events::of(&path))
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    match events {
        Ok(events) => (Some(events), None),
        Err(error) => (None, Some(crate::error_chain(&error))),
    }
}

/// Growing pauses, short again once the box has taken something.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Self {
        Self(PAUSES.0)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        pause
    }
}

/// The box stopped answering.
struct Lost {
    why: String,
}

struct Watch<'a> {
    folder: PathBuf,
    options: &'a WatchOptions,
    progress: &'a Arc<Progress>,
    events: Option<Events>,
    rescan: Duration,
    settling: Settling,
}

impl Watch<'_> {
    /// Sends what settles until the box stops answering.
    async fn session(
        &mut self,
        client: &BoxClient,
        tell: &mut impl FnMut(WatchEvent<'_>),
        pauses: &mut Pauses,
    ) -> Result<Lost, WatchError> {
        let sender = Sender::new(client, &self.options.push, self.progress).await;
        let mut skipped = match self.look_at_all(&sender, true).await {
            Ok(skipped) => skipped,
            Err(stop) => return stop.lost(),
        };
        let mut looked = Instant::now();
        loop {
            let missed = self.look_at_touched().await;
            if missed || looked.elapsed() >= self.rescan {
                looked = Instant::now();
                // What is left out was reported at the start.
                if let Err(stop) = self.look_at_all(&sender, false).await {
                    return stop.lost();
                }
            }
            let settled = self.settling.settled(Instant::now(), ROUND, stamp_of);
            let mut plan = self.plan_of(settled).await;
            plan.skipped.append(&mut skipped);
            if !plan.files.is_empty() || !plan.skipped.is_empty() {
                self.progress.more(plan.files.len() as u64, plan.bytes());
                match sender.run(plan, Ok(HashMap::new()), Instant::now()).await {
                    Ok(report) => {
                        *pauses = Pauses::new();
                        self.try_again(&report);
                        tell(WatchEvent::Sent(&report));
                    }
                    Err(PushError::Stopped { source, report, .. }) if source.may_pass() => {
                        tell(WatchEvent::Sent(&report));
                        return Ok(Lost {
                            why: source.to_string(),
                        });
                    }
                    Err(error) => return Err(error.into()),
                }
                continue;
            }
            let next = looked + self.rescan;
            let next = self.settling.next().map_or(next, |at| at.min(next));
            let happened = async {
                match &self.events {
                    Some(events) => events.wait().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = happened => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    /// Walks the folder, and waits for everything that the journal does not know to be on the box.
    async fn look_at_all(
        &mut self,
        sender: &Sender<'_>,
        ask_box: bool,
    ) -> Result<Vec<plan::Skipped>, Stop> {
        let prefix = self.options.push.prefix.clone();
        let plan = planned(vec![self.folder.clone()], prefix)
            .await
            .map_err(Stop::Folder)?;
        let known = if ask_box {
            confirm(sender, &plan.files).await.map_err(Stop::Box)?
        } else {
            HashMap::new()
        };
        let (now, wall) = (Instant::now(), clock::now());
        for (index, file) in plan.files.into_iter().enumerate() {
            let origin = Origin::new(&file.path, file.stamp);
            let there = if ask_box {
                known.contains_key(&index)
            } else {
                sender.journal.done(&file.key, &origin).is_some()
            };
            if there {
                continue;
            }
            let millis = wall.0.saturating_sub(file.stamp.mtime_ns / 1_000_000);
            let age = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
            self.settling.found(file.path, file.stamp, age, now);
        }
        Ok(plan.skipped)
    }

    /// Takes in what the system told; whether something was missed.
    async fn look_at_touched(&mut self) -> bool {
        let Some(happened) = self.events.as_ref().map(Events::take) else {
            return false;
        };
        let now = Instant::now();
        let files = spawn_blocking(move || {
            let files = happened.paths.into_iter().flat_map(plan::files_below);
            let stamped = files.filter_map(|path| Some((stamp_of(&path)?, path)));
            stamped
                .filter(|(_, path)| !plan::is_unfinished(path))
                .collect::<Vec<_>>()
        })
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
        for (stamp, path) in files {
            self.settling.touched(path, stamp, now);
        }
        happened.missed
    }

    async fn plan_of(&self, paths: Vec<PathBuf>) -> Plan {
        if paths.is_empty() {
            return Plan::default();
        }
        let (folder, prefix) = (self.folder.clone(), self.options.push.prefix.clone());
        spawn_blocking(move || plan::plan_within(&folder, &paths, &prefix))
            .await
            .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    /// Files that could not be sent now may be sent later, without anything happening to them.
    fn try_again(&mut self, report: &PushReport) {
        let now = Instant::now();
        for failed in &report.failed {
            if let Some(stamp) = stamp_of(&failed.path) {
                self.settling.again(failed.path.clone(), stamp, BUSY, now);
            }
        }
    }
}

/// Why a look at the folder ended.
enum Stop {
    Folder(PlanError),
    Box(S3Error),
}

impl Stop {
    fn lost(self) -> Result<Lost, WatchError> {
        match self {
            Self::Folder(error) => Err(error.into()),
            Self::Box(error) if error.may_pass() => Ok(Lost {
                why: error.to_string(),
            }),
            Self::Box(error) => Err(error.into()),
        }
    }
}

/// The stamp of a regular file; `None` for everything else.
fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    metadata.is_file().then(|| Stamp::of(&metadata))
}
