//! How the program ends.

use std::error::Error;
use std::process::ExitCode;

use longhaul_sdk::discover::DiscoverError;
use longhaul_sdk::{BoxClient, ConnectError, PushError, TicketError};

use crate::args::Place;

/// The exit codes that `--help` promises.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    SomeFailed = 3,
    NoBox = 4,
    Ticket = 5,
    Interrupted = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub fn new(exit: Exit, error: &(dyn Error + 'static)) -> Self {
        Self {
            exit,
            message: longhaul_sdk::error_chain(error),
        }
    }

    pub fn failed(error: &(dyn Error + 'static)) -> Self {
        Self::new(Exit::Failed, error)
    }

    /// The command line asks for what cannot be.
    pub fn usage(message: &str) -> Self {
        Self {
            exit: Exit::Usage,
            message: message.to_owned(),
        }
    }

    pub fn interrupted() -> Self {
        Self {
            exit: Exit::Interrupted,
            message: "interrupted; what is on the box stays there, and the same command continues"
                .to_owned(),
        }
    }

    pub fn exit(&self) -> Exit {
        self.exit
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// Tells the user, and gives the code to end with.
    pub fn report(self, json: bool) -> Exit {
        if json {
            let document = serde_json::json!({
                "error": self.message,
                "exit": self.exit as u8,
            });
            println!("{document}");
        } else {
            eprintln!("longhaul: {}", self.message);
        }
        self.exit
    }
}

impl From<TicketError> for Failure {
    fn from(error: TicketError) -> Self {
        Self::new(Exit::Ticket, &error)
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let exit = match error {
            ConnectError::Discover(DiscoverError::Address { .. }) => Exit::Usage,
            ConnectError::NotFound { .. } | ConnectError::Discover(_) => Exit::NoBox,
            ConnectError::Ticket { .. } => Exit::Ticket,
            _ => Exit::Failed,
        };
        Self::new(exit, &error)
    }
}

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        Self::failed(&error)
    }
}

/// Loads the ticket and connects to its box.
pub async fn connect(place: &Place) -> Result<BoxClient, Failure> {
    let ticket = longhaul_sdk::load_ticket(&place.ticket)?;
    Ok(BoxClient::connect(&ticket, place.at.as_deref()).await?)
}
