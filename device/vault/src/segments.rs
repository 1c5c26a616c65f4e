//! Segment files: giving writers space that nobody else has, and taking it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;

use crate::{
    OpenError,
    config::{BLOCK, Geometry},
    disk::{Access, Disk, DiskFile},
    index::space::Space,
};

/// Unwritten runs that are kept for the next writer; beyond, the shortest is given up until its
/// segment is free again.
const MAX_RUNS: usize = 256;

/// A segment that is being written. While one of these lives, the segment is not reused.
pub(crate) struct OpenSegment {
    pub(crate) number: u32,
    pub(crate) file: Arc<dyn DiskFile>,
    /// A sync failed: what was written since the last good one may be lost, whatever a later
    /// sync says.
    spoiled: AtomicBool,
}

impl OpenSegment {
    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.spoiled.load(Ordering::Acquire) {
            return Err(io::Error::other("an earlier sync of the segment failed"));
        }
        self.file
            .sync()
            .inspect_err(|_| self.spoiled.store(true, Ordering::Release))
    }

    fn is_spoiled(&self) -> bool {
        self.spoiled.load(Ordering::Acquire)
    }
}

/// Blocks of one incarnation that were never written; whoever holds it may, once.
pub(crate) struct Run {
    pub(crate) segment: Arc<OpenSegment>,
    pub(crate) incarnation: u64,
    pub(crate) salt: [u8; 32],
    /// First byte.
    pub(crate) at: u64,
    /// Bytes.
    pub(crate) len: u64,
}

impl Run {
    /// Takes `len` bytes off the front.
    pub(crate) fn split(&mut self, len: u64) -> Self {
        let len = len.min(self.len);
        let front = Self {
            segment: Arc::clone(&self.segment),
            len,
            ..*self
        };
        self.at += len;
        self.len -= len;
        front
    }
}

/// Where a new incarnation can begin.
pub(crate) struct Site {
    pub(crate) segment: u32,
    /// First byte.
    pub(crate) base: u64,
}

/// How much of the segment files is in use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentUse {
    pub(crate) files: u64,
    pub(crate) free: u64,
    pub(crate) used_bytes: u64,
}

pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    geometry: Geometry,
    direct: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    existing: BTreeSet<u32>,
    open: BTreeMap<u32, Weak<OpenSegment>>,
    runs: Vec<Run>,
    /// Ends of segments behind the last live byte, found at opening.
    tails: Vec<Site>,
}

