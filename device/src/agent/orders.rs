//! What the cloud tells the box: acknowledgements, commands, desired state.

use longhaul_protocol::command::{
    CommandClaims, CommandKind, CommandState, CommandUpdate, Rejection,
};
use longhaul_protocol::envelope;
use longhaul_protocol::ids::CommandId;
use longhaul_protocol::journal::{Fact, JournalAck, Outcome};
use longhaul_protocol::topic::Dn;

use super::command::{Refusal, Verdict};
use super::saved::{Command, Progress};
use super::{Agent, Dice, Effect, SampleTo};
use crate::clock::Now;

impl Agent {
    pub(super) fn message(&mut self, channel: Dn, payload: &[u8], now: Now) {
        match channel {
            Dn::Ack => match envelope::decode::<JournalAck>(payload) {
                Ok(ack) => self.effects.push(Effect::Acknowledge(ack.body)),
                Err(error) => tracing::warn!(%error, "acknowledgement ignored"),
            },
            Dn::Command => self.command(payload, now),
            Dn::Desired => self.desired(payload, now),
            Dn::Tunnel => tracing::warn!("tunnel request ignored: this agent has none"),
        }
    }

    fn command(&mut self, payload: &[u8], now: Now) {
        let verdict = self.judge.command(payload, &self.saved, now.wall);
        match verdict.and_then(|verdict| self.room_for(verdict)) {
            Ok(Verdict::New(claims)) => self.accept(&claims, now),
            Ok(Verdict::Known(id, progress)) => {
                self.accepted(id.clone(), now);
                // The result may have been lost with a journal; the cloud asks, so tell it again.
                if let Progress::Ended(outcome) = progress {
                    self.effects
                        .push(Effect::Append(Fact::CommandResult { id, outcome }));
                }
            }
            Err(refusal) => {
                tracing::warn!(%refusal, "command refused");
                self.answer(&refusal.into_update(), now);
            }
        }
    }

    /// One update at a time, and only where somebody carries updates out.
    fn room_for(&self, verdict: Verdict) -> Result<Verdict, Refusal> {
        let Verdict::New(CommandClaims {
            id,
            command: CommandKind::Update(_),
            ..
        }) = &verdict
        else {
            return Ok(verdict);
        };
        let refuse = |reason, text: &str| Err(Refusal::new(Some(id.clone()), reason, text));
        if !self.config.can_update {
            return refuse(
                Rejection::Unsupported,
                "this agent does not run under the update supervisor",
            );
        }
        let updating = |c: &Command| matches!(c.kind, CommandKind::Update(_));
        if self.saved.unfinished().any(updating) {
            return refuse(Rejection::Busy, "another update is under way");
        }
        Ok(verdict)
    }

    fn accept(&mut self, claims: &CommandClaims, now: Now) {
        tracing::info!(id = %claims.id, kind = claims.command.name(), by = claims.issued_by, "command");
        self.saved.accept(claims);
        self.save();
        self.accepted(claims.id.clone(), now);
        self.carry_out(claims.id.clone(), claims.command.clone(), now);
    }

    fn accepted(&mut self, id: CommandId, now: Now) {
        let update = CommandUpdate {
            id: Some(id),
            state: CommandState::Accepted,
        };
        self.answer(&update, now);
    }

    /// Carries out what was accepted; doing so twice does no harm.
    fn carry_out(&mut self, id: CommandId, command: CommandKind, now: Now) {
        let detail = match command {
            CommandKind::Identify { seconds } => {
                let until = now.after_millis(u64::from(seconds) * 1000).mono_ms;
                self.identify_until_ms = Some(until);
                serde_json::json!({ "seconds": seconds })
            }
            CommandKind::ReportNow => {
                if self.life.is_up() {
                    self.sample(SampleTo::Live);
                }
                self.report(now);
                serde_json::Value::Null
            }
            CommandKind::SetTelemetryInterval { seconds } => {
                self.set_interval(seconds, now);
                serde_json::json!({ "seconds": seconds })
            }
            CommandKind::Retry(scope) => {
                self.effects.push(Effect::Retry { command: id, scope });
                return;
            }
            CommandKind::EraseBucket { bucket } => {
                self.effects.push(Effect::EraseBucket {
                    command: id,
                    bucket,
                });
                return;
            }
            CommandKind::Update(assignment) => {
                self.effects.push(Effect::Update {
                    command: id,
                    assignment,
                });
                return;
            }
        };
        self.end_command(&id, Outcome::Done { detail });
    }

