//! The ticket: what a customer downloads from the portal to push files to one box.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::{BoxId, OrderId, TicketId};
use crate::value::UnixMillis;

/// A secret text; never shown by `Debug`.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Everything that a client needs to reach a box and be believed by it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ticket {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// The ticket's name.
    pub id: TicketId,
    /// The box that it is for.
    pub box_id: BoxId,
    /// The order that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderId>,
    /// The bucket that objects go to.
    pub bucket: String,
    /// The region that clients sign for.
    pub region: String,
    /// Access key of the S3 key pair.
    pub access_key: String,
    /// Secret key of the S3 key pair.
    pub secret_key: Secret,
    /// When the ticket was made; its box may learn of it some seconds later. Absent in older tickets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued: Option<UnixMillis>,
    /// When the ticket ends.
    pub expires: UnixMillis,
    /// The fleet's root certificates, PEM: what the box's LAN certificate must chain to.
    pub root_pem: String,
    /// Where the box said that it is on the LAN; tried after mDNS.
    #[serde(default)]
    pub lan_urls: Vec<String>,
    /// Where the cloud is, as people reach it: receipts come from there, by the same key pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_url: Option<String>,
}

/// The secrets of every ticket that is valid for a box, as the box fetches them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct CredentialSet {
    /// Version of the desired state that names these tickets.
    pub desired_version: u64,
    /// The credentials.
    pub credentials: Vec<Credential>,
}

/// One ticket's S3 key pair, as the box keeps it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Credential {
    /// Which ticket.
    pub ticket: TicketId,
    /// The only bucket that it reaches.
    pub bucket: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: Secret,
    /// When it ends.
    pub expires: UnixMillis,
}

/// The DNS name in a box's LAN certificate: `{box}.box.longhaul.internal`, lower case.
///
/// Clients check it whatever address they connect to. Source of the suffix: ICANN reserved
/// `.internal` for private use in 2024.
pub fn lan_name(box_id: &BoxId) -> String {
    format!(
        "{}.box.longhaul.internal",
        box_id.as_str().to_ascii_lowercase()
    )
}

/// The service type that boxes announce on the LAN (RFC 6763).
pub const MDNS_SERVICE: &str = "_longhaul._tcp.local.";
