//! What `longhaul-probe` is given, and what it reports of a network before a box is there.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::diag::Code;
use crate::ids::{OrderId, TicketId};
use crate::inventory::{CloudEndpoint, NetworkHints};
use crate::network::NetworkAnswers;
use crate::ticket::Secret;
use crate::value::{Blob, Jws, UnixMillis};

/// Name in ALPN by which a probe asks the boxes' port for a connection without a certificate.
pub const ALPN: &[u8] = b"longhaul-probe";
/// Says from where it was asked.
pub const SEEN_PATH: &str = "/v1/probe/seen";
/// Sends or takes bytes, to measure the line.
pub const BYTES_PATH: &str = "/v1/probe/bytes";
/// Takes a signed report.
pub const REPORT_PATH: &str = "/v1/probe/reports";
/// Bytes of one transfer at the most.
pub const MAX_TRANSFER: u64 = 4 * 1024 * 1024;
/// The longest signed report, in bytes.
pub const MAX_REPORT: usize = 64 * 1024;
/// The longest file of a ticket, in bytes.
pub const MAX_TICKET_FILE: usize = 64 * 1024;
/// Entries of each list in a report at the most.
pub const MAX_LIST: usize = 32;
/// Characters of each text in a report at the most.
pub const MAX_TEXT: usize = 500;
/// First bytes of a question to the UDP echo; then 16 bytes that its answer repeats, then anything.
pub const ECHO_ASK: [u8; 4] = *b"LHe?";
/// First bytes of its answer; then the 16 bytes, then the address that it saw, as text.
pub const ECHO_SAY: [u8; 4] = *b"LHe!";
/// A question shorter than this gets no answer, so that no answer is longer than its question.
pub const ECHO_MIN: usize = 80;

/// What the cloud signs for a probe.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProbeClaims {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// Its name.
    pub id: TicketId,
    /// The order that reports go to.
    pub order: OrderId,
    /// Where the cloud is.
    pub endpoints: Vec<CloudEndpoint>,
    /// The fleet's root certificates, PEM.
    pub root_pem: String,
    /// What helps to tell whose fault it is.
    #[serde(default, skip_serializing_if = "NetworkHints::is_empty")]
    pub hints: NetworkHints,
    /// Further ways out that a box needs.
    #[serde(default)]
    pub egress: Vec<Need>,
    /// The Ed25519 key (32 bytes) that signs reports.
    pub key: Blob,
    /// When it was made.
    pub issued: UnixMillis,
    /// When the cloud stops taking reports under it.
    pub expires: UnixMillis,
}

/// The file that a probe is started with.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProbeTicket {
    /// [`ProbeClaims`], signed by the cloud.
    pub ticket: Jws,
    /// The seed (32 bytes, base64) of the key that signs reports.
    pub seed: Secret,
}

/// A way out that a box needs.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Need {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What for.
    pub what: String,
}

/// A report under a ticket; whoever reads it verifies both.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SignedReport {
    /// The ticket that names the key.
    pub ticket: Jws,
    /// [`ProbeReport`] as it was signed, JSON.
    pub report: String,
    /// Ed25519 over what [`SignedReport::signed`] yields.
    pub signature: Blob,
}

impl SignedReport {
    /// The bytes under the signature: which document, under which ticket, what.
    pub fn signed(ticket: &Jws, report: &str) -> Vec<u8> {
        let Jws(ticket) = ticket;
        [
            b"longhaul-probe-report\n",
            ticket.as_bytes(),
            b"\n",
            report.as_bytes(),
        ]
        .concat()
    }
}

/// What a probe found.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ProbeReport {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The ticket that it was made under.
    pub ticket: TicketId,
    /// Version of the probe.
    pub probe_version: String,
    /// When, by the probe's clock.
    pub at: UnixMillis,
    /// Why a box would not come online here, or only badly, worst first; none where it would.
    pub findings: Vec<Finding>,
    /// The rungs of the ladder as they were climbed, in words.
    pub ladder: Vec<LadderLine>,
    /// Interfaces that have a cable.
    pub interfaces: Vec<InterfaceSeen>,
    /// The default gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Each DNS server, asked by itself.
    pub dns: Vec<DnsServer>,
    /// What stands between this network and the internet.
    pub nat: Nat,
    /// The largest IP packet that came through to the cloud and back, in bytes.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// The proxy that was used.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Ways out that a box needs.
    pub egress: Vec<WayOut>,
    /// Whether another machine answered a multicast question on this LAN; absent where none did, which
    /// may have either reason.
    #[serde(default)]
    pub multicast: Option<bool>,
    /// How far the clock is before the cloud's, in milliseconds.
    #[serde(default)]
    pub clock_ahead_ms: Option<i64>,
    /// Speed and delay to the cloud.
    #[serde(default)]
    pub line: Option<Line>,
    /// IPv6.
    pub ipv6: Ipv6,
}

