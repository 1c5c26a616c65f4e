//! What the API says about itself.

use std::sync::OnceLock;

use bytes::Bytes;
use longhaul_protocol::diag::{CODES, Rung};
use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::reply::{Document, Figures};
use crate::store::operators::Role;
use crate::store::settings::setting_get;

pub(super) fn add(api: Api) -> Api {
    api.add::<Healthz>()
        .add::<MetricsGet>()
        .add::<OpenApiGet>()
        .add::<CodeList>()
}

endpoint! {
    /// For whoever watches the process.
    Healthz = GET "/healthz" as "healthz", Scope::Public, OK;
    "Whether the cloud can serve: it reaches its database."
    (Nothing, Nothing, NoBody) -> Json<Health> = healthz
}

/// How the cloud is.
#[derive(Serialize, ToSchema)]
pub struct Health {
    /// Always `ok`; an answer of another kind says what is wrong.
    status: &'static str,
    /// Version of the program.
    version: &'static str,
}

async fn healthz(call: Call<Healthz>) -> Result<Json<Health>, Problem> {
    let mut tx = call.people.db.read().await?;
    setting_get(&mut tx, "health").await?;
    Ok(Json(Health {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
    }))
}

endpoint! {
    /// For Prometheus.
    MetricsGet = GET "/metrics" as "metricsGet", Scope::Role(Role::Viewer), OK;
    "Figures for Prometheus, as OpenMetrics. What the database counts is counted at most every 30 seconds."
    (Nothing, Nothing, NoBody) -> Figures = metrics_get
}

async fn metrics_get(call: Call<MetricsGet>) -> Result<Figures, Problem> {
    let people = &call.people;
    let edge = people.fleet.line().stats();
    Ok(Figures(people.metrics.text(&people.db, edge).await?))
}

endpoint! {
    /// The description.
    OpenApiGet = GET "/v1/openapi.json" as "openapiGet", Scope::Public, OK;
    "This description."
    (Nothing, Nothing, NoBody) -> Document = openapi_get
}

async fn openapi_get(_: Call<OpenApiGet>) -> Result<Document, Problem> {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    if let Some(text) = TEXT.get() {
        return Ok(Document(text.clone()));
    }
    let text = super::api()
        .openapi()
        .to_pretty_json()
        .map_err(|e| Problem::internal("description", &e))?;
    Ok(Document(TEXT.get_or_init(|| Bytes::from(text)).clone()))
}

endpoint! {
    /// The table of codes.
    CodeList = GET "/v1/codes" as "codeList", Scope::Shared(Role::Viewer), OK;
    "What each LH code means, to customers and to operators."
    (Nothing, Nothing, NoBody) -> Json<Codes> = code_list
}

/// The table of codes.
#[derive(Serialize, ToSchema)]
pub struct Codes {
    /// In the order of their numbers.
    items: Vec<CodeView>,
}

/// One way in which a rung fails or deliveries wait.
#[derive(Serialize, ToSchema)]
pub struct CodeView {
    /// `LH-nnn`.
    code: String,
    /// The rung that fails; null for what keeps deliveries waiting.
    #[schema(value_type = Option<String>)]
    rung: Option<Rung>,
    /// A few words.
    title: &'static str,
    /// What the customer should do next.
    customer: &'static str,
    /// What an operator should know.
    operator: &'static str,
}

async fn code_list(_: Call<CodeList>) -> Result<Json<Codes>, Problem> {
    let items = CODES.iter().map(|entry| CodeView {
        code: format!("LH-{:03}", entry.number),
        rung: (!entry.deliveries).then_some(entry.rung),
        title: entry.title,
        customer: entry.customer,
        operator: entry.operator,
    });
    Ok(Json(Codes {
        items: items.collect(),
    }))
}
