//! `longhaul.get`.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_sdk::{GetOptions, GetOutcome, Progress as Counters, VerifiedBy};
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::Failure;
use crate::place::{Place, Stop, seconds};
use crate::push::shown;
use crate::report::{FailedFile, list};
use crate::wait::wait;

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct GotFile {
    key: String,
    path: String,
    size: u64,
    blake3: Option<String>,
    verified_by: &'static str,
    outcome: &'static str,
}

impl From<longhaul_sdk::GotFile> for GotFile {
    fn from(file: longhaul_sdk::GotFile) -> Self {
        Self {
            key: file.key.to_string(),
            path: file.path.to_string_lossy().into_owned(),
            size: file.size,
            blake3: file.blake3.map(|hash| hash.to_string()),
            verified_by: match file.verified_by {
                VerifiedBy::Blake3 => "blake3",
                VerifiedBy::Crc64nvme => "crc64nvme",
                VerifiedBy::Length => "length",
            },
            outcome: match file.outcome {
                GetOutcome::Fetched => "fetched",
                GetOutcome::Resumed => "resumed",
                GetOutcome::AlreadyThere => "already_there",
            },
        }
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct GetReport {
    box_id: String,
    address: String,
    bucket: String,
    files: Py<PyList>,
    failed: Py<PyList>,
    bytes: u64,
    bytes_received: u64,
    retries: u64,
    seconds: f64,
    is_complete: bool,
}

impl GetReport {
    pub fn new(py: Python<'_>, report: longhaul_sdk::GetReport) -> PyResult<Self> {
        let is_complete = report.is_complete();
        Ok(Self {
            box_id: report.box_id.to_string(),
            address: report.address,
            bucket: report.bucket,
            files: list(py, report.files.into_iter().map(GotFile::from))?,
            failed: list(py, report.failed.into_iter().map(FailedFile::from))?,
            bytes: report.bytes,
            bytes_received: report.bytes_received,
            retries: report.retries,
            seconds: report.seconds,
            is_complete,
        })
    }
}

#[pyfunction]
#[pyo3(signature = (what, to = None, *, ticket = None, r#box = None, on_progress = None, patience = 300.0, stop = None))]
#[expect(clippy::too_many_arguments, reason = "Python's keyword arguments")]
pub fn get(
    py: Python<'_>,
    what: String,
    to: Option<PathBuf>,
    ticket: Option<PathBuf>,
    r#box: Option<String>,
    on_progress: Option<&Bound<'_, PyAny>>,
    patience: f64,
    stop: Option<&Stop>,
) -> PyResult<GetReport> {
    let place = Place::new(ticket, r#box)?;
    let options = GetOptions {
        patience: seconds("patience", patience)?,
        ..GetOptions::default()
    };
    let counters: Arc<Counters> = Arc::default();
    let progress = Arc::clone(&counters);
    let work = async move {
        let client = place.connect().await?;
        let to = to.unwrap_or_else(|| PathBuf::from("."));
        longhaul_sdk::get(&client, &what, &to, &options, &progress)
            .await
            .map_err(Failure::Get)
    };
    let show = || shown(&counters, on_progress);
    let report = wait(py, work, stop, show)?;
    show()?;
    GetReport::new(py, report)
}
