//! Python binding of the Longhaul uploader SDK: translation only.
//!
//! Every call runs on a runtime of its own and ends with it, so nothing survives a `fork`. The
//! calling thread waits without the interpreter lock and looks for signals ten times a second.

mod errors;
mod find;
mod get;
mod look;
mod place;
mod push;
mod receipt;
mod remove;
mod report;
mod sync;
mod wait;

use pyo3::prelude::*;

/// The compiled half of the package `longhaul`.
#[pymodule]
mod _longhaul {
    #[pymodule_export]
    use super::errors::{
        BoxError, DeliveryError, GetError, LonghaulError, NoBoxError, NotTheBoxError, PushError,
        ReceiptError, TicketError,
    };
    #[pymodule_export]
    use super::find::{FoundBox, find};
    #[pymodule_export]
    use super::get::{GetReport, GotFile, get};
    #[pymodule_export]
    use super::look::{Check, Diagnosis, Listed, Rung, Status, doctor, ls, status};
    #[pymodule_export]
    use super::place::Stop;
    #[pymodule_export]
    use super::push::push;
    #[pymodule_export]
    use super::receipt::{Compared, VerifyReport, receipt, verify};
    #[pymodule_export]
    use super::remove::{NotRemoved, RemoveReport, rm};
    #[pymodule_export]
    use super::report::{FailedFile, FileReport, Progress, PushReport, SkippedFile};
    #[pymodule_export]
    use super::sync::{SyncReport, WouldSend, sync};

    use super::{Bound, PyModule, PyModuleMethods as _, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
