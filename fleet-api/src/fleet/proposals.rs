//! The rule of two people: what takes something away for good is proposed by one and approved by
//! another before it is signed.
//!
//! A person is an account. A token acts for the account that made it, or made the token that made
//! it, so nobody is two people by having a token.

use longhaul_protocol::command::CommandKind;
use longhaul_protocol::ids::{BoxId, CommandId};
use serde_json::json;

use super::boxes::known;
use super::bulk::NewBulk;
use super::commands::{Authority, MAX_VALID_SECS, Signed};
use super::{Actor, Fleet, FleetError, FleetEventKind, audit};
use crate::store::boxes::{BoxState, box_get};
use crate::store::bulk::{BulkRow, BulkState, bulk_advance};
use crate::store::idempotency::idempotency_made;
use crate::store::operators::{Role, operator_get};
use crate::store::proposals::{
    Decision, ProposalRow, ProposalState, proposal_decide, proposal_expire, proposal_get,
    proposal_insert,
};
use crate::store::{Tx, new_id};

/// The longest that a proposal may wait, in seconds: a week.
pub const MAX_DECIDE_SECS: u32 = 7 * 86_400;

/// Who acts, and the account that answers for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Person {
    /// As in the audit.
    pub actor: Actor,
    /// The account.
    pub account: String,
}

/// What shall be done to a box once somebody else agrees.
#[derive(Clone, Debug)]
pub struct NewProposal {
    /// The box.
    pub box_id: BoxId,
    /// What to do.
    pub command: CommandKind,
    /// Why.
    pub reason: String,
    /// How long the command may be begun once it is approved, in seconds.
    pub valid_for_secs: u32,
    /// How long somebody may decide, in seconds.
    pub decide_within_secs: u32,
}

/// Two people, one of whom proposed and the other approved what is signed. Only this module makes
/// one.
#[derive(Debug)]
pub(super) struct TwoPeople<'a> {
    proposal: &'a ProposalRow,
    approver: &'a str,
    actor: Actor,
}

impl<'a> TwoPeople<'a> {
    /// Who has agreed on a proposal before.
    pub fn agreed(proposal: &'a ProposalRow) -> Option<Self> {
        let approver = proposal.decider.as_deref()?;
        let actor = Actor(proposal.decided_by.clone()?);
        let two = proposal.state == ProposalState::Approved && proposal.proposer != approver;
        two.then_some(Self {
            proposal,
            approver,
            actor,
        })
    }

    /// The account that proposed.
    pub fn proposer(&self) -> &str {
        &self.proposal.proposer
    }

    /// The account that approved.
    pub fn approver(&self) -> &str {
        self.approver
    }

    /// Who approved, as in the audit.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The proposal.
    pub fn proposal(&self) -> &str {
        &self.proposal.proposal_id
    }
}

impl Fleet {
    /// Writes down what one person wants done, for another to decide.
    pub async fn proposal_make(
        &self,
        person: &Person,
        new: NewProposal,
    ) -> Result<String, FleetError> {
        check(&new)?;
        let mut tx = self.db().write().await?;
        may_still(&mut tx, &person.account).await?;
        let row = known(box_get(&mut tx, &new.box_id).await?, &new.box_id)?;
        takes_commands(&new.box_id, row.state)?;
        let now = self.now();
        let row = ProposalRow {
            proposal_id: new_id("pro"),
            box_id: Some(new.box_id.to_string()),
            bulk_id: None,
            kind: new.command.name().to_owned(),
            detail: serde_json::to_string(&new.command)
                .map_err(|e| FleetError::internal("failed to write a command", e))?,
            valid_for_secs: i64::from(new.valid_for_secs),
            reason: new.reason,
            proposed_by: person.actor.0.clone(),
            proposer: person.account.clone(),
            created: now.0,
            expires: now.plus_secs(i64::from(new.decide_within_secs)).0,
            state: ProposalState::Open,
            decided_by: None,
            decider: None,
            decided: None,
            note: None,
            command_id: None,
        };
        proposal_insert(&mut tx, &row).await?;
        let what = json!({
            "proposal": row.proposal_id, "command": new.command, "reason": row.reason,
            "account": row.proposer, "expires": row.expires,
        });
        let subject = new.box_id.as_str();
        audit(&mut tx, &person.actor, "proposal.make", subject, what, now).await?;
        idempotency_made(&row.proposal_id);
        tx.commit().await?;
        self.tell_proposal(&row, ProposalState::Open);
        Ok(row.proposal_id)
    }

