//! The bring-up ladder: rungs, stable codes and what each says to whom.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::value::UnixMillis;

/// One rung of the ladder from a cable to the broker, in order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// A cable with a carrier.
    Link,
    /// An address.
    Address,
    /// A gateway that answers.
    Gateway,
    /// Names resolve.
    Dns,
    /// No proxy or portal is in the way.
    Proxy,
    /// The clock is right enough for certificates.
    Clock,
    /// The cloud accepts a TCP connection.
    CloudTcp,
    /// The cloud proves who it is.
    CloudTls,
    /// The cloud has issued this box a certificate that is valid now.
    Enrolled,
    /// The box has an MQTT session.
    Broker,
}

impl Rung {
    /// Every rung, from the cable up.
    pub const ALL: [Self; 10] = [
        Self::Link,
        Self::Address,
        Self::Gateway,
        Self::Dns,
        Self::Proxy,
        Self::Clock,
        Self::CloudTcp,
        Self::CloudTls,
        Self::Enrolled,
        Self::Broker,
    ];
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Address => "address",
            Self::Gateway => "gateway",
            Self::Dns => "DNS",
            Self::Proxy => "proxy",
            Self::Clock => "clock",
            Self::CloudTcp => "cloud TCP",
            Self::CloudTls => "cloud TLS",
            Self::Enrolled => "enrolled",
            Self::Broker => "broker",
        })
    }
}

/// What changed between a rung that failed and the same rung holding, as far as the box could see. Of
/// several changes, the first of these counts.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fix {
    /// A cable was plugged in, or an interface came up.
    Cable,
    /// The box got another address, gateway or DNS server.
    Address,
    /// Somebody set something on the box: its proxy, its clock.
    Setting,
    /// Nothing changed on the box: whoever it talks to does now what it did not.
    OtherSide,
    /// Nothing changed that could be seen, and failures of this kind come and go.
    ByItself,
}

/// What is known of a rung.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RungStatus {
    /// It holds.
    Ok,
    /// It does not hold; the code says why.
    Failed,
    /// A rung below it does not hold, so it was not tried.
    NotReached,
    /// Being tried for the first time.
    Trying,
}

/// One rung as last observed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RungReport {
    /// Which rung.
    pub rung: Rung,
    /// Whether it holds.
    pub status: RungStatus,
    /// Why it does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was seen: an address, an interface, the text of an error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
    /// Since when it has been so.
    pub since: UnixMillis,
}

/// A stable code for one way in which a rung fails or deliveries wait, `LH-101` to `LH-999`. Codes are
/// never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Code(&'static CodeEntry);

/// One row of the table of codes.
#[derive(Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CodeEntry {
    /// The number in `LH-nnn`; its first digit is the rung's place on the ladder.
    pub number: u16,
    /// The rung that fails; the last one where `deliveries`.
    pub rung: Rung,
    /// Whether every rung may hold, and deliveries wait all the same.
    pub deliveries: bool,
    /// A few words, as on an indicator.
    pub title: &'static str,
    /// What the customer should do next.
    pub customer: &'static str,
    /// What an operator should know.
    pub operator: &'static str,
}

macro_rules! place {
    (Deliveries) => {
        (Rung::Broker, true)
    };
    ($rung:ident) => {
        (Rung::$rung, false)
    };
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal $rung:ident $title:literal $customer:literal $operator:literal;)*) => {
        /// Every code, in order.
        pub static CODES: &[CodeEntry] = &[$(CodeEntry {
            number: $number,
            rung: place!($rung).0,
            deliveries: place!($rung).1,
            title: $title,
            customer: $customer,
            operator: $operator,
        }),*];

        #[expect(non_camel_case_types, reason = "an index into the table, named as the constants are")]
        enum Index { $($name),* }

        impl Code {
            $(
                #[doc = $title]
                pub const $name: Self = Self(&CODES[Index::$name as usize]);
            )*
        }
    };
}

