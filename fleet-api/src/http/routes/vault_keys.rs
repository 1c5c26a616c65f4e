//! Vaults' keys, encrypted for the depot.

use serde::Serialize;
use utoipa::ToSchema;

use super::box_view::{BoxPath, find};
use super::endpoint;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::store::operators::Role;
use crate::store::vault_keys::vault_key_get;

pub(super) fn add(api: Api) -> Api {
    api.add::<VaultKeyGet>()
}

endpoint! {
    /// For the depot.
    VaultKeyGet = GET "/v1/boxes/{box_id}/vault-key" as "vaultKeyGet", Scope::Role(Role::Admin), OK;
    "The key of a box's vault, encrypted to the fleet's recovery key: for `longhaul-factory recovery-key unwrap`. The cloud cannot open it."
    (BoxPath, Nothing, NoBody) -> Json<VaultKeyView> = get
}

/// A vault's key under the fleet's recovery key.
#[derive(Serialize, ToSchema)]
pub struct VaultKeyView {
    /// Save it as a file and give it to `longhaul-factory recovery-key unwrap`.
    #[schema(value_type = Object)]
    wrapped: serde_json::Value,
    /// The cloud's clock, in milliseconds.
    server_time: i64,
}

async fn get(call: Call<VaultKeyGet>) -> Result<Json<VaultKeyView>, Problem> {
    let mut tx = call.people.db.read().await?;
    let id = &call.path.box_id;
    find(&mut tx, id).await?;
    let detail = vault_key_get(&mut tx, id).await?;
    let none = || Problem::not_found(format!("box {id} has sent no key of its vault"));
    let wrapped = serde_json::from_str(&detail.ok_or_else(none)?);
    Ok(Json(VaultKeyView {
        wrapped: wrapped.map_err(|e| Problem::internal("wrapped key", &e))?,
        server_time: call.people.clock.now().0,
    }))
}
