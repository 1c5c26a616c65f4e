//! Which bytes of which file somebody still needs.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    codec::Malformed,
    config::{BLOCK, Geometry},
    keyring::JobNo,
    op::{Body, Extent},
};

/// One life of a segment, or of its end: named after the record that began it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Incarnation {
    pub(crate) segment: u32,
    /// First block.
    pub(crate) base: u32,
    /// Makes its keys its own.
    pub(crate) salt: [u8; 32],
}

#[derive(Debug)]
struct Known {
    incarnation: Incarnation,
    /// Bytes that somebody needs.
    live: u64,
    /// One behind the last byte of the segment that somebody ever needed.
    end: u64,
}

/// The part of the live bytes that one job needs. With its key all of it goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Share {
    pub(super) frames: BTreeMap<u64, u64>,
    pub(super) logs: BTreeMap<u32, u64>,
}

/// What a record takes beside the bytes of its object: about this much.
const RECORD_OVERHEAD: u64 = 160;

/// Live bytes per segment and log file.
#[derive(Debug)]
pub(crate) struct Space {
    geometry: Geometry,
    incarnations: BTreeMap<u64, Known>,
    /// Segments with live bytes only.
    segments: BTreeMap<u32, u64>,
    live_bytes: u64,
    /// Grows with every byte that comes free.
    vacated_bytes: u64,
    logs: BTreeMap<u32, u64>,
    /// Bodies that nothing names any more but somebody still reads.
    retired: Vec<Body>,
    shares: BTreeMap<JobNo, Share>,
}

