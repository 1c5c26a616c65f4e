//! Writing an object or a part: hash, seal and write in one pass.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm::Crc64Nvme, Digest, checksum};

use crate::{
    Checksums, Commit, Condition, Digests, Error, Metadata, ObjectInfo, PartInfo, PartNumber,
    UploadId,
    buffer::AlignedBuffer,
    codec::{encode_detail, narrow, wide},
    config::BLOCK,
    core::Core,
    crypto::{Secret, TAG},
    disk::write_full,
    frame::FrameKey,
    index::Outcome,
    keyring::JobNo,
    op::{Extent, Op, Source},
    segments::{OpenSegment, Run},
    tree::{PartTree, TreeHasher},
};

/// Hashed at a time, so that the second hash finds in the cache what the first has read. A multiple
/// of what BLAKE3 can hash side by side: it is slower over pieces that lie elsewhere.
const STRIDE: usize = 128 << 10;
/// A long object takes space in runs of up to this many frames, so that it needs few extents.
const MAX_RUN_FRAMES: u64 = 16;

/// An object being written. Dropping it before [`ObjectWriter::finish`] leaves no trace.
pub struct ObjectWriter {
    sink: Sink,
    key: String,
    metadata: Metadata,
}

/// A part being written. Dropping it before [`PartWriter::finish`] leaves no trace.
pub struct PartWriter {
    sink: Sink,
    upload: UploadId,
    number: PartNumber,
}

impl ObjectWriter {
    pub(crate) fn new(sink: Sink, key: String, metadata: Metadata) -> Self {
        Self {
            sink,
            key,
            metadata,
        }
    }

    /// Takes the next bytes: hashes, encrypts and writes them. Blocks for the disk now and then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sink.write(bytes)
    }

    /// What was computed over the bytes so far; compare before [`ObjectWriter::finish`].
    pub fn digests(&mut self) -> Digests {
        self.sink.digests()
    }

    /// Makes the object current. The commit resolves when bytes and record are durable.
    #[expect(clippy::needless_pass_by_value, reason = "taken like everywhere else")]
    pub fn finish(self, checksums: Checksums, condition: Condition) -> Commit<ObjectInfo> {
        let detail = encode_detail(&self.metadata, &checksums);
        if let Err(error) = check_detail(&detail) {
            return Commit::ready(Err(error));
        }
        let (key, now) = (self.key, (self.sink.core.clock)());
        let make = move |content, _, source| Op::Put {
            key,
            content,
            source,
            detail,
            condition,
            now,
        };
        self.sink.finish(make, |outcome| match outcome {
            Outcome::Object(info) => Some(*info),
            _ => None,
        })
    }
}

impl PartWriter {
    pub(crate) fn new(sink: Sink, upload: UploadId, number: PartNumber) -> Self {
        Self {
            sink,
            upload,
            number,
        }
    }

    /// Takes the next bytes: hashes, encrypts and writes them. Blocks for the disk now and then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sink.write(bytes)
    }

    /// What was computed over the bytes so far; compare before [`PartWriter::finish`].
    pub fn digests(&mut self) -> Digests {
        self.sink.digests()
    }

    /// Puts the part in its upload. The commit resolves when bytes and record are durable.
    pub fn finish(self, checksums: Checksums) -> Commit<PartInfo> {
        let (upload, number) = (self.upload, self.number.get());
        if let Err(error) = check_detail(&encode_detail(&Metadata::default(), &checksums)) {
            return Commit::ready(Err(error));
        }
        let now = (self.sink.core.clock)();
        let make = move |content, tree: Option<PartTree>, source| Op::PutPart {
            upload,
            number,
            content,
            tree: tree.unwrap_or_default(),
            source,
            checksums,
            now,
        };
        self.sink.finish(make, |outcome| match outcome {
            Outcome::Part(info) => Some(*info),
            _ => None,
        })
    }
}

/// Longest metadata and checksums of one object, in bytes.
pub(crate) const MAX_DETAIL: usize = 32 << 10;

pub(crate) fn check_detail(detail: &[u8]) -> Result<(), Error> {
    if detail.len() > MAX_DETAIL {
        let what = "an object's metadata";
        return Err(Error::TooLong {
            what,
            len: detail.len(),
            max: MAX_DETAIL,
        });
    }
    Ok(())
}

/// BLAKE3, of an object or of a part.
enum Hash {
    /// Absent before the first byte is hashed: an object that stays small is hashed at once.
    Whole(Option<Box<blake3::Hasher>>),
    Part(Box<TreeHasher>),
}

