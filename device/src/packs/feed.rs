//! From the connection to the decoder, with a limit on silence and on creeping.
//!
//! What has arrived is handed over together: a thread is woken for each handful, which costs more
//! than decoding a short piece.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use longhaul_protocol::pack::StopCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Bytes that must arrive within the limit on silence: one byte now and then holds nobody's place.
const CREEP_BYTES: usize = 64 << 10;
/// Bytes and pieces of a handful: one of them is exceeded by less than a piece, which is 64 KiB long
/// at the most.
const HANDFUL_BYTES: usize = 192 << 10;
const HANDFUL_PIECES: usize = 64;
/// How long what a client still sends is read away after the last line, so that it can read that
/// line before the connection ends.
const LINGER: Duration = Duration::from_secs(5);

/// Why a stream ended before its pack did.
#[derive(Debug)]
pub(super) struct Cut {
    pub code: StopCode,
    pub reason: String,
}

/// Hands over what arrives until the body or the decoder ends, then reads away the rest.
///
/// Only time spent waiting for the client counts: a slow disk here is not its fault.
pub(super) async fn feed<B>(
    mut body: Pin<&mut B>,
    handfuls: mpsc::Sender<Result<Vec<Bytes>, Cut>>,
    limit: Duration,
) where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error,
{
    let (mut waited, mut arrived) = (Duration::ZERO, 0);
    loop {
        let began = Instant::now();
        let gathered = timeout(limit.saturating_sub(waited), gather(body.as_mut())).await;
        waited += began.elapsed();
        let Ok((pieces, rest)) = gathered else {
            let reason = format!(
                "less than {CREEP_BYTES} bytes arrived within {} s; send the rest again",
                limit.as_secs()
            );
            let code = StopCode::Stalled;
            let _ = handfuls.send(Err(Cut { code, reason })).await;
            return;
        };
        arrived += pieces.iter().map(Bytes::len).sum::<usize>();
        if arrived >= CREEP_BYTES {
            (waited, arrived) = (Duration::ZERO, 0);
        }
        if !pieces.is_empty() && handfuls.send(Ok(pieces)).await.is_err() {
            return drain(body).await;
        }
        match rest {
            Ok(()) => {}
            Err(Ended::Well) => return,
            Err(Ended::Broken(error)) => {
                let reason = crate::cloud::chain(&error);
                let code = StopCode::Malformed;
                let _ = handfuls.send(Err(Cut { code, reason })).await;
                return;
            }
        }
    }
}

/// How a body ended.
enum Ended<E> {
    Well,
    Broken(E),
}

/// The next pieces: those that are here, or come without being waited for.
async fn gather<B>(mut body: Pin<&mut B>) -> (Vec<Bytes>, Result<(), Ended<B::Error>>)
where
    B: Body<Data = Bytes>,
{
    let (mut pieces, mut bytes, mut looked) = (Vec::new(), 0, false);
    let rest = std::future::poll_fn(|context| {
        while bytes < HANDFUL_BYTES && pieces.len() < HANDFUL_PIECES {
            match body.as_mut().poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    looked = false;
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        bytes += data.len();
                        pieces.push(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(Ended::Broken(error))),
                Poll::Ready(None) => return Poll::Ready(Err(Ended::Well)),
                Poll::Pending if pieces.is_empty() => return Poll::Pending,
                Poll::Pending if looked => break,
                Poll::Pending => {
                    // This task also reads the connection: once around, and more may be here.
                    looked = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await;
    (pieces, rest)
}

/// Reads away what the client still sends, for a while.
pub(super) async fn drain<B: Body>(mut body: Pin<&mut B>) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(LINGER, rest).await;
}
