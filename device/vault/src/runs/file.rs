//! One run: a file of sealed blocks, written once, in order of versions and then of names.
//!
//! `header | blocks of records | blocks of names | contents`. Each block is sealed under the key of
//! the run, which is derived from its job's, with the place of the block as its nonce. Where the
//! contents lie, and the salt of the key, is what the checkpoint says: so a run is the one that was
//! written, or it does not open.

use std::{io, path::PathBuf, sync::Arc};

use super::{
    bloom::{Bloom, NameHash},
    cache::Cache,
    layout::{
        Contents, DataBlock, Logs, NameBlock, Record, join, put_name, put_record, take_name,
        take_record,
    },
};
use crate::{
    codec::{Malformed, Take, narrow, wide},
    crypto::{SealKey, Secret, TAG},
    disk::{DiskFile, read_full, write_full},
    log::record::{FileHeader, HEADER_LEN, MAX_SEALED},
};

/// A block is closed when it holds this much.
const BLOCK: usize = 16 << 10;
/// Blocks are gathered into writes of about this size.
const WRITE: usize = 1 << 20;

/// What a checkpoint says of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    pub(crate) number: u32,
    pub(crate) salt: [u8; 32],
    /// Where its contents lie: its last block.
    pub(crate) at: u64,
    pub(crate) len: u32,
}

impl Claim {
    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.at.saturating_add(self.len.into())
    }
}

/// A block that could not be read.
#[derive(Clone, Debug)]
pub(crate) struct RunError {
    pub(crate) path: PathBuf,
    pub(crate) offset: u64,
    /// What the disk said; `None` if the bytes are not what was written.
    pub(crate) source: Option<Arc<io::Error>>,
}

impl RunError {
    /// Where the damage is, for whoever is told.
    pub(crate) fn place(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        format!("index, {name}, block at byte {}", self.offset)
    }
}

/// A run that is complete.
pub(crate) struct Run {
    claim: Claim,
    path: PathBuf,
    key: SealKey,
    file: Arc<dyn DiskFile>,
    contents: Contents,
    cache: Arc<Cache>,
}

impl Run {
    /// Opens the run that `claim` names.
    pub(super) fn open(
        file: Arc<dyn DiskFile>,
        path: PathBuf,
        (claim, header): (Claim, &FileHeader),
        secret: &Secret,
        cache: &Arc<Cache>,
    ) -> Result<Self, RunError> {
        let key = header.key(secret);
        let sealed = read_block(&*file, &path, &key, (claim.at, claim.len))?;
        let contents = Contents::decode(&sealed).map_err(|_| RunError {
            path: path.clone(),
            offset: claim.at,
            source: None,
        })?;
        let cache = Arc::clone(cache);
        Ok(Self {
            claim,
            path,
            key,
            file,
            contents,
            cache,
        })
    }

    pub(crate) fn claim(&self) -> Claim {
        self.claim
    }

    /// Records in it, dead ones too.
    pub(crate) fn records(&self) -> u64 {
        self.contents.records
    }

