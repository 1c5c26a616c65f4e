//! The box: keeps one machine enrolled, updated and reporting, and carries files to the bucket.
//!
//! Data moves one way: `source -> agent -> effect`. The agent is pure: it reads no clock, socket
//! or file. The runtime feeds it events and carries out its effects. Facts that must not be lost
//! pass through the [`journal`] on disk.

pub use longhaul_bringup::{clock, disk, proxy, rungs};

pub mod agent;
pub mod chip;
pub mod cloud;
pub mod config;
pub mod console;
pub mod credentials;
pub mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod identity;
pub mod indicator;
pub mod intake;
pub mod journal;
pub mod lan;
pub mod led;
pub mod mqtt;
pub mod network;
pub mod offline;
pub mod ota;
mod packs;
mod page;
pub mod papers;
pub mod receipts;
pub mod rescue;
pub mod runtime;
pub mod screen;
pub mod sealed;
pub mod status;
pub mod telemetry;
pub mod tpm;
pub mod update;
pub mod uplink;
pub mod vault_key;
