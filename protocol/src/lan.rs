//! What the box says over HTTPS on the LAN beside S3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diag::{Code, RungReport};
use crate::envelope::VERSION;
use crate::ids::{BoxId, ObjectKey};
use crate::network_settings::NetworkReport;
use crate::telemetry::VaultFill;
use crate::uplink::UplinkState;

/// `GET` here without log-in; answers [`LanStatus`].
pub const STATUS_PATH: &str = "/longhaul/v1/status";
/// `POST` here with [`DeliveryQuery`] and the ticket's key pair as HTTP Basic; answers [`Deliveries`].
pub const DELIVERY_PATH: &str = "/longhaul/v1/delivery";
/// `POST` here with [`ReceiptAsk`](crate::receipt::ReceiptAsk) and the ticket's key pair as HTTP Basic;
/// the box asks the cloud, and answers [`ReceiptTexts`](crate::receipt::ReceiptTexts).
pub const RECEIPTS_PATH: &str = "/longhaul/v1/receipts";
/// On the answer to `HEAD` and `GET` of an object: BLAKE3 of all its bytes, in hexadecimal, where
/// the box knows it without reading the object.
pub const BLAKE3_HEADER: &str = "x-longhaul-blake3";

/// On the answer to `PUT` and to the beginning of an upload: what is odd about an object that the box
/// takes all the same.
pub const NOTICE_HEADER: &str = "x-longhaul-notice";

/// On the beginning of an upload: how many bytes all of its parts will have, so that what can never fit
/// is refused before the first one.
pub const SIZE_HEADER: &str = "x-longhaul-size";

/// The capability of a box that takes packs at [`crate::pack::PACKS_PATH`].
pub const PACKS: &str = "packs";

/// Keys in one query at the most.
pub const MAX_KEYS: usize = 1000;

/// The box at a glance; says nothing about anybody's files.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LanStatus {
    /// Version of this format; see [`crate::envelope::VERSION`].
    pub v: u16,
    /// Which box this is.
    pub box_id: BoxId,
    /// Version of its agent.
    pub agent_version: String,
    /// The ladder.
    pub rungs: Vec<RungReport>,
    /// The store.
    pub vault: VaultFill,
    /// Whether it is being identified right now.
    pub identifying: bool,
    /// Whether it sends to the buckets, and how fast it may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<UplinkState>,
    /// What it can do beside S3, such as [`PACKS`]; a box that says nothing can do S3 alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// The last change of its own network settings, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkReport>,
}

impl LanStatus {
    /// What indicators show: why the first rung that does not hold does not, or else why deliveries
    /// wait.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        let failing = self.rungs.iter().find_map(|rung| rung.code);
        failing.or_else(|| self.uplink?.code)
    }
}

/// Asks how far objects have come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeliveryQuery {
    /// The bucket.
    pub bucket: String,
    /// 1 to [`MAX_KEYS`] keys.
    pub keys: Vec<ObjectKey>,
}

/// How far each object has come; a key that the box does not hold is absent.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Deliveries {
    /// State by key.
    pub objects: BTreeMap<ObjectKey, Delivery>,
    /// Why everything for this bucket waits, if it does: the bucket refuses everybody
    /// ([`Code::BUCKET_HELD`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
}

/// How far one object has come.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Delivery {
    /// Safe on the box.
    OnBox,
    /// On its way.
    InFlight,
    /// In the bucket, not yet compared.
    InCloud,
    /// In the bucket, compared.
    Verified,
    /// Needs someone's help.
    Failed {
        /// What failed, and what to do.
        reason: String,
    },
}

/// What a box says in the TXT record of its mDNS announcement (RFC 6763 section 6).
///
/// The instance is named after the box; the host may have any name, because clients check the
/// certificate for [`crate::ticket::lan_name`] and never for the announced host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Announcement {
    /// Which box.
    pub box_id: BoxId,
    /// Version of its agent.
    pub agent_version: String,
    /// The first rung that does not hold; absent where all hold.
    pub code: Option<Code>,
}

impl Announcement {
    /// The record's keys and values.
    pub fn to_txt(&self) -> Vec<(String, String)> {
        let mut txt = vec![
            ("v".to_owned(), VERSION.to_string()),
            ("box".to_owned(), self.box_id.to_string()),
            ("agent".to_owned(), self.agent_version.clone()),
        ];
        if let Some(code) = self.code {
            txt.push(("code".to_owned(), code.to_string()));
        }
        txt
    }

    /// Reads a record through `get`; `None` where it is not a Longhaul box's.
    ///
    /// A code that this program does not know is left out rather than hiding the box.
    pub fn from_txt<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        Some(Self {
            box_id: get("box")?.parse().ok()?,
            agent_version: get("agent").unwrap_or_default().chars().take(64).collect(),
            code: get("code").and_then(|code| code.parse().ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_survives_its_txt_record() {
        let said = Announcement {
            box_id: BoxId::from_ek_sha256(&[7; 32]),
            agent_version: "0.1.0".to_owned(),
            code: Some(Code::NO_ADDRESS),
        };

        let txt = said.to_txt();
        let get = |key: &str| {
            txt.iter()
                .find(|(k, _)| k == key)
                .map(|(_, value)| value.as_str())
        };

        assert_eq!(Announcement::from_txt(get), Some(said));
        assert_eq!(Announcement::from_txt(|_| Some("garbage")), None);
    }
}