    /// What it says about `version`, as `parse` reads it.
    pub(crate) fn find<T>(
        &self,
        version: u64,
        parse: impl FnOnce(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, RunError> {
        let Some(number) = self.contents.data_block(version) else {
            return Ok(None);
        };
        let block = &self.contents.data[number];
        let bytes = self.cached((block.at, block.len))?;
        let damaged = |_| self.damaged(block.at);
        let mut take = Take(&bytes);
        while let Some(record) = take_record(&mut take).map_err(damaged)? {
            if record.version == version {
                return parse(record.payload).map(Some).map_err(damaged);
            }
        }
        Ok(None)
    }

    /// False if it certainly holds no such name.
    pub(super) fn may_hold(&self, name: NameHash) -> bool {
        self.contents.may_hold(name)
    }

    /// Goes through its names from `from` on.
    pub(super) fn names(self: &Arc<Self>, from: &str) -> Result<NameCursor, RunError> {
        let block = self.contents.name_block(from);
        let mut cursor = NameCursor {
            run: Arc::clone(self),
            block,
            cached: true,
            bytes: Arc::default(),
            at: 0,
            name: None,
        };
        cursor.advance()?;
        while cursor.name().is_some_and(|(name, _)| name < from) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// Goes through all names, for once: what is read does not stay in memory.
    pub(super) fn all_names(self: &Arc<Self>) -> Result<NameCursor, RunError> {
        let mut cursor = NameCursor {
            run: Arc::clone(self),
            block: 0,
            cached: false,
            bytes: Arc::default(),
            at: 0,
            name: None,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Goes through all records, for once.
    pub(super) fn all_records(self: &Arc<Self>) -> Result<RecordCursor, RunError> {
        let mut cursor = RecordCursor {
            run: Arc::clone(self),
            block: 0,
            bytes: Arc::default(),
            next: 0,
            record: None,
        };
        cursor.advance()?;
        Ok(cursor)
    }

    /// Hands over the records of every block that `wanted` wants.
    pub(crate) fn scan<E: From<RunError>>(
        &self,
        wanted: impl Fn(Logs) -> bool,
        mut each: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        for block in self.contents.data.iter().filter(|block| wanted(block.logs)) {
            let bytes = read_block(&*self.file, &self.path, &self.key, (block.at, block.len))?;
            let mut take = Take(&bytes);
            while let Some(record) = take_record(&mut take).map_err(|_| self.damaged(block.at))? {
                each(record)?;
            }
        }
        Ok(())
    }

    /// Reads every block; what does not open.
    pub(crate) fn verify(&self) -> Vec<RunError> {
        let data = self.contents.data.iter().map(|block| (block.at, block.len));
        let names = self
            .contents
            .names
            .iter()
            .map(|block| (block.at, block.len));
        let own = [(self.claim.at, self.claim.len)];
        data.chain(names)
            .chain(own)
            .filter_map(|place| read_block(&*self.file, &self.path, &self.key, place).err())
            .collect()
    }

    /// An error that says that the block at `offset` is not what was written.
    pub(crate) fn damaged(&self, offset: u64) -> RunError {
        RunError {
            path: self.path.clone(),
            offset,
            source: None,
        }
    }

    fn cached(&self, (at, len): (u64, u32)) -> Result<Arc<[u8]>, RunError> {
        let place = (self.claim.number, at);
        if let Some(block) = self.cache.get(place) {
            return Ok(block);
        }
        let block: Arc<[u8]> = read_block(&*self.file, &self.path, &self.key, (at, len))?.into();
        self.cache.put(place, &block);
        Ok(block)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.cache.forget(self.claim.number);
    }
}

fn read_block(
    file: &dyn DiskFile,
    path: &std::path::Path,
    key: &SealKey,
    (at, len): (u64, u32),
) -> Result<Vec<u8>, RunError> {
    let fail = |source| RunError {
        path: path.to_owned(),
        offset: at,
        source,
    };
    if len > MAX_SEALED {
        return Err(fail(None));
    }
    let mut sealed = vec![0; narrow(len.into())];
    read_full(file, &mut sealed, at).map_err(|source| match source.kind() {
        // A file that ends too early is damaged, not unreadable.
        io::ErrorKind::UnexpectedEof => fail(None),
        _ => fail(Some(Arc::new(source))),
    })?;
    let plain = key
        .open(at, b"block", &mut sealed)
        .map_err(|_| fail(None))?;
    let len = plain.len();
    sealed.truncate(len);
    Ok(sealed)
}

/// One name after the other, each with a version that it had.
pub(super) struct NameCursor {
    run: Arc<Run>,
    /// The next block.
    block: usize,
    cached: bool,
    bytes: Arc<[u8]>,
    at: usize,
    name: Option<(String, u64)>,
}

impl NameCursor {
    pub(super) fn name(&self) -> Option<(&str, u64)> {
        self.name
            .as_ref()
            .map(|(name, version)| (&**name, *version))
    }

    pub(super) fn advance(&mut self) -> Result<(), RunError> {
        let names = &self.run.contents.names;
        while self.at == self.bytes.len() {
            let Some(block) = names.get(self.block) else {
                self.name = None;
                return Ok(());
            };
            let place = (block.at, block.len);
            self.bytes = if self.cached {
                self.run.cached(place)?
            } else {
                read_block(&*self.run.file, &self.run.path, &self.run.key, place)?.into()
            };
            (self.at, self.block) = (0, self.block + 1);
        }
        let mut take = Take(&self.bytes[self.at..]);
        let at = names[self.block - 1].at;
        let next = take_name(&mut take).map_err(|_| self.run.damaged(at))?;
        self.name = next.map(|(name, version)| (name.to_owned(), version));
        self.at = self.bytes.len() - take.0.len();
        Ok(())
    }
}

/// One record after the other.
pub(super) struct RecordCursor {
    run: Arc<Run>,
    /// The next block.
    block: usize,
    bytes: Arc<[u8]>,
    /// Where the next record begins.
    next: usize,
    /// The record that it stands on: its version, and where it begins.
    record: Option<(u64, usize)>,
}

impl RecordCursor {
    pub(super) fn version(&self) -> Option<u64> {
        self.record.map(|(version, _)| version)
    }

    pub(super) fn record(&self) -> Option<Record<'_>> {
        let (_, at) = self.record?;
        // It was read once already.
        take_record(&mut Take(&self.bytes[at..])).ok().flatten()
    }

    pub(super) fn advance(&mut self) -> Result<(), RunError> {
        let blocks = &self.run.contents.data;
        while self.next == self.bytes.len() {
            let Some(block) = blocks.get(self.block) else {
                self.record = None;
                return Ok(());
            };
            let place = (block.at, block.len);
            self.bytes = read_block(&*self.run.file, &self.run.path, &self.run.key, place)?.into();
            (self.next, self.block) = (0, self.block + 1);
        }
        let mut take = Take(&self.bytes[self.next..]);
        let at = blocks[self.block - 1].at;
        let next = take_record(&mut take).map_err(|_| self.run.damaged(at))?;
        self.record = next.map(|record| (record.version, self.next));
        self.next = self.bytes.len() - take.0.len();
        Ok(())
    }
}

/// Writes a run: all records, ascending, then all names, ascending.
pub(super) struct RunWriter {
    file: Arc<dyn DiskFile>,
    header: FileHeader,
    key: SealKey,
    /// Where `buffer` will lie.
    at: u64,
    buffer: Vec<u8>,
    block: Vec<u8>,
    first_version: u64,
    first_name: Box<str>,
    logs: Logs,
    contents: Contents,
}

impl RunWriter {
    /// Begins a run of at most `names` names.
    pub(super) fn new(
        file: Arc<dyn DiskFile>,
        header: FileHeader,
        secret: &Secret,
        names: usize,
    ) -> Self {
        let mut buffer = header.encode();
        buffer.truncate(HEADER_LEN);
        Self {
            file,
            key: header.key(secret),
            header,
            at: 0,
            buffer,
            block: Vec::new(),
            first_version: 0,
            first_name: Box::default(),
            logs: None,
            contents: Contents {
                data: Vec::new(),
                last: 0,
                records: 0,
                names: Vec::new(),
                bloom: Bloom::new(names),
            },
        }
    }

    pub(super) fn record(&mut self, record: &Record<'_>) -> io::Result<()> {
        if self.block.is_empty() {
            self.first_version = record.version;
        }
        self.logs = join(self.logs, record.logs);
        self.contents.last = record.version;
        self.contents.records += 1;
        put_record(&mut self.block, record);
        if self.block.len() >= BLOCK {
            self.end_records()?;
        }
        Ok(())
    }

    /// Closes the block of records: names come next.
    pub(super) fn end_records(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (at, len) = self.seal()?;
        self.contents.data.push(DataBlock {
            first: self.first_version,
            at,
            len,
            logs: self.logs.take(),
        });
        Ok(())
    }

    pub(super) fn name(&mut self, name: &str, version: u64) -> io::Result<()> {
        if self.block.is_empty() {
            self.first_name = name.into();
        }
        self.contents.bloom.insert(NameHash::of(name));
        put_name(&mut self.block, name, version);
        if self.block.len() >= BLOCK {
            self.end_names()?;
        }
        Ok(())
    }

    fn end_names(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let (at, len) = self.seal()?;
        let first = std::mem::take(&mut self.first_name);
        self.contents.names.push(NameBlock { first, at, len });
        Ok(())
    }

    /// Seals the block where it will lie; its nonce is that place.
    fn seal(&mut self) -> io::Result<(u64, u32)> {
        let at = self.at + wide(self.buffer.len());
        let tag = self.key.seal(at, b"block", &mut self.block);
        let len = u32::try_from(self.block.len() + TAG)
            .ok()
            .filter(|len| *len <= MAX_SEALED)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        self.buffer.append(&mut self.block);
        self.buffer.extend_from_slice(&tag);
        // One long list of extents must not hold its memory for ever.
        self.block.shrink_to(4 * BLOCK);
        if self.buffer.len() >= WRITE {
            self.flush()?;
        }
        Ok((at, len))
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(&*self.file, &self.buffer, self.at)?;
        self.at += wide(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    /// Writes the contents and makes all of it durable, but for its name.
    pub(super) fn finish(mut self, path: PathBuf, cache: &Arc<Cache>) -> io::Result<Run> {
        self.end_names()?;
        self.block = self.contents.encode();
        let (at, len) = self.seal()?;
        self.flush()?;
        self.file.sync()?;
        let claim = Claim {
            number: self.header.number,
            salt: self.header.salt(),
            at,
            len,
        };
        let cache = Arc::clone(cache);
        Ok(Run {
            claim,
            path,
            key: self.key,
            file: self.file,
            contents: self.contents,
            cache,
        })
    }
}
