//! A request body over bytes in memory that counts what the network has taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::progress::Progress;

/// Bytes per frame: large enough to be cheap, small enough for a smooth progress bar.
const FRAME_BYTES: usize = 128 * 1024;

/// Sends `bytes`, counting them as moving; they stop moving when the body is dropped.
pub fn counted(bytes: Bytes, progress: Arc<Progress>) -> ByteStream {
    let body = Counted {
        rest: bytes,
        moving: 0,
        progress,
    };
    ByteStream::new(SdkBody::from_body_1_x(body))
}

struct Counted {
    rest: Bytes,
    moving: u64,
    progress: Arc<Progress>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(FRAME_BYTES);
        let frame = self.rest.split_to(length);
        self.moving += length as u64;
        self.progress.bytes_moving(length as u64);
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.progress.bytes_stopped(self.moving);
    }
}
