//! What a fuzzer is let into: every parser of what lies on the disk, as functions of bytes.
//!
//! They take what is behind the seals, too: a record that opens with the right key and says
//! something absurd is refused, not believed.
#![expect(
    clippy::missing_panics_doc,
    reason = "to panic is how a target says that a parser is wrong"
)]

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use crate::{
    JobId, RecoveryReport,
    codec::{Take, decode_detail, encode_detail, narrow},
    config::Geometry,
    crypto::TAG,
    disk::{Access, Disk, DiskFile},
    frame::FrameKey,
    index::{Index, Position, Stored, settle::Held},
    keyring::{self, JobNo, Keyring, VAULT},
    log::{
        files::LogFiles,
        record::{self, FileHeader, Kind, RecordHeader},
        recover,
    },
    op::Op,
    runs::RunFiles,
};

/// Jobs that the index of a fuzzed vault knows.
const JOBS: u8 = 3;

fn geometry() -> Geometry {
    Geometry {
        frame: 8 << 10,
        segment: 64 << 10,
    }
}

fn index() -> Index {
    let mut index = Index::new(geometry());
    for no in 1..JOBS {
        index.add_job(no.into(), &JobId::default());
    }
    index
}

/// Pieces of `bytes`, each behind its job and its length.
fn pieces(bytes: &[u8]) -> Vec<(JobNo, &[u8])> {
    let mut take = Take(bytes);
    let mut pieces = Vec::new();
    while let (Ok(job), Ok(len)) = (take.u8(), take.u16()) {
        let len = usize::from(len).min(take.0.len());
        let Ok(piece) = take.raw(len) else { break };
        pieces.push((JobNo::from(job % JOBS), piece));
    }
    pieces
}

/// Headers of files and records, as they lie in the clear.
pub fn headers(bytes: &[u8]) {
    if let Some(header) = FileHeader::decode(bytes) {
        let again = FileHeader::decode(&header.encode());
        assert_eq!(again, Some(header), "a header is what it says");
    }
    let (mark, rest) = bytes.split_at(bytes.len().min(4));
    let mark = mark
        .iter()
        .fold(0, |mark, byte| mark << 8 | u32::from(*byte));
    if let Some(record) = RecordHeader::decode(rest, mark) {
        let sealed = rest.get(32..).unwrap_or_default();
        let _ = record.is_whole(sealed);
        assert!(record.span() > u64::from(record.sealed_len));
    }
}

/// What a record says when its seal is open: applied in order, then written down as a checkpoint
/// and learned from it.
pub fn operations(bytes: &[u8]) {
    let mut index = index();
    for (lsn, (job, payload)) in (1..).zip(pieces(bytes)) {
        let Ok(op) = Op::decode(payload) else {
            continue;
        };
        let at = Position {
            lsn,
            file: 1,
            offset: 4096,
        };
        let _ = index.apply(at, job, op);
    }
    look(&index);
    learned_again(&index);
}

/// What a checkpoint says when its seals are open.
pub fn facts(bytes: &[u8]) {
    let mut index = index();
    for (job, payload) in pieces(bytes) {
        // A checkpoint that is refused is not gone on with.
        if index.learn(job, payload).is_err() {
            return;
        }
    }
    look(&index);
    learned_again(&index);
}

fn facts_of(index: &Index) -> Vec<(JobNo, Vec<u8>)> {
    let mut facts = Vec::new();
    let Ok(()) = index.facts(&BTreeMap::new(), |job, fact| {
        facts.push((job, fact.to_vec()));
        Ok::<_, std::convert::Infallible>(())
    });
    facts
}

fn learned_again(before: &Index) {
    let facts = facts_of(before);
    let mut after = index();
    for (job, fact) in &facts {
        if let Err(malformed) = after.learn(*job, fact) {
            panic!("its own checkpoint is refused: {malformed:?}");
        }
    }
    assert_eq!(facts_of(&after), facts, "a checkpoint holds all there is");
}

/// Asks everything that a caller could.
fn look(index: &Index) {
    let _ = (index.counts(), index.sums(), index.space.ends());
    let _ = (index.abandoned(), index.places_here(|_| true));
    let _ = (index.pending(None, 99), index.weight(), index.touched());
    for version in index.deleted(None, 99) {
        let _ = index.deletion(version);
    }
    for job in VAULT..JobNo::from(JOBS) {
        let _ = index.names(job, "", Bound::Unbounded, 99);
        let _ = index.uploads(job, "", None, 99);
    }
    let mut version = None;
    while let Some(next) = index.version_after(version) {
        if let Some(Held::Here(entry, id)) = index.held(next.0) {
            let _ = entry.info(&id, next.0);
        }
        version = Some(next);
        // Sets that were learned may be large, and say nothing new.
        if next.0 > 1 << 20 {
            break;
        }
    }
    let mut part = None;
    while let Some((id, number)) = index.part_after(part) {
        let _ = index.open_part(id, number);
        let _ = (index.parts(id, None, 99), index.longest_part(id, number));
        part = Some((id, number));
    }
    for file in 0..3 {
        let _ = index.owners_here(file);
    }
}

/// What an object carries beside its bytes.
pub fn detail(bytes: &[u8]) {
    if let Ok((metadata, checksums)) = decode_detail(bytes) {
        let again = encode_detail(&metadata, &checksums);
        let again = decode_detail(&again).map(|(metadata, _)| metadata);
        assert_eq!(again, Ok(metadata));
    }
}

