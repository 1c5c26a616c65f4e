//! What lies outside the cloud: the status beacon, and servers of others. Looked at only when the
//! cloud does not answer, to tell whose fault it is.

use std::time::Duration;

use longhaul_protocol::beacon::{Beacon, MAX_BEACON_BYTES};
use longhaul_protocol::inventory::NetworkHints;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::jws::{self, Kind};
use longhaul_provisioning::trust::Anchors;
use serde::Deserialize;

use super::resolve;
use crate::proxy::ProxySetting;
use crate::text::chain;

/// Everything outside is asked at once, and not for longer.
const LIMIT: Duration = Duration::from_secs(3);
/// Hints that are followed at the most, of each kind.
const MAX_HINTS: usize = 4;
/// What is shown of where a portal leads, in characters.
const MAX_SHOWN: usize = 120;

/// What was seen of the beacon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BeaconSeen {
    /// None is configured, or none answers.
    Silent,
    /// Somebody else answers in its place.
    Portal { evidence: String },
    /// It is signed, and still says something.
    Said(Beacon),
}

/// What was seen outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outside {
    pub beacon: BeaconSeen,
    /// Somebody else's server that accepted a connection.
    pub reached: Option<String>,
    /// Whether there was anything to ask.
    pub asked: bool,
}

/// Asks what the factory's hints name.
pub struct Lookout {
    hints: NetworkHints,
    anchors: Anchors,
    http: reqwest::Client,
}

impl Lookout {
    /// A lookout that believes beacons signed by the fleet of `anchors`.
    pub fn new(
        hints: NetworkHints,
        anchors: Anchors,
        proxy: &ProxySetting,
        tls: rustls::ClientConfig,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .proxy(proxy.for_http())
            .redirect(reqwest::redirect::Policy::none())
            .timeout(LIMIT)
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            hints,
            anchors,
            http,
        })
    }

    /// Looks around.
    pub async fn look(&self, now: UnixMillis) -> Outside {
        let beacons = self.hints.beacons.iter().take(MAX_HINTS);
        let beacons = futures::future::join_all(beacons.map(|url| self.ask(url, now)));
        let targets = self.hints.reach.iter().take(MAX_HINTS);
        let targets = futures::future::join_all(targets.map(|target| reach(target)));
        let (beacons, targets) = tokio::join!(beacons, targets);
        Outside {
            beacon: best(beacons),
            reached: targets.into_iter().flatten().next(),
            asked: !self.hints.beacons.is_empty() || !self.hints.reach.is_empty(),
        }
    }

    async fn ask(&self, url: &str, now: UnixMillis) -> BeaconSeen {
        let Ok(mut answer) = self.http.get(url).send().await else {
            return BeaconSeen::Silent;
        };
        let status = answer.status();
        if status.is_redirection() || status.as_u16() == 511 {
            let to = answer.headers().get(http::header::LOCATION);
            let to = to.and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let to: String = to.chars().take(MAX_SHOWN).collect();
            let evidence = format!("{url} is answered {} and led to {to}", status.as_u16());
            return BeaconSeen::Portal { evidence };
        }
        if !status.is_success() {
            return BeaconSeen::Silent;
        }
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = answer.chunk().await {
            if body.len() + chunk.len() > MAX_BEACON_BYTES {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        self.read(url, &body, now)
    }

    fn read(&self, url: &str, body: &[u8], now: UnixMillis) -> BeaconSeen {
        let text = String::from_utf8_lossy(body);
        match believe(text.trim(), &self.anchors) {
            Ok(beacon) if beacon.expires < now => BeaconSeen::Silent,
            Ok(beacon) => BeaconSeen::Said(beacon),
            Err(why) => BeaconSeen::Portal {
                evidence: format!("{url} is answered by a page that is not ours: {why}"),
            },
        }
    }
}

/// The best that any of them says: one that is signed proves that nobody stands in between.
fn best(seen: Vec<BeaconSeen>) -> BeaconSeen {
    let weight = |seen: &BeaconSeen| match seen {
        BeaconSeen::Silent => 0,
        BeaconSeen::Portal { .. } => 1,
        BeaconSeen::Said(_) => 2,
    };
    let best = seen.into_iter().max_by_key(weight);
    best.unwrap_or(BeaconSeen::Silent)
}

/// Reads a beacon. The signature is checked as of the day on which it claims to be made: a box
/// whose clock is wrong believes it, too.
fn believe(compact: &str, anchors: &Anchors) -> Result<Beacon, String> {
    #[derive(Deserialize)]
    struct Made {
        made_at: UnixMillis,
    }
    let jws = Jws(compact.to_owned());
    let made: Made = compact
        .split('.')
        .nth(1)
        .and_then(|payload| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD
                .decode(payload)
                .ok()
        })
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .ok_or("it is not signed")?;
    let verified = jws::verify(&jws, Kind::Beacon, anchors, made.made_at).map_err(|e| chain(&e))?;
    serde_json::from_slice(&verified.payload).map_err(|e| e.to_string())
}

async fn reach(target: &str) -> Option<String> {
    let (host, port) = target.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let found = async {
        let found = resolve::resolve(host.trim_matches(['[', ']']), LIMIT)
            .await
            .ok()?;
        super::dial::connect(&found.addresses, port, LIMIT, None)
            .await
            .ok()
    };
    let connected = tokio::time::timeout(LIMIT, found).await.ok()??;
    drop(connected);
    Some(target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::beacon::BeaconState;
    use longhaul_provisioning::ca::Pki;
    use longhaul_provisioning::jws::Signer;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn beacon() -> Beacon {
        Beacon {
            v: 1,
            state: BeaconState::Trouble,
            text: "the database is being restored".to_owned(),
            made_at: NOW,
            expires: NOW.plus_millis(1),
        }
    }

    #[test]
    fn a_beacon_is_believed_only_from_the_fleet() {
        let dir = tempfile::tempdir().unwrap();
        let pki = |name: &str| Pki::init(&dir.path().join(name), NOW).unwrap();
        let (ours, others) = (pki("ours"), pki("others"));
        let sign = |pki: &Pki, kind| {
            let identity = pki.issue_statement_signer("status", 60, NOW).unwrap();
            let payload = serde_json::to_vec(&beacon()).unwrap();
            let Jws(compact) = Signer::new(&identity)
                .unwrap()
                .sign(kind, &payload)
                .unwrap();
            compact
        };
        let anchors = ours.root_anchor().unwrap();

        assert_eq!(believe(&sign(&ours, Kind::Beacon), &anchors), Ok(beacon()));
        for other in [
            sign(&others, Kind::Beacon),
            sign(&ours, Kind::Ticket),
            "<html>log in</html>".to_owned(),
            "a.b.c".to_owned(),
            String::new(),
        ] {
            assert!(believe(&other, &anchors).is_err(), "{other}");
        }
    }

    #[test]
    fn one_signed_beacon_outweighs_a_portal() {
        let portal = BeaconSeen::Portal {
            evidence: String::new(),
        };
        let said = BeaconSeen::Said(beacon());

        assert_eq!(best(vec![portal.clone(), said.clone()]), said);
        assert_eq!(best(vec![BeaconSeen::Silent, portal.clone()]), portal);
        assert_eq!(best(Vec::new()), BeaconSeen::Silent);
    }
}
