//! Tickets: a random S3 key pair for one box and one bucket, its secret sealed in the database.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::{BoxId, TicketId};
use longhaul_protocol::ticket::{Credential, CredentialSet, Secret, Ticket};
use longhaul_protocol::value::UnixMillis;
use serde_json::json;

use super::boxes::known;
use super::desired::Wish;
use super::{Actor, Fleet, FleetError, FleetEventKind, NewTicket, audit, fresh};
use crate::auth::TicketHolder;
use crate::objects::names::check_bucket;
use crate::store::Tx;
use crate::store::boxes::{BoxState, box_get};
use crate::store::idempotency::idempotency_made;
use crate::store::orders::order_get;
use crate::store::tenants::{TenantId, bucket_claim, bucket_is_of};
use crate::store::tickets::{
    TicketRow, ticket_find, ticket_get, ticket_insert, ticket_list_valid, ticket_revoke,
};

/// The longest that a ticket may be valid, in seconds: a year.
const MAX_VALID_SECS: u32 = 366 * 86_400;
/// How long after its end a ticket still fetches its receipts, in seconds: they are wanted when the job
/// is over.
const RECEIPTS_AFTER_SECS: i64 = 366 * 86_400;
/// Tickets that one box may hold at once: they all travel in its desired state.
const MAX_TICKETS: usize = 200;

impl Fleet {
    /// Makes a ticket: a random S3 key pair for one box and one bucket.
    pub async fn ticket_create(&self, actor: &Actor, new: NewTicket) -> Result<Ticket, FleetError> {
        self.ticket_create_for(actor, None, new).await
    }

    /// As [`Fleet::ticket_create`]; for a tenant, on its own boxes and for its own buckets only.
    pub async fn ticket_create_for(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        new: NewTicket,
    ) -> Result<Ticket, FleetError> {
        check_bucket(&new.bucket).map_err(FleetError::invalid)?;
        if self.buckets().is_reserved(&new.bucket) {
            let text = format!("{:?} cannot be a destination: reserved", new.bucket);
            return Err(FleetError::invalid(text));
        }
        if !(1..=MAX_VALID_SECS).contains(&new.valid_for_secs) {
            return Err(FleetError::invalid(format!(
                "a ticket is valid for 1 to {MAX_VALID_SECS} seconds, not {}",
                new.valid_for_secs
            )));
        }
        let now = self.now();
        let id: TicketId = fresh("tk")?;
        let secret = random_text(40)?;
        let mut row = TicketRow {
            ticket_id: id.clone(),
            box_id: new.box_id.clone(),
            order_id: new.order.as_ref().map(|o| o.as_str().to_owned()),
            bucket: new.bucket,
            access_key: format!("LH{}", random_text(18)?.to_ascii_uppercase()),
            secret_sealed: self
                .seal()
                .seal(id.as_str(), secret.as_bytes())
                .map_err(|e| FleetError::internal("failed to seal a ticket", e))?,
            created_by: actor.0.clone(),
            created: now.0,
            expires: now.plus_secs(i64::from(new.valid_for_secs)).0,
            revoked: None,
            tenant_id: None,
        };
        let box_id = &new.box_id;
        let mut tx = self.db().write().await?;
        let in_fleet = box_get(&mut tx, box_id).await?;
        let in_fleet = in_fleet.filter(|b| is_of(b.tenant_id.as_deref(), tenant));
        let in_fleet = known(in_fleet, box_id)?;
        // Whoever has the box gets what it brings.
        row.tenant_id.clone_from(&in_fleet.tenant_id);
        let owner = owner(row.tenant_id.as_deref())?;
        if matches!(in_fleet.state, BoxState::Revoked | BoxState::Quarantined) {
            return Err(FleetError::conflict(format!(
                "box {box_id} is {} and gets no tickets",
                in_fleet.state
            )));
        }
        if let Some(order) = &new.order {
            let missing = || FleetError::not_found(format!("no order {order}"));
            let found = order_get(&mut tx, order, tenant).await?;
            if found.ok_or_else(missing)?.tenant_id != row.tenant_id {
                return Err(FleetError::conflict(format!(
                    "order {order} and box {box_id} are not the same tenant's: give the box to the order's tenant first"
                )));
            }
        }
        // A tenant gets no bucket by naming it: the object store may hold others that nobody here
        // knows of.
        let theirs = match tenant {
            Some(tenant) => bucket_is_of(&mut tx, &row.bucket, tenant).await?,
            None => bucket_claim(&mut tx, &row.bucket, owner.as_ref()).await?,
        };
        if !theirs {
            return Err(FleetError::conflict(format!(
                "bucket {} is not the tenant's who has box {box_id}",
                row.bucket
            )));
        }
        if ticket_list_valid(&mut tx, box_id, now.0).await?.len() >= MAX_TICKETS {
            return Err(FleetError::conflict(format!(
                "box {box_id} has {MAX_TICKETS} tickets already: revoke one that is not needed"
            )));
        }
        ticket_insert(&mut tx, &row).await?;
        self.desired_renew(&mut tx, box_id, Wish::default()).await?;
        let what = json!({ "ticket": id, "bucket": row.bucket });
        audit(&mut tx, actor, "ticket.create", box_id.as_str(), what, now).await?;
        idempotency_made(id.as_str());
        tx.commit().await?;
        self.desired_send(box_id, None).await?;
        self.tell(Some(box_id), FleetEventKind::Tickets);
        Ok(self.ticket(row, secret, in_fleet.lan_urls()))
    }

