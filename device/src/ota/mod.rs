//! Updates: a state machine, two slots, and a supervisor that falls back to the slot before.
//!
//! The agent does everything up to arming the other slot ([`updater`]); from there on the
//! supervisor decides ([`supervise`]). They meet in two files only: `slots/current.json`, which
//! says what runs and what is tried, and `run/healthy`, by which an agent proves itself.

mod download;
mod error;
pub mod health;
mod log_tail;
mod patience;
mod program;
pub mod repository;
pub mod slots;
pub mod state;
mod steps;
pub mod supervise;
pub mod updater;

pub use error::UpdateError;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod updater_tests;
