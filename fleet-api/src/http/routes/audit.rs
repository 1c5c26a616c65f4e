//! Who did what.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{endpoint, limit, page};
use crate::http::api::Api;
use crate::http::cursor;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::audit::{AuditRow, audit_list};
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<AuditList>()
}

endpoint! {
    /// All of it.
    AuditList = GET "/v1/audit" as "auditList", Scope::Role(Role::Operator), OK;
    "Who did what to what, newest first; each entry's hash covers the one before it."
    (Nothing, AuditQuery, NoBody) -> Json<AuditPage> = list
}

/// Which part.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000.
    limit: Option<u32>,
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
    let limit = limit(call.query.limit);
    let before = cursor::decode(call.query.cursor.as_deref())?;
    let mut tx = call.people.db.read().await?;
    let rows = audit_list(&mut tx, before, limit).await?;
    let next = match rows.last() {
        Some(last) if rows.len() >= limit as usize => Some(cursor::encode(&last.number)?),
        _ => None,
    };
    Ok(Json(AuditPage {
        items: rows.into_iter().map(AuditItem::from).collect(),
        next,
        server_time: call.people.clock.now().0,
    }))
}
