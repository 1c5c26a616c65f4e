//! Orders' networks: a questionnaire that people fill in, and that a probe's report fills in too.

use std::collections::BTreeMap;

use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::OrderId;
use longhaul_protocol::inventory::NetworkHints;
use longhaul_protocol::network::{NetworkAnswers, OrderFile};
use longhaul_protocol::probe::{ProbeClaims, ProbeTicket, SignedReport};
use longhaul_protocol::value::{Blob, Jws, UnixMillis};
use longhaul_provisioning::jws::Kind;
use longhaul_provisioning::probe::{self, ProbeError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Actor, Fleet, FleetError, audit, fresh};
use crate::store::Tx;
use crate::store::order_networks::{
    NetworkRow, ReportRow, order_network_get, order_network_lock, order_network_set,
    probe_report_insert,
};
use crate::store::orders::{OrderRow, order_get};
use crate::store::tenants::TenantId;

/// The longest that a probe's ticket may be valid, in seconds.
pub const MAX_PROBE_SECS: u32 = 90 * 86_400;

/// What is known of an order's network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OrderNetwork {
    /// What people answered.
    pub said: NetworkAnswers,
    /// Who answered what, and when.
    pub said_by: BTreeMap<String, Said>,
    /// What a probe found.
    pub found: NetworkAnswers,
    /// The report that it comes from.
    pub report: Option<String>,
}

/// Who answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Said {
    /// Who.
    pub by: String,
    /// When.
    pub at: UnixMillis,
}

impl OrderNetwork {
    /// The answers that count: what people said, else what was found.
    pub fn answers(&self) -> NetworkAnswers {
        let (said, found) = (self.said.clone(), self.found.clone());
        NetworkAnswers {
            address: said.address.or(found.address),
            vlan: said.vlan.or(found.vlan),
            proxy: said.proxy.or(found.proxy),
            dot1x: said.dot1x.or(found.dot1x),
            egress: said.egress.or(found.egress),
        }
    }

    fn read(row: Option<NetworkRow>) -> Result<Self, FleetError> {
        let Some(row) = row else {
            return Ok(Self::default());
        };
        let broken = |e| FleetError::internal("an order's network is unreadable", e);
        Ok(Self {
            said: serde_json::from_str(&row.said).map_err(broken)?,
            said_by: serde_json::from_str(&row.said_by).map_err(broken)?,
            found: serde_json::from_str(&row.found).map_err(broken)?,
            report: row.report_id,
        })
    }

    fn row(&self, order: &OrderId, now: UnixMillis) -> Result<NetworkRow, FleetError> {
        let broken = |e| FleetError::internal("an order's network cannot be written", e);
        Ok(NetworkRow {
            order_id: order.clone(),
            said: serde_json::to_string(&self.said).map_err(broken)?,
            said_by: serde_json::to_string(&self.said_by).map_err(broken)?,
            found: serde_json::to_string(&self.found).map_err(broken)?,
            report_id: self.report.clone(),
            updated: now.0,
        })
    }
}

impl Fleet {
    /// What is known of an order's network; for a tenant, of its own orders.
    pub async fn order_network(
        &self,
        tenant: Option<&TenantId>,
        order: &OrderId,
    ) -> Result<OrderNetwork, FleetError> {
        let mut tx = self.db().read().await?;
        known(&mut tx, order, tenant).await?;
        OrderNetwork::read(order_network_get(&mut tx, order).await?)
    }

    /// Takes down what a person says: all answers, those that are absent count as not answered.
    pub async fn order_network_say(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        order: &OrderId,
        said: NetworkAnswers,
    ) -> Result<OrderNetwork, FleetError> {
        said.check()
            .map_err(|e| FleetError::invalid(e.to_string()))?;
        let now = self.now();
        let mut tx = self.db().write().await?;
        known(&mut tx, order, tenant).await?;
        order_network_lock(&mut tx, order).await?;
        let before = OrderNetwork::read(order_network_get(&mut tx, order).await?)?;
        let said_by = by_question(&said, &before, actor, now)?;
        let network = OrderNetwork {
            said,
            said_by,
            ..before
        };
        order_network_set(&mut tx, &network.row(order, now)?).await?;
        let what = json!({ "said": network.said });
        audit(&mut tx, actor, "order.network", order.as_str(), what, now).await?;
        tx.commit().await?;
        Ok(network)
    }

    /// The order for the factory, signed.
    pub async fn order_file(
        &self,
        tenant: Option<&TenantId>,
        order: &OrderId,
    ) -> Result<Jws, FleetError> {
        let network = self.order_network(tenant, order).await?;
        let file = OrderFile {
            v: VERSION,
            order: order.clone(),
            network: network.answers(),
            made_at: self.now(),
        };
        let file = serde_json::to_vec(&file)
            .map_err(|e| FleetError::internal("failed to write an order", e))?;
        let stater = self.identity().stater();
        stater
            .sign(Kind::Order, &file)
            .map_err(|e| FleetError::internal("failed to sign an order", e))
    }

