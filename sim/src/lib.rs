//! The whole system on one machine, from its real programs: for the demo and the tests that see
//! everything at once.
//!
//! [`system::System`] starts the programs, [`operator::Operator`] does what an operator does at the
//! HTTP API, [`site`] has one box up and online, [`files`] makes what a customer pushes, [`lab`] is a
//! customer's network with everything that can be wrong with it, [`bench`] measures a transfer,
//! [`fleet`] thousands of simulated boxes. [`lan_box`] is a box without a
//! cloud, [`relay`] a line to it that can be held, [`others_store`] an object store that may refuse us. Nothing here is part of the product, and
//! nothing of the product is replaced.

pub mod bench;
pub mod files;
pub mod fleet;
pub mod lab;
pub mod lan_box;
pub mod operator;
pub mod others_store;
pub mod process;
pub mod relay;
pub mod releases;
pub mod sign;
pub mod site;
pub mod system;
pub mod wait;
