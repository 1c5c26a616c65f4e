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

#[derive(Debug)]
struct Known {
    incarnation: Incarnation,
    /// Bytes that somebody needs.
    live: u64,
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

    pub(super) fn occupy(&mut self, extents: &[Extent]) {
        for extent in extents {
            let len = self.disk_len(*extent);
            match extent {
                Extent::Frames { incarnation, .. } => {
                    if let Some(known) = self.incarnations.get_mut(incarnation) {
                        known.live += len;
                        self.live_bytes += len;
                        *self.segments.entry(known.incarnation.segment).or_default() += len;
                    }
                }
                Extent::Log { file, .. } => *self.logs.entry(*file).or_default() += len,
            }
        }
    }

    fn vacate(&mut self, extents: &[Extent]) {
        for extent in extents {
            let len = self.disk_len(*extent);
            match extent {
                Extent::Frames { incarnation, .. } => {
                    if let Some(known) = self.incarnations.get_mut(incarnation) {
                        known.live = known.live.saturating_sub(len);
                        self.live_bytes = self.live_bytes.saturating_sub(len);
                        self.vacated_bytes += len;
                        take_off(&mut self.segments, known.incarnation.segment, len);
                    }
                }
                Extent::Log { file, .. } => take_off(&mut self.logs, *file, len),
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
        let segment = self.incarnations.get(&incarnation)?.incarnation.segment;
        let begin = u64::from(at) * BLOCK;
        Some((segment, begin, begin.saturating_add(self.disk_len(extent))))
    }

    fn disk_len(&self, extent: Extent) -> u64 {
        match extent {
            Extent::Frames { len, .. } => self.geometry.disk_len(len),
            Extent::Log { len, .. } => u64::from(len) + RECORD_OVERHEAD,
        }
    }
}

fn take_off(live: &mut BTreeMap<u32, u64>, number: u32, len: u64) {
    if let Some(bytes) = live.get_mut(&number) {
        *bytes = bytes.saturating_sub(len);
        if *bytes == 0 {
            live.remove(&number);
        }
    }
}
