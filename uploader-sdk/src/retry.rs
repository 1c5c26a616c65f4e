//! Requests that are sent again until the box answers or our patience ends.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, Instant};

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::advice;
use crate::progress::Progress;

/// First pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Why a request failed for good.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}{}", advice::sentence(self.code.as_deref(), self.status))]
#[non_exhaustive]
pub struct S3Error {
    /// The HTTP status; `None` where no answer came.
    pub status: Option<u16>,
    /// The S3 error code, such as `AccessDenied`.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
    transient: bool,
    retry_after: Option<Duration>,
}

impl S3Error {
    /// No answer within the time that was allowed.
    pub(crate) fn timeout(allowed: Duration) -> Self {
        Self {
            status: None,
            code: None,
            message: format!("no answer within {} s", allowed.as_secs()),
            transient: true,
            retry_after: None,
        }
    }

    /// The box answered something that S3 does not.
    pub(crate) fn malformed(what: &str) -> Self {
        Self {
            status: None,
            code: None,
            message: format!("the answer has no {what}"),
            transient: false,
            retry_after: None,
        }
    }

    /// The connection broke in the middle of an answer.
    pub(crate) fn broken(why: String) -> Self {
        Self {
            status: None,
            code: None,
            message: why,
            transient: true,
            retry_after: None,
        }
    }

    /// The box answered this, in words of S3.
    pub(crate) fn answered(status: u16, code: &str, message: &str) -> Self {
        Self {
            status: Some(status),
            code: Some(code.to_owned()),
            message: format!("the box answers {code}: {message}"),
            transient: advice::transient(Some(code), Some(status)),
            retry_after: None,
        }
    }

    /// Whether every other request would fail in the same way: the ticket or the box is at fault,
    /// not the object. A passing failure that outlasted our patience is the box's, too.
    pub fn ends_everything(&self) -> bool {
        self.transient || advice::ends_everything(self.code.as_deref(), self.status)
    }

    /// Whether the box may answer differently later, without anybody doing anything: it is busy,
    /// restarting, out of reach, or full until it has delivered.
    pub(crate) fn may_pass(&self) -> bool {
        self.transient || matches!(self.status, None | Some(507 | 503))
    }

    /// Whether the box does not know the ticket's key pair.
    pub(crate) fn is_unknown_ticket(&self) -> bool {
        self.code.as_deref() == Some("InvalidAccessKeyId")
    }

    /// The same, for the caller knows whether it passes.
    pub(crate) fn passing_if(mut self, passes: bool) -> Self {
        self.transient = passes;
        self
    }

    /// Whether the thing that was asked for does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }
}

impl<E> From<SdkError<E>> for S3Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        let response = error.raw_response();
        let status = response.map(|r| r.status().as_u16());
        let retry_after = response
            .and_then(|r| r.headers().get("retry-after"))
            .and_then(|seconds| seconds.parse().ok())
            .map(|seconds: u64| Duration::from_secs(seconds.min(60)));
        let code = error.code().map(str::to_owned);
        let transient = match &error {
            SdkError::ConstructionFailure(_) => false,
            SdkError::DispatchFailure(_)
            | SdkError::TimeoutError(_)
            | SdkError::ResponseError(_) => true,
            _ => advice::transient(code.as_deref(), status),
        };
        let message = match (&code, error.message(), status) {
            (Some(code), Some(message), _) => format!("the box answers {code}: {message}"),
            (Some(code), None, _) => format!("the box answers {code}"),
            (None, _, Some(status)) if !(200..300).contains(&status) => {
                format!("the box answers HTTP {status}")
            }
            _ => advice::chain(&error),
        };
        Self {
            status,
            code,
            message,
            transient,
            retry_after,
        }
    }
}

/// How long to keep trying.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest time without one answer that helps.
    pub total: Duration,
    /// Longest time for one try.
    pub attempt: Duration,
}

impl Patience {
    /// Enough time for one try that carries `bytes` over a slow LAN (256 KiB/s).
    pub fn for_bytes(total: Duration, bytes: u64) -> Self {
        Self {
            total,
            attempt: Duration::from_secs(60 + bytes / (256 * 1024)),
        }
    }
}

/// Runs `request` until it succeeds, fails for good, or `patience` ends.
///
/// # Errors
///
/// The last [`S3Error`].
pub async fn persist<T, F>(
    patience: Patience,
    progress: &Progress,
    mut request: impl FnMut() -> F,
) -> Result<T, S3Error>
where
    F: Future<Output = Result<T, S3Error>>,
{
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match tokio::time::timeout(patience.attempt, request()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => S3Error::timeout(patience.attempt),
        };
        if !error.transient || began.elapsed() + pause > patience.total {
            return Err(error);
        }
        progress.retried();
        tracing::debug!(%error, ?pause, "trying again");
        tokio::time::sleep(error.retry_after.unwrap_or_else(|| jittered(pause))).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The pauses between tries of something that makes progress now and then.
pub(crate) struct Pauses {
    patience: Patience,
    since: Instant,
    next: Duration,
}

impl Pauses {
    /// Pauses until `patience` has ended without progress.
    pub(crate) fn new(patience: Patience) -> Self {
        Self {
            patience,
            since: Instant::now(),
            next: FIRST_PAUSE,
        }
    }

    /// There was progress.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.patience);
    }

    /// How long to wait after `error`; `None` if trying again is of no use.
    pub(crate) fn after(&mut self, error: &S3Error) -> Option<Duration> {
        if !error.transient || self.since.elapsed() + self.next > self.patience.total {
            return None;
        }
        let pause = error.retry_after.unwrap_or_else(|| jittered(self.next));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// Between half of `pause` and all of it, so that many requests do not return in step.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 512;
    pause / 2 + pause / 1024 * u32::try_from(random).unwrap_or(0)
}
