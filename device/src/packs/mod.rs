//! Packs on the LAN: many small files in one streaming request, beside S3 on the same port.
//!
//! Data moves one way: `body -> feed -> decoder -> vault -> lines`. Decoder and vault run on one
//! thread of the blocking pool for each pack; everything else is part of the answer's body, so a
//! connection that ends takes all of it along. Each queue in between is bounded: a client that
//! reads no results is not read either.
//!
//! A line that says `stored` is sent only after bytes and record are durable. Nothing is
//! remembered about a pack: a client that was cut off sends the entries that were not answered once
//! more, and what had become durable without an answer is recognised by its content.

mod entries;
mod feed;
mod lines;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::future::BoxFuture;
use http::{HeaderValue, Response, header};
use http_body_util::StreamBody;
use hyper::body::{Body as HttpBody, Frame};
use longhaul_protocol::pack::{LINES_TYPE, StopCode};
use longhaul_vault::{JobId, Vault};
use s3s::Body;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::intake::Arrivals;
use crate::intake::spellings::Spellings;
use entries::{Entries, Place, Told};

/// Handfuls of pieces between the connection and the decoder; see [`feed`].
const HANDFULS: usize = 3;
/// Entries of one pack that wait for their durability. Those that lie in memory meanwhile are
/// 32 KiB long at the most: 16 MiB for each pack.
const IN_FLIGHT: usize = 512;
/// Results that are told at a time, at the most.
const TOLD_AT_ONCE: usize = 32;
/// Packs that are taken at a time; more wait for their turn.
const PACKS_AT_ONCE: usize = 8;
/// Pieces of the answer that wait for the client.
const ANSWERS: usize = 4;

/// Takes packs into the vault; clones share one limit.
#[derive(Clone)]
pub(crate) struct PackIntake {
    vault: Vault,
    arrivals: Arrivals,
    spellings: Spellings,
    stall_limit: Duration,
    slots: Arc<Semaphore>,
}

impl PackIntake {
    /// An intake into `vault` that gives a stream up when it stands still for `stall_limit`.
    pub fn new(
        vault: Vault,
        arrivals: Arrivals,
        spellings: Spellings,
        stall_limit: Duration,
    ) -> Self {
        Self {
            vault,
            arrivals,
            spellings,
            stall_limit,
            slots: Arc::new(Semaphore::new(PACKS_AT_ONCE)),
        }
    }

    /// Answers a pack for `job`, put under the ticket called `ticket`.
    pub fn answer<B>(&self, job: JobId, ticket: String, body: B) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send,
    {
        let (told, lines) = mpsc::channel(ANSWERS);
        let answer = Answer {
            driver: Some(Box::pin(self.clone().take(job, ticket, body, told))),
            lines,
        };
        let mut response = Response::new(Body::http_body_unsync(StreamBody::new(answer)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(LINES_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn take<B>(self, job: JobId, ticket: String, body: B, answers: mpsc::Sender<Bytes>)
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send,
    {
        let mut body = Box::pin(body);
        let slot = timeout(self.stall_limit / 2, self.slots.acquire()).await;
        let Ok(Ok(_slot)) = slot else {
            let reason = format!("{PACKS_AT_ONCE} packs are being taken; send it again");
            lines::stop(&answers, StopCode::SlowDown, reason).await;
            return feed::drain(body.as_mut()).await;
        };
        let (pieces, arriving) = mpsc::channel(HANDFULS);
        let (tell, told) = mpsc::channel::<Vec<Told>>(IN_FLIGHT / TOLD_AT_ONCE);
        let place = Place {
            vault: self.vault.clone(),
            job: job.clone(),
            ticket,
            spellings: self.spellings.clone(),
        };
        let entries = Entries::new(place, tell);
        let worker = spawn_blocking(move || entries.take(arriving));
        tokio::join!(
            feed::feed(body.as_mut(), pieces, self.stall_limit),
            lines::write(told, answers, &self.arrivals, (&self.vault, &job)),
        );
        // Its results have all been told, or nobody listens any more.
        if let Err(error) = worker.await
            && error.is_panic()
        {
            tracing::error!(%error, "a pack was not taken to its end");
        }
    }
}

/// The answer's body: polling it is what takes the pack.
struct Answer {
    driver: Option<BoxFuture<'static, ()>>,
    lines: mpsc::Receiver<Bytes>,
}

impl Stream for Answer {
    type Item = Result<Frame<Bytes>, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(driver) = &mut self.driver
            && driver.as_mut().poll(cx).is_ready()
        {
            self.driver = None;
        }
        match self.lines.poll_recv(cx) {
            Poll::Ready(Some(lines)) => Poll::Ready(Some(Ok(Frame::data(lines)))),
            Poll::Ready(None) if self.driver.is_none() => Poll::Ready(None),
            // The last line is told; what the client still sends is read away first.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
