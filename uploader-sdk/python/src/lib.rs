//! Python binding of the Longhaul uploader SDK: translation only.
//!
//! Every call runs on a runtime of its own and ends with it, so nothing survives a `fork`. The
//! calling thread waits without the interpreter lock and looks for signals ten times a second.

mod errors;
mod find;
mod push;
mod report;
mod wait;

use pyo3::prelude::*;

/// The compiled half of the package `longhaul`.
#[pymodule]
mod _longhaul {
    #[pymodule_export]
    use super::errors::{
        DeliveryError, LonghaulError, NoBoxError, NotTheBoxError, PushError, TicketError,
    };
    #[pymodule_export]
    use super::find::{FoundBox, find};
    #[pymodule_export]
    use super::push::push;
    #[pymodule_export]
    use super::report::{FailedFile, FileReport, Progress, PushReport, SkippedFile};

    use super::{Bound, PyModule, PyModuleMethods as _, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
