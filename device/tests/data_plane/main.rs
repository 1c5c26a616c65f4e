//! The data plane, with real S3 clients in front and a real S3 server behind.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that calls them"
)]

mod clocks;
mod deletions;
mod faults;
mod in_flight;
mod intake;
mod lan;
mod limits;
mod packed_uplink;
mod packs;
mod push;
mod refusals;
mod renewal;
mod uplink;
mod wan;
