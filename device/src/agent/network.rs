//! The box's own network settings: what the keeper decides becomes effects.

use longhaul_protocol::diag::Rung;
use longhaul_protocol::journal::Fact;
use longhaul_protocol::network_settings::{NetworkReport, NetworkSettings};

use super::ladder::Observation;
use super::{Agent, Effect};
use crate::clock::Now;
use crate::network::{Contact, Do};

impl Agent {
    /// The last change of the settings, where there was one.
    pub fn network(&self, now: Now) -> Option<NetworkReport> {
        self.keeper.report(now)
    }

    pub(super) fn network_started(&mut self, now: Now) {
        let mut todo = self.keeper.started(now);
        // The power may have gone between the desired state and the trial.
        let desired = self.saved.desired.as_ref();
        if let Some(wish) = desired.and_then(|d| d.network.clone()) {
            todo.extend(self.keeper.wish(wish, now));
        }
        self.carry_out_network(todo, now);
    }

    pub(super) fn network_wish(&mut self, now: Now) {
        let desired = self.saved.desired.as_ref();
        if let Some(wish) = desired.and_then(|d| d.network.clone()) {
            let todo = self.keeper.wish(wish, now);
            self.carry_out_network(todo, now);
        }
    }

    pub(super) fn network_set(&mut self, settings: Option<NetworkSettings>, now: Now) {
        let todo = self.keeper.local(settings, now);
        self.carry_out_network(todo, now);
    }

    pub(super) fn network_applied(&mut self, result: Result<(), String>, now: Now) {
        if let Err(reason) = &result {
            tracing::error!(reason, "network settings are not in force");
        }
        let todo = self.keeper.applied(result, now);
        self.carry_out_network(todo, now);
        // What was seen or begun with other settings proves nothing of these.
        if self.life.link_changed(now) {
            self.effects.push(Effect::Abandon);
        }
    }

    pub(super) fn network_reached(&mut self, contact: Contact, now: Now) {
        let todo = self.keeper.reached(contact);
        self.carry_out_network(todo, now);
    }

    /// A climb that began with the settings in force: whether the cloud proved itself at its top, and
    /// nobody else has the box's address.
    pub(super) fn network_walked(&mut self, seen: &[Observation], now: Now) {
        let proven = seen
            .iter()
            .any(|o| o.rung == Rung::CloudTls && o.code.is_none());
        let disputed = |o: &Observation| o.rung <= Rung::Gateway && o.code.is_some();
        if proven && !seen.iter().any(disputed) {
            self.network_reached(Contact::Tls, now);
        }
    }

    pub(super) fn network_tick(&mut self, now: Now) {
        let why = self.ladder.failing();
        let why = why.map_or_else(String::new, |code| format!("{code} {}", code.entry().title));
        let todo = self.keeper.tick(&why, now);
        self.carry_out_network(todo, now);
    }

    fn carry_out_network(&mut self, todo: Vec<Do>, now: Now) {
        let mut told = false;
        for next in todo {
            match next {
                Do::Tell(report) => {
                    tracing::info!(?report, "network settings");
                    self.effects.push(Effect::Append(Fact::Network(report)));
                    told = true;
                }
                Do::Save(saved) => self.effects.push(Effect::SaveNetwork(saved)),
                Do::Apply {
                    settings,
                    instead_of,
                } => {
                    // While there is a way, the cloud hears what is tried.
                    if std::mem::take(&mut told) {
                        self.report(now);
                    }
                    self.leave("network settings change", now);
                    self.effects.push(Effect::ApplyNetwork {
                        settings,
                        instead_of,
                    });
                }
            }
        }
        if told {
            self.report(now);
        }
    }
}
