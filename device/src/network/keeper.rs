//! What is in force, what is tried, and when it goes back.

use longhaul_protocol::network_settings::{
    NetworkBy, NetworkReport, NetworkSettings, NetworkState, NetworkWish,
};
use longhaul_protocol::value::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::clock::Now;

/// Starts that a trial may see. Counted beside the time: the clock of a box without a battery may be
/// set back by every power cut.
const STARTS: u8 = 3;
/// Before settings that could not be applied are applied again, in milliseconds.
const AGAIN_MS: u64 = 10_000;
/// A trial is this long if nobody says otherwise, in milliseconds.
const TRIAL_MS: u64 = 120_000;
/// A reason is cut to this many characters.
const MAX_REASON: usize = 400;

/// What lies on the disk.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Saved {
    /// In force for good; absent: what the box was prepared with.
    kept: Option<NetworkSettings>,
    /// In force for now.
    trial: Option<Trial>,
    /// The highest number of a change of the cloud that was looked at.
    seen: u64,
    /// What became of the last change; its settings without secrets.
    last: Option<NetworkReport>,
}

/// A change that is tried.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    change: u64,
    by: NetworkBy,
    /// Absent: what the box was prepared with.
    settings: Option<NetworkSettings>,
    until: UnixMillis,
    starts_left: u8,
}

/// How the cloud was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Contact {
    /// It proved who it is to a connection with the box's own certificate.
    Tls,
    /// Its broker holds a session with this box: it can be told to do something else.
    Session,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Do {
    /// Tell the journal.
    Tell(NetworkReport),
    /// Write this down; what follows waits for it.
    Save(Box<Saved>),
    /// Put these settings in force; answer with [`Keeper::applied`].
    Apply {
        /// What is to be in force.
        settings: Box<NetworkSettings>,
        /// What may be in force now.
        instead_of: Box<NetworkSettings>,
    },
}

/// Keeps the settings. Time comes in as an argument.
#[derive(Clone, Debug, PartialEq)]
pub struct Keeper {
    prepared: NetworkSettings,
    trial_ms: u64,
    saved: Saved,
    /// When the trial ends, by the steady clock of this process.
    deadline_ms: u64,
    /// The trial's settings are in force in this process: only then a contact proves them.
    applied: bool,
    again_at_ms: Option<u64>,
    /// The machine waits for its settings at every start, also for none.
    always: bool,
}

impl Default for Keeper {
    fn default() -> Self {
        Self::new(NetworkSettings::default(), TRIAL_MS, Saved::default())
    }
}

impl Keeper {
    /// Over what the box was prepared with and what lies on the disk. Settings that were edited by
    /// hand into something impossible are left out.
    pub fn new(prepared: NetworkSettings, trial_ms: u64, mut saved: Saved) -> Self {
        let sound = |settings: &NetworkSettings| settings.check().is_ok();
        saved.kept = saved.kept.filter(sound);
        saved.trial = saved
            .trial
            .filter(|trial| trial.settings.as_ref().is_none_or(sound));
        let prepared = Some(prepared).filter(sound).unwrap_or_default();
        Self {
            prepared,
            trial_ms,
            saved,
            deadline_ms: 0,
            applied: false,
            again_at_ms: None,
            always: false,
        }
    }

    /// The same, for a machine that waits for its settings at every start, also for none.
    #[must_use]
    pub fn always(self, always: bool) -> Self {
        Self { always, ..self }
    }

    /// The settings in force: those of a trial, else those that were kept.
    pub fn in_force(&self) -> &NetworkSettings {
        match &self.saved.trial {
            Some(trial) => trial.settings.as_ref().unwrap_or(&self.prepared),
            None => self.before(),
        }
    }

    /// The settings in force without the trial.
    fn before(&self) -> &NetworkSettings {
        self.saved.kept.as_ref().unwrap_or(&self.prepared)
    }

    /// The last change, where there was one.
    pub fn report(&self, now: Now) -> Option<NetworkReport> {
        let Some(trial) = &self.saved.trial else {
            return self.saved.last.clone();
        };
        let left_ms = self.deadline_ms.saturating_sub(now.mono_ms);
        Some(NetworkReport {
            left_secs: Some(left_ms.div_ceil(1000)),
            ..trial.report(NetworkState::Trial, "")
        })
    }

    /// When [`Self::tick`] has something to do, by the steady clock.
    pub fn poll_at_ms(&self) -> Option<u64> {
        let trial = self.saved.trial.as_ref().map(|_| self.deadline_ms);
        trial.into_iter().chain(self.again_at_ms).min()
    }

    /// The process begins: whatever was in force before is not, or not for sure.
    pub fn started(&mut self, now: Now) -> Vec<Do> {
        let Some(trial) = &mut self.saved.trial else {
            // Where nobody ever set anything, the machine is not touched.
            let settings = self.in_force();
            return if *settings == NetworkSettings::default() && !self.always {
                Vec::new()
            } else {
                vec![Self::apply(settings.clone())]
            };
        };
        let left = trial.until.millis_since(now.wall);
        if left <= 0 || trial.starts_left == 0 {
            return self
                .roll_back("the power was cut and the time was up before the cloud was reached");
        }
        trial.starts_left -= 1;
        // A clock that was set back does not make the trial longer.
        let left = u64::try_from(left).unwrap_or(0).min(self.trial_ms);
        self.deadline_ms = now.mono_ms.saturating_add(left);
        self.try_it()
    }

