//! `longhaul.rm`.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::Failure;
use crate::place::{Place, Stop, all_keys, seconds};
use crate::report::list;
use crate::wait::wait;

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct NotRemoved {
    key: String,
    reason: String,
}

impl From<longhaul_sdk::NotRemoved> for NotRemoved {
    fn from(object: longhaul_sdk::NotRemoved) -> Self {
        Self {
            key: object.key,
            reason: object.reason,
        }
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct RemoveReport {
    removed: Vec<String>,
    failed: Py<PyList>,
}

#[pyfunction]
#[pyo3(signature = (keys, *, ticket = None, r#box = None, patience = 30.0, stop = None))]
pub fn rm(
    py: Python<'_>,
    keys: &Bound<'_, PyAny>,
    ticket: Option<PathBuf>,
    r#box: Option<String>,
    patience: f64,
    stop: Option<&Stop>,
) -> PyResult<RemoveReport> {
    let keys = all_keys(keys)?;
    let place = Place::new(ticket, r#box)?;
    let patience = seconds("patience", patience)?;
    let work = async move {
        let client = place.connect().await?;
        let (objects, absent) = client.select(&keys, patience).await.map_err(Failure::S3)?;
        let mut report = client
            .remove(&objects, patience)
            .await
            .map_err(Failure::S3)?;
        report.absent(absent);
        Ok(report)
    };
    let report = wait(py, work, stop, || Ok(()))?;
    Ok(RemoveReport {
        removed: report.removed,
        failed: list(py, report.failed.into_iter().map(NotRemoved::from))?,
    })
}
