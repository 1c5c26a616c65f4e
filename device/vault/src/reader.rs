//! Reading an object back: every frame verified before a byte of it is given out.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    Damage, Error, ObjectInfo, PartNumber, UploadInfo,
    codec::{narrow, wide},
    config::BLOCK,
    core::Core,
    crypto::TAG,
    disk::{DiskFile, read_full},
    frame::FrameKey,
    keyring::JobNo,
    log::{files::LogReadError, record::Kind},
    op::{Body, Extent},
};

/// The bytes of one version, verified frame by frame. Keeps them readable while it lives, also
/// when the object is overwritten or deleted meanwhile.
pub struct ObjectReader {
    info: ObjectInfo,
    bytes: BodyReader,
}

impl ObjectReader {
    pub(crate) fn new(info: ObjectInfo, bytes: BodyReader) -> Self {
        Self { info, bytes }
    }

    /// The version being read.
    pub fn info(&self) -> &ObjectInfo {
        &self.info
    }

    /// Bytes that are still to come.
    pub fn remaining(&self) -> u64 {
        self.bytes.range.end - self.bytes.range.start
    }

    /// The next bytes, verified; `None` at the end. Blocks for the disk.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.bytes.next_chunk()
    }
}

/// The bytes of one part of an open upload, verified frame by frame.
pub struct PartReader(BodyReader);

impl PartReader {
    pub(crate) fn new(
        core: Arc<Core>,
        upload: &UploadInfo,
        job: JobNo,
        number: PartNumber,
        body: Body,
    ) -> Self {
        let size = body.iter().map(|extent| extent.len()).sum();
        let key = format!("{} (upload {}, part {number})", upload.key, upload.id);
        let name = (upload.job.to_string(), key, 0);
        Self(BodyReader::new(core, job, name, body, 0..size))
    }

    /// The next bytes, verified; `None` at the end. Blocks for the disk.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        self.0.next_chunk()
    }
}

/// What is asked of an object of `size` bytes; the end is clamped.
pub(crate) fn clamp(range: Option<Range<u64>>, size: u64) -> Result<Range<u64>, Error> {
    range.map_or(Ok(0..size), |asked| {
        if asked.is_empty() || asked.start >= size {
            return Err(Error::InvalidRange {
                start: asked.start,
                end: asked.end,
                size,
            });
        }
        Ok(asked.start..asked.end.min(size))
    })
}

/// Reads a range of a body.
pub(crate) struct BodyReader {
    core: Arc<Core>,
    job: JobNo,
    /// Whose bytes these are, for an error.
    name: (String, String, u64),
    body: Body,
    /// What is still to come.
    range: Range<u64>,
    /// The extent that `range.start` lies in, and where that extent begins.
    extent: usize,
    extent_begin: u64,
    open: Option<Open>,
}

/// The segment that was read last.
struct Open {
    incarnation: u64,
    segment: u32,
    file: Arc<dyn DiskFile>,
    key: FrameKey,
}

impl BodyReader {
    pub(crate) fn new(
        core: Arc<Core>,
        job: JobNo,
        name: (String, String, u64),
        body: Body,
        range: Range<u64>,
    ) -> Self {
        Self {
            core,
            job,
            name,
            body,
            range,
            extent: 0,
            extent_begin: 0,
            open: None,
        }
    }

    pub(crate) fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let extent = loop {
            let Some(extent) = self.body.get(self.extent).copied() else {
                return Err(self.damaged("the object ends before its size".to_owned()));
            };
            if self.range.start < self.extent_begin + extent.len() {
                break extent;
            }
            self.extent_begin += extent.len();
            self.extent += 1;
        };
        let skip = self.range.start - self.extent_begin;
        let chunk = match extent {
            Extent::Log { file, offset, len } => {
                let whole = self.read_log(file, offset, len)?;
                whole.slice(narrow(skip)..)
            }
            Extent::Frames {
                incarnation,
                at,
                len,
            } => self.read_frame(incarnation, u64::from(at) * BLOCK, len, skip)?,
        };
        let wanted = narrow(self.range.end - self.range.start).min(chunk.len());
        self.range.start += wide(wanted);
        Ok(Some(chunk.slice(..wanted)))
    }

    /// Passes over the frame that the next bytes are in; false at the end.
    pub(crate) fn skip_chunk(&mut self) -> bool {
        let Some(extent) = self.body.get(self.extent) else {
            return false;
        };
        let within = self.range.start - self.extent_begin;
        let payload = self.core.geometry.payload();
        let next = match extent {
            Extent::Log { len, .. } => u64::from(*len),
            Extent::Frames { len, .. } => (within / payload + 1).saturating_mul(payload).min(*len),
        };
        self.range.start = (self.extent_begin + next).min(self.range.end);
        !self.range.is_empty()
    }

    fn read_log(&self, file: u32, offset: u32, len: u32) -> Result<Bytes, Error> {
        let secret = self.core.secret(self.job)?;
        self.core
            .files
            .read_inline((file, offset, len), &secret)
            .map_err(|error| match error {
                LogReadError::Damaged => {
                    self.damaged(format!("log file {file}, record at byte {offset}"))
                }
                LogReadError::Io(source) => {
                    let path = self.core.files.path(Kind::Log, file);
                    Error::io(format!("read {}", path.display()), source)
                }
            })
    }

    /// The bytes of the frame that holds byte `skip` of an extent, from that byte on.
    fn read_frame(
        &mut self,
        incarnation: u64,
        begin: u64,
        len: u64,
        skip: u64,
    ) -> Result<Bytes, Error> {
        let geometry = self.core.geometry;
        let (number, within) = (skip / geometry.payload(), skip % geometry.payload());
        let at = begin + number * geometry.frame;
        let filled = narrow((len - number * geometry.payload()).min(geometry.payload()));
        self.open(incarnation)?;
        let Some(open) = &self.open else {
            return Err(Error::Closed);
        };
        let mut frame = vec![0; filled + TAG];
        let place = || format!("segment {}, frame at byte {at}", open.segment);
        read_full(&*open.file, &mut frame, at).map_err(|source| match source.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged(place()),
            _ => Error::io(format!("read {}", place()), source),
        })?;
        open.key
            .open(at, &mut frame, filled)
            .map_err(|_| self.damaged(place()))?;
        frame.truncate(filled);
        Ok(Bytes::from(frame).slice(narrow(within)..))
    }

    fn open(&mut self, incarnation: u64) -> Result<(), Error> {
        // Asked each time: the key of a job that was erased meanwhile is used no more.
        let secret = self.core.secret(self.job)?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.incarnation == incarnation)
        {
            return Ok(());
        }
        let found = self.core.index.read().space.incarnation(incarnation);
        let Some(found) = found else {
            return Err(self.damaged(format!("incarnation {incarnation} is unknown")));
        };
        let segment = found.segment;
        let file = self
            .core
            .segments
            .reader(segment)
            .map_err(|source| Error::io(format!("open segment {segment}"), source))?;
        let vault = self.core.keyring.read().vault;
        let name = (segment, incarnation);
        let key = FrameKey::derive(&secret, &vault, self.job, name, &found.salt);
        self.open = Some(Open {
            incarnation,
            segment,
            file,
            key,
        });
        Ok(())
    }

    fn damaged(&self, place: String) -> Error {
        let (job, key, version) = self.name.clone();
        tracing::error!(version, place, "stored bytes are damaged");
        let damage = Damage {
            job,
            key,
            version,
            place,
        };
        if let Some(tell) = self.core.witness.get() {
            tell(&damage);
        }
        Error::Damaged(Box::new(damage))
    }
}
