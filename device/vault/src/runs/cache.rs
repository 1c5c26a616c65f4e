//! Blocks of runs that were read lately, open, in bounded memory.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Bytes of blocks that are kept, at most.
const CAPACITY: usize = 16 << 20;

/// Run and place of a block in it.
type Place = (u32, u64);

/// Two generations: what is not asked for while the young one fills up is dropped with the old one.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: BTreeMap<Place, Arc<[u8]>>,
    old: BTreeMap<Place, Arc<[u8]>>,
    young_bytes: usize,
}

impl Cache {
    pub(super) fn get(&self, place: Place) -> Option<Arc<[u8]>> {
        let mut inner = self.0.lock();
        if let Some(block) = inner.young.get(&place) {
            return Some(Arc::clone(block));
        }
        let block = inner.old.remove(&place)?;
        inner.keep(place, &block);
        Some(block)
    }

    pub(super) fn put(&self, place: Place, block: &Arc<[u8]>) {
        // One list of ten million extents must not push out everything else.
        if block.len() <= CAPACITY / 16 {
            self.0.lock().keep(place, block);
        }
    }

    /// Forgets the blocks of a run that is no more.
    pub(super) fn forget(&self, run: u32) {
        let mut inner = self.0.lock();
        inner.young.retain(|place, _| place.0 != run);
        inner.old.retain(|place, _| place.0 != run);
        inner.young_bytes = inner.young.values().map(|block| block.len()).sum();
    }
}

impl Generations {
    fn keep(&mut self, place: Place, block: &Arc<[u8]>) {
        if self.young_bytes + block.len() > CAPACITY / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(place, Arc::clone(block)).is_none() {
            self.young_bytes += block.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_rest_is_bounded() {
        let cache = Cache::default();
        let block: Arc<[u8]> = vec![0; 64 << 10].into();
        cache.put((1, 0), &block);
        for at in 0..2000 {
            cache.put((2, at), &block);
            assert!(cache.get((1, 0)).is_some());
        }
        let kept = (0..2000).filter(|at| cache.get((2, *at)).is_some()).count();
        assert!(kept * block.len() <= CAPACITY, "{kept}");
        cache.forget(1);
        assert!(cache.get((1, 0)).is_none());
    }
}
