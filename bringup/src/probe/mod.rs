//! The probe: climbs the ladder once, measures around it, and writes a report that is bound to the
//! order's ticket.

mod dns;
mod echo;
mod lan;
mod line;
pub mod page;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use longhaul_protocol::diag::Code;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::inventory::CloudEndpoint;
use longhaul_protocol::probe::{
    Finding, Ipv6, LadderLine, MAX_LIST, MAX_TEXT, Nat, Need, ProbeClaims, ProbeReport, WayOut,
};
use longhaul_provisioning::trust::{Anchors, TrustError, certificates_from_pem};
use rustls::RootCertStore;
use tokio::net::UdpSocket;

pub use line::Answer;
use line::Cloud;

use crate::clock;
use crate::observation::Observation;
use crate::proxy::{Proxy, ProxySetting};
use crate::rungs::{self, Climber, Lookout, Network, TlsProbe};

/// How long a way out may take to open.
const WAY: Duration = Duration::from_secs(4);
/// DNS servers that are asked at the most.
const MAX_SERVERS: usize = 3;
/// The clock may be so far off before that is a finding, in milliseconds; see the ladder's.
const CLOCK_TOLERANCE_MS: i64 = 120_000;

/// Why a probe cannot even begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The ticket's root cannot be used.
    #[error("the ticket's root cannot be used")]
    Root(#[from] TrustError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// HTTP cannot be set up.
    #[error("HTTP cannot be set up")]
    Http(#[from] reqwest::Error),
    /// The ticket names no cloud.
    #[error("the ticket names no cloud")]
    NoCloud,
}

/// A probe of one network.
pub struct Probe<'a> {
    claims: &'a ProbeClaims,
    /// The signed ticket, compact.
    ticket: &'a str,
    proxy: Option<Proxy>,
    roots: RootCertStore,
}

/// A probe has no certificate to show.
#[derive(Debug)]
struct Nobody;

impl rustls::client::ResolvesClientCert for Nobody {
    fn resolve(
        &self,
        _: &[&[u8]],
        _: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl<'a> Probe<'a> {
    /// A probe under a ticket, through `proxy` where one is to be used.
    pub fn new(
        claims: &'a ProbeClaims,
        ticket: &'a str,
        proxy: Option<Proxy>,
    ) -> Result<Self, StartError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates_from_pem(&claims.root_pem)? {
            roots.add(certificate)?;
        }
        Ok(Self {
            claims,
            ticket,
            proxy,
            roots,
        })
    }

    /// Looks at the network.
    pub async fn run(&self) -> Result<ProbeReport, StartError> {
        let endpoints = &self.claims.endpoints;
        let endpoint = endpoints.first().ok_or(StartError::NoCloud)?;
        let network = Network::read();
        let climber = self.climber()?;
        let ladder = climber.climb(endpoints, clock::wall());
        let servers = rungs::dns_servers();
        let servers = servers.into_iter().take(MAX_SERVERS);
        let dns = join_all(servers.map(|server| dns::ask(server, &endpoint.host)));
        let needs = self.needs();
        let ways = join_all(needs.iter().map(|need| self.way_out(need)));
        let (ladder, dns, egress, multicast) = tokio::join!(ladder, dns, ways, lan::multicast());
        let cloud = rungs::addresses_of(&endpoint.host, WAY).await;
        let (nat, path_mtu) = self.packets(endpoint, cloud.first().copied()).await;
        let up = ladder.iter().all(|o| o.code.is_none_or(only_slow));
        let (line, clock_ahead_ms) = if up {
            self.talk(endpoint).await?
        } else {
            (None, None)
        };
        let v6 = cloud.iter().find(|a| a.is_ipv6()).copied();
        let mut report = ProbeReport {
            v: VERSION,
            ticket: self.claims.id.clone(),
            probe_version: env!("CARGO_PKG_VERSION").to_owned(),
            at: clock::wall(),
            findings: Vec::new(),
            ladder: ladder.iter().map(told).collect(),
            interfaces: network.seen(),
            gateway: network.gateway_address(),
            dns,
            nat,
            path_mtu,
            proxy: self.proxy.as_ref().map(ToString::to_string),
            egress,
            multicast,
            clock_ahead_ms,
            line,
            ipv6: Ipv6 {
                address: network.has_global_v6(),
                cloud: reached_v6(v6, endpoint).await,
            },
        };
        report.findings = findings(&ladder, &report, endpoint);
        bound(&mut report);
        Ok(report)
    }

    /// Hands a signed report in.
    pub async fn send(&self, report: &[u8]) -> Result<std::io::Result<Answer>, StartError> {
        let endpoint = self.claims.endpoints.first().ok_or(StartError::NoCloud)?;
        Ok(self.cloud(endpoint)?.report(report).await)
    }

    fn cloud<'b>(&'b self, endpoint: &'b CloudEndpoint) -> Result<Cloud<'b>, StartError> {
        let (roots, proxy) = (self.roots.clone(), self.proxy.as_ref());
        Ok(Cloud::new(endpoint, proxy, roots, self.ticket)?)
    }

    fn climber(&self) -> Result<Climber, StartError> {
        let tls = TlsProbe::new(self.roots.clone(), Arc::new(Nobody))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let http = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        let proxy = ProxySetting::fixed(self.proxy.clone());
        let anchors = Anchors::from_pem(&self.claims.root_pem)?;
        let lookout = Lookout::new(self.claims.hints.clone(), anchors, &proxy, http)?;
        Ok(Climber::new(tls, Some(lookout), proxy))
    }

    /// Ways out that a box needs: to each of the cloud's ports, and whatever the ticket names.
    fn needs(&self) -> Vec<Need> {
        let to = |host: &str, port, what: &str| Need {
            host: host.to_owned(),
            port,
            what: what.to_owned(),
        };
        let cloud = self.claims.endpoints.iter().flat_map(|endpoint| {
            [
                to(
                    &endpoint.host,
                    endpoint.https_port,
                    "registration and delivery",
                ),
                to(&endpoint.host, endpoint.mqtt_port, "control line"),
            ]
        });
        cloud
            .chain(self.claims.egress.iter().cloned())
            .take(MAX_LIST)
            .collect()
    }

    async fn way_out(&self, need: &Need) -> WayOut {
        let endpoint = CloudEndpoint {
            host: need.host.clone(),
            https_port: need.port,
            mqtt_port: need.port,
        };
        let opened = rungs::connect_to(&endpoint, self.proxy.as_ref(), WAY).await;
        WayOut {
            host: need.host.clone(),
            port: need.port,
            what: need.what.clone(),
            open: opened.is_ok(),
            code: opened.err().and_then(|failure| failure.code),
        }
    }

    /// What only packets of our own show; a proxy lets none through.
    async fn packets(&self, endpoint: &CloudEndpoint, cloud: Option<IpAddr>) -> (Nat, Option<u16>) {
        let Some(cloud) = cloud else {
            return (Nat::Unknown, None);
        };
        let ports = [endpoint.https_port, endpoint.mqtt_port];
        let at = SocketAddr::new(cloud, endpoint.https_port);
        tokio::join!(echo::nat(cloud, ports), echo::path_mtu(at))
    }

    async fn talk(
        &self,
        endpoint: &CloudEndpoint,
    ) -> Result<(Option<longhaul_protocol::probe::Line>, Option<i64>), StartError> {
        let cloud = self.cloud(endpoint)?;
        let before = clock::now();
        let ahead = cloud.seen().await.ok().map(|seen| {
            let after = clock::now();
            let half = i64::try_from(after.mono_ms.saturating_sub(before.mono_ms) / 2).unwrap_or(0);
            after.wall.plus_millis(-half).millis_since(seen.now)
        });
        Ok((cloud.measure().await, ahead))
    }
}

/// A socket that speaks to addresses of this family.
async fn udp(to: IpAddr) -> Option<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    UdpSocket::bind((any, 0)).await.ok()
}

