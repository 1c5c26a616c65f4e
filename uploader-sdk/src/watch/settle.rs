//! Which files have come to rest: pure, time is an argument.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::source::Stamp;

/// Files that were touched and are being waited for.
#[derive(Debug)]
pub struct Settling {
    quiet: Duration,
    waiting: BTreeMap<PathBuf, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    stamp: Stamp,
    /// When it counts as settled, if nothing happens until then.
    at: Instant,
}

impl Settling {
    /// Nothing is waited for yet; a file must hold still for `quiet`.
    pub fn new(quiet: Duration) -> Self {
        Self {
            quiet,
            waiting: BTreeMap::new(),
        }
    }

    /// Something happened to a file, which is now as `stamp` says.
    pub fn touched(&mut self, path: PathBuf, stamp: Stamp, now: Instant) {
        let at = now + self.quiet;
        self.waiting.insert(path, Waiting { stamp, at });
    }

    /// A file was found that was modified `age` ago.
    pub fn found(&mut self, path: PathBuf, stamp: Stamp, age: Duration, now: Instant) {
        let at = now + self.quiet.saturating_sub(age);
        self.waiting.entry(path).or_insert(Waiting { stamp, at });
    }

    /// A file is to be tried again, whatever it looks like.
    pub fn again(&mut self, path: PathBuf, stamp: Stamp, after: Duration, now: Instant) {
        let at = now + after;
        self.waiting.insert(path, Waiting { stamp, at });
    }

    /// When the next file may have settled.
    pub fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|w| w.at).min()
    }

    /// Takes the files whose time has come and that `look` finds as they were, `most` at the most.
    /// One that changed without a word waits anew; one that is gone is forgotten.
    pub fn settled(
        &mut self,
        now: Instant,
        most: usize,
        mut look: impl FnMut(&Path) -> Option<Stamp>,
    ) -> Vec<PathBuf> {
        let due: Vec<PathBuf> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.at <= now)
            .map(|(path, _)| path.clone())
            .take(most)
            .collect();
        let mut settled = Vec::new();
        for path in due {
            let Some(waiting) = self.waiting.remove(&path) else {
                continue;
            };
            match look(&path) {
                Some(stamp) if stamp == waiting.stamp => settled.push(path),
                Some(stamp) => self.touched(path, stamp, now),
                None => {}
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    fn stamp(size: u64) -> Stamp {
        Stamp { size, mtime_ns: 1 }
    }

    #[test]
    fn a_file_settles_when_nothing_happened_for_the_quiet_time() {
        let begin = Instant::now();
        let mut settling = Settling::new(QUIET);
        settling.touched("f".into(), stamp(1), begin);
        settling.touched("f".into(), stamp(2), begin + Duration::from_secs(1));

        let early = settling.settled(begin + QUIET, 10, |_| Some(stamp(2)));
        assert!(early.is_empty());
        assert_eq!(settling.next(), Some(begin + Duration::from_secs(3)));

        let late = settling.settled(begin + Duration::from_secs(3), 10, |_| Some(stamp(2)));
        assert_eq!(late, [PathBuf::from("f")]);
        assert_eq!(settling.next(), None);
    }

    #[test]
    fn a_file_that_grows_without_an_event_waits_on_and_one_that_is_gone_is_forgotten() {
        let begin = Instant::now();
        let mut settling = Settling::new(QUIET);
        settling.touched("grows".into(), stamp(1), begin);
        settling.touched("gone".into(), stamp(1), begin);
        let look = |path: &Path| (path == Path::new("grows")).then_some(stamp(2));

        assert!(settling.settled(begin + QUIET, 10, look).is_empty());
        let then = settling.settled(begin + QUIET + QUIET, 10, look);

        assert_eq!(then, [PathBuf::from("grows")]);
        assert_eq!(settling.next(), None);
    }

    #[test]
    fn old_files_are_settled_at_once_and_never_more_than_asked_for() {
        let begin = Instant::now();
        let mut settling = Settling::new(QUIET);
        for name in ["a", "b", "c"] {
            settling.found(name.into(), stamp(1), Duration::from_mins(1), begin);
        }
        settling.found("young".into(), stamp(1), Duration::from_secs(1), begin);

        let settled = settling.settled(begin, 2, |_| Some(stamp(1)));

        assert_eq!(settled, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(settling.settled(begin, 9, |_| Some(stamp(1))).len(), 1);
        assert_eq!(settling.next(), Some(begin + Duration::from_secs(1)));
    }
}
