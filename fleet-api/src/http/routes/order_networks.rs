//! The networks that orders' boxes go to: what people say, what a probe finds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use longhaul_protocol::ids::OrderId;
use longhaul_protocol::inventory::NetworkHints;
use longhaul_protocol::network::{BadAnswer, NetworkAnswers};
use longhaul_protocol::probe::{MAX_REPORT, SignedReport};
use longhaul_protocol::value::{Blob, Jws};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, Type};

use super::endpoint;
use super::orders::OrderPath;
use super::paging::{PartQuery, TimePlace, page};
use crate::fleet::OrderNetwork;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::{Fault, Problem};
use crate::http::reply::File;
use crate::store::operators::Role;
use crate::store::order_networks::{ReportRow, probe_report_list};
use crate::store::orders::order_get;

/// How long a probe's ticket is valid, where the caller does not say, in days.
const DEFAULT_DAYS: u32 = 14;
/// Hints of each kind at the most.
const MAX_HINTS: usize = 4;
/// Longest hint, in characters.
const MAX_HINT_CHARS: usize = 300;

pub(super) fn add(api: Api) -> Api {
    api.add::<OrderNetworkGet>()
        .add::<OrderNetworkSet>()
        .add::<OrderFileGet>()
        .add::<ProbeTicketMake>()
        .add::<ProbeReportList>()
        .add::<ProbeReportAdd>()
}

/// Answers to the questionnaire; what is absent was not answered.
#[derive(Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "address": { "kind": "static", "address": "192.0.2.7", "prefix_len": 24, "gateway": "192.0.2.1", "dns": ["192.0.2.53"] },
    "vlan": 20, "proxy": "http://proxy.example:3128", "dot1x": false, "egress": [{ "host": "*", "port": 443 }],
}))]
pub struct Answers {
    /// How the box gets its address: `dhcp`, or `static` with what is needed for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
    /// The VLAN that the box's port is in, 1 to 4094; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 4094)]
    vlan: Option<u16>,
    /// The HTTP proxy, `http://host:port`, without a log-in: that is set on the box. Empty for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<String>,
    /// Whether the network asks for 802.1X.
    #[serde(skip_serializing_if = "Option::is_none")]
    dot1x: Option<bool>,
    /// Where the box may connect to, at most 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 32)]
    egress: Option<Vec<Way>>,
}

/// How a box gets its address.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Address {
    /// The network gives it one.
    Dhcp,
    /// It is given here.
    Static {
        /// The box's address.
        #[schema(value_type = String)]
        address: IpAddr,
        /// Length of the network's prefix in bits.
        #[schema(minimum = 1, maximum = 128)]
        prefix_len: u8,
        /// The gateway, in that network.
        #[schema(value_type = Option<String>)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        gateway: Option<IpAddr>,
        /// DNS servers, at most 4.
        #[schema(value_type = Vec<String>, max_items = 4)]
        #[serde(default)]
        dns: Vec<IpAddr>,
    },
}

/// A way out that is open.
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// Name or address; `*` for any.
    host: String,
    /// TCP port.
    #[schema(minimum = 1, maximum = 65_535)]
    port: u16,
}

impl Answers {
    fn read(&self) -> Result<NetworkAnswers, Problem> {
        let answers = serde_json::to_value(self)
            .and_then(serde_json::from_value::<NetworkAnswers>)
            .map_err(|e| Problem::invalid(format!("the answers do not fit: {e}")))?;
        answers
            .check()
            .map_err(|BadAnswer { field, rule }| Problem::faults(vec![Fault::at(field, rule)]))?;
        Ok(answers)
    }

    fn show(answers: &NetworkAnswers) -> Result<Self, Problem> {
        serde_json::to_value(answers)
            .and_then(serde_json::from_value)
            .map_err(|e| Problem::internal("answers", &e))
    }
}

/// What is known of an order's network.
#[derive(Serialize, ToSchema)]
pub struct Network {
    /// The answers that count: what people said, else what a probe found.
    answers: Answers,
    /// What people said.
    said: Answers,
    /// Who said it, by question.
    said_by: BTreeMap<String, SaidBy>,
    /// What the newest report found.
    found: Answers,
    /// The questions that people answered and a probe otherwise: somebody should look.
    differs: Vec<&'static str>,
    /// The report that `found` comes from.
    report: Option<String>,
}

/// Who answered a question.
#[derive(Serialize, ToSchema)]
pub struct SaidBy {
    /// Who.
    by: String,
    /// When.
    at: i64,
}

