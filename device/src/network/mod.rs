//! The box's own network settings: fixed addresses, DNS servers, VLAN, proxy.
//!
//! Data moves one way: `wish -> keeper -> effect`. The [`Keeper`] is pure: it decides what is in force, tries what is
//! new, and goes back by itself where the cloud is not reached in time. What it decides is on the disk before
//! [`machine`] does it, so that no power cut leaves the box with settings that nobody can take back.

mod keeper;
mod machine;
mod plan;

pub use keeper::{Contact, Do, Keeper, Saved};
pub use machine::{ApplyError, Machine, Ownership};