impl Segments {
    /// Looks at the files in `dir`, all of whose live bytes must be there.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        geometry: Geometry,
        direct: bool,
        ends: &BTreeMap<u32, u64>,
    ) -> Result<Self, OpenError> {
        let this = Self {
            disk,
            dir,
            geometry,
            direct,
            inner: Mutex::new(Inner::default()),
        };
        let fail = |what: String| move |source: io::Error| OpenError::Io { what, source };
        let listing = format!("list {}", this.dir.display());
        let mut inner = Inner::default();
        for name in this.disk.list(&this.dir).map_err(fail(listing))? {
            let path = this.dir.join(&name);
            if path.extension().is_some_and(|end| end == "tmp") {
                let removing = format!("remove {name} in {}", this.dir.display());
                this.disk.remove(&path).map_err(fail(removing))?;
            }
            let digits = name
                .strip_prefix("segment-")
                .filter(|digits| digits.len() == 8);
            if let Some(number) = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
                inner.existing.insert(number);
            }
        }
        for (number, end) in ends {
            let path = this.path(*number);
            let reading = format!("read {}", path.display());
            let size = match this.disk.open(&path, Access::Read) {
                Ok(file) => file.size().map_err(fail(reading))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
                Err(error) => return Err(fail(reading)(error)),
            };
            if size < *end {
                let reason = format!("objects lie up to byte {end}");
                return Err(OpenError::Damaged {
                    path,
                    offset: size,
                    reason,
                });
            }
            if geometry.segment.saturating_sub(*end) >= geometry.frame {
                inner.tails.push(Site {
                    segment: *number,
                    base: *end,
                });
            }
        }
        *this.inner.lock() = inner;
        Ok(this)
    }

    pub(crate) fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("segment-{number:08x}"))
    }

    /// Opens a segment to read from it.
    pub(crate) fn reader(&self, number: u32) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(&self.path(number), Access::Read)
    }

    /// Takes between `min` and `want` bytes that follow each other, if any are at hand.
    pub(crate) fn take(&self, min: u64, want: u64) -> Option<Run> {
        let mut inner = self.inner.lock();
        inner
            .runs
            .retain(|run| run.len > 0 && !run.segment.is_spoiled());
        let run = inner.runs.iter_mut().find(|run| run.len >= min)?;
        Some(run.split(want.max(min)))
    }

    /// Gives back what was not written.
    pub(crate) fn give_back(&self, run: Run) {
        if run.len < BLOCK || run.segment.is_spoiled() {
            return;
        }
        let mut inner = self.inner.lock();
        let neighbour = inner
            .runs
            .iter_mut()
            .find(|other| other.incarnation == run.incarnation && run.at + run.len == other.at);
        if let Some(other) = neighbour {
            other.at = run.at;
            other.len += run.len;
            return;
        }
        inner.runs.push(run);
        if inner.runs.len() > MAX_RUNS {
            inner.runs.sort_by_key(|run| std::cmp::Reverse(run.len));
            inner.runs.pop();
        }
    }

    /// A place for a new incarnation: a segment that nobody needs, the unused end of one, or,
    /// if `may_grow`, a new file.
    pub(crate) fn site(&self, space: &mut Space, may_grow: bool) -> io::Result<Option<Site>> {
        space.sweep();
        let mut inner = self.inner.lock();
        for idle in inner.idle(space) {
            inner.runs.retain(|run| run.segment.number != idle);
        }
        inner.open.retain(|_, open| open.strong_count() > 0);
        let free =
            |number: &u32| space.live_in_segment(*number) == 0 && !inner.open.contains_key(number);
        if let Some(segment) = inner.existing.iter().copied().find(free) {
            inner.tails.retain(|tail| tail.segment != segment);
            return Ok(Some(Site { segment, base: 0 }));
        }
        if let Some(tail) = inner.tails.pop() {
            return Ok(Some(tail));
        }
        if !may_grow {
            return Ok(None);
        }
        let segment = inner.existing.last().map_or(0, |last| last + 1);
        self.create(segment)?;
        inner.existing.insert(segment);
        Ok(Some(Site { segment, base: 0 }))
    }

    fn create(&self, number: u32) -> io::Result<()> {
        let path = self.path(number);
        let temporary = path.with_extension("tmp");
        let made = self.disk.open(&temporary, Access::Create).and_then(|file| {
            file.allocate(self.geometry.segment)?;
            file.sync()
        });
        if let Err(error) = made {
            // Half a segment would only take space that the log may need.
            let _ = self.disk.remove(&temporary);
            return Err(error);
        }
        self.disk.rename(&temporary, &path)?;
        self.disk.sync_dir(&self.dir)
    }

    /// Opens `site`'s segment for writing; from now on it is not reused.
    pub(crate) fn open_site(&self, site: &Site) -> io::Result<Arc<OpenSegment>> {
        let mut inner = self.inner.lock();
        if let Some(open) = inner.open.get(&site.segment).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let access = if self.direct {
            Access::WriteDirect
        } else {
            Access::Write
        };
        let file = self.disk.open(&self.path(site.segment), access)?;
        let (number, spoiled) = (site.segment, AtomicBool::new(false));
        let open = Arc::new(OpenSegment {
            number,
            file,
            spoiled,
        });
        inner.open.insert(number, Arc::downgrade(&open));
        Ok(open)
    }

    /// Makes the blocks of a durable incarnation available.
    pub(crate) fn begin(
        &self,
        site: &Site,
        segment: Arc<OpenSegment>,
        incarnation: u64,
        salt: [u8; 32],
    ) {
        let (at, len) = (site.base, self.geometry.segment - site.base);
        self.give_back(Run {
            segment,
            incarnation,
            salt,
            at,
            len,
        });
    }

    pub(crate) fn usage(&self, space: &Space) -> SegmentUse {
        let mut inner = self.inner.lock();
        inner.open.retain(|_, open| open.strong_count() > 0);
        let idle = inner.idle(space);
        let begun = inner
            .open
            .keys()
            .filter(|number| space.live_in_segment(**number) == 0 && !idle.contains(number));
        let busy = space.live_segments() + begun.count() as u64;
        let runs = inner
            .runs
            .iter()
            .filter(|run| !idle.contains(&run.segment.number));
        let unwritten: u64 = runs.map(|run| run.len).sum();
        let files = inner.existing.len() as u64;
        SegmentUse {
            files,
            free: files.saturating_sub(busy),
            used_bytes: (busy * self.geometry.segment).saturating_sub(unwritten),
        }
    }
}

impl Inner {
    /// Segments that are open only because some of their blocks were never written.
    fn idle(&self, space: &Space) -> BTreeSet<u32> {
        let mut runs: BTreeMap<u32, usize> = BTreeMap::new();
        for run in &self.runs {
            *runs.entry(run.segment.number).or_default() += 1;
        }
        runs.into_iter()
            .filter(|(number, held)| {
                let holders = self.open.get(number).map_or(0, Weak::strong_count);
                holders == *held && space.live_in_segment(*number) == 0
            })
            .map(|(number, _)| number)
            .collect()
    }
}