impl Network {
    fn of(network: &OrderNetwork) -> Result<Self, Problem> {
        let broken = |e| Problem::internal("answers", &e);
        let said = serde_json::to_value(&network.said).map_err(broken)?;
        let found = serde_json::to_value(&network.found).map_err(broken)?;
        let differs = NetworkAnswers::FIELDS
            .into_iter()
            .filter(|field| {
                let both = said.get(field).zip(found.get(field));
                both.is_some_and(|(said, found)| said != found)
            })
            .collect();
        let said_by = network.said_by.iter().map(|(field, said)| {
            let said = SaidBy {
                by: said.by.clone(),
                at: said.at.0,
            };
            (field.clone(), said)
        });
        Ok(Self {
            answers: Answers::show(&network.answers())?,
            said: Answers::show(&network.said)?,
            said_by: said_by.collect(),
            found: Answers::show(&network.found)?,
            differs,
            report: network.report.clone(),
        })
    }
}

endpoint! {
    /// What is known.
    OrderNetworkGet = GET "/v1/orders/{order_id}/network" as "orderNetworkGet", Scope::Shared(Role::Viewer), OK;
    "What is known of the network that an order's boxes go to: its questionnaire, and what a probe found."
    (OrderPath, Nothing, NoBody) -> Json<Network> = get
}

async fn get(call: Call<OrderNetworkGet>) -> Result<Json<Network>, Problem> {
    let fleet = &call.people.fleet;
    let network = fleet
        .order_network(call.caller.tenant(), &call.path.order_id)
        .await?;
    Ok(Json(Network::of(&network)?))
}

endpoint! {
    /// What people say.
    OrderNetworkSet = PUT "/v1/orders/{order_id}/network" as "orderNetworkSet", Scope::Shared(Role::Operator), OK;
    "Answers an order's questionnaire; what is left out counts as not answered."
    (OrderPath, Nothing, Json<Answers>) -> Json<Network> = set
}

async fn set(call: Call<OrderNetworkSet>) -> Result<Json<Network>, Problem> {
    let said = call.body.0.read()?;
    let (fleet, actor) = (&call.people.fleet, call.caller.actor());
    let network = fleet
        .order_network_say(&actor, call.caller.tenant(), &call.path.order_id, said)
        .await?;
    Ok(Json(Network::of(&network)?))
}

endpoint! {
    /// For the factory.
    OrderFileGet = GET "/v1/orders/{order_id}/file" as "orderFileGet", Scope::Role(Role::Operator), OK;
    "The order as the factory takes it (`longhaul-factory make --order FILE`), signed."
    (OrderPath, Nothing, NoBody) -> File = order_file
}

async fn order_file(call: Call<OrderFileGet>) -> Result<File, Problem> {
    let (fleet, order) = (&call.people.fleet, &call.path.order_id);
    let Jws(compact) = fleet.order_file(call.caller.tenant(), order).await?;
    Ok(file(
        format!("longhaul-{order}.order.jws"),
        "application/jose",
        compact.into_bytes(),
    ))
}

fn file(name: String, content_type: &str, bytes: Vec<u8>) -> File {
    File {
        name,
        content_type: content_type.to_owned(),
        bytes: bytes.len() as u64,
        body: Box::pin(futures::stream::iter([Ok(Bytes::from(bytes))])),
    }
}

endpoint! {
    /// For `longhaul-probe`.
    ProbeTicketMake = POST "/v1/orders/{order_id}/probe-tickets" as "probeTicketMake", Scope::Shared(Role::Operator), OK;
    "Makes a ticket for `longhaul-probe`, which looks at the network before a box is there. Each has a key of its own."
    (OrderPath, Nothing, Json<NewProbeTicket>) -> File = make_ticket
}

/// What a probe is told.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewProbeTicket {
    /// Days for which reports under it are taken, 1 to 90; 14 if absent.
    #[schema(minimum = 1, maximum = 90)]
    days: Option<u32>,
    /// Where the signed status beacon is served, `http://..`, at most 4: by it a captive portal shows.
    #[serde(default)]
    #[schema(schema_with = beacon_list)]
    beacons: Vec<String>,
    /// Servers of others, `host:port`, at most 4: by them a shut network is told from a shut way to us.
    #[serde(default)]
    #[schema(schema_with = reach_list)]
    reach: Vec<String>,
}

fn beacon_list() -> Array {
    hint_list(r"^http://[^\x00]*$")
}

fn reach_list() -> Array {
    hint_list(r"^[^\x00]+$")
}

/// From the same constants as the check.
fn hint_list(pattern: &str) -> Array {
    let one = ObjectBuilder::new()
        .schema_type(Type::String)
        .max_length(Some(MAX_HINT_CHARS))
        .pattern(Some(pattern));
    let all = ArrayBuilder::new().items(one);
    all.max_items(Some(MAX_HINTS)).build()
}

