//! The promise of a durable result.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::{Condvar, Mutex};

use crate::Error;

/// A result that is there once the operation is durable, or has failed.
///
/// Await it under any runtime, or [`Commit::wait`] in a thread. Dropping it does not undo the
/// operation.
#[must_use = "nothing is durable until the commit has been awaited"]
pub struct Commit<T> {
    shared: Arc<Shared<T>>,
}

/// The other end of a [`Commit`]: gives the result, or [`Error::Closed`] when dropped.
pub(crate) struct Reply<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    slot: Mutex<Slot<T>>,
    filled: Condvar,
}

struct Slot<T> {
    result: Option<Result<T, Error>>,
    waker: Option<Waker>,
    done: bool,
}

impl<T> Commit<T> {
    pub(crate) fn pair() -> (Reply<T>, Self) {
        let slot = Mutex::new(Slot {
            result: None,
            waker: None,
            done: false,
        });
        let shared = Arc::new(Shared {
            slot,
            filled: Condvar::new(),
        });
        (
            Reply {
                shared: Arc::clone(&shared),
            },
            Self { shared },
        )
    }

    /// A result that is known already.
    pub(crate) fn ready(result: Result<T, Error>) -> Self {
        let (reply, commit) = Self::pair();
        reply.send(result);
        commit
    }

    /// Blocks until the operation is durable or has failed.
    ///
    /// # Errors
    ///
    /// Why the operation was not done.
    pub fn wait(self) -> Result<T, Error> {
        let mut slot = self.shared.slot.lock();
        loop {
            if let Some(result) = slot.result.take() {
                return result;
            }
            if slot.done {
                return Err(Error::Closed);
            }
            self.shared.filled.wait(&mut slot);
        }
    }
}

impl<T> Future for Commit<T> {
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.shared.slot.lock();
        if let Some(result) = slot.result.take() {
            return Poll::Ready(result);
        }
        if slot.done {
            return Poll::Ready(Err(Error::Closed));
        }
        slot.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Reply<T> {
    pub(crate) fn send(self, result: Result<T, Error>) {
        self.fill(Some(result));
    }

    fn fill(&self, result: Option<Result<T, Error>>) {
        let mut slot = self.shared.slot.lock();
        if slot.done {
            return;
        }
        slot.done = true;
        slot.result = result;
        self.shared.filled.notify_all();
        if let Some(waker) = slot.waker.take() {
            drop(slot);
            waker.wake();
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.fill(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_is_dropped_says_that_the_vault_is_closed() {
        let (reply, commit) = Commit::<()>::pair();

        drop(reply);

        assert!(matches!(commit.wait(), Err(Error::Closed)));
    }

    #[test]
    fn a_commit_can_be_awaited_or_waited_for() {
        let (reply, commit) = Commit::pair();
        let waiter = std::thread::spawn(move || commit.wait());
        reply.send(Ok(7));
        assert_eq!(waiter.join().expect("no panic").expect("sent"), 7);

        let mut ready = Commit::ready(Ok(8));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            Pin::new(&mut ready).poll(&mut context),
            Poll::Ready(Ok(8))
        ));
    }
}
