//! `longhaul.push`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_sdk::delivery::wait_delivered;
use longhaul_sdk::{Progress as Counters, PushOptions};
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::place::{Place, Stop, all_paths, seconds};
use crate::report::{Progress, PushReport};
use crate::wait::wait;

#[pyfunction]
#[pyo3(signature = (paths, *, ticket = None, prefix = String::new(), wait = false, r#box = None, on_progress = None, patience = 300.0, stop = None))]
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
    stop: Option<&Stop>,
) -> PyResult<PushReport> {
    let asked = Asked {
        paths: all_paths(paths)?,
        place: Place::new(ticket, r#box)?,
        prefix,
        wait,
        patience: seconds("patience", patience)?,
        progress: Arc::default(),
    };
    let counters = Arc::clone(&asked.progress);
    let show = || shown(&counters, on_progress);
    let report = self::wait(py, asked.work(), stop, show)?;
    show()?;
    PushReport::new(py, report)
}

/// Tells the caller how far it is.
pub fn shown(counters: &Counters, on_progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    match on_progress {
        None => Ok(()),
        Some(show) => show.call1((Progress::from(counters.snapshot()),)).map(drop),
    }
}

struct Asked {
    paths: Vec<PathBuf>,
    place: Place,
    prefix: String,
    wait: bool,
    patience: Duration,
    progress: Arc<Counters>,
}

impl Asked {
    async fn work(self) -> Result<longhaul_sdk::PushReport, Failure> {
        let client = self.place.connect().await?;
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
