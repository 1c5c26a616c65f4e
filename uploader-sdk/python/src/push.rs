//! `longhaul.push`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_sdk::delivery::wait_delivered;
use longhaul_sdk::{BoxClient, Progress as Counters, PushOptions, load_ticket};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::errors::{Failure, TicketError};
use crate::find::seconds;
use crate::report::{Progress, PushReport};
use crate::wait::wait;

#[pyfunction]
#[pyo3(signature = (paths, *, ticket = None, prefix = String::new(), wait = false, r#box = None, on_progress = None, patience = 300.0))]
#[expect(clippy::too_many_arguments, reason = "Python's keyword arguments")]
pub fn push(
    py: Python<'_>,
    paths: &Bound<'_, PyAny>,
    ticket: Option<PathBuf>,
    prefix: String,
    wait: bool,
    r#box: Option<String>,
    on_progress: Option<&Bound<'_, PyAny>>,
    patience: f64,
) -> PyResult<PushReport> {
    let asked = Asked {
        paths: all_paths(paths)?,
        ticket: ticket_path(ticket)?,
        prefix,
        wait,
        given: r#box,
        patience: seconds("patience", patience)?,
        progress: Arc::default(),
    };
    let counters = Arc::clone(&asked.progress);
    let show = || match on_progress {
        None => Ok(()),
        Some(show) => show.call1((Progress::from(counters.snapshot()),)).map(drop),
    };
    let report = self::wait(py, asked.work(), show)?;
    show()?;
    PushReport::new(py, report)
}

struct Asked {
    paths: Vec<PathBuf>,
    ticket: PathBuf,
    prefix: String,
    wait: bool,
    given: Option<String>,
    patience: Duration,
    progress: Arc<Counters>,
}

impl Asked {
    async fn work(self) -> Result<longhaul_sdk::PushReport, Failure> {
        let ticket = load_ticket(&self.ticket).map_err(Failure::Ticket)?;
        let client = BoxClient::connect(&ticket, self.given.as_deref())
            .await
            .map_err(Failure::Connect)?;
        let options = PushOptions {
            prefix: self.prefix,
            patience: self.patience,
            ..PushOptions::default()
        };
        let mut report = longhaul_sdk::push(&client, &self.paths, &options, &self.progress)
            .await
            .map_err(Failure::Push)?;
        if self.wait
            && let Err(error) =
                wait_delivered(&client, &mut report, &self.progress, self.patience).await
        {
            return Err(Failure::Delivery(error, Box::new(report)));
        }
        Ok(report)
    }
}

/// One path, or several.
fn all_paths(paths: &Bound<'_, PyAny>) -> PyResult<Vec<PathBuf>> {
    if let Ok(one) = paths.extract::<PathBuf>() {
        return Ok(vec![one]);
    }
    let paths = paths
        .try_iter()
        .map_err(|_| PyTypeError::new_err("paths must be a path or an iterable of paths"))?;
    paths.map(|path| path?.extract()).collect()
}

fn ticket_path(given: Option<PathBuf>) -> PyResult<PathBuf> {
    given
        .or_else(|| std::env::var_os("LONGHAUL_TICKET").map(PathBuf::from))
        .ok_or_else(|| {
            TicketError::new_err("no ticket: give ticket=PATH or set LONGHAUL_TICKET to its path")
        })
}
