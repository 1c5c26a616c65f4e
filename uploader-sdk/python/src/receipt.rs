//! `longhaul.receipt` and `longhaul.verify`.

use std::path::PathBuf;

use longhaul_sdk::load_ended_ticket;
use longhaul_sdk::protocol::ticket::Ticket;
use longhaul_sdk::receipts::{self, Finding, Verdict, Wanted, obtain};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use tokio::task::spawn_blocking;

use crate::errors::Failure;
use crate::place::Stop;
use crate::report::list;
use crate::wait::wait;

/// The ticket that is `given`, else the one that `LONGHAUL_TICKET` names; it may have ended.
fn ticket_of(given: Option<PathBuf>) -> Result<Option<(Ticket, PathBuf)>, Failure> {
    let path = given.or_else(|| std::env::var_os("LONGHAUL_TICKET").map(PathBuf::from));
    let Some(path) = path else {
        return Ok(None);
    };
    let ticket = load_ended_ticket(&path).map_err(Failure::Ticket)?;
    Ok(Some((ticket, path)))
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Receipt(Box::new(error))
}

#[pyfunction]
#[pyo3(signature = (output, prefix = String::new(), *, ticket = None, token = None, bucket = None, cloud = None, root = None, r#box = None, stop = None))]
#[expect(clippy::too_many_arguments, reason = "Python's keyword arguments")]
pub fn receipt(
    py: Python<'_>,
    output: PathBuf,
    prefix: String,
    ticket: Option<PathBuf>,
    token: Option<String>,
    bucket: Option<String>,
    cloud: Option<String>,
    root: Option<PathBuf>,
    r#box: Option<String>,
    stop: Option<&Stop>,
) -> PyResult<u64> {
    if bucket.is_some() && token.is_none() {
        return Err(PyValueError::new_err(
            "a ticket opens its own bucket; name one only with a token",
        ));
    }
    let work = async move {
        let root = root.map(std::fs::read_to_string).transpose();
        let wanted = Wanted {
            ticket: ticket_of(ticket)?.map(|(ticket, _)| ticket),
            token,
            bucket,
            cloud,
            root_pem: root.map_err(failed)?,
            at: r#box,
            prefix,
        };
        obtain(&wanted, &output).await.map_err(failed)
    };
    wait(py, work, stop, || Ok(()))
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Compared {
    path: String,
    key: Option<String>,
    verdict: &'static str,
    why: Option<String>,
}

impl From<Finding> for Compared {
    fn from(finding: Finding) -> Self {
        let (verdict, why) = match finding.verdict {
            Verdict::Same { in_cloud: true } => ("same", None),
            Verdict::Same { in_cloud: false } => ("not_in_cloud", None),
            Verdict::Changed => ("changed", None),
            Verdict::Missing => ("missing", None),
            Verdict::NoReceipt => ("no_receipt", None),
            Verdict::Unreadable(why) => ("unreadable", Some(why)),
        };
        Self {
            path: finding.path.to_string_lossy().into_owned(),
            key: finding.key,
            verdict,
            why,
        }
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct VerifyReport {
    receipts: u64,
    in_cloud: u64,
    files: Py<PyList>,
    holds: bool,
}

#[pyfunction]
#[pyo3(signature = (path, *, receipt = None, ticket = None, root = None, prefix = String::new(), delivered = false, stop = None))]
#[expect(clippy::too_many_arguments, reason = "Python's keyword arguments")]
pub fn verify(
    py: Python<'_>,
    path: PathBuf,
    receipt: Option<PathBuf>,
    ticket: Option<PathBuf>,
    root: Option<PathBuf>,
    prefix: String,
    delivered: bool,
    stop: Option<&Stop>,
) -> PyResult<VerifyReport> {
    let work = async move {
        let compared = spawn_blocking(move || {
            let (anchors, of_box) = if let Some(root) = root {
                (receipts::read_root(&root).map_err(failed)?, None)
            } else {
                let unsaid = receipts::FetchError::Unsaid {
                    what: "root to trust: a root certificate or a ticket",
                };
                let (ticket, path) = ticket_of(ticket)?.ok_or_else(|| failed(unsaid))?;
                let anchors = receipts::root_of(&ticket, &path).map_err(failed)?;
                (anchors, Some(ticket.box_id))
            };
            let file = receipt.as_ref().unwrap_or(&path);
            let proven = receipts::read(file, &anchors, of_box.as_ref()).map_err(failed)?;
            let findings = match &receipt {
                None => Vec::new(),
                Some(_) if path.is_dir() => {
                    receipts::compare_folder(&path, &prefix, &proven).map_err(failed)?
                }
                Some(_) => vec![receipts::compare_file(&path, &proven)],
            };
            let alone = receipt.is_none();
            Ok((proven, findings, alone))
        });
        compared.await.map_err(failed)?
    };
    let (proven, findings, alone) = wait(py, work, stop, || Ok(()))?;
    let in_cloud = proven.iter().filter(|p| p.verified.is_some()).count();
    let fine = |finding: &Finding| match finding.verdict {
        Verdict::Same { in_cloud } => in_cloud || !delivered,
        _ => false,
    };
    let all_there = !(alone && delivered) || in_cloud == proven.len();
    Ok(VerifyReport {
        receipts: proven.len() as u64,
        in_cloud: in_cloud as u64,
        holds: findings.iter().all(fine) && all_there,
        files: list(py, findings.into_iter().map(Compared::from))?,
    })
}
