//! What a push says, as Python objects.

use longhaul_sdk::protocol::lan::Delivery;
use longhaul_sdk::{Outcome, Snapshot};
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{PyClass, PyClassInitializer};

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct Progress {
    files: u64,
    bytes: u64,
    files_on_box: u64,
    bytes_on_box: u64,
    bytes_moving: u64,
    files_failed: u64,
    files_in_cloud: u64,
    bytes_in_cloud: u64,
    retries: u64,
}

impl From<Snapshot> for Progress {
    fn from(s: Snapshot) -> Self {
        Self {
            files: s.files,
            bytes: s.bytes,
            files_on_box: s.files_on_box,
            bytes_on_box: s.bytes_on_box,
            bytes_moving: s.bytes_moving,
            files_failed: s.files_failed,
            files_in_cloud: s.files_in_cloud,
            bytes_in_cloud: s.bytes_in_cloud,
            retries: s.retries,
        }
    }
}

#[pymethods]
impl Progress {
    fn __repr__(&self) -> String {
        format!(
            "Progress({}/{} files, {}/{} bytes on box, {} files in cloud, {} failed)",
            self.files_on_box,
            self.files,
            self.bytes_on_box,
            self.bytes,
            self.files_in_cloud,
            self.files_failed
        )
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct FileReport {
    path: String,
    key: String,
    size: u64,
    blake3: String,
    etag: String,
    outcome: &'static str,
    notice: Option<String>,
    delivery: Option<&'static str>,
    delivery_failure: Option<String>,
}

/// How far an object has come, in one word, and why it goes no further.
pub fn delivery_words(delivery: Option<Delivery>) -> (Option<&'static str>, Option<String>) {
    match delivery {
        None => (None, None),
        Some(Delivery::OnBox) => (Some("on_box"), None),
        Some(Delivery::InFlight) => (Some("in_flight"), None),
        Some(Delivery::InCloud) => (Some("in_cloud"), None),
        Some(Delivery::Verified) => (Some("verified"), None),
        Some(Delivery::Failed { reason }) => (Some("failed"), Some(reason)),
    }
}

impl From<longhaul_sdk::FileReport> for FileReport {
    fn from(file: longhaul_sdk::FileReport) -> Self {
        let (delivery, delivery_failure) = delivery_words(file.delivery);
        Self {
            path: file.path.to_string_lossy().into_owned(),
            key: file.key.to_string(),
            size: file.size,
            blake3: file.blake3.to_string(),
            etag: file.etag,
            outcome: match file.outcome {
                Outcome::Sent => "sent",
                Outcome::Resumed { .. } => "resumed",
                Outcome::AlreadyThere => "already_there",
            },
            notice: file.notice,
            delivery,
            delivery_failure,
        }
    }
}

#[pymethods]
impl FileReport {
    fn __repr__(&self) -> String {
        format!(
            "FileReport({:?}, {} bytes, {})",
            self.key, self.size, self.outcome
        )
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct FailedFile {
    path: String,
    key: String,
    reason: String,
}

impl From<longhaul_sdk::FailedFile> for FailedFile {
    fn from(file: longhaul_sdk::FailedFile) -> Self {
        Self {
            path: file.path.to_string_lossy().into_owned(),
            key: file.key.to_string(),
            reason: file.reason,
        }
    }
}

#[pymethods]
impl FailedFile {
    fn __repr__(&self) -> String {
        format!("FailedFile({:?}: {})", self.path, self.reason)
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct SkippedFile {
    path: String,
    reason: &'static str,
    detail: String,
}

#[pymethods]
impl SkippedFile {
    fn __repr__(&self) -> String {
        format!("SkippedFile({:?}: {})", self.path, self.reason)
    }
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct PushReport {
    box_id: String,
    address: String,
    bucket: String,
    files: Py<PyList>,
    failed: Py<PyList>,
    skipped: Py<PyList>,
    bytes: u64,
    bytes_sent: u64,
    retries: u64,
    seconds: f64,
    is_complete: bool,
}

impl PushReport {
    pub fn new(py: Python<'_>, report: longhaul_sdk::PushReport) -> PyResult<Self> {
        let is_complete = report.is_complete();
        let failed = report.failed.into_iter().map(FailedFile::from);
        let skipped = report.skipped.into_iter().map(|file| SkippedFile {
            path: file.path,
            reason: file.reason.as_str(),
            detail: file.detail,
        });
        Ok(Self {
            box_id: report.box_id.to_string(),
            address: report.address,
            bucket: report.bucket,
            files: list(py, report.files.into_iter().map(FileReport::from))?,
            failed: list(py, failed)?,
            skipped: list(py, skipped)?,
            bytes: report.bytes,
            bytes_sent: report.bytes_sent,
            retries: report.retries,
            seconds: report.seconds,
            is_complete,
        })
    }
}

#[pymethods]
impl PushReport {
    fn __repr__(&self, py: Python<'_>) -> String {
        format!(
            "PushReport({} files, {} bytes on box {}, {} failed, {} skipped)",
            self.files.bind(py).len(),
            self.bytes,
            self.box_id,
            self.failed.bind(py).len(),
            self.skipped.bind(py).len()
        )
    }
}

/// A Python list of `items`.
pub fn list<T: PyClass + Into<PyClassInitializer<T>>>(
    py: Python<'_>,
    items: impl Iterator<Item = T>,
) -> PyResult<Py<PyList>> {
    let list = PyList::empty(py);
    for item in items {
        list.append(Py::new(py, item)?)?;
    }
    Ok(list.unbind())
}
