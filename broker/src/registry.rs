//! The live connections, at most one for each box.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use longhaul_protocol::ids::BoxId;
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard};

use crate::mailbox::Mailbox;
use crate::reason::Reason;

/// Who is connected, and how to reach them.
#[derive(Debug)]
pub struct Registry {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    boxes: HashMap<BoxId, Entry>,
}

/// One box's connections: the newest, and the order in which they follow each other.
#[derive(Debug)]
struct Entry {
    newest: Arc<Handle>,
    /// Held by a connection until the will of its session is on its way, so that the birth of the
    /// next session comes after it. Fair: connections take it in the order in which they entered.
    turn: Arc<Turn<()>>,
    /// Connections that have not given up their seat.
    seats: usize,
}

/// One connection, as others see it.
#[derive(Debug)]
pub struct Handle {
    pub mailbox: Mailbox,
    since: Instant,
    live: AtomicBool,
    closing: Mutex<Option<Reason>>,
    close: Notify,
}

/// A connection's place in the registry; dropping it gives the place up.
#[derive(Debug)]
pub struct Seat {
    registry: Arc<Registry>,
    box_id: BoxId,
    handle: Arc<Handle>,
    turn: Arc<Turn<()>>,
    held: Option<OwnedMutexGuard<()>>,
}

/// Why a connection gets no seat.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no room for another session")]
pub struct Full;

impl Registry {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            state: Mutex::default(),
        }
    }

    /// Enters a connection; an older one of the same box is told that it is taken over.
    pub fn enter(self: &Arc<Self>, box_id: &BoxId, mailbox: Mailbox) -> Result<Seat, Full> {
        let handle = Arc::new(Handle {
            mailbox,
            since: Instant::now(),
            live: AtomicBool::new(false),
            closing: Mutex::new(None),
            close: Notify::new(),
        });
        let mut state = self.state.lock();
        if state.closed {
            return Err(Full);
        }
        let has_room = state.boxes.len() < self.limit;
        let turn = match state.boxes.get_mut(box_id) {
            Some(entry) => {
                entry.newest.end(Reason::SessionTakenOver);
                entry.newest = Arc::clone(&handle);
                entry.seats += 1;
                Arc::clone(&entry.turn)
            }
            None if has_room => {
                let turn = Arc::new(Turn::new(()));
                let entry = Entry {
                    newest: Arc::clone(&handle),
                    turn: Arc::clone(&turn),
                    seats: 1,
                };
                state.boxes.insert(box_id.clone(), entry);
                turn
            }
            None => return Err(Full),
        };
        drop(state);
        Ok(Seat {
            registry: Arc::clone(self),
            box_id: box_id.clone(),
            handle,
            turn,
            held: None,
        })
    }

    pub fn get(&self, box_id: &BoxId) -> Option<Arc<Handle>> {
        let state = self.state.lock();
        state.boxes.get(box_id).map(|e| Arc::clone(&e.newest))
    }

    /// The boxes whose CONNECT was accepted and that have not left, in no order.
    pub fn connected(&self) -> Vec<BoxId> {
        let state = self.state.lock();
        let live = state.boxes.iter().filter(|(_, e)| e.newest.is_live());
        live.map(|(box_id, _)| box_id.clone()).collect()
    }

    /// Those of them that came in so long ago.
    pub fn connected_for(&self, time: Duration) -> Vec<BoxId> {
        let state = self.state.lock();
        let old = |e: &Entry| e.newest.is_live() && e.newest.since.elapsed() >= time;
        let boxes = state.boxes.iter().filter(|(_, e)| old(e));
        boxes.map(|(box_id, _)| box_id.clone()).collect()
    }

    pub fn connected_count(&self) -> usize {
        let state = self.state.lock();
        state.boxes.values().filter(|e| e.newest.is_live()).count()
    }

    /// Ends every connection and lets no other in.
    pub fn close(&self, reason: Reason) {
        let mut state = self.state.lock();
        state.closed = true;
        for entry in state.boxes.values() {
            entry.newest.end(reason);
        }
    }
}

impl Handle {
    /// Asks the connection to end; the first reason stands. Returns whether it was live.
    pub fn end(&self, reason: Reason) -> bool {
        let mut closing = self.closing.lock();
        closing.get_or_insert(reason);
        let was_live = self.live.swap(false, Ordering::AcqRel);
        drop(closing);
        self.close.notify_one();
        was_live
    }

    /// Waits until the connection is asked to end.
    pub async fn ended(&self) -> Reason {
        loop {
            if let Some(reason) = self.ending() {
                return reason;
            }
            self.close.notified().await;
        }
    }

    /// Why the connection is to end, if it is.
    pub fn ending(&self) -> Option<Reason> {
        *self.closing.lock()
    }

    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }
}

impl Seat {
    pub fn handle(&self) -> &Arc<Handle> {
        &self.handle
    }

    /// Waits until the older connections of this box have ended and their wills are on their way.
    pub async fn wait_for_turn(&mut self) {
        self.held = Some(Arc::clone(&self.turn).lock_owned().await);
    }

    /// Counts the connection as live from here on, unless it was already asked to end.
    pub fn go_live(&self) -> Result<(), Reason> {
        let closing = self.handle.closing.lock();
        if let Some(reason) = *closing {
            return Err(reason);
        }
        self.handle.live.store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.handle.live.store(false, Ordering::Release);
        self.handle.mailbox.close();
        self.held = None;
        let mut state = self.registry.state.lock();
        if let Some(entry) = state.boxes.get_mut(&self.box_id) {
            entry.seats -= 1;
            if entry.seats == 0 {
                state.boxes.remove(&self.box_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::Limits;

    fn mailbox() -> Mailbox {
        Mailbox::new(Limits {
            messages: 1,
            bytes: 1,
            payload_bytes: 1,
        })
    }

    fn box_id(text: &str) -> BoxId {
        text.parse().expect("a box id")
    }

    #[tokio::test]
    async fn a_newer_connection_waits_for_the_older_to_leave() {
        let registry = Arc::new(Registry::new(1));
        let id = box_id("0123456789AB");
        let mut older = registry.enter(&id, mailbox()).expect("room");
        older.wait_for_turn().await;
        older.go_live().expect("not ended");

        let mut newer = registry.enter(&id, mailbox()).expect("a takeover");

        assert_eq!(older.handle().ended().await, Reason::SessionTakenOver);
        assert_eq!(older.go_live(), Err(Reason::SessionTakenOver));
        let turn = async {
            newer.wait_for_turn().await;
            newer
        };
        tokio::pin!(turn);
        tokio::select! {
            biased;
            _ = &mut turn => panic!("the older connection still holds the turn"),
            () = std::future::ready(()) => {}
        }
        drop(older);
        let newer = turn.await;
        newer.go_live().expect("not ended");
        assert_eq!(registry.connected(), [id]);
    }

    #[tokio::test]
    async fn no_entry_outlives_its_last_seat_in_whatever_order_they_leave() {
        let registry = Arc::new(Registry::new(1));
        let id = box_id("0123456789AB");
        let first = registry.enter(&id, mailbox()).expect("room");
        let second = registry.enter(&id, mailbox()).expect("a takeover");
        assert_eq!(
            registry.enter(&box_id("ZZZZZZZZZZZZ"), mailbox()).err(),
            Some(Full)
        );

        drop(second);
        assert!(registry.get(&id).is_some(), "the first has not left");
        drop(first);

        assert!(registry.get(&id).is_none());
        registry.close(Reason::ServerShuttingDown);
        assert_eq!(registry.enter(&id, mailbox()).err(), Some(Full));
    }
}