    /// Commands that the agent before this one accepted and may not have carried out.
    pub(super) fn resume_commands(&mut self) {
        let unfinished: Vec<_> = self.saved.unfinished().cloned().collect();
        for Command { id, kind, .. } in unfinished {
            match kind {
                CommandKind::Update(_)
                | CommandKind::Retry(_)
                | CommandKind::EraseBucket { .. }
                | CommandKind::SetTelemetryInterval { .. } => {
                    self.carry_out(id, kind, Now::default());
                }
                // Their moment has passed; the birth that follows reports anyway.
                CommandKind::Identify { .. } | CommandKind::ReportNow => {
                    let reason = "the agent restarted before it was carried out".to_owned();
                    self.end_command(&id, Outcome::Failed { reason });
                }
            }
        }
    }

    pub(super) fn end_command(&mut self, id: &CommandId, outcome: Outcome) {
        if self.saved.end(id, &outcome) {
            self.effects.push(Effect::Append(Fact::CommandResult {
                id: id.clone(),
                outcome,
            }));
            self.save();
        }
    }

    fn set_interval(&mut self, seconds: u16, now: Now) {
        if self.saved.telemetry_interval_secs != seconds {
            self.saved.telemetry_interval_secs = seconds;
            self.life.telemetry_due(now);
            self.report(now);
        }
    }

    fn desired(&mut self, payload: &[u8], now: Now) {
        let mut desired = match self.judge.desired(payload, now.wall) {
            Ok(desired) => desired,
            Err(refusal) => {
                tracing::warn!(%refusal, "desired state refused");
                return;
            }
        };
        if desired.version <= self.saved.desired_version() {
            self.report(now);
            return;
        }
        tracing::info!(version = desired.version, "desired state");
        let interval = desired.telemetry_interval_secs;
        let tickets: Vec<_> = desired.tickets.iter().map(|t| t.id.clone()).collect();
        let none = tickets.is_empty();
        let version = desired.version;
        let same_tickets = self
            .saved
            .desired
            .as_ref()
            .is_some_and(|d| d.tickets == desired.tickets)
            && self.credentials_version >= self.saved.desired_version();
        self.problems.clear();
        if let Err(error) = desired.uplink.check() {
            self.problems.push(format!("uplink: {error}"));
            // What was in force stays, as with everything that cannot be applied.
            let before = self.saved.desired.take();
            desired.uplink = before.map(|before| before.uplink).unwrap_or_default();
        }
        let uplink = desired.uplink.clone();
        let held = desired.held.clone();
        self.saved.desired = Some(desired);
        if (1..=3600).contains(&interval) {
            self.saved.telemetry_interval_secs = interval;
            self.life.telemetry_due(now);
        } else {
            let problem = format!("telemetry_interval_secs is {interval}; 1 to 3600");
            self.problems.push(problem);
        }
        self.save();
        self.hold(held, now);
        self.effects.push(Effect::Uplink(Box::new(uplink)));
        self.effects.push(Effect::KeepTickets(tickets));
        if none || same_tickets {
            self.credentials_version = version;
        } else {
            self.life.fetch_credentials(now);
        }
        self.report(now);
        self.network_wish(now);
    }

    pub(super) fn credentials_held(&mut self, version: u64, now: Now) {
        self.credentials_version = self.credentials_version.max(version);
        self.life.credentials_held();
        if self.credentials_version < self.saved.desired_version() {
            self.life.fetch_credentials(now);
        }
        self.report(now);
    }

    pub(super) fn credentials_failed(&mut self, evidence: &str, now: Now, dice: &mut Dice) {
        tracing::warn!(evidence, "tickets could not be fetched");
        self.life.credentials_failed(now, dice);
    }

    /// Whether the box lacks the secrets of tickets that it shall accept. A box whose vault stays
    /// closed accepts none.
    pub(super) fn lacks_credentials(&self) -> bool {
        self.config.locked.is_none() && self.credentials_version < self.saved.desired_version()
    }
}
