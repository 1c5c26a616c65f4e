//! `longhaul.find`.

use std::time::Duration;

use longhaul_sdk::discover;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::wait::wait;

#[pyclass(frozen, get_all, module = "longhaul")]
pub struct FoundBox {
    box_id: String,
    addresses: Vec<String>,
    agent_version: String,
    code: Option<String>,
    advice: Option<String>,
}

#[pymethods]
impl FoundBox {
    fn __repr__(&self) -> String {
        format!("FoundBox({} at {})", self.box_id, self.addresses.join(", "))
    }
}

#[pyfunction]
#[pyo3(signature = (listen = 3.0))]
pub fn find(py: Python<'_>, listen: f64) -> PyResult<Vec<FoundBox>> {
    let listen = seconds("listen", listen)?;
    let work = async move { discover::find(listen).await.map_err(Failure::Discover) };
    let found = wait(py, work, || Ok(()))?;
    Ok(found
        .into_iter()
        .map(|found| FoundBox {
            box_id: found.box_id.to_string(),
            addresses: found.addrs.iter().map(ToString::to_string).collect(),
            agent_version: found.agent_version,
            code: found.code,
            advice: found.advice,
        })
        .collect())
}

/// A time span from Python, at the most a year.
pub fn seconds(name: &str, value: f64) -> PyResult<Duration> {
    const YEAR: f64 = 366.0 * 86_400.0;
    if (0.0..=YEAR).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(PyValueError::new_err(format!(
            "{name} is {value}; seconds between 0 and a year are expected"
        )))
    }
}
