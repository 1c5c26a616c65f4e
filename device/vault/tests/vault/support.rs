//! What every test of the vault needs.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use longhaul_vault::{
    Checksums, Clock, Condition, Error, JobId, Metadata, ObjectInfo, ObjectReader, RecoveryReport,
    Vault, VaultConfig,
};
use zeroize::Zeroizing;

pub fn key() -> Zeroizing<[u8; 32]> {
    Zeroizing::new([42; 32])
}

/// A clock that ticks a millisecond each time it is read.
pub fn clock() -> Clock {
    let now = AtomicI64::new(1_700_000_000_000);
    Arc::new(move || now.fetch_add(1, Ordering::Relaxed))
}

pub fn config(dir: &Path) -> VaultConfig {
    VaultConfig::new(dir, 4 << 20).small()
}

pub fn open(dir: &Path) -> Vault {
    open_with(config(dir)).0
}

pub fn open_with(config: VaultConfig) -> (Vault, RecoveryReport) {
    Vault::open(config, &key(), clock()).expect("the vault opens")
}

pub fn job() -> JobId {
    JobId::default()
}

/// Bytes that differ everywhere, so that nothing can be mistaken for something else.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

pub fn try_put(vault: &Vault, key: &str, data: &[u8]) -> Result<ObjectInfo, Error> {
    let mut writer = vault.begin(&job(), key, Metadata::default())?;
    // Uneven pieces, as they come from a network.
    for piece in data.chunks(7001) {
        writer.write(piece)?;
    }
    writer.finish(Checksums::new(), Condition::Any).wait()
}

pub fn put(vault: &Vault, key: &str, data: &[u8]) -> ObjectInfo {
    try_put(vault, key, data).expect("the object is stored")
}

pub fn read_all(mut reader: ObjectReader) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        out.extend_from_slice(&chunk);
    }
    assert_eq!(reader.remaining(), 0);
    Ok(out)
}

pub fn try_get(vault: &Vault, key: &str) -> Result<Vec<u8>, Error> {
    read_all(vault.get(&job(), key, None)?)
}

pub fn get(vault: &Vault, key: &str) -> Vec<u8> {
    try_get(vault, key).expect("the object is read")
}