/// One reason.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// Its code.
    pub code: Code,
    /// What was seen.
    pub evidence: String,
}

/// One rung.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LadderLine {
    /// The rung.
    pub rung: crate::diag::Rung,
    /// Why it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was seen.
    pub evidence: String,
}

/// An interface with a cable.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InterfaceSeen {
    /// Its name.
    pub name: String,
    /// Its addresses, `address/prefix`.
    pub addresses: Vec<String>,
    /// Its own largest packet, in bytes.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// A DNS server, asked by itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DnsServer {
    /// Its address.
    pub address: IpAddr,
    /// How long its answer took, in milliseconds; absent where none came.
    #[serde(default)]
    pub took_ms: Option<u32>,
    /// What it says are the cloud's addresses.
    pub answers: Vec<IpAddr>,
    /// Whether it names addresses for a name that nobody has.
    #[serde(default)]
    pub invents: Option<bool>,
}

/// What stands between a network and the internet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nat {
    /// The cloud sees the machine's own address.
    None,
    /// Addresses are translated; one port inside is one port outside, whatever port is asked.
    Cone,
    /// Addresses are translated, and each destination's port gets another one outside.
    Symmetric,
    /// Addresses are translated; how was not seen, as no echo of another port answered.
    Translated,
    /// No echo answered.
    #[default]
    Unknown,
}

/// A way out, tried.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WayOut {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// What for.
    pub what: String,
    /// Whether it is open.
    pub open: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// Speed and delay of a line.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Line {
    /// The middle of several round trips, in milliseconds.
    pub latency_ms: u32,
    /// From the cloud, in bits per second; absent where it was not measured.
    #[serde(default)]
    pub down_bits_per_sec: Option<u64>,
    /// To the cloud.
    #[serde(default)]
    pub up_bits_per_sec: Option<u64>,
}

/// IPv6 in this network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ipv6 {
    /// Whether there is a global address.
    pub address: bool,
    /// Whether the cloud was reached by it; absent where it has no such address.
    #[serde(default)]
    pub cloud: Option<bool>,
}

/// What the cloud saw of whoever asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Seen {
    /// From where.
    pub address: std::net::SocketAddr,
    /// What time it is.
    pub now: UnixMillis,
}

/// A report that is longer than any probe makes.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the report's {0} is longer than any probe's")]
pub struct TooMuch(pub &'static str);

impl ProbeReport {
    /// Whether lists and texts are as long as a probe's can be.
    ///
    /// # Errors
    ///
    /// Which is not.
    pub fn check(&self) -> Result<(), TooMuch> {
        let lists = [
            ("findings", self.findings.len()),
            ("ladder", self.ladder.len()),
            ("interfaces", self.interfaces.len()),
            ("dns", self.dns.len()),
            ("egress", self.egress.len()),
        ];
        let inner = self
            .interfaces
            .iter()
            .map(|i| ("addresses", i.addresses.len()));
        let answers = self.dns.iter().map(|d| ("answers", d.answers.len()));
        let mut lists = lists.into_iter().chain(inner).chain(answers);
        if let Some((name, _)) = lists.find(|(_, length)| *length > MAX_LIST) {
            return Err(TooMuch(name));
        }
        let texts = self.findings.iter().map(|f| f.evidence.as_str());
        let texts = texts.chain(self.ladder.iter().map(|l| l.evidence.as_str()));
        let names = self
            .interfaces
            .iter()
            .flat_map(|i| i.addresses.iter().chain([&i.name]));
        let ways = self
            .egress
            .iter()
            .flat_map(|w| [w.host.as_str(), w.what.as_str()]);
        let own = [
            self.probe_version.as_str(),
            self.proxy.as_deref().unwrap_or_default(),
        ];
        let mut texts = texts
            .chain(names.map(String::as_str))
            .chain(ways)
            .chain(own);
        if texts.any(|text| text.chars().count() > MAX_TEXT) {
            return Err(TooMuch("text"));
        }
        Ok(())
    }

    /// Answers to the order's questionnaire that follow from what was found.
    pub fn answers(&self) -> NetworkAnswers {
        let open = self.egress.iter().filter(|way| way.open);
        let mut egress: Vec<_> = open
            .map(|way| crate::network::Egress {
                host: way.host.clone(),
                port: way.port,
            })
            .collect();
        egress.sort();
        egress.dedup();
        let found = NetworkAnswers {
            proxy: self.proxy.as_ref().map(|proxy| format!("http://{proxy}")),
            egress: (!egress.is_empty()).then_some(egress),
            ..NetworkAnswers::default()
        };
        // A machine that calls itself what no network knows answers nothing.
        if found.check().is_ok() {
            found
        } else {
            NetworkAnswers::default()
        }
    }
}
