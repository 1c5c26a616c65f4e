//! Who did what.

use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint;
use super::paging::{FilteredQuery, page};
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::audit::{AUDIT_FIELDS, AuditRow, audit_list};
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<AuditList>()
}

endpoint! {
    /// All of it.
    AuditList = GET "/v1/audit" as "auditList", Scope::Role(Role::Operator), OK;
    "Who did what to what, newest first; each entry's hash covers the one before it."
    (Nothing, FilteredQuery, NoBody) -> Json<AuditPage> = list
}

/// One entry.
#[derive(Serialize, ToSchema)]
pub struct AuditItem {
    /// Its place in the chain, from 1.
    number: i64,
    /// When.
    at: i64,
    /// Who.
    actor: String,
    /// Did what, as `noun.verb`.
    action: String,
    /// To what.
    subject: String,
    /// How.
    detail: serde_json::Value,
    /// Hash over the hash before and all of the above.
    hash: String,
}

impl From<AuditRow> for AuditItem {
    fn from(row: AuditRow) -> Self {
        Self {
            number: row.number,
            at: row.at,
            actor: row.actor,
            action: row.action,
            subject: row.subject,
            detail: serde_json::from_str(&row.detail).unwrap_or_default(),
            hash: row.hash,
        }
    }
}

page! {
    /// A page of the audit.
    AuditPage of AuditItem
}

async fn list(call: Call<AuditList>) -> Result<Json<AuditPage>, Problem> {
    let part = call.query.part()?;
    let filter = call.query.filter(&AUDIT_FIELDS, &call.people)?;
    let mut tx = call.people.db.read().await?;
    let rows = audit_list(&mut tx, &filter, part.place, part.limit).await?;
    let next = part.next(&rows, |last| last.number)?;
    Ok(Json(AuditPage::new(rows, next, &call.people)))
}