async fn make_ticket(call: Call<ProbeTicketMake>) -> Result<File, Problem> {
    let NewProbeTicket {
        days,
        beacons,
        reach,
    } = call.body.0;
    let wrong = |hints: &[String]| {
        hints.len() > MAX_HINTS
            || hints
                .iter()
                .any(|h| h.is_empty() || h.chars().count() > MAX_HINT_CHARS || h.contains('\0'))
    };
    if wrong(&beacons) || wrong(&reach) || beacons.iter().any(|b| !b.starts_with("http://")) {
        return Err(Problem::invalid(
            "beacons are http:// URLs and reach is host:port; at most 4 of each",
        ));
    }
    let hints = NetworkHints {
        beacons,
        reach,
        proxy: None,
    };
    let secs = days.unwrap_or(DEFAULT_DAYS).saturating_mul(86_400);
    let (fleet, order) = (&call.people.fleet, &call.path.order_id);
    let actor = call.caller.actor();
    let ticket = fleet
        .probe_ticket(&actor, call.caller.tenant(), order, secs, hints)
        .await?;
    let mut text =
        serde_json::to_vec_pretty(&ticket).map_err(|e| Problem::internal("ticket", &e))?;
    text.push(b'\n');
    Ok(file(
        format!("longhaul-{order}.probe.json"),
        "application/json",
        text,
    ))
}

/// One report of a probe.
#[derive(Serialize, ToSchema)]
pub struct ProbeReportView {
    /// Its name: a hash of what was signed.
    id: String,
    /// When it came.
    received: i64,
    /// Who sent it: a person, or `probe` itself.
    sent_by: String,
    /// What the probe found.
    #[schema(value_type = Object)]
    report: serde_json::Value,
}

impl From<ReportRow> for ProbeReportView {
    fn from(row: ReportRow) -> Self {
        Self {
            id: row.report_id,
            received: row.received,
            sent_by: row.sent_by,
            report: serde_json::from_str(&row.detail).unwrap_or_default(),
        }
    }
}

page! {
    /// A page of reports.
    ProbeReportPage of ProbeReportView
}

endpoint! {
    /// What probes found.
    ProbeReportList = GET "/v1/orders/{order_id}/probe-reports" as "probeReportList", Scope::Shared(Role::Viewer), OK;
    "Probes' reports on an order's network, newest first; the newest 20 are kept."
    (OrderPath, PartQuery, NoBody) -> Json<ProbeReportPage> = list
}

async fn list(call: Call<ProbeReportList>) -> Result<Json<ProbeReportPage>, Problem> {
    let part = call.query.part::<TimePlace>()?;
    let before = part.place.as_ref().map(TimePlace::place);
    let order: &OrderId = &call.path.order_id;
    let mut tx = call.people.db.read().await?;
    if order_get(&mut tx, order, call.caller.tenant())
        .await?
        .is_none()
    {
        return Err(Problem::not_found(format!("there is no order {order}")));
    }
    let rows = probe_report_list(&mut tx, order, before, part.limit).await?;
    let next = part.next(&rows, |last| (last.received, last.report_id.clone()))?;
    Ok(Json(ProbeReportPage::new(rows, next, &call.people)))
}

endpoint! {
    /// By hand.
    ProbeReportAdd = POST "/v1/orders/{order_id}/probe-reports" as "probeReportAdd", Scope::Shared(Role::Operator), OK;
    "Takes the signed report of a probe that could not send it itself; its questionnaire fills itself in."
    (OrderPath, Nothing, Json<NewReport, { 2 * MAX_REPORT }>) -> Json<Network> = add_report
}

/// A report as `longhaul-probe` writes it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReport {
    /// The ticket that it was made under.
    ticket: String,
    /// The report, as it was signed.
    report: String,
    /// The signature, base64.
    #[schema(value_type = String)]
    signature: Blob,
}

async fn add_report(call: Call<ProbeReportAdd>) -> Result<Json<Network>, Problem> {
    let NewReport {
        ticket,
        report,
        signature,
    } = call.body.0;
    let signed = SignedReport {
        ticket: Jws(ticket),
        report,
        signature,
    };
    let (fleet, tenant) = (&call.people.fleet, call.caller.tenant());
    let (order, actor) = (&call.path.order_id, call.caller.actor());
    // Whose order it is comes before what is wrong with the report.
    fleet.order_network(tenant, order).await?;
    fleet
        .probe_report(&actor.0, Some((order, tenant)), &signed)
        .await?;
    let network = fleet.order_network(tenant, order).await?;
    Ok(Json(Network::of(&network)?))
}
