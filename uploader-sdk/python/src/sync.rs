//! `longhaul.sync`.

use std::path::PathBuf;
use std::sync::Arc;

use longhaul_sdk::delivery::wait_delivered;
use longhaul_sdk::{Progress as Counters, PushOptions, SyncOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;

use crate::errors::Failure;
use crate::place::{Place, Stop, all_paths, seconds};
use crate::push::shown;
use crate::remove::NotRemoved;
use crate::report::{PushReport, list};
use crate::wait;

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct WouldSend {
    path: String,
    key: String,
    size: u64,
    replaces: bool,
}

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct SyncReport {
    push: Py<PushReport>,
    would_send: Option<Py<PyList>>,
    removed: Vec<String>,
    not_removed: Py<PyList>,
    not_removed_because: Option<String>,
    is_complete: bool,
}

#[pyfunction]
#[pyo3(signature = (paths, *, ticket = None, prefix = String::new(), delete = false, dry_run = false, checksum = false, wait = false, r#box = None, on_progress = None, patience = 300.0, stop = None))]
#[expect(
    clippy::too_many_arguments,
    clippy::fn_params_excessive_bools,
    reason = "Python's keyword arguments"
)]
pub fn sync(
    py: Python<'_>,
    paths: &Bound<'_, PyAny>,
    ticket: Option<PathBuf>,
    prefix: String,
    delete: bool,
    dry_run: bool,
    checksum: bool,
    wait: bool,
    r#box: Option<String>,
    on_progress: Option<&Bound<'_, PyAny>>,
    patience: f64,
    stop: Option<&Stop>,
) -> PyResult<SyncReport> {
    if wait && dry_run {
        return Err(PyValueError::new_err("a dry run sends nothing to wait for"));
    }
    let paths = all_paths(paths)?;
    let place = Place::new(ticket, r#box)?;
    let options = SyncOptions {
        push: PushOptions {
            prefix,
            patience: seconds("patience", patience)?,
            ..PushOptions::default()
        },
        delete,
        dry_run,
        checksum,
    };
    let counters: Arc<Counters> = Arc::default();
    let progress = Arc::clone(&counters);
    let work = async move {
        let client = place.connect().await?;
        let mut done = longhaul_sdk::sync(&client, &paths, &options, &progress)
            .await
            .map_err(Failure::Push)?;
        if wait {
            let patience = options.push.patience;
            let waited = wait_delivered(&client, &mut done.push, &progress, patience).await;
            if let Err(error) = waited {
                return Err(Failure::Delivery(error, Box::new(done.push)));
            }
        }
        Ok(done)
    };
    let show = || shown(&counters, on_progress);
    let done = wait::wait(py, work, stop, show)?;
    show()?;
    let is_complete = done.is_complete();
    let would_send = done.would_send.map(|files| {
        let files = files.into_iter().map(|file| WouldSend {
            path: file.path.to_string_lossy().into_owned(),
            key: file.key.to_string(),
            size: file.size,
            replaces: file.replaces,
        });
        list(py, files)
    });
    Ok(SyncReport {
        push: Py::new(py, PushReport::new(py, done.push)?)?,
        would_send: would_send.transpose()?,
        removed: done.removed.removed,
        not_removed: list(py, done.removed.failed.into_iter().map(NotRemoved::from))?,
        not_removed_because: done.not_removed_because,
        is_complete,
    })
}
