//! What the factory signs: a record of the box for the cloud, and a configuration for the box.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{BoxId, OrderId};
use crate::network::Egress;
use crate::value::{Blob, Digest32, UnixMillis};

/// One box, as the factory made it; signed as a JWS for the factory's purpose.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InventoryRecord {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The box.
    pub box_id: BoxId,
    /// SHA-256 of the endorsement key (SPKI, DER).
    pub ek_sha256: Digest32,
    /// Certificate of the endorsement key (DER).
    pub ek_certificate: Blob,
    /// The attestation key's TPM name.
    pub iak_name: Blob,
    /// The attestation key's `TPMT_PUBLIC`.
    pub iak_public: Blob,
    /// The initial identity certificate (DER).
    pub idevid_certificate: Blob,
    /// Expected PCR values of the SHA-256 bank, by number; a quote covers exactly these.
    pub expected_pcrs: BTreeMap<u8, Digest32>,
    /// SHA-256 of the claim code that is printed on the box.
    pub claim_code_sha256: Digest32,
    /// Hardware type, for people.
    #[serde(default)]
    pub hardware: String,
    /// The order that it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// When it was made.
    pub made_at: UnixMillis,
}

/// What a box is told before it is shipped; signed as a JWS for the factory's purpose.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BoxConfig {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The box that it is for.
    pub box_id: BoxId,
    /// Where the cloud is, first choice first; never empty.
    pub endpoints: Vec<CloudEndpoint>,
    /// The fleet's root certificates, PEM.
    pub root_pem: String,
    /// Network settings where there is no DHCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub static_network: Option<StaticNetwork>,
    /// The VLAN that its port is in, where frames are tagged; absent or 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// Whether the customer says that the network asks for 802.1X.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dot1x: Option<bool>,
    /// Where the customer says that it may connect to; empty where nobody said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Egress>,
    /// The order that it is shipped for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// PCRs of the SHA-256 bank that the box's keys are sealed over; empty for the usual ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pcrs: Vec<u8>,
    /// The fleet's recovery key (an uncompressed point of P-256), to which the box encrypts its
    /// vault's key; absent where nobody shall open a box without its TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_key: Option<Blob>,
    /// SHA-256 of the claim code that is printed on the box: whoever has the code may change the
    /// network settings on the box's own page. Absent: nobody may, there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_code_sha256: Option<Digest32>,
    /// What helps to tell whose fault it is where the cloud does not answer.
    #[serde(default, skip_serializing_if = "NetworkHints::is_empty")]
    pub hints: NetworkHints,
    /// When it was made.
    pub made_at: UnixMillis,
}

/// What lies outside the cloud and outside the customer's network, and the way out of the latter.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NetworkHints {
    /// Where the signed status beacon ([`crate::beacon::Beacon`]) is served, `http://` URLs. Plain
    /// HTTP on purpose: its signature proves it, and a captive portal shows itself by answering.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beacons: Vec<String>,
    /// Independent servers, `host:port`, that accept TCP connections wherever the internet is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reach: Vec<String>,
    /// The customer's HTTP proxy, `http://[user:password@]host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
}

impl NetworkHints {
    /// Whether nothing is hinted at.
    pub fn is_empty(&self) -> bool {
        self.beacons.is_empty() && self.reach.is_empty() && self.proxy.is_none()
    }
}

/// One way to reach the cloud. Host names, not URLs: the path and protocol are fixed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct CloudEndpoint {
    /// Host name; the server's certificate must be for it.
    pub host: String,
    /// TCP port of enrolment and box API (HTTPS, mutual TLS).
    pub https_port: u16,
    /// TCP port of MQTT (mutual TLS).
    pub mqtt_port: u16,
}

/// A static network.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct StaticNetwork {
    /// The box's address.
    pub address: IpAddr,
    /// Length of the network prefix in bits.
    pub prefix_len: u8,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// DNS servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
}
