//! How a box is shown.

use longhaul_protocol::diag::{RungReport, RungStatus};
use longhaul_protocol::ids::BoxId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::http::problem::Problem;
use crate::http::tag::Changeable;
use crate::store::Tx;
use crate::store::boxes::{BoxRow, BoxState, box_get};
use crate::store::quarantines::QuarantineRow;

/// Which box.
#[derive(Deserialize, IntoParams)]
pub struct BoxPath {
    /// The box's twelve characters.
    #[param(value_type = String)]
    pub box_id: BoxId,
}

impl Changeable for BoxView {
    fn changeable(&self) -> serde_json::Value {
        serde_json::json!([self.label, self.site, self.tenant])
    }
}

/// One box as the cloud last knew it.
#[derive(Serialize, ToSchema)]
pub struct BoxView {
    /// Its name.
    id: String,
    /// What it may do.
    state: BoxState,
    /// An operator's name for it.
    label: String,
    /// Where it stands.
    site: String,
    /// The order that it was made for.
    order: Option<String>,
    /// The tenant that has it.
    tenant: Option<String>,
    /// Hardware type.
    hardware: String,
    /// When the factory made it.
    made_at: i64,
    /// When its record was imported.
    created: i64,
    /// When any of this changed.
    changed: i64,
    /// Whether it has a session now.
    online: bool,
    /// Since when `online` is so; absent if it never connected.
    online_since: Option<i64>,
    /// When the cloud last heard from it.
    last_seen: Option<i64>,
    /// The boot that it runs in.
    boot: Option<String>,
    /// Version of its agent.
    agent_version: Option<String>,
    /// Version of its operating system.
    os_version: Option<String>,
    /// What its agent can do.
    capabilities: Vec<String>,
    /// Its ladder, from the cable up.
    rungs: Vec<RungView>,
    /// Where its data plane is on the LAN.
    lan_urls: Vec<String>,
    /// When its certificate expires.
    certificate_expires: Option<i64>,
    /// Version of the desired state that was signed last.
    desired_version: i64,
    /// Version of the desired state that it has applied.
    applied_version: i64,
}

/// One rung as last reported.
#[derive(Serialize, ToSchema)]
pub struct RungView {
    /// Which rung.
    rung: String,
    /// `ok`, `failed`, `not_reached` or `trying`.
    #[schema(value_type = String)]
    status: RungStatus,
    /// Why it does not hold.
    code: Option<String>,
    /// A few words about the code.
    title: Option<&'static str>,
    /// What was seen.
    evidence: String,
    /// Since when, by the box's clock.
    since: i64,
}

impl From<RungReport> for RungView {
    fn from(report: RungReport) -> Self {
        Self {
            rung: report.rung.to_string(),
            status: report.status,
            code: report.code.map(|c| c.to_string()),
            title: report.code.map(|c| c.entry().title),
            evidence: report.evidence,
            since: report.since.0,
        }
    }
}

impl From<BoxRow> for BoxView {
    fn from(row: BoxRow) -> Self {
        let rungs: Vec<RungReport> = serde_json::from_str(&row.rungs).unwrap_or_default();
        Self {
            id: row.box_id.to_string(),
            state: row.state,
            lan_urls: row.lan_urls(),
            label: row.label,
            site: row.site,
            order: row.order_id,
            tenant: row.tenant_id,
            hardware: row.hardware,
            made_at: row.made_at,
            created: row.created,
            changed: row.changed,
            online: row.connected,
            online_since: row.connected_since,
            last_seen: row.last_seen,
            boot: row.boot_id,
            agent_version: row.agent_version,
            os_version: row.os_version,
            capabilities: serde_json::from_str(&row.capabilities).unwrap_or_default(),
            rungs: rungs.into_iter().map(RungView::from).collect(),
            certificate_expires: row.certificate_expires,
            desired_version: row.desired_version,
            applied_version: row.applied_version,
        }
    }
}

/// Why a box is held back.
#[derive(Serialize, ToSchema)]
pub struct QuarantineView {
    /// Since when.
    since: i64,
    /// Who held it back: an operator, or `enrolment`.
    held_by: String,
    /// Why, for people.
    reason: String,
    /// PCRs that differ from the nearest state that is accepted; empty where an operator held it back.
    differs: Vec<DifferenceView>,
    /// When it last proved a state that is accepted after all; absent if it has not.
    accepted: Option<i64>,
}

/// A PCR that is not what was expected.
#[derive(Serialize, ToSchema)]
pub struct DifferenceView {
    /// Which one, of the SHA-256 bank.
    pcr: u8,
    /// What is measured into it.
    measures: &'static str,
    /// Its value, hexadecimal.
    found: String,
    /// The value in the nearest state that is accepted, hexadecimal.
    expected: String,
}

impl From<QuarantineRow> for QuarantineView {
    fn from(row: QuarantineRow) -> Self {
        let differs = row.differs().into_iter().map(|d| DifferenceView {
            pcr: d.pcr,
            measures: d.measures(),
            found: d.found.to_string(),
            expected: d.expected.to_string(),
        });
        Self {
            since: row.since,
            differs: differs.collect(),
            held_by: row.held_by,
            reason: row.reason,
            accepted: row.accepted,
        }
    }
}

/// The box as this caller may see it: to a tenant, another's box is none.
pub async fn find_for(tx: &mut Tx, id: &BoxId, caller: &Caller) -> Result<BoxRow, Problem> {
    let row = find(tx, id).await?;
    match caller.tenant() {
        Some(tenant) if row.tenant_id.as_deref() != Some(tenant.as_str()) => Err(missing(id)),
        _ => Ok(row),
    }
}

fn missing(id: &BoxId) -> Problem {
    Problem::not_found(format!("there is no box {id}"))
}

/// The box, or the answer that there is none.
pub async fn find(tx: &mut Tx, id: &BoxId) -> Result<BoxRow, Problem> {
    box_get(tx, id).await?.ok_or_else(|| missing(id))
}