codes! {
    NO_CABLE = 101 Link "no cable" "Plug a network cable into the box and into your switch; both lights at the socket should come on." "No wired interface has a carrier.";
    NO_INTERFACE = 102 Link "no network interface" "Switch the box off and on once. If this stays, call us: the network part is broken." "The kernel shows no usable interface.";
    NO_ADDRESS = 201 Address "no address" "Your network gave the box no address. Use a socket where other computers work, or ask your network administrator to allow it." "Carrier, but neither DHCP, static configuration nor router advertisement gave a global address.";
    LINK_LOCAL_ONLY = 202 Address "link-local address only" "The box made up an address because nobody gave it one. You can push files from a directly connected laptop; for the cloud, connect it to a network with DHCP." "Only link-local addresses.";
    ADDRESS_CONFLICT = 203 Address "address conflict" "Another device on your network has the same address as the box. Ask your network administrator to give the box another one; the box goes on by itself." "Somebody else answers ARP for the box's own address, or IPv6 duplicate address detection failed. The evidence has the other's hardware address.";
    NO_GATEWAY = 301 Gateway "no gateway" "Your network gave the box an address but no way out. Ask your network administrator for the gateway." "No default route.";
    GATEWAY_SILENT = 305 Gateway "gateway silent" "The way out of your network does not answer. Check that your router is on." "The default gateway does not answer ARP or neighbour discovery.";
    NO_RESOLVER = 401 Dns "no DNS server" "Your network did not tell the box where to look up names. Ask your network administrator for a DNS server." "No resolver is configured.";
    DNS_PRIVATE = 402 Dns "DNS answers with a private address" "Your network sends the box to the wrong place. Ask your network administrator about DNS filtering." "The cloud's name resolves to a private address that the configuration does not expect.";
    DNS_SILENT = 403 Dns "DNS silent" "Looking up names does not work on your network. Check that your router is online." "The resolver did not answer in time.";
    DNS_NO_NAME = 404 Dns "name not found" "Your network does not know our cloud's name. Ask your network administrator about DNS filtering." "The resolver says that the name does not exist.";
    DNS_SLOW = 405 Dns "DNS slow" "Looking up names takes very long on your network. The box works, slowly. Ask your network administrator about the DNS server." "The resolver answered, but later than a probe waits.";
    NOTHING_OUT = 501 Proxy "no direct way out" "Your network lets nothing out directly. Ask your network administrator for the address of the proxy, or to open the addresses and ports in the letter. Your files are taken and kept safe meanwhile." "Neither the cloud, nor the status beacon, nor any independent target can be reached directly, and no proxy is set: a firewall, a proxy that must be used, or a dead uplink.";
    PROXY_SILENT = 502 Proxy "proxy does not answer" "The proxy that was set for the box does not answer. Check its address with your network administrator." "No TCP connection to the configured proxy, or no answer to CONNECT.";
    CAPTIVE_PORTAL = 503 Proxy "portal wants a log-in" "Your network shows a log-in page before it lets anything out. Ask your network administrator to let the box through without it, or use another socket." "A captive portal answers in place of the status beacon (RFC 8952): a redirect, 511, or a page that nobody signed. The evidence has where it leads.";
    PROXY_LOGIN = 504 Proxy "proxy wants a log-in" "The proxy wants a name and a password, or not the ones that were set. Ask your network administrator for them." "The proxy answers CONNECT with 407.";
    PROXY_REFUSED = 505 Proxy "proxy refuses" "The proxy does not let the box through to us. Ask your network administrator to allow the addresses in the letter." "The proxy answers CONNECT with a refusal; the evidence has its status.";
    CLOCK_WRONG = 601 Clock "clock wrong" "Nothing to do: the box sets its clock by itself. If this stays for 10 minutes, call us." "The clock differs from the server's Date header by more than certificates bear.";
    TCP_REFUSED = 701 CloudTcp "cloud refuses connections" "Nothing to do at your side if other sites work: we are being told. Your files are taken and kept safe meanwhile." "Connection refused by the endpoint or a firewall that resets.";
    TCP_TIMEOUT = 702 CloudTcp "cloud not reachable" "A firewall may be in the way. Ask your network administrator to allow outgoing connections to the addresses in the letter." "Connect timed out: packets are dropped on the way.";
    TCP_UNREACHABLE = 703 CloudTcp "no route to the cloud" "Your network has no way to the internet at the moment. Check your router." "Network or host unreachable.";
    CLOUD_DOWN = 704 CloudTcp "our cloud is down" "Nothing to do: the fault is at our side and we are at work on it. Your files are taken and kept safe meanwhile." "The signed status beacon, which lives apart from the cloud, reports trouble, and the cloud does not answer this box.";
    PATH_MTU = 705 CloudTcp "large packets are lost" "Small messages get through on your network, large ones do not. Ask your network administrator to check the MTU of the line and to let ICMP through." "A path MTU black hole: connections stall at full-size packets and hold with small ones (RFC 2923).";
    LINE_POOR = 706 CloudTcp "line very slow or lossy" "The line to the internet is very slow or loses much. The box goes on, slowly; ask your network administrator or your provider to check the line." "The way to the cloud holds, but later than a probe waits: delay or loss. The evidence has the times.";
    TLS_UNTRUSTED = 801 CloudTls "connection is intercepted" "Something on your network opens encrypted connections. Ask your network administrator to exempt the box." "The server's certificate does not chain to the fleet root: interception or wrong endpoint.";
    TLS_EXPIRED = 802 CloudTls "cloud certificate not valid now" "Nothing to do: either the box's clock or our certificate is wrong; we are being told." "The server's certificate is expired or not yet valid by the box's clock.";
    TLS_NAME = 803 CloudTls "wrong server" "Something on your network answers in our place. Ask your network administrator." "The server's certificate is for another name.";
    TLS_FAILED = 804 CloudTls "encrypted connection fails" "Something on your network disturbs encrypted connections. Ask your network administrator to exempt the box." "The TLS handshake failed or was cut.";
    NO_IDENTITY = 901 Enrolled "box was not prepared" "Call us: the box left the factory without its papers." "The TPM or the factory's configuration cannot be used.";
    ENROL_REFUSED = 902 Enrolled "cloud refuses this box" "Call us with the box's serial number. Your files are taken and kept safe meanwhile." "The cloud refused enrolment; the evidence says why.";
    ENROL_REVOKED = 903 Enrolled "box is revoked" "Call us with the box's serial number." "The box is revoked in the registry.";
    ENROL_UNAVAILABLE = 904 Enrolled "registration is not answering" "Nothing to do: the box keeps trying. Your files are taken and kept safe meanwhile." "The enrolment service failed or did not answer.";
    STATE_CHANGED = 905 Enrolled "box is in another state" "Call us with the box's serial number. The files on it are safe, and locked until we have looked at it; it takes no new ones." "PCRs differ from what they were: other firmware, boot settings or software, or somebody's hand. The evidence names them. The box is quarantined; its vault opens only in the state in which its key was sealed.";
    HELD_BACK = 906 Enrolled "box is held back" "Call us with the box's serial number. The files on it are safe; it takes no new ones until we have looked at it." "The cloud quarantined the box: it stays connected and reports, has no tickets and delivers nothing. The evidence and the box's page say why: PCRs that no release and no factory record explains, or an operator.";
    ANSWER_DAMAGED = 907 Enrolled "answer cannot be read" "The answer file on the stick is damaged or not complete. Download it in the portal once more, copy it to the stick, and have the computer eject the stick before you pull it." "An offline answer is no JSON of ours, or its parts do not belong together. The evidence says which.";
    ANSWER_UNTRUSTED = 908 Enrolled "answer is not ours" "The answer file does not come from us, or was made for another box. Nothing was changed. Download it in the portal once more." "An offline answer whose signature does not chain to the fleet root, or which this box's TPM does not open.";
    ANSWER_FOREIGN = 909 Enrolled "answer for another box" "The answer file is for another box: the number in its name is that box's. Bring it there, and the right one here." "An offline answer that names another box.";
    ANSWER_STALE = 910 Enrolled "answer to an older request" "The answer file is not to the request that this box made last, or is older than three days. Bring the request that is on the stick now to the portal, and the new answer back." "An offline answer to a request that was answered, withdrawn or replaced: a replay, or two sticks that were mixed up. Or one behind its end by the box's clock.";
    BROKER_BLOCKED = 911 Broker "control connection blocked" "A firewall lets the box reach our registration but not its control line. Ask your network administrator to allow the port in the letter." "HTTPS works, the MQTT endpoint does not accept a connection.";
    BROKER_REFUSED = 912 Broker "control connection refused" "Call us with the box's serial number." "The broker refused the session; the evidence has its reason.";
    BROKER_LOST = 913 Broker "control connection lost" "Nothing to do: the box connects again by itself." "The MQTT session ended and is not back yet.";
    BUCKET_HELD = 951 Deliveries "bucket does not let us in" "Ask whoever looks after your bucket in the cloud to let us in again; the box then goes on by itself. Your files are taken and kept safe meanwhile." "The object store refuses the cloud's own requests for this bucket, too: its objects wait, none has failed, other buckets go on. What the store said is in the box's timeline and on the order's page. It is tried out every two minutes, and when you ask for it.";
}

