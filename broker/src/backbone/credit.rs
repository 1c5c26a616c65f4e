//! Room in the backlog, in bytes.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Reserving;
use crate::incoming::cost;

/// Hands out the room in the backlog; whoever takes a message out gives its room back.
#[derive(Clone, Debug)]
pub struct Bank {
    room: Arc<Semaphore>,
    bytes: usize,
}

/// Room for one message. Dropped unused, it goes back.
#[derive(Debug)]
pub struct Credit(OwnedSemaphorePermit);

impl Bank {
    pub fn new(bytes: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(bytes)),
            bytes,
        }
    }

    pub fn semaphore(&self) -> Arc<Semaphore> {
        Arc::clone(&self.room)
    }

    /// Whether more than a quarter of the room is left.
    pub fn has_spare(&self) -> bool {
        self.room.available_permits() > self.bytes / 4
    }

    pub fn try_reserve(&self, payload_len: usize) -> Option<Credit> {
        let permits = u32::try_from(cost(payload_len)).ok()?;
        let permit = Arc::clone(&self.room)
            .try_acquire_many_owned(permits)
            .ok()?;
        Some(Credit(permit))
    }

    pub fn reserve(&self, payload_len: usize) -> Reserving {
        let semaphore = Arc::clone(&self.room);
        Box::pin(async move {
            let permits = u32::try_from(cost(payload_len)).ok()?;
            let permit = semaphore.acquire_many_owned(permits).await.ok()?;
            Some(Credit(permit))
        })
    }

    /// Ends every wait for room and every later one.
    pub fn close(&self) {
        self.room.close();
    }
}

impl Credit {
    /// Leaves the room taken; it is given back when the message is taken out.
    pub fn spend(self) {
        self.0.forget();
    }
}
