//! A box's own network settings: fixed addresses, DNS servers, VLAN, proxy.

use std::net::IpAddr;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::network_settings::{
    FixedAddress, NetworkBy, NetworkReport, NetworkSettings, NetworkState, NetworkWish,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::box_view::BoxPath;
use super::endpoint;
use crate::fleet::{Actor, SiteNetwork};
use crate::http::People;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::tag::{Changeable, Seen, Tagged};
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<NetworkGet>()
        .add::<NetworkSet>()
        .add::<NetworkReset>()
}

/// A box's own network settings, always all of them; what is absent is left to the network.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "addresses": [{ "address": "192.0.2.7", "prefix_len": 24, "gateway": "192.0.2.1" }], "dns": ["192.0.2.53"] }))]
pub struct NetworkSettingsView {
    /// Fixed addresses, one of each family at the most; none: by DHCP or announcements.
    #[serde(default)]
    #[schema(max_items = 2)]
    addresses: Vec<FixedAddressView>,
    /// DNS servers, four at the most; none: those that the network names.
    #[serde(default)]
    #[schema(value_type = Vec<String>, max_items = 4)]
    dns: Vec<IpAddr>,
    /// The VLAN that everything goes through, tagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4094)]
    vlan: Option<u16>,
    /// The customer's HTTP proxy, `http://[user:password@]host:port`; empty: none, whatever the box
    /// was prepared with; absent: what it was prepared with. Its log-in is never shown again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1024)]
    proxy: Option<String>,
}

/// One fixed address.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedAddressView {
    /// The address.
    #[schema(value_type = String)]
    address: IpAddr,
    /// Length of the network's prefix in bits.
    #[schema(minimum = 1, maximum = 128)]
    prefix_len: u8,
    /// The gateway: a neighbour of the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    gateway: Option<IpAddr>,
}

impl From<NetworkSettingsView> for NetworkSettings {
    fn from(view: NetworkSettingsView) -> Self {
        let fixed = |view: FixedAddressView| FixedAddress {
            address: view.address,
            prefix_len: view.prefix_len,
            gateway: view.gateway,
        };
        Self {
            addresses: view.addresses.into_iter().map(fixed).collect(),
            dns: view.dns,
            vlan: view.vlan,
            proxy: view.proxy,
        }
    }
}

impl From<&NetworkSettings> for NetworkSettingsView {
    fn from(settings: &NetworkSettings) -> Self {
        let settings = settings.without_secrets();
        let fixed = |fixed: FixedAddress| FixedAddressView {
            address: fixed.address,
            prefix_len: fixed.prefix_len,
            gateway: fixed.gateway,
        };
        Self {
            addresses: settings.addresses.into_iter().map(fixed).collect(),
            dns: settings.dns,
            vlan: settings.vlan,
            proxy: settings.proxy,
        }
    }
}

/// What is wanted of a box's network settings, and what became of it. The history is in the box's
/// timeline (`network`) and in the audit log (`network.change`).
#[derive(Serialize, ToSchema)]
pub struct NetworkView {
    /// The last change that an operator wanted; absent if there never was one.
    wanted: Option<NetworkWishView>,
    /// Whether the box has taken what is wanted, whatever became of it.
    taken: bool,
    /// What the box said last of the last change, whoever made it.
    last: Option<NetworkReportView>,
}

/// A change that an operator wanted.
#[derive(Serialize, ToSchema)]
pub struct NetworkWishView {
    /// Its number, which rises.
    change: u64,
    /// What is wanted; absent: what the box was prepared with.
    settings: Option<NetworkSettingsView>,
}

/// What became of a change.
#[derive(Serialize, ToSchema)]
pub struct NetworkReportView {
    /// The number of an operator's change; 0 for one that was made on the box's own page.
    change: u64,
    /// Who made it: `cloud` or `page`.
    #[schema(value_type = String)]
    by: NetworkBy,
    /// `trial`: in force, and goes back by itself; `kept`; `rolled_back`: what was before is in force
    /// again; `refused`: it was never in force.
    #[schema(value_type = String)]
    state: NetworkState,
    /// What it asked for; absent: what the box was prepared with.
    settings: Option<NetworkSettingsView>,
    /// Why it is not in force; empty where it is.
    reason: String,
}

impl From<NetworkReport> for NetworkReportView {
    fn from(report: NetworkReport) -> Self {
        Self {
            change: report.change,
            by: report.by,
            state: report.state,
            settings: report.settings.as_ref().map(Into::into),
            reason: report.reason,
        }
    }
}

impl From<NetworkWish> for NetworkWishView {
    fn from(wish: NetworkWish) -> Self {
        Self {
            change: wish.change,
            settings: wish.settings.as_ref().map(Into::into),
        }
    }
}

impl From<SiteNetwork> for NetworkView {
    fn from(of: SiteNetwork) -> Self {
        Self {
            taken: of.taken,
            wanted: of.wanted.map(Into::into),
            last: of.last.map(Into::into),
        }
    }
}

impl Changeable for NetworkView {
    fn changeable(&self) -> serde_json::Value {
        serde_json::json!(self.wanted)
    }
}

endpoint! {
    /// What is wanted and what became of it.
    NetworkGet = GET "/v1/boxes/{box_id}/network" as "networkGet", Scope::Role(Role::Viewer), OK;
    "A box's own network settings: what is wanted, and what became of the last change."
    (BoxPath, Nothing, NoBody) -> Tagged<NetworkView> = get
}

async fn get(call: Call<NetworkGet>) -> Result<Tagged<NetworkView>, Problem> {
    let network = call.people.fleet.network(&call.path.box_id).await?;
    Ok(Tagged(network.into()))
}

endpoint! {
    /// All of it.
    NetworkSet = PUT "/v1/boxes/{box_id}/network" as "networkSet", Scope::Role(Role::Operator), OK;
    "Has a box try these network settings once. It goes back by itself where it does not reach the cloud with them within two minutes."
    (BoxPath, Nothing, Json<NetworkSettingsView>) -> Tagged<NetworkView> = set
}

async fn set(call: Call<NetworkSet>) -> Result<Tagged<NetworkView>, Problem> {
    let (actor, settings) = (call.caller.actor(), call.body.0.into());
    let who = (&actor, &call.seen);
    change(&call.people, who, &call.path.box_id, Some(settings)).await
}

endpoint! {
    /// Back to the beginning.
    NetworkReset = POST "/v1/boxes/{box_id}/network/reset" as "networkReset", Scope::Role(Role::Operator), OK;
    "Has a box try the network settings that it was prepared with, and go back by itself where they lead nowhere."
    (BoxPath, Nothing, NoBody) -> Tagged<NetworkView> = reset
}

async fn reset(call: Call<NetworkReset>) -> Result<Tagged<NetworkView>, Problem> {
    let actor = call.caller.actor();
    let who = (&actor, &call.seen);
    change(&call.people, who, &call.path.box_id, None).await
}

/// Changes what is wanted, unless it is not what the caller saw.
async fn change(
    people: &People,
    (actor, seen): (&Actor, &Seen),
    id: &BoxId,
    settings: Option<NetworkSettings>,
) -> Result<Tagged<NetworkView>, Problem> {
    let unseen = |before: Option<&NetworkWish>| {
        let now: NetworkView = SiteNetwork {
            wanted: before.cloned(),
            last: None,
            taken: false,
        }
        .into();
        seen.check(&now)
    };
    let changed = people.fleet.network_change(actor, id, settings, unseen);
    Ok(Tagged(changed.await?.into()))
}
