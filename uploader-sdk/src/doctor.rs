//! The doctor: walks from the ticket to the cloud and says at which step it breaks, and what to do.

use std::fmt::Display;
use std::path::Path;

use longhaul_protocol::diag::{Rung, RungReport, RungStatus};
use longhaul_protocol::network_settings::{NetworkReport, NetworkState};
use longhaul_protocol::ticket::Ticket;
use serde::Serialize;

use crate::advice;
use crate::client::BoxClient;
use crate::discover;
use crate::reach::{BoxTls, Endpoint, Via};
use crate::ticket_file::{load_ticket, utc};

/// One step of the walk.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What came of it.
    pub result: CheckResult,
    /// What was seen.
    pub detail: String,
    /// What to do about it; empty where it is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// What came of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// It is well.
    Ok,
    /// It is not, and pushing works all the same.
    Warning,
    /// It is not.
    Failed,
}

/// Everything that was looked at, in order.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diagnosis {
    /// The steps; those after a failure that they need are absent.
    pub checks: Vec<Check>,
}

impl Diagnosis {
    /// Whether nothing failed.
    pub fn is_well(&self) -> bool {
        !self.checks.iter().any(|c| c.result == CheckResult::Failed)
    }

    fn add(&mut self, name: &str, result: CheckResult, detail: impl Display, advice: &str) {
        self.checks.push(Check {
            name: name.to_owned(),
            result,
            detail: detail.to_string(),
            advice: advice.to_owned(),
        });
    }

    fn ok(&mut self, name: &str, detail: impl Display) {
        self.add(name, CheckResult::Ok, detail, "");
    }

    fn failed(&mut self, name: &str, detail: impl Display, advice: &str) {
        self.add(name, CheckResult::Failed, detail, advice);
    }
}

/// Examines the way from this computer to the cloud. `given` is an address that the user knows.
pub async fn examine(ticket: &Path, given: Option<&str>) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    if let Some(client) = reach(&mut diagnosis, ticket, given).await {
        match client.check_credentials().await {
            Ok(()) => diagnosis.ok("key", "the box accepts the ticket's key"),
            Err(error) => diagnosis.failed(
                "key",
                &error,
                "ask whoever sent the box for a new ticket, for this box",
            ),
        }
        ladder(&mut diagnosis, &client).await;
    }
    diagnosis
}

async fn reach(diagnosis: &mut Diagnosis, path: &Path, given: Option<&str>) -> Option<BoxClient> {
    let ticket = match load_ticket(path) {
        Ok(ticket) => ticket,
        Err(error) => {
            diagnosis.failed(
                "ticket",
                advice::chain(&error),
                "name the ticket with --ticket; whoever sent the box can send it again",
            );
            return None;
        }
    };
    diagnosis.ok(
        "ticket",
        format!(
            "{} for box {}, until {}",
            path.display(),
            ticket.box_id,
            utc(ticket.expires)
        ),
    );
    let tls = match BoxTls::new(&ticket) {
        Ok(tls) => tls,
        Err(why) => {
            diagnosis.failed(
                "ticket",
                why,
                "get the ticket again from whoever sent the box",
            );
            return None;
        }
    };
    let endpoints = endpoints(diagnosis, &ticket, given).await;
    let endpoint = proven(diagnosis, &tls, &endpoints).await?;
    match BoxClient::at(&ticket, &tls, endpoint).await {
        Ok(client) => Some(client),
        Err(error) => {
            diagnosis.failed("connection", advice::chain(&error), "call us");
            None
        }
    }
}

async fn endpoints(
    diagnosis: &mut Diagnosis,
    ticket: &Ticket,
    given: Option<&str>,
) -> Vec<Endpoint> {
    if let Some(given) = given {
        return match discover::given_endpoints(given).await {
            Ok(endpoints) => endpoints,
            Err(error) => {
                diagnosis.failed("address", advice::chain(&error), "correct --box");
                Vec::new()
            }
        };
    }
    let in_ticket = discover::ticket_endpoints(ticket).await;
    let (detail, announced) = match discover::find_one(&ticket.box_id).await {
        Ok(Some(found)) => (String::new(), found.addrs),
        Ok(None) => ("the box does not announce itself".to_owned(), Vec::new()),
        Err(error) => (advice::chain(&error), Vec::new()),
    };
    if announced.is_empty() {
        let result = if in_ticket.is_empty() {
            CheckResult::Failed
        } else {
            CheckResult::Warning
        };
        diagnosis.add(
            "mDNS",
            result,
            detail,
            "connect this computer to the same network as the box, or give the address on the box's display: --box https://ADDRESS:PORT",
        );
    } else {
        let list: Vec<String> = announced.iter().map(ToString::to_string).collect();
        diagnosis.ok("mDNS", list.join(", "));
    }
    let by_mdns = announced.into_iter().map(|addr| Endpoint {
        addr,
        via: Via::Mdns,
    });
    by_mdns.chain(in_ticket).collect()
}