    /// Writes down a bulk command for another person to decide; the caller commits.
    pub(super) async fn proposal_of_bulk(
        &self,
        tx: &mut Tx,
        person: &Person,
        bulk: &BulkRow,
        new: &NewBulk,
    ) -> Result<String, FleetError> {
        let reason = new.reason.clone().unwrap_or_default();
        check_reason(&reason)?;
        may_still(tx, &person.account).await?;
        let now = self.now();
        let row = ProposalRow {
            proposal_id: new_id("pro"),
            box_id: None,
            bulk_id: Some(bulk.bulk_id.clone()),
            kind: bulk.kind.clone(),
            detail: bulk.detail.clone(),
            valid_for_secs: bulk.valid_for_secs,
            reason,
            proposed_by: person.actor.0.clone(),
            proposer: person.account.clone(),
            created: now.0,
            expires: now.plus_secs(i64::from(new.decide_within_secs)).0,
            state: ProposalState::Open,
            decided_by: None,
            decider: None,
            decided: None,
            note: None,
            command_id: None,
        };
        proposal_insert(tx, &row).await?;
        let what = json!({
            "proposal": row.proposal_id, "kind": row.kind, "reason": row.reason,
            "account": row.proposer, "expires": row.expires,
        });
        audit(tx, &person.actor, "proposal.make", &bulk.bulk_id, what, now).await?;
        Ok(row.proposal_id)
    }

    /// Approves what somebody else proposed: it is signed and sent.
    pub async fn proposal_approve(&self, person: &Person, id: &str) -> Result<(), FleetError> {
        let mut tx = self.db().read().await?;
        let row = proposal_get(&mut tx, id)
            .await?
            .ok_or_else(|| unknown(id))?;
        drop(tx);
        let Some(name) = &row.box_id else {
            return self.proposal_approve_bulk(person, id).await;
        };
        let box_id: BoxId = name
            .parse()
            .map_err(|e| FleetError::internal("a stored box has no name", e))?;
        let _turn = self.lock(&box_id).await;
        let mut tx = self.db().write().await?;
        let row = waiting(&mut tx, id, self.now().0).await?;
        second(&mut tx, &row, person).await?;
        let command: CommandKind = serde_json::from_str(&row.detail)
            .map_err(|e| FleetError::internal("a stored command does not parse", e))?;
        let two = TwoPeople {
            proposal: &row,
            approver: &person.account,
            actor: person.actor.clone(),
        };
        let valid = u32::try_from(row.valid_for_secs).unwrap_or(MAX_VALID_SECS);
        let signed = self
            .command_sign(&mut tx, Authority::Two(&two), &box_id, command, valid)
            .await?;
        let (state, sent) = (ProposalState::Approved, Some(&signed));
        self.decide(&mut tx, &row, person, state, None, sent)
            .await?;
        tx.commit().await?;
        self.tell_proposal(&row, state);
        self.command_publish(&box_id, signed).await
    }

    async fn proposal_approve_bulk(&self, person: &Person, id: &str) -> Result<(), FleetError> {
        let mut tx = self.db().write().await?;
        let row = waiting(&mut tx, id, self.now().0).await?;
        second(&mut tx, &row, person).await?;
        let state = ProposalState::Approved;
        self.decide(&mut tx, &row, person, state, None, None)
            .await?;
        let bulk = row.bulk_id.as_deref().unwrap_or_default();
        if !bulk_advance(&mut tx, bulk, BulkState::Proposed, BulkState::Sending).await? {
            return Err(decided(id));
        }
        tx.commit().await?;
        self.tell_proposal(&row, state);
        self.inner.bulk.notify_one();
        Ok(())
    }

    /// Refuses what somebody else proposed.
    pub async fn proposal_refuse(
        &self,
        person: &Person,
        id: &str,
        note: &str,
    ) -> Result<(), FleetError> {
        self.proposal_end(person, id, ProposalState::Refused, Some(note))
            .await
    }

    /// Takes back what the same person proposed.
    pub async fn proposal_withdraw(&self, person: &Person, id: &str) -> Result<(), FleetError> {
        self.proposal_end(person, id, ProposalState::Withdrawn, None)
            .await
    }

    async fn proposal_end(
        &self,
        person: &Person,
        id: &str,
        state: ProposalState,
        note: Option<&str>,
    ) -> Result<(), FleetError> {
        let mut tx = self.db().write().await?;
        let row = waiting(&mut tx, id, self.now().0).await?;
        if state == ProposalState::Withdrawn {
            if row.proposer != person.account {
                return Err(FleetError::forbidden(format!(
                    "proposal {id} is {}'s: refuse it instead",
                    row.proposer
                )));
            }
        } else {
            second(&mut tx, &row, person).await?;
        }
        self.decide(&mut tx, &row, person, state, note, None)
            .await?;
        not_sent(&mut tx, &row).await?;
        tx.commit().await?;
        self.tell_proposal(&row, state);
        Ok(())
    }

