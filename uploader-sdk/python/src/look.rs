//! `longhaul.ls`, `status` and `doctor`: looking without changing anything.

use std::path::PathBuf;

use longhaul_sdk::doctor::{CheckResult, examine};
use longhaul_sdk::protocol::diag::RungStatus;
use longhaul_sdk::protocol::ids::ObjectKey;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::Failure;
use crate::place::{Place, Stop, seconds};
use crate::report::{delivery_words, list};
use crate::wait::wait;

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Listed {
    key: String,
    size: u64,
    etag: String,
    modified: Option<String>,
    delivery: Option<&'static str>,
    delivery_failure: Option<String>,
}

#[pyfunction]
#[pyo3(signature = (prefix = String::new(), *, ticket = None, r#box = None, patience = 30.0, stop = None))]
pub fn ls(
    py: Python<'_>,
    prefix: String,
    ticket: Option<PathBuf>,
    r#box: Option<String>,
    patience: f64,
    stop: Option<&Stop>,
) -> PyResult<Py<PyList>> {
    let place = Place::new(ticket, r#box)?;
    let patience = seconds("patience", patience)?;
    let work = async move {
        let client = place.connect().await?;
        let mut objects = client.list(&prefix, patience).await.map_err(Failure::S3)?;
        let keys: Vec<ObjectKey> = objects.iter().filter_map(|o| o.key.parse().ok()).collect();
        let mut states = client.deliveries(&keys).await.map_err(Failure::Asked)?;
        for object in &mut objects {
            let key = object.key.parse::<ObjectKey>().ok();
            object.delivery = key.and_then(|key| states.remove(&key));
        }
        Ok(objects)
    };
    let objects = wait(py, work, stop, || Ok(()))?;
    let listed = objects.into_iter().map(|object| {
        let (delivery, delivery_failure) = delivery_words(object.delivery);
        Listed {
            key: object.key,
            size: object.size,
            etag: object.etag,
            modified: object.modified,
            delivery,
            delivery_failure,
        }
    });
    list(py, listed)
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Rung {
    name: String,
    status: &'static str,
    code: Option<String>,
    evidence: String,
    advice: Option<&'static str>,
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Status {
    box_id: String,
    address: String,
    agent_version: String,
    identifying: bool,
    capacity_bytes: u64,
    used_bytes: u64,
    objects: u64,
    pending_objects: u64,
    pending_bytes: u64,
    rungs: Py<PyList>,
}

#[pyfunction]
#[pyo3(signature = (*, ticket = None, r#box = None, stop = None))]
pub fn status(
    py: Python<'_>,
    ticket: Option<PathBuf>,
    r#box: Option<String>,
    stop: Option<&Stop>,
) -> PyResult<Status> {
    let place = Place::new(ticket, r#box)?;
    let work = async move {
        let client = place.connect().await?;
        let status = client.status().await.map_err(Failure::from)?;
        Ok((status, client.endpoint().addr.to_string()))
    };
    let (status, address) = wait(py, work, stop, || Ok(()))?;
    let rungs = status.rungs.into_iter().map(|rung| Rung {
        name: rung.rung.to_string(),
        status: match rung.status {
            RungStatus::Ok => "ok",
            RungStatus::Failed => "failed",
            RungStatus::NotReached => "not_reached",
            RungStatus::Trying => "trying",
        },
        code: rung.code.map(|code| code.to_string()),
        evidence: rung.evidence,
        advice: rung.code.map(|code| code.entry().customer),
    });
    Ok(Status {
        box_id: status.box_id.to_string(),
        address,
        agent_version: status.agent_version,
        identifying: status.identifying,
        capacity_bytes: status.vault.capacity_bytes,
        used_bytes: status.vault.used_bytes,
        objects: status.vault.objects,
        pending_objects: status.vault.pending_objects,
        pending_bytes: status.vault.pending_bytes,
        rungs: list(py, rungs)?,
    })
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Check {
    name: String,
    result: &'static str,
    detail: String,
    advice: String,
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Diagnosis {
    checks: Py<PyList>,
    is_well: bool,
}

#[pyfunction]
#[pyo3(signature = (*, ticket = None, r#box = None, stop = None))]
pub fn doctor(
    py: Python<'_>,
    ticket: Option<PathBuf>,
    r#box: Option<String>,
    stop: Option<&Stop>,
) -> PyResult<Diagnosis> {
    let place = Place::new(ticket, r#box)?;
    let work = async move { Ok(examine(&place.ticket, place.given.as_deref()).await) };
    let diagnosis = wait(py, work, stop, || Ok(()))?;
    let is_well = diagnosis.is_well();
    let checks = diagnosis.checks.into_iter().map(|check| Check {
        name: check.name,
        result: match check.result {
            CheckResult::Ok => "ok",
            CheckResult::Warning => "warning",
            CheckResult::Failed => "failed",
        },
        detail: check.detail,
        advice: check.advice,
    });
    Ok(Diagnosis {
        checks: list(py, checks)?,
        is_well,
    })
}