impl Code {
    /// The row of the table.
    pub fn entry(self) -> &'static CodeEntry {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LH-{:03}", self.0.number)
    }
}

/// Reads a code where one that this program does not know yet is no reason to refuse the rest.
pub(crate) fn known_code<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Code>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// The table of codes as a page, for `docs/codes.md`.
pub fn codes_page() -> String {
    let mut page = String::from(
        "# Codes\n\n\
         Where a box cannot go on, it names the first rung of the ladder that does not hold by one of these codes: on its screen, on its\n\
         own page (`http://<box>/`), in its mDNS record, to `longhaul doctor`, in the dashboard and in `GET /v1/codes`. Codes are stable and\n\
         never reused; the first digit is the rung's place (9: enrolled and broker; from 951 on, deliveries). Made from `protocol/src/diag.rs` by\n\
         `LONGHAUL_BLESS=1 cargo test -p longhaul-protocol --test codes`.\n",
    );
    let rungs = Rung::ALL.into_iter().map(Some);
    for rung in rungs.chain([None]) {
        let title = rung.map_or_else(|| "deliveries".to_owned(), |rung| rung.to_string());
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "\n## {title}\n\n| code | | for the customer | for the operator |\n|---|---|---|---|\n"
        );
        let here = |entry: &&CodeEntry| match rung {
            Some(rung) => entry.rung == rung && !entry.deliveries,
            None => entry.deliveries,
        };
        for entry in CODES.iter().filter(here) {
            let CodeEntry {
                number,
                title,
                customer,
                operator,
                ..
            } = entry;
            let _ = writeln!(page, "| LH-{number} | {title} | {customer} | {operator} |");
        }
    }
    page
}

/// Why a text is not a code of the table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a known code: {0:?}")]
pub struct UnknownCode(pub String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        text.strip_prefix("LH-")
            .and_then(|n| n.parse::<u16>().ok())
            .and_then(|n| CODES.iter().find(|e| e.number == n))
            .map(Self)
            .ok_or_else(|| UnknownCode(text.chars().take(32).collect()))
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_ordered_like_the_ladder() {
        for pair in CODES.windows(2) {
            assert!(pair[0].number < pair[1].number, "{}", pair[1].number);
            let place = |entry: &CodeEntry| (entry.deliveries, entry.rung);
            assert!(place(&pair[0]) <= place(&pair[1]), "{}", pair[1].number);
        }
    }

    #[test]
    fn every_code_survives_its_text_form() {
        for entry in CODES {
            let code: Code = format!("LH-{}", entry.number)
                .parse()
                .expect("in the table");
            assert_eq!(code.entry(), entry);
        }
        assert_eq!(Code::NO_CABLE.to_string(), "LH-101");
    }
}
