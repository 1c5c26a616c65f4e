//! From settings to what `ip` is told. Pure.

use std::net::IpAddr;

use longhaul_protocol::network_settings::NetworkSettings;

/// The interface over which a VLAN goes.
const VLAN: &str = "lhvlan";
/// How our routes are marked (`rt_protos` of iproute2): others' are left alone.
const OURS: &str = "76";

/// One run of `ip`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Line {
    /// Its arguments.
    pub arguments: Vec<String>,
    /// It takes away what may not be there.
    pub may_fail: bool,
}

/// Where addresses go.
pub(super) fn interface<'a>(main: &'a str, settings: &NetworkSettings) -> &'a str {
    if settings.vlan.is_some() { VLAN } else { main }
}

/// Whether a DHCP client has anything to do.
pub(super) fn wants_lease(settings: &NetworkSettings) -> bool {
    !settings.addresses.iter().any(|a| a.address.is_ipv4())
}

/// What puts `settings` in force on `main`, whatever was before. `leased`: this program runs the DHCP
/// client, so that every other IPv4 address there is left over.
pub(super) fn lines(
    main: &str,
    settings: &NetworkSettings,
    instead_of: &NetworkSettings,
    leased: bool,
) -> Vec<Line> {
    let mut plan = Plan(Vec::new());
    plan.must(&["link", "set", "dev", main, "up"]);
    plan.may(&["link", "del", "dev", VLAN]);
    for family in ["-4", "-6"] {
        plan.may(&[family, "route", "flush", "proto", OURS]);
    }
    if !wants_lease(settings) || settings.vlan.is_some() || leased {
        plan.must(&["-4", "address", "flush", "dev", main, "scope", "global"]);
    }
    // Those that the network announced stay.
    for old in &instead_of.addresses {
        let old = format!("{}/{}", old.address, old.prefix_len);
        plan.may(&["address", "del", &old, "dev", main]);
    }
    if let Some(vlan) = settings.vlan {
        let id = vlan.to_string();
        plan.must(&[
            "link", "add", "link", main, "name", VLAN, "type", "vlan", "id", &id,
        ]);
        plan.must(&["link", "set", "dev", VLAN, "up"]);
    }
    let device = interface(main, settings);
    for fixed in &settings.addresses {
        let address = format!("{}/{}", fixed.address, fixed.prefix_len);
        plan.must(&["address", "replace", &address, "dev", device]);
        if let Some(gateway) = fixed.gateway {
            let family = if gateway.is_ipv4() { "-4" } else { "-6" };
            let gateway = gateway.to_string();
            plan.must(&[
                family, "route", "replace", "default", "via", &gateway, "dev", device, "proto",
                OURS,
            ]);
        }
    }
    plan.0
}

/// What the resolver reads.
pub(super) fn resolv_conf(header: &str, servers: &[IpAddr]) -> String {
    let lines = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"));
    std::iter::once(header.to_owned()).chain(lines).collect()
}

struct Plan(Vec<Line>);

impl Plan {
    fn must(&mut self, arguments: &[&str]) {
        self.add(arguments, false);
    }

    fn may(&mut self, arguments: &[&str]) {
        self.add(arguments, true);
    }

    fn add(&mut self, arguments: &[&str], may_fail: bool) {
        self.0.push(Line {
            arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
            may_fail,
        });
    }
}
