//! Every parser of the data plane as a function of bytes: what lies on a box's disk, what comes from
//! the LAN, what comes from the cloud and what comes from a box.
//!
//! A target takes any bytes and ends, without panic and within bounded memory; where it can, it
//! checks more than that (what was read is written the same; where a stream is cut makes no
//! difference). `make fuzz TARGET=pack SECONDS=60` drives one with libFuzzer; the tests of this crate
//! run all of them over their corpora, which is how what a fuzzer once found stays found.

mod fleet;
mod messages;
mod streams;

pub mod mutate;

use longhaul_device::fuzzing as device;
use longhaul_vault::fuzzing as vault;

/// A parser that takes any bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Takes the bytes, and panics where it should not have taken them so.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    target("vault_headers", vault::headers),
    target("vault_operations", vault::operations),
    target("vault_facts", vault::facts),
    target("vault_detail", vault::detail),
    target("vault_keyring", vault::keyring),
    target("vault_runs", vault::runs),
    target("vault_frame", vault::frame),
    target("vault_recovery", vault::recovery),
    target("box_journal", device::journal),
    target("box_leaves", device::leaves),
    target("snowball", device::snowball),
    target("pack", streams::pack),
    target("names", streams::names),
    target("topics", streams::topics),
    target("up", messages::up),
    target("down", messages::down),
    target("documents", messages::documents),
    target("jws", fleet::jws),
    target("command", fleet::command),
    target("desired", fleet::desired),
    target("receipt", fleet::receipt),
    target("evidence", fleet::evidence),
    target("offline", fleet::offline),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// The target of this name.
pub fn find(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}