impl Hash {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Whole(hasher) => drop(hasher.get_or_insert_default().update(bytes)),
            Self::Part(hasher) => hasher.update(bytes),
        }
    }
}

/// Where bytes go: into memory while they are few, then into frames.
///
/// They are hashed where they lie, not where they come from: what comes is cut as the network cut
/// it, and short pieces are slow to hash.
pub(crate) struct Sink {
    core: Arc<Core>,
    job: JobNo,
    secret: Secret,
    hash: Hash,
    crc: Digest,
    size: u64,
    small: Vec<u8>,
    frame: Option<AlignedBuffer>,
    filled: usize,
    /// Bytes of `small`, or of the frame, that are hashed already.
    hashed: usize,
    /// Bytes in the frames before this one.
    flushed: u64,
    /// What came of hashing, until more is written.
    sum: Option<(Option<PartTree>, Digests)>,
    extents: Vec<Extent>,
    run: Option<Run>,
    key: Option<(u64, FrameKey)>,
    touched: Vec<Arc<OpenSegment>>,
    touched_numbers: BTreeSet<u32>,
}

impl Sink {
    /// Of an object, or of a part that is taken to begin at `base` in its object.
    pub(crate) fn new(core: Arc<Core>, job: JobNo, base: Option<u64>) -> Result<Self, Error> {
        core.admit()?;
        let hash = match base {
            None => Hash::Whole(None),
            Some(base) => Hash::Part(Box::new(TreeHasher::new(base))),
        };
        let secret = core.secret(job)?;
        Ok(Self {
            core,
            job,
            secret,
            hash,
            crc: Digest::new(Crc64Nvme),
            size: 0,
            small: Vec::new(),
            frame: None,
            filled: 0,
            hashed: 0,
            flushed: 0,
            sum: None,
            extents: Vec::new(),
            run: None,
            key: None,
            touched: Vec::new(),
            touched_numbers: BTreeSet::new(),
        })
    }

    fn digests(&mut self) -> Digests {
        let sum = self.sum.take().unwrap_or_else(|| self.sum_up());
        self.sum.insert(sum).1
    }

    /// Hashes what is left, and says what came of it.
    fn sum_up(&mut self) -> (Option<PartTree>, Digests) {
        if let (Hash::Whole(None), None) = (&self.hash, &self.frame) {
            let digests = Digests {
                size: self.size,
                blake3: *blake3::hash(&self.small).as_bytes(),
                crc64nvme: checksum(Crc64Nvme, &self.small),
            };
            return (None, digests);
        }
        let gathered = self
            .frame
            .as_ref()
            .map_or(self.small.len(), |_| self.filled);
        self.hash_until(gathered);
        let (tree, blake3) = match &self.hash {
            Hash::Whole(hasher) => {
                let hash = hasher.as_ref().map(|hasher| hasher.finalize());
                (None, *hash.unwrap_or_else(|| blake3::hash(b"")).as_bytes())
            }
            Hash::Part(hasher) => {
                let (tree, name) = hasher.finish();
                (Some(tree), name)
            }
        };
        let digests = Digests {
            size: self.size,
            blake3,
            crc64nvme: self.crc.finalize(),
        };
        (tree, digests)
    }

    /// Hashes what is gathered up to `end`.
    fn hash_until(&mut self, end: usize) {
        if end <= self.hashed {
            return;
        }
        let gathered = match &self.frame {
            Some(frame) => frame.bytes(),
            None => &self.small,
        };
        for piece in gathered[self.hashed..end].chunks(STRIDE) {
            self.crc.update(piece);
            self.hash.update(piece);
        }
        self.hashed = end;
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sum = None;
        self.size += wide(bytes.len());
        self.buffer(bytes)
    }

    fn buffer(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        if self.frame.is_none() {
            let inline_max = narrow(u64::from(self.core.config.inline_max_bytes));
            if self.small.len() + piece.len() <= inline_max {
                self.small.extend_from_slice(piece);
                return Ok(());
            }
            self.frame = Some(AlignedBuffer::new(narrow(self.core.geometry.frame)));
            let small = std::mem::take(&mut self.small);
            self.buffer(&small)?;
        }
        let payload = narrow(self.core.geometry.payload());
        while !piece.is_empty() {
            // Only a frame that is followed by more bytes is surely a full one.
            if self.filled == payload {
                self.flush()?;
            }
            let Some(frame) = &mut self.frame else {
                return Err(Error::Closed);
            };
            let take = piece.len().min(payload - self.filled);
            let (now, later) = piece.split_at(take);
            frame.bytes_mut()[self.filled..self.filled + take].copy_from_slice(now);
            self.filled += take;
            piece = later;
            // Up to a place where strides of the object end, so that the next ones lie well again.
            let over = narrow((self.flushed + wide(self.filled)) % wide(STRIDE));
            self.hash_until(self.filled.saturating_sub(over));
        }
        Ok(())
    }