    /// Ends what nobody has decided in time.
    pub(crate) async fn proposals_expire(&self) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let expired = proposal_expire(&mut tx, now.0).await?;
        for row in &expired {
            not_sent(&mut tx, row).await?;
            let what = json!({ "proposal": row.proposal_id, "proposed_by": row.proposed_by });
            let cloud = Actor("upkeep".to_owned());
            audit(&mut tx, &cloud, "proposal.expire", subject(row), what, now).await?;
        }
        tx.commit().await?;
        for row in &expired {
            self.tell_proposal(row, ProposalState::Expired);
        }
        Ok(())
    }

    async fn decide(
        &self,
        tx: &mut Tx,
        row: &ProposalRow,
        person: &Person,
        state: ProposalState,
        note: Option<&str>,
        signed: Option<&Signed>,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let command: Option<&CommandId> = signed.map(|signed| &signed.id);
        let decision = Decision {
            state,
            by: &person.actor.0,
            account: &person.account,
            note,
            command,
        };
        if !proposal_decide(tx, &row.proposal_id, decision, now.0).await? {
            return Err(decided(&row.proposal_id));
        }
        let action = match state {
            ProposalState::Approved => "proposal.approve",
            ProposalState::Withdrawn => "proposal.withdraw",
            _ => "proposal.refuse",
        };
        let what = json!({
            "proposal": row.proposal_id, "kind": row.kind, "proposed_by": row.proposed_by,
            "proposer": row.proposer, "proposed": row.created, "reason": row.reason,
            "account": person.account, "note": note, "command": command,
        });
        audit(tx, &person.actor, action, subject(row), what, now).await
    }

    fn tell_proposal(&self, row: &ProposalRow, state: ProposalState) {
        let box_id = row.box_id.as_deref().and_then(|id| id.parse().ok());
        let id = row.proposal_id.clone();
        let state = state.to_string();
        self.tell(box_id.as_ref(), FleetEventKind::Proposal { id, state });
    }
}

fn check(new: &NewProposal) -> Result<(), FleetError> {
    if !new.command.is_destructive() {
        return Err(FleetError::invalid(format!(
            "{} takes one person: send it as a command",
            new.command.name()
        )));
    }
    check_reason(&new.reason)?;
    if !(60..=MAX_DECIDE_SECS).contains(&new.decide_within_secs) {
        return Err(FleetError::invalid(format!(
            "a proposal waits 60 to {MAX_DECIDE_SECS} seconds, not {}",
            new.decide_within_secs
        )));
    }
    if !(1..=MAX_VALID_SECS).contains(&new.valid_for_secs) {
        return Err(FleetError::invalid(format!(
            "a command is valid for 1 to {MAX_VALID_SECS} seconds, not {}",
            new.valid_for_secs
        )));
    }
    Ok(())
}

fn check_reason(reason: &str) -> Result<(), FleetError> {
    let length = reason.chars().count();
    if reason.trim().is_empty() || length > 1000 || reason.contains('\0') {
        return Err(FleetError::invalid(
            "say in 1 to 1,000 characters why it shall be done",
        ));
    }
    Ok(())
}

/// Ends the bulk command behind a proposal that was not approved.
async fn not_sent(tx: &mut Tx, row: &ProposalRow) -> Result<(), FleetError> {
    if let Some(bulk) = &row.bulk_id {
        bulk_advance(tx, bulk, BulkState::Proposed, BulkState::Refused).await?;
    }
    Ok(())
}

/// Whether a box in this state gets commands.
pub(super) fn takes_commands(box_id: &BoxId, state: BoxState) -> Result<(), FleetError> {
    match state {
        BoxState::Active | BoxState::Inventoried => Ok(()),
        BoxState::Quarantined | BoxState::Revoked => Err(FleetError::conflict(format!(
            "box {box_id} is {state} and gets no commands"
        ))),
    }
}

fn subject(row: &ProposalRow) -> &str {
    let named = row.box_id.as_deref().or(row.bulk_id.as_deref());
    named.unwrap_or(&row.proposal_id)
}

fn unknown(id: &str) -> FleetError {
    FleetError::not_found(format!("there is no proposal {id}"))
}

fn decided(id: &str) -> FleetError {
    FleetError::conflict(format!(
        "proposal {id} is decided already, or its time has passed"
    ))
}

async fn waiting(tx: &mut Tx, id: &str, now: i64) -> Result<ProposalRow, FleetError> {
    let row = proposal_get(tx, id).await?.ok_or_else(|| unknown(id))?;
    if row.state == ProposalState::Open && row.expires > now {
        Ok(row)
    } else {
        Err(decided(id))
    }
}

/// Whether `person` is a second one, and both may still do such things.
async fn second(tx: &mut Tx, row: &ProposalRow, person: &Person) -> Result<(), FleetError> {
    if row.proposer == person.account {
        return Err(FleetError::forbidden(
            "whoever proposed it cannot decide it: it takes another account",
        ));
    }
    may_still(tx, &row.proposer).await?;
    may_still(tx, &person.account).await
}

/// An account that was removed or demoted counts no longer, whatever its tokens may do.
async fn may_still(tx: &mut Tx, account: &str) -> Result<(), FleetError> {
    let found = operator_get(tx, account).await?;
    let may = found.is_some_and(|row| row.role.includes(Role::Operator) && row.tenant_id.is_none());
    if may {
        Ok(())
    } else {
        Err(FleetError::forbidden(format!(
            "account {account:?} is not, or no longer, an operator's: it takes two who are"
        )))
    }
}
