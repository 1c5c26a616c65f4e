//! What a fuzzer is let into: parsers of this crate that nobody else sees, as functions of bytes.

/// An archive in a `snowball-auto-extract` upload; the first byte says how the network cuts it.
pub fn snowball(bytes: &[u8]) {
    crate::intake::fuzz_tar(bytes);
}

/// The journal's file.
pub fn journal(bytes: &[u8]) {
    crate::journal::fuzz_records(bytes);
}

/// The file of the open epoch of receipts.
pub fn leaves(bytes: &[u8]) {
    crate::receipts::fuzz_leaves(bytes);
}

/// Bytes to begin with, for each of the functions here.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let leaves = concat!(
        "{\"epoch\":\"e-1\"}\n",
        "{\"version\":1,\"stored\":1795000000000,\"hash\":\"",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "\"}\n"
    );
    vec![
        ("box_journal", vec![crate::journal::fuzz_seed()]),
        ("box_leaves", vec![leaves.as_bytes().to_vec()]),
        ("snowball", vec![tar(b"a", 3), tar(b"folder/", 0)]),
    ]
}

/// An archive of one file.
fn tar(path: &[u8], bytes: u8) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..path.len()].copy_from_slice(path);
    block[124..136].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
    block[156] = if path.ends_with(b"/") { b'5' } else { b'0' };
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut out = vec![100];
    out.extend(block);
    out.extend(std::iter::repeat_n(b'x', bytes.into()));
    out.resize(1 + usize::from(bytes > 0) * 512 + 512 + 1024, 0);
    out
}
