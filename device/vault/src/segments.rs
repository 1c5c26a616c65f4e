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
    codec::narrow,
    config::{BLOCK, Geometry},
    disk::{Access, Disk, DiskFile},
    index::{Index, space::Space},
};

/// Unwritten runs that are kept for the next writer; beyond, the shortest is given up until its
/// segment is free again.
const MAX_RUNS: usize = 256;
/// Segments that are looked through for dead space at a time: what lies in them is held in memory.
const LOOK_AT: usize = 64;

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
    /// One behind the last byte.
    pub(crate) end: u64,
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
    /// Dead space between and behind live bytes that was found when it was last looked for.
    holes: Vec<Site>,
    /// What had come free when looking through all of them began the last time.
    looked_at: Option<u64>,
    /// Where that goes on.
    look_from: u32,
}

impl Segments {
    /// Looks at the files in `dir`, all of whose live bytes must be there: each up to its end.
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
            // What the last process did not fill is used first: it is in one piece.
            inner.holes.extend(this.holes(*number, &[(0, *end)]));
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

    /// A place for a new incarnation, open and therefore nobody else's: a segment that nobody
    /// needs, dead space in one, or, if `may_grow`, a new file.
    pub(crate) fn site(
        &self,
        index: &mut Index,
        may_grow: bool,
    ) -> io::Result<Option<(Site, Arc<OpenSegment>)>> {
        index.space.sweep();
        let mut inner = self.inner.lock();
        let Some(site) = self.find(&mut inner, &index.space, may_grow)? else {
            return Ok(None);
        };
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
        Ok(Some((site, open)))
    }

    fn find(&self, inner: &mut Inner, space: &Space, may_grow: bool) -> io::Result<Option<Site>> {
        inner.close(|live| live == 0, space);
        let free = inner.free(space).next();
        if let Some(segment) = free {
            inner.holes.retain(|hole| hole.segment != segment);
            return Ok(Some(self.whole(segment)));
        }
        if let Some(hole) = inner.take_hole() {
            return Ok(Some(hole));
        }
        if may_grow {
            let last = inner.existing.last();
            let segment = last.map_or(0, |last| last + 1);
            self.create(segment)?;
            inner.existing.insert(segment);
            return Ok(Some(self.whole(segment)));
        }
        Ok(None)
    }

    /// Some segments that nobody writes to and that hold dead space, for when nothing else is left.
    /// Only worth it when something has come free since the last time.
    pub(crate) fn to_look_at(&self, space: &Space) -> BTreeSet<u32> {
        let mut inner = self.inner.lock();
        if inner.look_from == 0 {
            let vacated = space.vacated_bytes();
            if inner.looked_at.replace(vacated) == Some(vacated) {
                return BTreeSet::new();
            }
            // Runs that are too short for whoever asks keep their segments from being looked at.
            inner.close(|_| true, space);
        }
        let room = self.geometry.segment - self.geometry.frame;
        let behind = inner.existing.range(inner.look_from..);
        let roomy = behind.filter(|number| {
            let live = space.live_in_segment(**number);
            live > 0 && live <= room && !inner.open.contains_key(number)
        });
        let some: BTreeSet<u32> = roomy.copied().take(LOOK_AT).collect();
        let last = some.last().filter(|_| some.len() == LOOK_AT);
        inner.look_from = last.map_or(0, |last| last + 1);
        some
    }

    /// Takes in what lies in `segments`: what lies between is free.
    pub(crate) fn note_holes(&self, segments: &BTreeSet<u32>, live: &[(u32, u64, u64)]) {
        let inner = &mut *self.inner.lock();
        let mut ranges: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
        for (segment, begin, end) in live {
            ranges.entry(*segment).or_default().push((*begin, *end));
        }
        inner.holes.retain(|hole| !segments.contains(&hole.segment));
        for number in segments
            .iter()
            .filter(|number| inner.existing.contains(number))
        {
            let mut ranges = ranges.remove(number).unwrap_or_default();
            ranges.sort_unstable();
            inner.holes.extend(self.holes(*number, &ranges));
        }
        inner.holes.sort_by_key(|hole| hole.end - hole.base);
    }

