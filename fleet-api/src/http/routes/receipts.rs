//! Receipts of objects.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::endpoint;
use super::objects::check_owner;
use super::paging::Part;
use crate::auth::Caller;
use crate::fleet::ReceiptQuery;
use crate::http::api::Api;
use crate::http::cursor;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::operators::Role;
use crate::store::receipts::ReceiptPlace;

pub(super) fn add(api: Api) -> Api {
    api.add::<ReceiptList>()
}

endpoint! {
    /// Proofs.
    ReceiptList = GET "/v1/receipts" as "receiptList", Scope::RoleOrTicket(Role::Viewer), OK;
    "Receipts of a bucket's objects, of those below a prefix or of one, for `longhaul verify`."
    (Nothing, ReceiptsQuery, NoBody) -> Json<ReceiptPage> = list
}

/// Which receipts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsQuery {
    /// The bucket.
    bucket: String,
    /// What keys start with; an object's whole key for one object.
    #[serde(default)]
    prefix: String,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000; 100 if absent.
    limit: Option<u32>,
}

/// A page of receipts.
#[derive(Serialize, ToSchema)]
pub struct ReceiptPage {
    /// The receipts, each to be kept byte for byte: a text that holds one JSON document.
    items: Vec<String>,
    /// Send it as `cursor` for the rows after these; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// The cloud's clock, in milliseconds.
    server_time: i64,
}

async fn list(call: Call<ReceiptList>) -> Result<Json<ReceiptPage>, Problem> {
    let query = call.query;
    let part = Part::<(String, String, String, i64)>::new(query.cursor.as_deref(), query.limit)?;
    let has_nul = |text: &str| text.contains('\0');
    if has_nul(&query.prefix) {
        return Err(Problem::invalid("no key has a NUL"));
    }
    check_owner(&call.people, &call.caller, &query.bucket).await?;
    let after = part.place.as_ref().map(|(key, box_id, epoch, place)| {
        let plain = |text: &str| text.replace('\0', "");
        ReceiptPlace {
            key: plain(key),
            box_id: plain(box_id),
            epoch: plain(epoch),
            place: *place,
        }
    });
    let box_id = match &call.caller {
        Caller::Customer(holder) if holder.bucket == query.bucket => Some(holder.box_id.clone()),
        Caller::Customer(holder) => {
            return Err(Problem::forbidden(format!(
                "ticket {} is for bucket {:?} only",
                holder.ticket, holder.bucket
            )));
        }
        _ => None,
    };
    let asked = ReceiptQuery {
        box_id,
        bucket: query.bucket,
        prefix: query.prefix,
        after,
        limit: part.limit,
    };
    let page = call.people.fleet.receipts_list(&asked).await?;
    let next = page.next.map(|p| (p.key, p.box_id, p.epoch, p.place));
    let next = next.map(|place| cursor::encode(&place)).transpose()?;
    let texts = page.receipts.iter().map(serde_json::to_string);
    let items: Result<Vec<_>, _> = texts.collect();
    Ok(Json(ReceiptPage {
        items: items.map_err(|e| Problem::internal("receipt", &e))?,
        next,
        server_time: call.people.clock.now().0,
    }))
}
