//! `longhaul.find`.

use longhaul_sdk::discover;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::place::{Stop, seconds};
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
#[pyo3(signature = (listen = 3.0, *, stop = None))]
pub fn find(py: Python<'_>, listen: f64, stop: Option<&Stop>) -> PyResult<Vec<FoundBox>> {
    let listen = seconds("listen", listen)?;
    let work = async move { discover::find(listen).await.map_err(Failure::Discover) };
    let found = wait(py, work, stop, || Ok(()))?;
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