    /// The ticket as the customer downloads it, with its secret.
    pub async fn ticket_file(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        id: &TicketId,
    ) -> Result<Ticket, FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let row = ticket_get(&mut tx, id)
            .await?
            .filter(|row| is_of(row.tenant_id.as_deref(), tenant))
            .ok_or_else(|| FleetError::not_found(format!("no ticket {id}")))?;
        if row.revoked.is_some() || row.expires <= now.0 {
            return Err(FleetError::conflict(format!(
                "ticket {id} has ended: make a new one"
            )));
        }
        let in_fleet = known(box_get(&mut tx, &row.box_id).await?, &row.box_id)?;
        let what = json!({ "ticket": id });
        audit(
            &mut tx,
            actor,
            "ticket.download",
            row.box_id.as_str(),
            what,
            now,
        )
        .await?;
        tx.commit().await?;
        let secret = self.ticket_secret(&row)?;
        Ok(self.ticket(row, secret, in_fleet.lan_urls()))
    }

    /// Ends a ticket.
    pub async fn ticket_revoke(&self, actor: &Actor, id: &TicketId) -> Result<(), FleetError> {
        self.ticket_revoke_for(actor, None, id).await
    }

    /// As [`Fleet::ticket_revoke`]; for a tenant, its own only.
    pub async fn ticket_revoke_for(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        id: &TicketId,
    ) -> Result<(), FleetError> {
        let now = self.now();
        let mut tx = self.db().write().await?;
        let row = ticket_get(&mut tx, id)
            .await?
            .filter(|row| is_of(row.tenant_id.as_deref(), tenant))
            .ok_or_else(|| FleetError::not_found(format!("no ticket {id}")))?;
        if !ticket_revoke(&mut tx, id, now.0).await? {
            return Ok(());
        }
        self.desired_renew(&mut tx, &row.box_id, Wish::default())
            .await?;
        let what = json!({ "ticket": id });
        audit(
            &mut tx,
            actor,
            "ticket.revoke",
            row.box_id.as_str(),
            what,
            now,
        )
        .await?;
        tx.commit().await?;
        self.desired_send(&row.box_id, None).await?;
        self.tell(Some(&row.box_id), FleetEventKind::Tickets);
        Ok(())
    }

    /// Who shows this key pair: a ticket that was not revoked and has not ended long ago.
    pub async fn ticket_holder(
        &self,
        access_key: &str,
        secret: &str,
    ) -> Result<Option<TicketHolder>, FleetError> {
        if access_key.contains('\0') {
            return Ok(None);
        }
        let mut tx = self.db().read().await?;
        let row = ticket_find(&mut tx, access_key).await?;
        drop(tx);
        let Some(row) = row.filter(|row| row.revoked.is_none()) else {
            return Ok(None);
        };
        let last = UnixMillis(row.expires).plus_secs(RECEIPTS_AFTER_SECS);
        let known = self.ticket_secret(&row)?;
        let same = verify_slices_are_equal(known.as_bytes(), secret.as_bytes()).is_ok();
        Ok((same && self.now() < last).then_some(TicketHolder {
            ticket: row.ticket_id,
            box_id: row.box_id,
            bucket: row.bucket,
        }))
    }

    /// Every secret that a box must know now.
    pub(crate) async fn credentials(&self, box_id: &BoxId) -> Result<CredentialSet, FleetError> {
        let mut tx = self.db().read().await?;
        self.credentials_in(&mut tx, box_id).await
    }

    /// The same, in a transaction of the caller's.
    pub(crate) async fn credentials_in(
        &self,
        tx: &mut Tx,
        box_id: &BoxId,
    ) -> Result<CredentialSet, FleetError> {
        let row = known(box_get(tx, box_id).await?, box_id)?;
        let tickets = ticket_list_valid(tx, box_id, self.now().0).await?;
        let mut credentials = Vec::with_capacity(tickets.len());
        for ticket in tickets {
            credentials.push(Credential {
                secret_key: Secret(self.ticket_secret(&ticket)?),
                ticket: ticket.ticket_id,
                bucket: ticket.bucket,
                access_key: ticket.access_key,
                expires: UnixMillis(ticket.expires),
            });
        }
        Ok(CredentialSet {
            desired_version: u64::try_from(row.desired_version).unwrap_or(0),
            credentials,
        })
    }

    fn ticket_secret(&self, row: &TicketRow) -> Result<String, FleetError> {
        let secret = self
            .seal()
            .open(row.ticket_id.as_str(), &row.secret_sealed)
            .map_err(|e| FleetError::internal("failed to open a ticket", e))?;
        String::from_utf8(secret).map_err(|e| FleetError::internal("failed to open a ticket", e))
    }

    fn ticket(&self, row: TicketRow, secret: String, lan_urls: Vec<String>) -> Ticket {
        Ticket {
            v: VERSION,
            id: row.ticket_id,
            box_id: row.box_id,
            order: row.order_id.and_then(|text| text.parse().ok()),
            bucket: row.bucket,
            region: self.inner.parts.region.clone(),
            access_key: row.access_key,
            secret_key: Secret(secret),
            issued: Some(UnixMillis(row.created)),
            expires: UnixMillis(row.expires),
            root_pem: self.identity().pki().root_pem(),
            lan_urls,
            cloud_url: Some(self.inner.parts.people_url.clone()),
        }
    }
}

/// Whether what belongs to `owner` is there for someone who is bound to `tenant`.
fn is_of(owner: Option<&str>, tenant: Option<&TenantId>) -> bool {
    tenant.is_none_or(|tenant| owner == Some(tenant.as_str()))
}

/// A tenant as the store names it.
fn owner(text: Option<&str>) -> Result<Option<TenantId>, FleetError> {
    let unnamed = |e| FleetError::internal("a stored tenant has no name", e);
    text.map(str::parse).transpose().map_err(unnamed)
}

/// Random letters and digits; each carries five bits.
fn random_text(length: usize) -> Result<String, FleetError> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = vec![0; length];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|e| FleetError::internal("the system has no randomness", e))?;
    let letter = |b: u8| char::from(ALPHABET[usize::from(b % 32)]);
    Ok(bytes.into_iter().map(letter).collect())
}
