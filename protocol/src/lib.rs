//! Every message that crosses a wire between box, cloud, customer and factory.
//!
//! Types and rules only: no clock, no socket, no file, no cryptography. A value of one of these
//! types was checked when it was parsed. Unknown fields are ignored, so that an old reader
//! understands a newer writer; unknown versions are refused with an error that names them.
#![warn(missing_docs)]

pub mod backbone;
pub mod beacon;
pub mod command;
pub mod diag;
pub mod enrol;
pub mod envelope;
pub mod forms;
pub mod ids;
pub mod inventory;
pub mod journal;
pub mod journey;
pub mod lan;
pub mod names;
pub mod network;
pub mod network_settings;
pub mod offline;
pub mod pack;
pub mod presence;
pub mod probe;
pub mod receipt;
pub mod recovery;
pub mod release;
pub mod telemetry;
pub mod ticket;
pub mod topic;
pub mod trace;
pub mod twin;
pub mod uplink;
pub mod upload;
pub mod value;