/// What a run says when its seals are open: its contents, a block of records, a block of names.
pub fn runs(bytes: &[u8]) {
    crate::runs::fuzzed(bytes);
    for job in VAULT..JobNo::from(JOBS) {
        let _ = Stored::decode(job, bytes);
    }
}

/// The keyring: the file, and what is sealed in it.
pub fn keyring(bytes: &[u8]) {
    keyring::fuzzed(bytes, &Zeroizing::new([7; 32]));
}

/// A frame, opened as if it lay anywhere and had any length.
pub fn frame(bytes: &[u8]) {
    let mut take = Take(bytes);
    let (Ok(at), Ok(len)) = (take.u32(), take.u16()) else {
        return;
    };
    let key = FrameKey::derive(&Zeroizing::new([7; 32]), &[2; 16], 1, (3, 4), &[5; 32]);
    let (at, len) = (u64::from(at) * 4096, usize::from(len));
    let mut frame = take.0.to_vec();
    assert!(key.open(at, &mut frame, len).is_err(), "a forged frame");
    if frame.len() >= len + TAG {
        frame.copy_from_slice(take.0);
        key.seal(at, &mut frame, len);
        assert!(key.open(at, &mut frame, len).is_ok());
        assert_eq!(frame[..len], take.0[..len]);
    }
}

/// A log whose records are sealed as they should be, with whatever the disk made of its end.
///
/// The first byte says how much of the rest are records; what follows is what lies behind them.
pub fn recovery(bytes: &[u8]) {
    let Some((share, rest)) = bytes.split_first() else {
        return;
    };
    let records = narrow(rest.len() as u64 * u64::from(*share) / 255);
    let (records, tail) = rest.split_at(records);
    let keyring = Keyring::fuzzed(&Zeroizing::new([7; 32]), JOBS.into());
    let header = FileHeader::new(Kind::Log, keyring.vault, 1, 1, 0);
    let mut log = header.encode();
    let mut batch = 1;
    for (lsn, (job, payload)) in (1..).zip(pieces(records)) {
        let Some(secret) = keyring.secret(job) else {
            continue;
        };
        let last = payload.len().is_multiple_of(2);
        let key = header.key(secret);
        let mark = header.mark();
        record::append(&mut log, &key, mark, (job, lsn), (batch, last), &[payload]);
        batch += u32::from(last);
    }
    // A torn end is a prefix of something; garbage over the last record is rot.
    if let Some((cut, garbage)) = tail.split_first() {
        let keep = log.len().saturating_sub(usize::from(*cut)).max(4096);
        log.truncate(keep);
        log.extend_from_slice(garbage);
    }
    let files = BTreeMap::from([(PathBuf::from("/log/log-00000001"), Arc::new(log))]);
    let files = LogFiles::new(Arc::new(ReadOnly(files)), PathBuf::from("/log"));
    let mut index = index();
    let mut report = RecoveryReport::default();
    let runs = RunFiles::new(Arc::new(ReadOnly(BTreeMap::new())), PathBuf::from("/index"));
    if recover::recover(&files, &runs, &keyring, &mut index, &mut report).is_ok() {
        look(&index);
        learned_again(&index);
    }
}

/// Files in memory.
struct ReadOnly(BTreeMap<PathBuf, Arc<Vec<u8>>>);

struct File(Arc<Vec<u8>>);

impl Disk for ReadOnly {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let inside = self
            .0
            .keys()
            .filter_map(|file| file.strip_prefix(path).ok());
        Ok(inside.map(|name| name.display().to_string()).collect())
    }

    fn open(&self, path: &Path, _: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.0.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(File(Arc::clone(file))))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(()))
    }
}

impl DiskFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = narrow(offset).min(self.0.len());
        let len = buf.len().min(self.0.len() - from);
        buf[..len].copy_from_slice(&self.0[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes to begin with, for each of the functions here: what the vault itself writes.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let operations: Vec<Vec<u8>> = crate::op::samples::ops().iter().map(Op::encode).collect();
    let piece = |job: u8, payload: &[u8]| {
        let len = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        [&[job][..], &len.to_le_bytes(), payload].concat()
    };
    let each: Vec<_> = operations.iter().map(|op| piece(1, op)).collect();
    // An incarnation is the vault's own, and comes before what lies in it.
    let incarnate = operations.last().map(|op| piece(0, op)).unwrap_or_default();
    let all = [vec![incarnate], each.clone()].concat().concat();
    let mut index = index();
    for (lsn, (job, payload)) in (1..).zip(pieces(&all)) {
        if let Ok(op) = Op::decode(payload) {
            let at = Position {
                lsn,
                file: 1,
                offset: 4096,
            };
            let _ = index.apply(at, job, op);
        }
    }
    let facts = facts_of(&index).into_iter();
    let facts = facts.map(|(job, fact)| piece(u8::try_from(job).unwrap_or(0), &fact));
    let recovered = [&[200][..], &all, &[9, 1, 2, 3]].concat();
    let header = FileHeader::new(Kind::Log, [1; 16], 3, 40, 5000).encode();
    let keyring = Keyring::fuzzed(&Zeroizing::new([7; 32]), JOBS.into());
    vec![
        ("vault_headers", vec![header[..128].to_vec()]),
        ("vault_operations", [each, vec![all]].concat()),
        ("vault_facts", vec![facts.flatten().collect()]),
        (
            "vault_detail",
            vec![vec![
                1, 1, 0, 0, 0, b't', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            ]],
        ),
        ("vault_keyring", keyring::fuzz_seeds(&keyring)),
        ("vault_runs", crate::runs::fuzz_seeds()),
        ("vault_frame", vec![vec![7; 64]]),
        ("vault_recovery", vec![recovered]),
    ]
}