    fn whole(&self, segment: u32) -> Site {
        let (base, end) = (0, self.geometry.segment);
        Site { segment, base, end }
    }

    /// The space between sorted ranges that holds at least one full frame.
    fn holes(&self, segment: u32, live: &[(u64, u64)]) -> Vec<Site> {
        let mut holes = Vec::new();
        let mut base = 0;
        let behind = (self.geometry.segment, self.geometry.segment);
        for (begin, end) in live.iter().chain([&behind]) {
            if begin.saturating_sub(base) >= self.geometry.frame {
                let end = *begin;
                holes.push(Site { segment, base, end });
            }
            base = base.max(*end);
        }
        holes
    }

    /// Removes files of segments that nobody needs, to make room for at least `bytes`.
    pub(crate) fn trim(&self, space: &Space, bytes: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.close(|live| live == 0, space);
        let wanted = narrow(bytes.div_ceil(self.geometry.segment));
        let free: Vec<u32> = inner.free(space).collect();
        for segment in free.into_iter().rev().take(wanted) {
            self.disk.remove(&self.path(segment))?;
            inner.existing.remove(&segment);
            inner.holes.retain(|hole| hole.segment != segment);
        }
        Ok(())
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

    /// Makes the blocks of a durable incarnation available.
    pub(crate) fn begin(
        &self,
        site: &Site,
        segment: Arc<OpenSegment>,
        incarnation: u64,
        salt: [u8; 32],
    ) {
        let (at, len) = (site.base, site.end - site.base);
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
        let idle = inner.held_by_runs();
        let idle = |number: &u32| idle.contains(number) && space.live_in_segment(*number) == 0;
        let mut used_bytes = space.live_bytes();
        let mut busy = space.live_segments();
        for number in inner.open.keys().filter(|number| !idle(number)) {
            // Whatever is being written there is not live yet.
            let live = space.live_in_segment(*number);
            let runs = inner
                .runs
                .iter()
                .filter(|run| run.segment.number == *number);
            let unwritten = runs.map(|run| run.len).sum::<u64>() + inner.holes_in(*number);
            used_bytes += self
                .geometry
                .segment
                .saturating_sub(unwritten)
                .saturating_sub(live);
            busy += u64::from(live == 0);
        }
        let files = inner.existing.len() as u64;
        SegmentUse {
            files,
            free: files.saturating_sub(busy),
            used_bytes,
        }
    }
}

impl Inner {
    /// Segments that hold nothing and that nobody writes to.
    fn free<'a>(&'a self, space: &'a Space) -> impl Iterator<Item = u32> + 'a {
        let unused =
            |number: &u32| space.live_in_segment(*number) == 0 && !self.open.contains_key(number);
        self.existing.iter().copied().filter(unused)
    }

    /// Gives up unwritten runs in segments that nobody else holds open and whose live bytes
    /// `fit`.
    fn close(&mut self, fit: impl Fn(u64) -> bool, space: &Space) {
        for number in self.held_by_runs() {
            if fit(space.live_in_segment(number)) {
                self.runs.retain(|run| run.segment.number != number);
            }
        }
        self.open.retain(|_, open| open.strong_count() > 0);
    }

    /// The largest hole whose segment nobody writes to: beginning an incarnation ends those in
    /// its segment that hold nothing yet.
    fn take_hole(&mut self) -> Option<Site> {
        let at = self
            .holes
            .iter()
            .rposition(|hole| !self.open.contains_key(&hole.segment))?;
        Some(self.holes.remove(at))
    }

    fn holes_in(&self, segment: u32) -> u64 {
        let holes = self.holes.iter().filter(|hole| hole.segment == segment);
        holes.map(|hole| hole.end - hole.base).sum()
    }

    /// Segments that are open only because some of their blocks were never written.
    fn held_by_runs(&self) -> BTreeSet<u32> {
        let mut runs: BTreeMap<u32, usize> = BTreeMap::new();
        for run in &self.runs {
            *runs.entry(run.segment.number).or_default() += 1;
        }
        let held = |number: &u32| self.open.get(number).map_or(0, Weak::strong_count);
        let only = runs
            .into_iter()
            .filter(|(number, count)| held(number) == *count);
        only.map(|(number, _)| number).collect()
    }
}
