//! Every route of the people's port, one module per noun.

mod alert_channels;
mod alert_rules;
mod alerts;
mod audit;
mod box_history;
mod box_view;
mod boxes;
mod bulk;
mod command_body;
mod commands;
mod destinations;
mod events;
mod insights;
mod meta;
mod network;
mod objects;
mod offline;
mod operators;
mod order_networks;
mod orders;
mod paging;
mod proposals;
mod receipts;
mod releases;
mod session;
mod sso;
mod tenants;
mod tickets;
mod tokens;
mod uplink;
mod uplink_schema;
mod vault_keys;

use super::api::Api;

/// Declares a route whose work is a plain function.
macro_rules! endpoint {
    (
        $(#[$doc:meta])*
        $name:ident = $method:ident $path:literal as $id:literal, $scope:expr, $status:ident;
        $summary:literal
        ($path_type:ty, $query:ty, $body:ty) -> $reply:ty = $work:path
    ) => {
        $(#[$doc])*
        pub struct $name;

        impl $crate::http::endpoint::Endpoint for $name {
            const ID: &'static str = $id;
            const SUMMARY: &'static str = $summary;
            const METHOD: ::http::Method = http::Method::$method;
            const PATH: &'static str = $path;
            const SCOPE: $crate::http::endpoint::Scope = $scope;
            const STATUS: ::http::StatusCode = http::StatusCode::$status;

            type Path = $path_type;
            type Query = $query;
            type Body = $body;
            type Reply = $reply;

            async fn call(
                call: $crate::http::endpoint::Call<Self>,
            ) -> Result<$reply, $crate::http::problem::Problem> {
                $work(call).await
            }
        }
    };
}
use endpoint;

/// Every route.
pub fn api() -> Api {
    let api = Api::default();
    let api = meta::add(api);
    let api = session::add(api);
    let api = sso::add(api);
    let api = operators::add(api);
    let api = tokens::add(api);
    let api = audit::add(api);
    let api = boxes::add(api);
    let api = box_history::add(api);
    let api = uplink::add(api);
    let api = network::add(api);
    let api = commands::add(api);
    let api = command_body::add(api);
    let api = proposals::add(api);
    let api = bulk::add(api);
    let api = insights::add(api);
    let api = alerts::add(api);
    let api = alert_rules::add(api);
    let api = alert_channels::add(api);
    let api = tenants::add(api);
    let api = orders::add(api);
    let api = order_networks::add(api);
    let api = tickets::add(api);
    let api = offline::add(api);
    let api = releases::add(api);
    let api = objects::add(api);
    let api = destinations::add(api);
    let api = receipts::add(api);
    let api = vault_keys::add(api);
    events::add(api)
}
