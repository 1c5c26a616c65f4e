//! How many parts are on their way at a time: additive increase, multiplicative decrease (Chiu and
//! Jain, "Analysis of the increase and decrease algorithms", 1989).

use std::num::NonZeroUsize;
use std::sync::Arc;

use longhaul_protocol::uplink::Priority;
use parking_lot::Mutex;

use super::turns::{Gate, Pass};

/// How many may be on their way. Pure.
#[derive(Clone, Debug)]
struct Window {
    limit: f64,
    most: f64,
    /// Counts decreases: what set out before one says nothing about the way since.
    era: u64,
}

impl Window {
    fn new(first: NonZeroUsize, most: NonZeroUsize) -> Self {
        let number = |n: NonZeroUsize| f64::from(u32::try_from(n.get()).unwrap_or(u32::MAX));
        Self {
            limit: number(first).min(number(most)),
            most: number(most),
            era: 0,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between one and the most, which was a whole number"
    )]
    fn room(&self) -> usize {
        self.limit as usize
    }

    /// A part arrived that set out in `era`, while the window was full: one more for each round.
    fn went_well(&mut self, era: u64, was_full: bool) {
        if era == self.era && was_full {
            self.limit = (self.limit + 1.0 / self.limit).min(self.most);
        }
    }

    /// A part that set out in `era` was lost to the way: half as many, once for all that were on
    /// their way together.
    fn congested(&mut self, era: u64) {
        if era == self.era {
            self.limit = (self.limit / 2.0).max(1.0);
            self.era += 1;
        }
    }
}

/// Lets in as many as the way has borne so far.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    window: Arc<Mutex<Window>>,
    gate: Gate,
}

impl Pace {
    /// Begins with `first` at a time, and never lets in more than `most`.
    pub fn new(first: NonZeroUsize, most: NonZeroUsize) -> Self {
        let window = Window::new(first, most);
        Self {
            gate: Gate::new(window.room()),
            window: Arc::new(Mutex::new(window)),
        }
    }

    /// Waits for a turn.
    pub async fn turn(&self, priority: Priority) -> Turn {
        let pass = self.gate.enter(priority).await;
        Turn {
            era: self.window.lock().era,
            full: self.gate.is_full(),
            pace: self.clone(),
            _pass: pass,
        }
    }
}

/// One part's place among those on their way; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    pace: Pace,
    era: u64,
    full: bool,
    _pass: Pass,
}

impl Turn {
    /// The part arrived.
    pub fn went_well(&self) {
        self.learn(|window| window.went_well(self.era, self.full));
    }

    /// The way or the store failed it.
    pub fn congested(&self) {
        self.learn(|window| window.congested(self.era));
    }

    fn learn(&self, from: impl FnOnce(&mut Window)) {
        let room = {
            let mut window = self.pace.window.lock();
            from(&mut window);
            window.room()
        };
        self.pace.gate.set_room(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn count(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    fn limit(window: &Window) -> usize {
        window.room()
    }

    #[test]
    fn a_full_window_grows_by_about_one_a_round_until_its_end() {
        let mut window = Window::new(count(4), count(8));

        let mut rounds = Vec::new();
        for _ in 0..6 {
            for _ in 0..limit(&window) {
                window.went_well(0, true);
            }
            rounds.push(limit(&window));
        }

        assert!(rounds.windows(2).all(|r| r[1] - r[0] <= 1), "{rounds:?}");
        assert!(rounds[0] <= 5 && rounds[5] == 8, "{rounds:?}");
    }

    #[test]
    fn who_does_not_fill_the_window_does_not_widen_it() {
        let mut window = Window::new(count(4), count(8));

        for _ in 0..100 {
            window.went_well(0, false);
        }

        assert_eq!(limit(&window), 4);
    }

    #[test]
    fn one_bad_moment_halves_the_window_once_whoever_was_on_the_way() {
        let mut window = Window::new(count(8), count(16));

        for _ in 0..8 {
            window.congested(0);
        }
        assert_eq!(limit(&window), 4);
        window.went_well(0, true);
        assert_eq!(limit(&window), 4, "it set out before");
        window.congested(1);
        assert_eq!(limit(&window), 2);
    }

    proptest! {
        #[test]
        fn something_is_always_let_in_and_never_more_than_allowed(
            first in 1_usize..40,
            most in 1_usize..40,
            events in prop::collection::vec((any::<bool>(), 0_u64..4, any::<bool>()), 0..400),
        ) {
            let mut window = Window::new(count(first), count(most));
            for (well, age, full) in events {
                let era = window.era.saturating_sub(age);
                if well { window.went_well(era, full) } else { window.congested(era) }
                prop_assert!((1..=most).contains(&limit(&window)), "{window:?}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everybody_gets_a_turn_and_no_more_are_inside_than_allowed() {
        let pace = Pace::new(count(2), count(3));
        let inside = Arc::new(AtomicUsize::new(0));
        let parts = (0..200).map(|n| {
            let (pace, count) = (pace.clone(), Arc::clone(&inside));
            tokio::spawn(async move {
                let turn = pace.turn(Priority::Normal).await;
                let inside = count.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::task::yield_now().await;
                if n % 7 == 0 {
                    turn.congested();
                } else {
                    turn.went_well();
                }
                count.fetch_sub(1, Ordering::SeqCst);
                inside
            })
        });

        for inside in futures::future::join_all(parts).await {
            assert!((1..=3).contains(&inside.expect("no panic")));
        }

        assert!(!pace.gate.is_full());
    }
}
