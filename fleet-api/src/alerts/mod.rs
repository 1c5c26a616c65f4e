//! Alerts: rules look at boxes, somebody is told, and it is over when it is over.
//!
//! Data moves one way: `database -> measure -> step -> database -> deliver`. [`measure`] and
//! [`step`] are pure: they are given what is known and the time. [`watch`] looks at every box, one
//! process at a time; [`deliver`] sends what it wrote down, as often as it takes.

pub mod address;
pub mod deliver;
pub mod email;
pub mod measure;
pub mod message;
pub mod smtp;
pub mod step;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust;
pub mod watch;
pub mod webhook;