    /// Seals and writes the frame as far as it is filled.
    fn flush(&mut self) -> Result<(), Error> {
        self.hash_until(self.filled);
        let on_disk = wide(self.filled + TAG).next_multiple_of(BLOCK);
        let place = self.place(on_disk)?;
        if self
            .key
            .as_ref()
            .is_none_or(|(incarnation, _)| *incarnation != place.incarnation)
        {
            let vault = self.core.keyring.read().vault;
            let name = (place.segment.number, place.incarnation);
            let key = FrameKey::derive(&self.secret, &vault, self.job, name, &place.salt);
            self.key = Some((place.incarnation, key));
        }
        let (Some((_, key)), Some(frame)) = (&self.key, &mut self.frame) else {
            return Err(Error::Closed);
        };
        let bytes = &mut frame.bytes_mut()[..narrow(on_disk)];
        key.seal(place.at, bytes, self.filled);
        let number = place.segment.number;
        // Before the write: even a failed one has to keep the segment from being reused.
        if self.touched_numbers.insert(number) {
            self.touched.push(Arc::clone(&place.segment));
        }
        write_full(&*place.segment.file, bytes, place.at)
            .map_err(|source| Error::io(format!("write segment {number}"), source))?;
        self.record(&place)
    }

    /// Space for one frame, from the run at hand or a new one.
    fn place(&mut self, on_disk: u64) -> Result<Run, Error> {
        if self.run.as_ref().is_none_or(|run| run.len < on_disk) {
            self.give_back();
            let frames = (self.size / self.core.geometry.frame).clamp(1, MAX_RUN_FRAMES);
            let want = if wide(self.filled) == self.core.geometry.payload() {
                frames * self.core.geometry.frame
            } else {
                on_disk
            };
            self.run = Some(self.core.reserve(on_disk, want)?);
        }
        self.run
            .as_mut()
            .map(|run| run.split(on_disk))
            .ok_or(Error::Closed)
    }

    /// Notes the frame that was just written.
    fn record(&mut self, place: &Run) -> Result<(), Error> {
        let payload = self.core.geometry.payload();
        let here = u32::try_from(place.at / BLOCK).map_err(|_| Error::DiskFull)?;
        let frame_blocks = self.core.geometry.frame / BLOCK;
        let continues = self.extents.last_mut().and_then(|last| match last {
            Extent::Frames {
                incarnation,
                at,
                len,
            } if *incarnation == place.incarnation => {
                let next = u64::from(*at) + *len / payload * frame_blocks;
                (len.is_multiple_of(payload) && next == u64::from(here)).then_some(len)
            }
            _ => None,
        });
        match continues {
            Some(len) => *len += wide(self.filled),
            None => self.extents.push(Extent::Frames {
                incarnation: place.incarnation,
                at: here,
                len: wide(self.filled),
            }),
        }
        self.flushed += wide(self.filled);
        self.hashed = self.hashed.saturating_sub(self.filled);
        self.filled = 0;
        Ok(())
    }

    fn give_back(&mut self) {
        if let Some(run) = self.run.take() {
            self.core.segments.give_back(run);
        }
    }

    fn finish<T: Send + 'static>(
        mut self,
        make: impl FnOnce(Digests, Option<PartTree>, Source) -> Op,
        then: impl FnOnce(Outcome) -> Option<T> + Send + 'static,
    ) -> Commit<T> {
        // Before the last frame is sealed, which ends what can be hashed of it.
        let (tree, digests) = self.sum.take().unwrap_or_else(|| self.sum_up());
        if self.filled > 0
            && let Err(error) = self.flush()
        {
            return Commit::ready(Err(error));
        }
        self.give_back();
        let (source, inline) = if self.frame.is_none() {
            let inline = Bytes::from(std::mem::take(&mut self.small));
            let len = u32::try_from(inline.len()).unwrap_or(u32::MAX);
            (Source::Inline { len }, inline)
        } else {
            (
                Source::Frames(std::mem::take(&mut self.extents)),
                Bytes::new(),
            )
        };
        let touched = std::mem::take(&mut self.touched);
        let op = make(digests, tree, source);
        self.core
            .submit(self.job, op, inline, touched, |_, outcome| then(outcome))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.give_back();
    }
}