async fn reached_v6(address: Option<IpAddr>, endpoint: &CloudEndpoint) -> Option<bool> {
    let at = SocketAddr::new(address?, endpoint.https_port);
    let connected = tokio::time::timeout(WAY, tokio::net::TcpStream::connect(at)).await;
    Some(matches!(connected, Ok(Ok(_))))
}

/// Whether a box works with it all the same.
fn only_slow(code: Code) -> bool {
    matches!(code, Code::DNS_SLOW | Code::LINE_POOR)
}

fn told(seen: &Observation) -> LadderLine {
    LadderLine {
        rung: seen.rung,
        code: seen.code,
        evidence: seen.evidence.clone(),
    }
}

/// Why a box would not come online, or only badly: what the ladder says, and what it does not climb.
fn findings(
    ladder: &[Observation],
    report: &ProbeReport,
    endpoint: &CloudEndpoint,
) -> Vec<Finding> {
    let failed = ladder.iter().filter_map(|seen| {
        Some(Finding {
            code: seen.code?,
            evidence: seen.evidence.clone(),
        })
    });
    let mut found: Vec<_> = failed.collect();
    let mut add = |code: Code, evidence: String| {
        if found.iter().all(|finding| finding.code != code) {
            found.push(Finding { code, evidence });
        }
    };
    let invents = report
        .dns
        .iter()
        .find(|server| server.invents == Some(true));
    if let Some(server) = invents {
        let evidence = format!(
            "{} names addresses for a name that nobody has",
            server.address
        );
        add(Code::DNS_PRIVATE, evidence);
    }
    let way = |port: u16| {
        let mut ways = report.egress.iter();
        ways.find(|way| way.host == endpoint.host && way.port == port)
    };
    let https = way(endpoint.https_port).is_some_and(|way| way.open);
    let mqtt = way(endpoint.mqtt_port).is_none_or(|way| way.open);
    if https && !mqtt {
        let evidence = format!(
            "port {} of {} is shut; a box takes port {} instead, and is online all the same",
            endpoint.mqtt_port, endpoint.host, endpoint.https_port
        );
        add(Code::BROKER_BLOCKED, evidence);
    }
    if let Some(ahead) = report
        .clock_ahead_ms
        .filter(|ahead| ahead.abs() > CLOCK_TOLERANCE_MS)
    {
        let evidence = format!("this machine's clock is {} s off", ahead / 1000);
        add(Code::CLOCK_WRONG, evidence);
    }
    found
}

/// Cuts what is longer than a report may be.
fn bound(report: &mut ProbeReport) {
    let cut = |text: &mut String| {
        if let Some((at, _)) = text.char_indices().nth(MAX_TEXT) {
            text.truncate(at);
        }
    };
    report.findings.truncate(MAX_LIST);
    report.ladder.truncate(MAX_LIST);
    report.interfaces.truncate(MAX_LIST);
    report.dns.truncate(MAX_LIST);
    report
        .findings
        .iter_mut()
        .for_each(|f| cut(&mut f.evidence));
    report.ladder.iter_mut().for_each(|l| cut(&mut l.evidence));
    for interface in &mut report.interfaces {
        interface.addresses.truncate(MAX_LIST);
    }
    for server in &mut report.dns {
        server.answers.truncate(MAX_LIST);
    }
}
