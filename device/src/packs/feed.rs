//! From the connection to the decoder, with a limit on silence and on creeping.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body;
use longhaul_protocol::pack::StopCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Bytes that must arrive within the limit on silence: one byte now and then holds nobody's place.
const CREEP_BYTES: usize = 64 << 10;
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
    pieces: mpsc::Sender<Result<Bytes, Cut>>,
    limit: Duration,
) where
    B: Body<Data = Bytes>,
    B::Error: std::error::Error,
{
    let (mut waited, mut arrived) = (Duration::ZERO, 0);
    loop {
        let began = Instant::now();
        let frame = timeout(limit.saturating_sub(waited), body.frame()).await;
        waited += began.elapsed();
        let piece = match frame {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => data,
                Err(_trailers) => continue,
            },
            Ok(Some(Err(error))) => {
                let reason = crate::cloud::chain(&error);
                let code = StopCode::Malformed;
                let _ = pieces.send(Err(Cut { code, reason })).await;
                return;
            }
            Err(_) => {
                let reason = format!(
                    "less than {CREEP_BYTES} bytes arrived within {} s; send the rest again",
                    limit.as_secs()
                );
                let code = StopCode::Stalled;
                let _ = pieces.send(Err(Cut { code, reason })).await;
                return;
            }
        };
        arrived += piece.len();
        if arrived >= CREEP_BYTES {
            (waited, arrived) = (Duration::ZERO, 0);
        }
        if !piece.is_empty() && pieces.send(Ok(piece)).await.is_err() {
            return drain(body).await;
        }
    }
}

/// Reads away what the client still sends, for a while.
pub(super) async fn drain<B: Body>(mut body: Pin<&mut B>) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(LINGER, rest).await;
}
