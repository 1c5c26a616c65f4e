//! The customer's library: find a box, push files to it, know that they are safe.
//!
//! Data moves one way: `paths -> plan -> box -> report`. [`plan`] walks and names, [`push()`] reads
//! each file once (hashing as it reads) and sends it over S3, [`delivery`] watches the box carry it
//! on to the cloud. A [`Ticket`] says which box and proves who we are; TLS is always verified against
//! the ticket's root and the box's own name, whatever address it was found at.
#![warn(missing_docs)]

mod advice;
mod body;
mod client;
mod clock;
pub mod delivery;
pub mod discover;
pub mod doctor;
mod ear;
mod get;
mod journal;
pub mod lint;
mod list;
mod multipart;
mod pack;
mod pack_read;
pub mod plan;
mod progress;
mod push;
mod reach;
pub mod receipts;
mod remote;
mod remove;
mod report;
mod retry;
mod small;
mod source;
mod state_dir;
mod sync;
mod ticket_file;
mod upload;
mod watch;

pub use advice::chain as error_chain;
pub use client::{BoxClient, ConnectError};
pub use get::{GetError, GetOptions, GetOutcome, GetReport, GotFile, VerifiedBy, get};
pub use list::Listed;
pub use longhaul_protocol as protocol;
pub use longhaul_protocol::ticket::Ticket;
pub use progress::{Progress, Snapshot};
pub use push::{PushError, PushOptions, push};
pub use reach::{Endpoint, Via};
pub use remove::{NotRemoved, RemoveReport};
pub use report::{FailedFile, FileReport, Outcome, PushReport};
pub use retry::S3Error;
pub use state_dir::state_dir;
pub use sync::{SyncOptions, SyncReport, WouldSend, sync};
pub use ticket_file::{TicketError, expires_text, load_ended_ticket, load_ticket, parse_ticket};
pub use watch::{WatchError, WatchEvent, WatchOptions, watch};
