//! Which bytes of which file somebody still needs.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    config::{BLOCK, Geometry},
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

/// What a record takes beside the bytes of its object: about this much.
const RECORD_OVERHEAD: u64 = 160;

/// Live bytes per segment and log file.
#[derive(Debug)]
pub(crate) struct Space {
    geometry: Geometry,
    incarnations: BTreeMap<u64, Incarnation>,
    /// Segments with live bytes only.
    segments: BTreeMap<u32, u64>,
    logs: BTreeMap<u32, u64>,
    /// Bodies that nothing names any more but somebody still reads.
    retired: Vec<Body>,
}

impl Space {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            incarnations: BTreeMap::new(),
            segments: BTreeMap::new(),
            logs: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    pub(crate) fn incarnation(&self, id: u64) -> Option<Incarnation> {
        self.incarnations.get(&id).copied()
    }

    pub(super) fn incarnations(&self) -> impl Iterator<Item = (u64, Incarnation)> {
        self.incarnations
            .iter()
            .map(|(id, incarnation)| (*id, *incarnation))
    }

    /// Begins an incarnation; those of the same blocks are over.
    pub(super) fn incarnate(&mut self, id: u64, new: Incarnation) {
        self.incarnations
            .retain(|_, old| old.segment != new.segment || old.base < new.base);
        self.incarnations.insert(id, new);
    }

    /// True if every frame belongs to an incarnation that lasts.
    pub(super) fn knows(&self, extents: &[Extent]) -> bool {
        extents.iter().all(|extent| match extent {
            Extent::Frames { incarnation, .. } => self.incarnations.contains_key(incarnation),
            Extent::Log { .. } => true,
        })
    }

    pub(super) fn occupy(&mut self, extents: &[Extent]) {
        for extent in extents {
            let len = self.disk_len(*extent);
            match self.home_of(*extent) {
                Some(Home::Segment(segment)) => *self.segments.entry(segment).or_default() += len,
                Some(Home::Log(file)) => *self.logs.entry(file).or_default() += len,
                None => {}
            }
        }
    }

    fn vacate(&mut self, extents: &[Extent]) {
        for extent in extents {
            let len = self.disk_len(*extent);
            match self.home_of(*extent) {
                Some(Home::Segment(segment)) => take_off(&mut self.segments, segment, len),
                Some(Home::Log(file)) => take_off(&mut self.logs, file, len),
                None => {}
            }
        }
    }

    /// Nothing names `body` any more: its space is free as soon as nobody reads it.
    pub(super) fn retire(&mut self, body: Body) {
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

    /// Bytes of a log file that somebody needs for good.
    pub(crate) fn live_in_log(&self, file: u32) -> u64 {
        self.logs.get(&file).copied().unwrap_or(0)
    }

    /// Bytes of all log files that somebody needs for good.
    pub(crate) fn live_in_logs(&self) -> u64 {
        self.logs.values().sum()
    }

    /// Segment, first and last byte of an extent in frames.
    pub(crate) fn place(&self, extent: Extent) -> Option<(u32, u64, u64)> {
        let Extent::Frames {
            incarnation, at, ..
        } = extent
        else {
            return None;
        };
        let segment = self.incarnations.get(&incarnation)?.segment;
        let begin = u64::from(at) * BLOCK;
        Some((segment, begin, begin.saturating_add(self.disk_len(extent))))
    }

    fn disk_len(&self, extent: Extent) -> u64 {
        match extent {
            Extent::Frames { len, .. } => self.geometry.disk_len(len),
            Extent::Log { len, .. } => u64::from(len) + RECORD_OVERHEAD,
        }
    }

    fn home_of(&self, extent: Extent) -> Option<Home> {
        match extent {
            Extent::Frames { incarnation, .. } => self
                .incarnations
                .get(&incarnation)
                .map(|i| Home::Segment(i.segment)),
            Extent::Log { file, .. } => Some(Home::Log(file)),
        }
    }
}

enum Home {
    Segment(u32),
    Log(u32),
}

fn take_off(live: &mut BTreeMap<u32, u64>, number: u32, len: u64) {
    if let Some(bytes) = live.get_mut(&number) {
        *bytes = bytes.saturating_sub(len);
        if *bytes == 0 {
            live.remove(&number);
        }
    }
}
