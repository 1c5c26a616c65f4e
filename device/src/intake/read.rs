//! A version's bytes as an asynchronous stream, read from the vault chunk by chunk.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use longhaul_vault::{Error, ObjectReader};
use tokio::task::JoinHandle;

/// The bytes of one version. Reads one chunk ahead at most, on a blocking thread, and only when
/// it is polled: a slow peer holds no thread.
pub struct VersionStream {
    state: State,
}

/// The next bytes, and the reader back.
type Chunk = (Box<ObjectReader>, Result<Option<Bytes>, Error>);

enum State {
    Idle(Box<ObjectReader>),
    Reading(JoinHandle<Chunk>),
    Ended,
}

/// Why the bytes ended early.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The vault could not give them.
    #[error("failed to read from the vault")]
    Vault(#[from] Error),
    /// The runtime is stopping.
    #[error("reading was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl VersionStream {
    /// Streams what `reader` has left.
    pub fn new(reader: ObjectReader) -> Self {
        Self {
            state: State::Idle(Box::new(reader)),
        }
    }
}

impl Stream for VersionStream {
    type Item = Result<Bytes, StreamError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Idle(mut reader) => {
                    self.state = State::Reading(tokio::task::spawn_blocking(move || {
                        let chunk = reader.next_chunk();
                        (reader, chunk)
                    }));
                }
                State::Reading(mut task) => {
                    return match Pin::new(&mut task).poll(cx) {
                        Poll::Pending => {
                            self.state = State::Reading(task);
                            Poll::Pending
                        }
                        Poll::Ready(Ok((reader, Ok(Some(chunk))))) => {
                            self.state = State::Idle(reader);
                            Poll::Ready(Some(Ok(chunk)))
                        }
                        Poll::Ready(Ok((_, Ok(None)))) => Poll::Ready(None),
                        Poll::Ready(Ok((_, Err(error)))) => Poll::Ready(Some(Err(error.into()))),
                        Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error.into()))),
                    };
                }
            }
        }
    }
}
