//! Drives the target that `LONGHAUL_FUZZ_TARGET` names.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use longhaul_fuzz::{Target, find};

fuzz_target!(|data: &[u8]| {
    static TARGET: OnceLock<Target> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("LONGHAUL_FUZZ_TARGET").unwrap_or_default();
        find(&name).unwrap_or_else(|| panic!("LONGHAUL_FUZZ_TARGET names no target: {name:?}"))
    });
    (target.run)(data);
});