    /// The cloud wants a change; one that was looked at before is nothing new.
    pub fn wish(&mut self, wish: NetworkWish, now: Now) -> Vec<Do> {
        if wish.change <= self.saved.seen {
            return Vec::new();
        }
        self.saved.seen = wish.change;
        self.want(wish.change, NetworkBy::Cloud, wish.settings, now)
    }

    /// Somebody at the box wants a change.
    pub fn local(&mut self, settings: Option<NetworkSettings>, now: Now) -> Vec<Do> {
        self.want(0, NetworkBy::Page, settings, now)
    }

    fn want(
        &mut self,
        change: u64,
        by: NetworkBy,
        settings: Option<NetworkSettings>,
        now: Now,
    ) -> Vec<Do> {
        let trial_ms = i64::try_from(self.trial_ms).unwrap_or(i64::MAX);
        let trial = Trial {
            change,
            by,
            settings,
            until: now.wall.plus_millis(trial_ms),
            starts_left: STARTS,
        };
        if let Some(Err(error)) = trial.settings.as_ref().map(NetworkSettings::check) {
            return self.ended(trial.report(NetworkState::Refused, &error.to_string()));
        }
        let wanted = trial.settings.as_ref().unwrap_or(&self.prepared);
        if self.saved.trial.is_none() && wanted == self.before() {
            return self.ended(trial.report(NetworkState::Kept, ""));
        }
        self.deadline_ms = now.mono_ms.saturating_add(self.trial_ms);
        let report = NetworkReport {
            left_secs: Some(self.trial_ms.div_ceil(1000)),
            ..trial.report(NetworkState::Trial, "")
        };
        // One that was being tried proved nothing: what it would go back to is what this one does.
        let instead_of = self.in_force().clone();
        self.saved.trial = Some(trial);
        let mut todo = vec![Do::Tell(report)];
        todo.extend(self.try_it_instead_of(instead_of));
        todo
    }

    /// The settings are in force, or could not be put in force.
    pub fn applied(&mut self, result: Result<(), String>, now: Now) -> Vec<Do> {
        self.again_at_ms = None;
        match (result, &self.saved.trial) {
            (Ok(()), trial) => {
                self.applied = trial.is_some();
                Vec::new()
            }
            (Err(reason), Some(_)) => self.roll_back(&format!("not applied: {reason}")),
            (Err(_), None) => {
                self.again_at_ms = Some(now.mono_ms.saturating_add(AGAIN_MS));
                Vec::new()
            }
        }
    }

    /// The cloud was reached, over a connection that was begun with the settings in force. What the
    /// cloud itself set is proven only by a way on which it can set something else.
    pub fn reached(&mut self, contact: Contact) -> Vec<Do> {
        let enough = |trial: &Trial| contact == Contact::Session || trial.by != NetworkBy::Cloud;
        if !self.applied || !self.saved.trial.as_ref().is_some_and(enough) {
            return Vec::new();
        }
        let Some(trial) = self.saved.trial.take() else {
            return Vec::new();
        };
        let report = trial.report(NetworkState::Kept, "");
        self.applied = false;
        self.saved.kept = trial.settings;
        self.ended(report)
    }

    /// Time has passed; `why` says what is in the way, for people.
    pub fn tick(&mut self, why: &str, now: Now) -> Vec<Do> {
        if self.saved.trial.is_some() && self.deadline_ms <= now.mono_ms {
            let secs = self.trial_ms.div_ceil(1000);
            let why = if why.is_empty() {
                ""
            } else {
                &format!(": {why}")
            };
            return self.roll_back(&format!("the cloud was not reached within {secs} s{why}"));
        }
        if self.again_at_ms.is_some_and(|at| at <= now.mono_ms) {
            self.again_at_ms = None;
            return vec![Self::apply(self.in_force().clone())];
        }
        Vec::new()
    }

    fn roll_back(&mut self, reason: &str) -> Vec<Do> {
        let instead_of = self.in_force().clone();
        let Some(trial) = self.saved.trial.take() else {
            return Vec::new();
        };
        self.applied = false;
        let mut todo = self.ended(trial.report(NetworkState::RolledBack, reason));
        todo.push(Do::Apply {
            settings: Box::new(self.in_force().clone()),
            instead_of: Box::new(instead_of),
        });
        todo
    }

    fn ended(&mut self, report: NetworkReport) -> Vec<Do> {
        self.saved.last = Some(report.clone());
        vec![Do::Tell(report), Do::Save(Box::new(self.saved.clone()))]
    }

    fn try_it(&mut self) -> Vec<Do> {
        self.try_it_instead_of(self.before().clone())
    }

    fn try_it_instead_of(&mut self, instead_of: NetworkSettings) -> Vec<Do> {
        self.applied = false;
        self.again_at_ms = None;
        let apply = Do::Apply {
            settings: Box::new(self.in_force().clone()),
            instead_of: Box::new(instead_of),
        };
        vec![Do::Save(Box::new(self.saved.clone())), apply]
    }

    fn apply(settings: NetworkSettings) -> Do {
        Do::Apply {
            instead_of: Box::new(settings.clone()),
            settings: Box::new(settings),
        }
    }
}

impl Trial {
    fn report(&self, state: NetworkState, reason: &str) -> NetworkReport {
        NetworkReport {
            change: self.change,
            by: self.by,
            state,
            settings: self.settings.as_ref().map(NetworkSettings::without_secrets),
            reason: reason.chars().take(MAX_REASON).collect(),
            left_secs: None,
        }
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
