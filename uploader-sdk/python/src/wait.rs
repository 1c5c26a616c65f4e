//! Running the SDK's futures while Python stays alive.

use std::future::Future;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::place::Stop;

/// Time between two looks for a signal.
const LOOK: Duration = Duration::from_millis(100);

/// Runs `work` to its end without the interpreter lock, calling `look` between; what `look` or a
/// signal handler raises stops the work, and so does `stop`.
pub fn wait<T: Send + 'static>(
    py: Python<'_>,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    stop: Option<&Stop>,
    mut look: impl FnMut() -> PyResult<()>,
) -> PyResult<T> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (sender, mut results) = channel();
    runtime.spawn(async move {
        // Nobody receives after a signal; the result is then of no use.
        let _ = sender.send(work.await);
    });
    let result = loop {
        let (back, next) = py.detach(move || {
            let next = results.recv_timeout(LOOK);
            (results, next)
        });
        results = back;
        match next {
            Ok(result) => break result.map_err(|failure| failure.raise(py)),
            Err(RecvTimeoutError::Timeout) => {
                if let Err(raised) = py.check_signals().and_then(|()| look()) {
                    break Err(raised);
                }
                if stop.is_some_and(Stop::is_set) {
                    break Err(PyRuntimeError::new_err("stopped"));
                }
            }
            Err(RecvTimeoutError::Disconnected) => {
                break Err(PyRuntimeError::new_err(
                    "longhaul ended unexpectedly; please report this",
                ));
            }
        }
    };
    // A file that is being read from a slow disk must not hold up the interpreter.
    runtime.shutdown_background();
    result
}