impl Space {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            incarnations: BTreeMap::new(),
            segments: BTreeMap::new(),
            live_bytes: 0,
            vacated_bytes: 0,
            logs: BTreeMap::new(),
            retired: Vec::new(),
            shares: BTreeMap::new(),
        }
    }

    pub(crate) fn incarnation(&self, id: u64) -> Option<Incarnation> {
        self.incarnations.get(&id).map(|known| known.incarnation)
    }

    pub(super) fn incarnations(&self) -> impl Iterator<Item = (u64, Incarnation)> {
        self.incarnations
            .iter()
            .map(|(id, known)| (*id, known.incarnation))
    }

    /// Begins an incarnation. Nobody writes to its segment otherwise, so those that hold nothing
    /// there are over.
    pub(super) fn incarnate(&mut self, id: u64, new: Incarnation) {
        self.incarnations
            .retain(|_, old| old.incarnation.segment != new.segment || old.live > 0);
        self.restore(id, new);
    }

    /// Takes in an incarnation from a checkpoint, before what it holds.
    pub(super) fn restore(&mut self, id: u64, incarnation: Incarnation) {
        self.incarnations.insert(
            id,
            Known {
                incarnation,
                live: 0,
                end: 0,
            },
        );
    }

    /// True if every frame belongs to an incarnation that lasts.
    pub(super) fn knows(&self, extents: &[Extent]) -> bool {
        extents.iter().all(|extent| match extent {
            // Of an empty one nothing lies anywhere: its incarnation may be over.
            Extent::Frames { len: 0, .. } | Extent::Log { .. } => true,
            Extent::Frames { incarnation, .. } => self.incarnations.contains_key(incarnation),
        })
    }

    /// `job` needs these bytes from now on.
    pub(super) fn occupy(&mut self, job: JobNo, extents: &[Extent]) {
        let share = self.shares.entry(job).or_default();
        for extent in extents {
            match extent {
                Extent::Frames { incarnation, .. }
                    if self.incarnations.contains_key(incarnation) =>
                {
                    let len = disk_len(self.geometry, *extent);
                    add(&mut share.frames, *incarnation, len);
                }
                Extent::Frames { .. } => {}
                Extent::Log { file, .. } => {
                    add(&mut share.logs, *file, disk_len(self.geometry, *extent));
                }
            }
        }
        for extent in extents {
            self.fill(*extent);
        }
    }

    fn fill(&mut self, extent: Extent) {
        let len = self.disk_len(extent);
        match extent {
            Extent::Frames {
                incarnation, at, ..
            } => {
                let end = (u64::from(at) * BLOCK).saturating_add(len);
                self.fill_incarnation(incarnation, len, end);
            }
            Extent::Log { file, .. } => add(&mut self.logs, file, len),
        }
    }

    fn fill_incarnation(&mut self, incarnation: u64, len: u64, end: u64) {
        if let Some(known) = self.incarnations.get_mut(&incarnation) {
            known.live = known.live.saturating_add(len);
            known.end = known.end.max(end);
            self.live_bytes = self.live_bytes.saturating_add(len);
            add(&mut self.segments, known.incarnation.segment, len);
        }
    }

    /// Takes in what a checkpoint says that `job` needs of an incarnation, up to byte `end`.
    pub(super) fn restore_frames(
        &mut self,
        job: JobNo,
        (incarnation, len, end): (u64, u64, u64),
    ) -> Result<(), Malformed> {
        let share = self.shares.entry(job).or_default();
        let known = self.incarnations.contains_key(&incarnation);
        if !known || len == 0 || share.frames.insert(incarnation, len).is_some() {
            return Err(Malformed("share of an incarnation"));
        }
        self.fill_incarnation(incarnation, len, end);
        Ok(())
    }

    /// Takes in what a checkpoint says that `job` needs of a log file.
    pub(super) fn restore_log(&mut self, job: JobNo, file: u32, len: u64) -> Result<(), Malformed> {
        let share = self.shares.entry(job).or_default();
        if len == 0 || share.logs.insert(file, len).is_some() {
            return Err(Malformed("share of a log file"));
        }
        add(&mut self.logs, file, len);
        Ok(())
    }

    /// What `job` needs.
    pub(super) fn share(&self, job: JobNo) -> Option<&Share> {
        self.shares.get(&job)
    }

    /// One behind the last byte of an incarnation's segment that was ever needed.
    pub(super) fn end_of(&self, incarnation: u64) -> u64 {
        self.incarnations
            .get(&incarnation)
            .map_or(0, |known| known.end)
    }

    /// One behind the last byte that somebody may need, for each segment of which somebody does.
    pub(crate) fn ends(&self) -> BTreeMap<u32, u64> {
        let mut ends = BTreeMap::new();
        for known in self.incarnations.values().filter(|known| known.live > 0) {
            let end: &mut u64 = ends.entry(known.incarnation.segment).or_default();
            *end = known.end.max(*end);
        }
        ends
    }

    /// Nothing of `job` is needed any more, but for what is being `read`.
    pub(super) fn forget(&mut self, job: JobNo, read: Vec<Body>) {
        for extent in read.iter().flat_map(|body| body.iter()) {
            self.fill(*extent);
        }
        let share = self.shares.remove(&job).unwrap_or_default();
        for (incarnation, len) in share.frames {
            self.vacate_incarnation(incarnation, len);
        }
        for (file, len) in share.logs {
            take_off(&mut self.logs, file, len);
        }
        self.retired.extend(read);
    }

    fn vacate(&mut self, extents: &[Extent]) {
        for extent in extents {
            let len = self.disk_len(*extent);
            match extent {
                Extent::Frames { incarnation, .. } => self.vacate_incarnation(*incarnation, len),
                Extent::Log { file, .. } => take_off(&mut self.logs, *file, len),
            }
        }
    }

    fn vacate_incarnation(&mut self, incarnation: u64, len: u64) {
        if let Some(known) = self.incarnations.get_mut(&incarnation) {
            known.live = known.live.saturating_sub(len);
            self.live_bytes = self.live_bytes.saturating_sub(len);
            self.vacated_bytes = self.vacated_bytes.saturating_add(len);
            take_off(&mut self.segments, known.incarnation.segment, len);
        }
    }

    /// What is left of `share` without these.
    pub(super) fn take_from(&self, share: &mut Share, extents: &[Extent]) {
        take_from(self.geometry, share, extents);
    }

    /// `job` does not name `body` any more: its space is free as soon as nobody reads it.
    pub(super) fn retire(&mut self, job: JobNo, body: Body) {
        if let Some(share) = self.shares.get_mut(&job) {
            take_from(self.geometry, share, &body);
        }
        if Arc::strong_count(&body) > 1 {
            self.retired.push(body);
        } else {
            self.vacate(&body);
        }
    }

    /// Frees what was retired and is no longer read.
    pub(crate) fn sweep(&mut self) {
        let (idle, read): (Vec<Body>, _) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|body| Arc::strong_count(body) == 1);
        self.retired = read;
        for body in idle {
            self.vacate(&body);
        }
    }

    /// Bytes of a segment that somebody needs.
    pub(crate) fn live_in_segment(&self, segment: u32) -> u64 {
        self.segments.get(&segment).copied().unwrap_or(0)
    }

    /// How many segments somebody needs.
    pub(crate) fn live_segments(&self) -> u64 {
        self.segments.len() as u64
    }

    /// Bytes of all segments that somebody needs.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of segments that have come free since the vault was opened.
    pub(crate) fn vacated_bytes(&self) -> u64 {
        self.vacated_bytes
    }

    /// Bodies that nothing names but somebody reads.
    pub(super) fn retired(&self) -> &[Body] {
        &self.retired
    }

    /// Bytes of a log file that somebody needs for good.
    pub(crate) fn live_in_log(&self, file: u32) -> u64 {
        self.logs.get(&file).copied().unwrap_or(0)
    }

    /// Bytes of all log files that somebody needs for good.
    pub(crate) fn live_in_logs(&self) -> u64 {
        self.logs
            .values()
            .fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Segment, first and last byte of an extent in frames.
    pub(crate) fn place(&self, extent: Extent) -> Option<(u32, u64, u64)> {
        let Extent::Frames {
            incarnation, at, ..
        } = extent
        else {
            return None;
        };
        let segment = self.incarnations.get(&incarnation)?.incarnation.segment;
        let begin = u64::from(at) * BLOCK;
        Some((segment, begin, begin.saturating_add(self.disk_len(extent))))
    }

    fn disk_len(&self, extent: Extent) -> u64 {
        disk_len(self.geometry, extent)
    }
}

fn take_from(geometry: Geometry, share: &mut Share, extents: &[Extent]) {
    for extent in extents {
        let len = disk_len(geometry, *extent);
        match extent {
            Extent::Frames { incarnation, .. } => take_off(&mut share.frames, *incarnation, len),
            Extent::Log { file, .. } => take_off(&mut share.logs, *file, len),
        }
    }
}

fn disk_len(geometry: Geometry, extent: Extent) -> u64 {
    match extent {
        Extent::Frames { len, .. } => geometry.disk_len(len),
        Extent::Log { len, .. } => u64::from(len) + RECORD_OVERHEAD,
    }
}

/// Nothing is kept of nothing.
fn add<N: Copy + Ord>(live: &mut BTreeMap<N, u64>, number: N, len: u64) {
    if len > 0 {
        let bytes = live.entry(number).or_default();
        *bytes = bytes.saturating_add(len);
    }
}

fn take_off<N: Copy + Ord>(live: &mut BTreeMap<N, u64>, number: N, len: u64) {
    if let Some(bytes) = live.get_mut(&number) {
        *bytes = bytes.saturating_sub(len);
        if *bytes == 0 {
            live.remove(&number);
        }
    }
}
