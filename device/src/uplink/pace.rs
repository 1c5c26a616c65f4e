//! How many parts are on their way at a time: additive increase, multiplicative decrease (Chiu and
//! Jain, "Analysis of the increase and decrease algorithms", 1989).

use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

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

    fn admits(&self, inside: usize) -> bool {
        f64::from(u32::try_from(inside).unwrap_or(u32::MAX)) < self.limit.floor()
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

#[derive(Debug)]
struct State {
    window: Window,
    inside: usize,
}

/// Lets in as many as the way has borne so far.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    left: Notify,
}

impl Pace {
    /// Begins with `first` at a time, and never lets in more than `most`.
    pub fn new(first: NonZeroUsize, most: NonZeroUsize) -> Self {
        let window = Window::new(first, most);
        Self(Arc::new(Shared {
            state: Mutex::new(State { window, inside: 0 }),
            left: Notify::new(),
        }))
    }

    /// Waits for a turn.
    pub async fn turn(&self) -> Turn {
        loop {
            let mut left = pin!(self.0.left.notified());
            // Registered before looking, so that nobody leaves unnoticed in between.
            left.as_mut().enable();
            {
                let mut state = self.0.state.lock();
                if state.window.admits(state.inside) {
                    state.inside += 1;
                    let full = !state.window.admits(state.inside);
                    return Turn {
                        shared: Arc::clone(&self.0),
                        era: state.window.era,
                        full,
                    };
                }
            }
            left.await;
        }
    }
}

/// One part's place among those on their way; ends when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    shared: Arc<Shared>,
    era: u64,
    full: bool,
}

impl Turn {
    /// The part arrived.
    pub fn went_well(&self) {
        let mut state = self.shared.state.lock();
        state.window.went_well(self.era, self.full);
    }

    /// The way or the store failed it.
    pub fn congested(&self) {
        self.shared.state.lock().window.congested(self.era);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.shared.state.lock().inside -= 1;
        self.shared.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn count(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }

    fn limit(window: &Window) -> usize {
        (0..1000).take_while(|&n| window.admits(n)).count()
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
        let parts = (0..200).map(|n| {
            let pace = pace.clone();
            tokio::spawn(async move {
                let turn = pace.turn().await;
                let inside = pace.0.state.lock().inside;
                tokio::task::yield_now().await;
                if n % 7 == 0 {
                    turn.congested();
                } else {
                    turn.went_well();
                }
                inside
            })
        });

        for inside in futures::future::join_all(parts).await {
            assert!((1..=3).contains(&inside.expect("no panic")));
        }

        assert_eq!(pace.0.state.lock().inside, 0);
    }
}
