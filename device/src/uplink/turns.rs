//! Whose turn it is: three priorities that share what there is by weight, so that the urgent
//! overtakes and nobody starves.

use std::collections::VecDeque;
use std::sync::Arc;

use longhaul_protocol::uplink::Priority;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Stride scheduling (Waldspurger and Weihl, "Stride scheduling", 1995). Pure.
#[derive(Clone, Debug, Default)]
pub(super) struct Shares {
    /// When each class is due next, in a time that passes with the turns.
    due: [u64; 3],
    now: u64,
    waiting: [bool; 3],
}

impl Shares {
    /// Gives one of the classes that wait the next turn; `None` if none waits.
    pub fn next(&mut self, waits: [bool; 3]) -> Option<Priority> {
        for (class, priority) in Priority::ALL.into_iter().enumerate() {
            if waits[class] && !self.waiting[class] {
                // Who comes has no claim to the turns before.
                let first = self.now.saturating_add(stride(priority));
                self.due[class] = self.due[class].max(first);
            }
        }
        self.waiting = waits;
        let (class, priority) = Priority::ALL
            .into_iter()
            .enumerate()
            .filter(|(class, _)| waits[*class])
            .min_by_key(|(class, _)| self.due[*class])?;
        self.now = self.due[class];
        self.due[class] = self.now.saturating_add(stride(priority));
        Some(priority)
    }
}

/// Time between two turns of a class that has the most urgent one beside it.
const fn stride(priority: Priority) -> u64 {
    Priority::Urgent.weight() / priority.weight()
}

/// The class's place in an array.
pub(super) const fn class(priority: Priority) -> usize {
    priority as usize
}

#[derive(Debug)]
struct State {
    room: usize,
    inside: usize,
    shares: Shares,
    queues: [VecDeque<oneshot::Sender<Pass>>; 3],
}

/// Lets in as many as there is room for, in the order of arrival within a priority.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Mutex<State>>);

impl Gate {
    /// Room for so many at a time.
    pub fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            room,
            inside: 0,
            shares: Shares::default(),
            queues: <_>::default(),
        })))
    }

    /// Room for so many from now on; who is inside stays.
    pub fn set_room(&self, room: usize) {
        self.0.lock().room = room;
        self.admit();
    }

    /// Whether nobody else would be let in now.
    pub fn is_full(&self) -> bool {
        let state = self.0.lock();
        state.inside >= state.room
    }

    /// Waits to be let in.
    pub async fn enter(&self, priority: Priority) -> Pass {
        let (sender, entered) = oneshot::channel();
        self.0.lock().queues[class(priority)].push_back(sender);
        self.admit();
        match entered.await {
            Ok(pass) => pass,
            // The queue holds the sender until it has sent.
            Err(_) => std::future::pending().await,
        }
    }

    fn admit(&self) {
        loop {
            let sender = {
                let mut state = self.0.lock();
                for queue in &mut state.queues {
                    while queue.front().is_some_and(oneshot::Sender::is_closed) {
                        queue.pop_front();
                    }
                }
                if state.inside >= state.room {
                    return;
                }
                let waits = [0, 1, 2].map(|class: usize| !state.queues[class].is_empty());
                let Some(next) = state.shares.next(waits) else {
                    return;
                };
                let Some(sender) = state.queues[class(next)].pop_front() else {
                    return;
                };
                state.inside += 1;
                sender
            };
            // Who has stopped waiting gives the pass back by dropping it.
            let _ = sender.send(Pass(self.clone()));
        }
    }
}

/// One place inside; ends when dropped.
#[derive(Debug)]
pub(super) struct Pass(Gate);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.0.lock().inside -= 1;
        self.0.admit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(shares: &mut Shares, waits: [bool; 3], count: usize) -> [usize; 3] {
        let mut turns = [0; 3];
        for _ in 0..count {
            turns[class(shares.next(waits).expect("somebody waits"))] += 1;
        }
        turns
    }

    #[test]
    fn who_waits_together_shares_by_weight() {
        let mut shares = Shares::default();

        let [urgent, normal, low] = turns(&mut shares, [true; 3], 730);

        assert!((636..=644).contains(&urgent), "{urgent}");
        assert!((78..=82).contains(&normal), "{normal}");
        assert!((9..=11).contains(&low), "{low}");
    }

    #[test]
    fn the_urgent_overtakes_at_once_however_long_others_were_alone() {
        let mut shares = Shares::default();
        turns(&mut shares, [false, true, true], 10_000);

        let [urgent, ..] = turns(&mut shares, [true; 3], 20);

        assert!(urgent >= 16, "{urgent}");
    }

    proptest! {
        #[test]
        fn nobody_starves_and_nobody_saves_up(
            history in prop::collection::vec((any::<[bool; 3]>(), 1_usize..50), 0..30),
            waits in any::<[bool; 3]>(),
        ) {
            let mut shares = Shares::default();
            for (waits, count) in history {
                if waits.contains(&true) {
                    let turns = turns(&mut shares, waits, count);
                    prop_assert!((0..3).all(|class| waits[class] || turns[class] == 0));
                }
            }
            if waits.contains(&true) {
                let turns = turns(&mut shares, waits, 200);
                prop_assert!((0..3).all(|class| !waits[class] || turns[class] > 0), "{turns:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_urgent_is_let_in_before_those_who_came_earlier() {
        let gate = Gate::new(1);
        let inside = gate.enter(Priority::Normal).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (name, priority) in [
            ("low", Priority::Low),
            ("first", Priority::Normal),
            ("second", Priority::Normal),
            ("urgent", Priority::Urgent),
        ] {
            let (gate, order) = (gate.clone(), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let _pass = gate.enter(priority).await;
                order.lock().push(name);
            }));
            // It waits in line before the next one comes.
            tokio::task::yield_now().await;
        }

        drop(inside);
        futures::future::join_all(waiting).await;

        assert_eq!(*order.lock(), ["urgent", "first", "second", "low"]);
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_nobodys_place() {
        let gate = Gate::new(1);
        let inside = gate.enter(Priority::Normal).await;
        let mut gone = Box::pin(gate.enter(Priority::Urgent));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut let_in = Box::pin(gate.enter(Priority::Urgent));
        assert!(futures::poll!(&mut let_in).is_pending());
        drop(gone);
        drop(inside);
        // This one is let in, and goes without having looked.
        drop(let_in);

        let _pass = gate.enter(Priority::Low).await;

        assert!(gate.is_full());
    }

    #[tokio::test]
    async fn a_gate_without_room_opens_when_it_gets_some() {
        let gate = Gate::new(0);
        let mut waiting = Box::pin(gate.enter(Priority::Normal));
        assert!(futures::poll!(&mut waiting).is_pending());

        gate.set_room(1);

        waiting.await;
    }
}
