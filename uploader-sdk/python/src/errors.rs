//! Exceptions, and which error becomes which.

use std::error::Error;

use longhaul_sdk::error_chain;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyFileNotFoundError, PyValueError};
use pyo3::prelude::*;

use crate::get::GetReport;
use crate::report::PushReport;

create_exception!(
    longhaul,
    LonghaulError,
    PyException,
    "Everything that this package raises by itself."
);
create_exception!(
    longhaul,
    TicketError,
    LonghaulError,
    "The ticket cannot be read, is not one, or has expired."
);
create_exception!(
    longhaul,
    NoBoxError,
    LonghaulError,
    "Nobody on the network answers for the ticket's box."
);
create_exception!(
    longhaul,
    NotTheBoxError,
    LonghaulError,
    "Something answers that is not the box; nothing was sent."
);
create_exception!(
    longhaul,
    PushError,
    LonghaulError,
    "The push ended before it had tried every file."
);
create_exception!(
    longhaul,
    DeliveryError,
    LonghaulError,
    "The box does not say how far it has carried the files."
);

create_exception!(
    longhaul,
    GetError,
    LonghaulError,
    "The get ended before it had tried every object."
);
create_exception!(
    longhaul,
    BoxError,
    LonghaulError,
    "The box does not answer, or refuses."
);

create_exception!(
    longhaul,
    ReceiptError,
    LonghaulError,
    "Receipts could not be fetched, or one does not hold."
);

/// Why a call failed, before it is an exception: making one takes the interpreter lock.
pub enum Failure {
    Ticket(longhaul_sdk::TicketError),
    Connect(Box<longhaul_sdk::ConnectError>),
    Discover(longhaul_sdk::discover::DiscoverError),
    Push(longhaul_sdk::PushError),
    Get(longhaul_sdk::GetError),
    S3(longhaul_sdk::S3Error),
    Receipt(Box<dyn Error + Send + Sync>),
    Asked(longhaul_sdk::delivery::DeliveryError),
    Delivery(
        longhaul_sdk::delivery::DeliveryError,
        Box<longhaul_sdk::PushReport>,
    ),
}

impl From<longhaul_sdk::ConnectError> for Failure {
    fn from(error: longhaul_sdk::ConnectError) -> Self {
        Self::Connect(Box::new(error))
    }
}

impl Failure {
    pub fn raise(self, py: Python<'_>) -> PyErr {
        use longhaul_sdk::{ConnectError, PushError as Sdk};
        match self {
            Self::Ticket(error) => TicketError::new_err(text(&error)),
            Self::Discover(error) => undiscovered(&error),
            Self::Connect(error) => match &*error {
                ConnectError::Discover(error) => undiscovered(error),
                ConnectError::NotFound { .. } => NoBoxError::new_err(text(&*error)),
                ConnectError::NotTheBox { .. } => NotTheBoxError::new_err(text(&*error)),
                ConnectError::Ticket { .. } => TicketError::new_err(text(&*error)),
                _ => LonghaulError::new_err(text(&*error)),
            },
            Self::Push(Sdk::Plan(error)) if error.source.kind() == std::io::ErrorKind::NotFound => {
                PyFileNotFoundError::new_err(text(&error))
            }
            Self::Push(Sdk::Stopped {
                key,
                source,
                report,
            }) => {
                let message = format!("the push stopped at {key}: {source}");
                with_report(py, PushError::new_err(message), Some(*report))
            }
            Self::Push(error) => with_report(py, PushError::new_err(text(&error)), None),
            Self::Get(longhaul_sdk::GetError::Stopped {
                key,
                source,
                report,
            }) => {
                let error = GetError::new_err(format!("the get stopped at {key}: {source}"));
                let report = GetReport::new(py, *report);
                match report.and_then(|report| error.value(py).setattr("report", report)) {
                    Ok(()) => error,
                    Err(other) => other,
                }
            }
            Self::Get(error) => {
                let error = GetError::new_err(text(&error));
                match error.value(py).setattr("report", py.None()) {
                    Ok(()) => error,
                    Err(other) => other,
                }
            }
            Self::Receipt(error) => ReceiptError::new_err(text(&*error)),
            Self::S3(error) => BoxError::new_err(text(&error)),
            Self::Asked(error) => BoxError::new_err(text(&error)),
            Self::Delivery(error, report) => {
                with_report(py, DeliveryError::new_err(text(&error)), Some(*report))
            }
        }
    }
}

fn undiscovered(error: &longhaul_sdk::discover::DiscoverError) -> PyErr {
    match error {
        longhaul_sdk::discover::DiscoverError::Address { .. } => PyValueError::new_err(text(error)),
        _ => NoBoxError::new_err(text(error)),
    }
}

fn text(error: &(dyn Error + 'static)) -> String {
    error_chain(error)
}

fn with_report(py: Python<'_>, error: PyErr, report: Option<longhaul_sdk::PushReport>) -> PyErr {
    let report = report.map(|report| PushReport::new(py, report)).transpose();
    match report.and_then(|report| error.value(py).setattr("report", report)) {
        Ok(()) => error,
        Err(other) => other,
    }
}