    /// Makes a probe's ticket for an order.
    pub async fn probe_ticket(
        &self,
        actor: &Actor,
        tenant: Option<&TenantId>,
        order: &OrderId,
        valid_for_secs: u32,
        hints: NetworkHints,
    ) -> Result<ProbeTicket, FleetError> {
        if !(1..=MAX_PROBE_SECS).contains(&valid_for_secs) {
            return Err(FleetError::invalid(format!(
                "a probe's ticket is valid for 1 to {MAX_PROBE_SECS} seconds, not {valid_for_secs}"
            )));
        }
        let now = self.now();
        let mut tx = self.db().write().await?;
        known(&mut tx, order, tenant).await?;
        let claims = ProbeClaims {
            v: VERSION,
            id: fresh("pt")?,
            order: order.clone(),
            endpoints: self.endpoints().to_vec(),
            root_pem: self.identity().pki().root_pem(),
            hints,
            egress: self.buckets().way().into_iter().collect(),
            key: Blob::default(),
            issued: now,
            expires: now.plus_secs(i64::from(valid_for_secs)),
        };
        let what = json!({ "ticket": claims.id, "expires": claims.expires });
        let ticket = probe::ticket(&self.identity().stater(), claims)
            .map_err(|e| FleetError::internal("failed to make a probe's ticket", e))?;
        audit(&mut tx, actor, "order.probe", order.as_str(), what, now).await?;
        tx.commit().await?;
        Ok(ticket)
    }

    /// Takes a probe's report: it fills in what nobody has answered, and stands beside what somebody
    /// has. Yields the order and the report's name.
    pub async fn probe_report(
        &self,
        sender: &str,
        of: Option<(&OrderId, Option<&TenantId>)>,
        signed: &SignedReport,
    ) -> Result<(OrderId, String), FleetError> {
        let now = self.now();
        let (claims, report) =
            probe::verify(signed, self.identity().anchors(), now).map_err(why)?;
        let (order, tenant) = match of {
            Some((order, _)) if *order != claims.order => {
                return Err(FleetError::forbidden("the report is another order's"));
            }
            Some((_, tenant)) => (&claims.order, tenant),
            None => (&claims.order, None),
        };
        let report_id = blake3::hash(&SignedReport::signed(&signed.ticket, &signed.report))
            .to_hex()
            .to_string();
        let mut tx = self.db().write().await?;
        known(&mut tx, order, tenant).await?;
        order_network_lock(&mut tx, order).await?;
        let row = ReportRow {
            order_id: order.clone(),
            report_id: report_id.clone(),
            received: now.0,
            sent_by: sender.to_owned(),
            detail: serde_json::to_string(&report)
                .map_err(|e| FleetError::internal("failed to write a report", e))?
                .replace("\\u0000", "\\ufffd"),
        };
        if probe_report_insert(&mut tx, &row).await? {
            let before = OrderNetwork::read(order_network_get(&mut tx, order).await?)?;
            let network = OrderNetwork {
                found: report.answers(),
                report: Some(report_id.clone()),
                ..before
            };
            order_network_set(&mut tx, &network.row(order, now)?).await?;
            let what = json!({ "report": report_id, "findings": report.findings.len() });
            let actor = Actor(sender.to_owned());
            audit(&mut tx, &actor, "order.probed", order.as_str(), what, now).await?;
        }
        tx.commit().await?;
        Ok((order.clone(), report_id))
    }
}

async fn known(
    tx: &mut Tx,
    order: &OrderId,
    tenant: Option<&TenantId>,
) -> Result<OrderRow, FleetError> {
    let found = order_get(tx, order, tenant).await?;
    found.ok_or_else(|| FleetError::not_found(format!("there is no order {order}")))
}

/// Who answered each question: whoever changed the answer last.
fn by_question(
    said: &NetworkAnswers,
    before: &OrderNetwork,
    actor: &Actor,
    now: UnixMillis,
) -> Result<BTreeMap<String, Said>, FleetError> {
    let fields = |answers: &NetworkAnswers| {
        serde_json::to_value(answers)
            .map_err(|e| FleetError::internal("answers cannot be written", e))
    };
    let (now_said, was_said) = (fields(said)?, fields(&before.said)?);
    let answered = NetworkAnswers::FIELDS.iter().filter_map(|field| {
        let answer = now_said.get(field)?;
        let same = was_said.get(field) == Some(answer);
        let kept = before.said_by.get(*field).filter(|_| same).cloned();
        let by = kept.unwrap_or_else(|| Said {
            by: actor.0.clone(),
            at: now,
        });
        Some(((*field).to_owned(), by))
    });
    Ok(answered.collect())
}

fn why(error: ProbeError) -> FleetError {
    let text = error.to_string();
    let refused = match error {
        ProbeError::Malformed { .. }
        | ProbeError::TooLong(_)
        | ProbeError::TooMuch(_)
        | ProbeError::Version { .. } => FleetError::invalid(text),
        _ => FleetError::forbidden(text),
    };
    refused.with_source(error)
}