/// The first endpoint where the box proves its name; says of the others why not.
async fn proven(
    diagnosis: &mut Diagnosis,
    tls: &BoxTls,
    endpoints: &[Endpoint],
) -> Option<Endpoint> {
    let mut steps = Diagnosis::default();
    for endpoint in endpoints {
        let at = format!("{} ({})", endpoint.addr, endpoint.via);
        let tcp = match tls.tcp(endpoint.addr).await {
            Ok(tcp) => tcp,
            Err(error) => {
                steps.failed(
                    "TCP",
                    format!("{at}: {}", advice::chain(&error)),
                    "check the cable and the box's power; a firewall between this computer and the box must let it through",
                );
                continue;
            }
        };
        match tls.prove(tcp, endpoint.addr).await {
            Ok(()) => {
                diagnosis.ok("TCP", &at);
                diagnosis.ok("TLS", "the box has proven its name");
                return Some(*endpoint);
            }
            Err(error) => {
                steps.ok("TCP", &at);
                steps.failed(
                    "TLS",
                    advice::chain(&error),
                    "this is not the ticket's box, or something on the network opens encrypted connections; do not push here",
                );
            }
        }
    }
    diagnosis.checks.append(&mut steps.checks);
    None
}

async fn ladder(diagnosis: &mut Diagnosis, client: &BoxClient) {
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => {
            diagnosis.add(
                "box",
                CheckResult::Warning,
                advice::chain(&error),
                "the box takes files; whether it reaches the cloud is not known",
            );
            return;
        }
    };
    if let Some(change) = &status.network {
        settings(diagnosis, change);
    }
    let waits = status.uplink.and_then(|uplink| uplink.code);
    match status.rungs.iter().find(|r| r.status == RungStatus::Failed) {
        None if let Some(code) = waits => diagnosis.add(
            "box",
            CheckResult::Warning,
            format!("{code} {}", code.entry().title),
            code.entry().customer,
        ),
        None => diagnosis.ok("box", cloud_side(&status.rungs)),
        Some(rung) => {
            let (title, sentence) = rung.code.map_or(("unknown", "Call us."), |code| {
                (code.entry().title, code.entry().customer)
            });
            let code = rung
                .code
                .map_or_else(String::new, |code| format!("{code} "));
            let seen = if rung.evidence.is_empty() {
                String::new()
            } else {
                format!(" ({})", rung.evidence)
            };
            // The box takes files whether or not it reaches the cloud.
            diagnosis.add(
                "box",
                CheckResult::Warning,
                format!("{}: {code}{title}{seen}", rung.rung),
                sentence,
            );
        }
    }
}

/// The last change of the box's own network settings, where it is not simply in force.
fn settings(diagnosis: &mut Diagnosis, change: &NetworkReport) {
    let shown = change.settings.as_ref();
    let shown = shown.map_or("as it was prepared".to_owned(), ToString::to_string);
    let (detail, advice) = match change.state {
        NetworkState::Kept => return,
        NetworkState::Trial => (
            format!(
                "being tried, {} s left: {shown}",
                change.left_secs.unwrap_or(0)
            ),
            "wait: where the box does not reach the cloud with them, those before come back by themselves",
        ),
        NetworkState::RolledBack => (
            format!("taken back: {shown}: {}", change.reason),
            "ask your network administrator for the right ones; those before are in force",
        ),
        NetworkState::Refused => (
            format!("refused: {shown}: {}", change.reason),
            "nothing was changed",
        ),
    };
    diagnosis.add("settings", CheckResult::Warning, detail, advice);
}

fn cloud_side(rungs: &[RungReport]) -> String {
    let at_the_top = rungs
        .iter()
        .any(|r| r.rung == Rung::Broker && r.status == RungStatus::Ok);
    if at_the_top {
        "it reaches the cloud".to_owned()
    } else {
        "it is still on its way to the cloud".to_owned()
    }
}
