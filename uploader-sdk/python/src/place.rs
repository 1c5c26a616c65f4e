//! Which box, and the right to use it; how long to wait, and for what to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use longhaul_sdk::{BoxClient, load_ticket};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::errors::{Failure, TicketError};

/// A ticket, and an address where the caller knows it.
pub struct Place {
    pub ticket: PathBuf,
    pub given: Option<String>,
}

impl Place {
    /// The ticket that is `given`, else the one that `LONGHAUL_TICKET` names.
    pub fn new(ticket: Option<PathBuf>, given: Option<String>) -> PyResult<Self> {
        let ticket = ticket
            .or_else(|| std::env::var_os("LONGHAUL_TICKET").map(PathBuf::from))
            .ok_or_else(|| {
                TicketError::new_err(
                    "no ticket: give ticket=PATH or set LONGHAUL_TICKET to its path",
                )
            })?;
        Ok(Self { ticket, given })
    }

    pub async fn connect(&self) -> Result<BoxClient, Failure> {
        let ticket = load_ticket(&self.ticket).map_err(Failure::Ticket)?;
        BoxClient::connect(&ticket, self.given.as_deref())
            .await
            .map_err(Failure::from)
    }
}

/// One path, or several.
pub fn all_paths(paths: &Bound<'_, PyAny>) -> PyResult<Vec<PathBuf>> {
    if let Ok(one) = paths.extract::<PathBuf>() {
        return Ok(vec![one]);
    }
    let paths = paths
        .try_iter()
        .map_err(|_| PyTypeError::new_err("paths must be a path or an iterable of paths"))?;
    paths.map(|path| path?.extract()).collect()
}

/// One key, or several.
pub fn all_keys(keys: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if let Ok(one) = keys.extract::<String>() {
        return Ok(vec![one]);
    }
    let keys = keys
        .try_iter()
        .map_err(|_| PyTypeError::new_err("keys must be a key or an iterable of keys"))?;
    keys.map(|key| key?.extract()).collect()
}

/// A time span from Python, at the most a year.
pub fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    const YEAR: f64 = 366.0 * 86_400.0;
    if (0.0..=YEAR).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(pyo3::exceptions::PyValueError::new_err(format!(
            "{name} is {value}; seconds between 0 and a year are expected"
        )))
    }
}

/// Ends a call from another thread: what a cancelled asyncio task does.
#[pyclass(frozen, module = "longhaul")]
#[derive(Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

#[pymethods]
impl Stop {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Ends the call at its next look, within a tenth of a second.
    fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Stop {
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
