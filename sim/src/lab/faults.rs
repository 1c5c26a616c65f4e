//! What can be wrong, how it is brought about for real, and what the box must say.

use std::time::Duration;

use super::names::Manner;

use super::{IMPOSTOR, Lab, PORTAL_V4, PROXY_PORT, PROXY_V4, RESOLVER_V4, Reading, SLOW, wait_for};
use crate::system::SystemError;

/// One thing that is wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    NoCable,
    NoDhcp,
    NoRouter,
    AddressConflict,
    GatewaySilent,
    DnsSilent,
    DnsLying,
    DnsSlow,
    Portal,
    ProxyNeeded,
    ProxyLogin,
    MqttBlocked,
    Intercepted,
    ClockWrong,
    PathMtu,
    LineSlow,
    CloudBlocked,
    Ipv6Only,
    CloudDown,
    HalfOpen,
}

/// What the box must show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expect {
    /// This code.
    Code(&'static str),
    /// That all is well: it finds its own way.
    Online,
}

impl Expect {
    pub(super) fn reading(self) -> Reading {
        match self {
            Self::Code(code) => Reading::Code(code.to_owned()),
            Self::Online => Reading::Well,
        }
    }
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 20] = [
        Self::NoCable,
        Self::NoDhcp,
        Self::NoRouter,
        Self::AddressConflict,
        Self::GatewaySilent,
        Self::DnsSilent,
        Self::DnsLying,
        Self::DnsSlow,
        Self::Portal,
        Self::ProxyNeeded,
        Self::ProxyLogin,
        Self::MqttBlocked,
        Self::Intercepted,
        Self::ClockWrong,
        Self::PathMtu,
        Self::LineSlow,
        Self::CloudBlocked,
        Self::Ipv6Only,
        Self::CloudDown,
        Self::HalfOpen,
    ];

    /// What it is, in words.
    pub fn title(self) -> &'static str {
        match self {
            Self::NoCable => "no cable",
            Self::NoDhcp => "cable, no DHCP",
            Self::NoRouter => "DHCP without gateway",
            Self::AddressConflict => "duplicate address",
            Self::GatewaySilent => "gateway falls silent",
            Self::DnsSilent => "DNS silent",
            Self::DnsLying => "DNS lying",
            Self::DnsSlow => "DNS slow (4 s)",
            Self::Portal => "captive portal",
            Self::ProxyNeeded => "HTTP proxy needed, until it is set",
            Self::ProxyLogin => "HTTP proxy wants a log-in, until it is set",
            Self::MqttBlocked => "outbound 8883 blocked: online by 443",
            Self::Intercepted => "TLS interception",
            Self::ClockWrong => "clock 3 years fast",
            Self::PathMtu => "path MTU black hole (1,200 bytes)",
            Self::LineSlow => "very slow line (2 s each way)",
            Self::CloudBlocked => "a firewall drops the way to the cloud alone",
            Self::Ipv6Only => "IPv6 only: online",
            Self::CloudDown => "cloud down, beacon up",
            Self::HalfOpen => "half-open after a NAT timeout",
        }
    }

    /// What the box must show.
    pub fn expect(self) -> Expect {
        Expect::Code(match self {
            Self::NoCable => "LH-101",
            Self::NoDhcp => "LH-201",
            Self::AddressConflict => "LH-203",
            Self::NoRouter => "LH-301",
            Self::GatewaySilent => "LH-305",
            Self::DnsLying => "LH-402",
            Self::DnsSilent => "LH-403",
            Self::DnsSlow => "LH-405",
            Self::ProxyNeeded => "LH-501",
            Self::Portal => "LH-503",
            Self::ProxyLogin => "LH-504",
            Self::ClockWrong => "LH-601",
            Self::CloudBlocked => "LH-702",
            Self::CloudDown => "LH-704",
            Self::PathMtu => "LH-705",
            Self::LineSlow => "LH-706",
            Self::Intercepted => "LH-801",
            Self::HalfOpen => "LH-913",
            Self::MqttBlocked | Self::Ipv6Only => return Expect::Online,
        })
    }

    /// Whether the box is plugged into a network that has it, rather than hit while it runs.
    pub fn at_plug_in(self) -> bool {
        !matches!(
            self,
            Self::NoCable | Self::GatewaySilent | Self::CloudDown | Self::HalfOpen
        )
    }

    /// Brings it about.
    pub(super) async fn apply(self, lab: &mut Lab) -> Result<(), SystemError> {
        if self.at_plug_in() {
            lab.unplug().await?;
            // Else the old session could seem to go on.
            lab.shows(&Reading::Code("LH-101".to_owned())).await?;
        }
        match self {
            Self::NoCable => lab.unplug().await?,
            Self::NoDhcp => lab.stop_leases().await?,
            Self::NoRouter => lab.lease(false).await?,
            // The router speaks as the address that the box will get, too.
            Self::AddressConflict => {
                lab.router
                    .run("ip addr add 192.168.77.100/32 dev lan0")
                    .await?;
            }
            Self::GatewaySilent => lab.router.run("ip link set lan0 arp off").await?,
            Self::DnsSilent => lab.names.behave(Manner::Silent),
            Self::DnsLying => lab.names.behave(Manner::Lying),
            Self::DnsSlow => lab.names.behave(Manner::Slow(Duration::from_secs(4))),
            Self::Portal => {
                lab.walls(
                    &[&format!("tcp dport 80 dnat to {PORTAL_V4}:80")],
                    &["tcp dport { 443, 8883 } drop"],
                )
                .await?;
            }
            Self::ProxyNeeded => lab.only_proxy().await?,
            Self::ProxyLogin => {
                lab.servers.want_login(true);
                lab.set_proxy(&format!("http://{PROXY_V4}:{PROXY_PORT}"))
                    .await?;
                lab.only_proxy().await?;
            }
            Self::MqttBlocked => lab.walls(&[], &["tcp dport 8883 drop"]).await?,
            Self::Intercepted => {
                lab.walls(&[&format!("tcp dport 443 dnat to {IMPOSTOR}")], &[])
                    .await?;
            }
            Self::ClockWrong => lab.set_clock("+3y")?,
            Self::PathMtu => {
                // Segments must be cut where they are made, or they would be counted whole here.
                super::sh("ip link set wan0 gso_max_segs 1").await?;
                lab.inside.run("ip link set eth0 gso_max_segs 1").await?;
                lab.walls(&[], &["meta length > 1200 drop"]).await?;
            }
            Self::LineSlow => {
                lab.walls(&[&format!("tcp dport 443 dnat to {SLOW}")], &[])
                    .await?;
            }
            Self::CloudBlocked => {
                lab.walls(&[], &[&format!("ip daddr {} drop", super::CLOUD_V4)])
                    .await?;
            }
            Self::Ipv6Only => {
                lab.stop_leases().await?;
                lab.v6_only = true;
                lab.serve_leases(true)?;
            }
            Self::CloudDown => {
                lab.beacon("trouble").await?;
                lab.kill_cloud().await?;
            }
            Self::HalfOpen => lab.forget_mapping().await?,
        }
        if self.at_plug_in() {
            lab.plug().await?;
        }
        Ok(())
    }

    /// Looks at what a code alone does not show.
    pub(super) async fn check(self, lab: &mut Lab) -> Result<(), SystemError> {
        if self == Self::MqttBlocked {
            wait_for("a session on port 443", async || {
                let seen = lab
                    .inside
                    .output("ss -Htn state established '( dport = :443 or dport = :8883 )'")
                    .await;
                let seen = seen.map_err(|e| e.to_string())?;
                if seen.contains(":443") && !seen.contains(":8883") {
                    Ok(())
                } else {
                    Err(seen)
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Ends it. The box is not touched, except where what was wrong is a setting of it.
    pub(super) async fn lift(self, lab: &mut Lab) -> Result<(), SystemError> {
        match self {
            Self::NoCable => lab.plug().await,
            Self::NoDhcp => lab.serve_leases(true),
            Self::NoRouter => {
                lab.lease(true).await?;
                // The lease is renewed, as it would be after its time.
                lab.renew().await
            }
            Self::AddressConflict => {
                lab.router
                    .run("ip addr del 192.168.77.100/32 dev lan0")
                    .await
            }
            Self::GatewaySilent => lab.router.run("ip link set lan0 arp on").await,
            Self::DnsSilent | Self::DnsLying | Self::DnsSlow => {
                lab.names.behave(Manner::Honest);
                Ok(())
            }
            Self::ProxyNeeded => {
                lab.set_proxy(&format!("http://{PROXY_V4}:{PROXY_PORT}"))
                    .await
            }
            Self::ProxyLogin => {
                lab.set_proxy(&format!("http://ada:lovelace@{PROXY_V4}:{PROXY_PORT}"))
                    .await
            }
            Self::ClockWrong => lab.set_clock("+0"),
            Self::PathMtu => {
                super::sh("ip link set wan0 gso_max_segs 65535").await?;
                lab.open_walls().await
            }
            Self::Portal
            | Self::MqttBlocked
            | Self::Intercepted
            | Self::LineSlow
            | Self::CloudBlocked
            | Self::HalfOpen => lab.open_walls().await,
            Self::Ipv6Only => {
                lab.unplug().await?;
                lab.shows(&Reading::Code("LH-101".to_owned())).await?;
                lab.stop_leases().await?;
                lab.v6_only = false;
                lab.serve_leases(true)?;
                lab.plug().await
            }
            Self::CloudDown => {
                lab.resume_cloud().await?;
                lab.beacon("well").await
            }
        }
    }

    /// Puts back what was lifted by a setting, once the box has come back with it.
    pub(super) async fn tidy(self, lab: &mut Lab) -> Result<(), SystemError> {
        if matches!(self, Self::ProxyNeeded | Self::ProxyLogin) {
            lab.open_walls().await?;
            lab.servers.want_login(false);
            lab.set_proxy("").await?;
            lab.unplug().await?;
            lab.shows(&Reading::Code("LH-101".to_owned())).await?;
            lab.plug().await?;
            lab.shows(&Reading::Well).await?;
        }
        Ok(())
    }
}

impl Lab {
    /// Rules of the router: what it sends elsewhere, and what it does not let through.
    async fn walls(&mut self, elsewhere: &[&str], drops: &[&str]) -> Result<(), SystemError> {
        let mut lines = vec![
            "nft add table ip fault".to_owned(),
            "nft 'add chain ip fault pre { type nat hook prerouting priority -100; }'".to_owned(),
            "nft 'add chain ip fault pass { type filter hook forward priority 0; }'".to_owned(),
        ];
        lines.extend(
            elsewhere
                .iter()
                .map(|rule| format!("nft 'add rule ip fault pre iifname lan0 {rule}'")),
        );
        lines.extend(
            drops
                .iter()
                .map(|rule| format!("nft 'add rule ip fault pass {rule}'")),
        );
        self.router.run(&lines.join("\n")).await
    }

    async fn open_walls(&mut self) -> Result<(), SystemError> {
        self.router.run("nft delete table ip fault").await
    }

    /// Nothing leaves but to the proxy; names are resolved.
    async fn only_proxy(&mut self) -> Result<(), SystemError> {
        let drop = format!("iifname lan0 ip daddr != {{ {PROXY_V4}, {RESOLVER_V4} }} drop");
        self.walls(&[], &[&drop]).await
    }

    /// The router forgets the session's mapping: what belongs to it is dropped without a word.
    async fn forget_mapping(&mut self) -> Result<(), SystemError> {
        let seen = self
            .inside
            .output("ss -Htn state established '( dport = :443 or dport = :8883 )'")
            .await?;
        // Columns: queues, local, peer.
        let local = seen
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(2));
        let ports = local.filter_map(|local| local.rsplit(':').next()?.parse::<u16>().ok());
        let rules: Vec<_> = ports
            .flat_map(|port| {
                [
                    format!("tcp sport {port} tcp dport {{ 443, 8883 }} drop"),
                    format!("tcp sport {{ 443, 8883 }} tcp dport {port} drop"),
                ]
            })
            .collect();
        if rules.is_empty() {
            return Err(SystemError::Unexpected {
                what: "a session that can be forgotten",
                text: seen,
            });
        }
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        self.walls(&[], &rules).await
    }

    /// Leases with a router, or without.
    async fn lease(&mut self, router: bool) -> Result<(), SystemError> {
        self.stop_leases().await?;
        self.serve_leases(router)
    }

    async fn renew(&mut self) -> Result<(), SystemError> {
        let id = self
            .lease_client
            .as_ref()
            .and_then(crate::process::Process::id);
        match id {
            Some(id) => super::sh(&format!("kill -USR1 {id}")).await,
            None => Ok(()),
        }
    }
}
