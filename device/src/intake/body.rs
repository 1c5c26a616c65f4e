//! A request's body on its way into the vault: bounded memory, hashed and written off the runtime.

use bytes::Bytes;
use futures::StreamExt as _;
use longhaul_vault::{Error as VaultError, ObjectWriter, PartWriter};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3Result, s3_error};
use tokio::task::{JoinHandle, spawn_blocking};

use super::checksum::Hasher;
use super::error::{from_vault, interrupted};

/// Bytes gathered before they are written: one hop to a blocking thread for each.
const GATHER: usize = 512 << 10;
/// Pieces gathered at the most: short ones hold more memory than their bytes.
const PIECES: usize = 128;

/// Something that takes bytes.
pub(super) trait Sink: Send + 'static {
    /// Up to this many bytes are written where they are: the hop would cost more than the write.
    const INLINE: usize = 16 << 10;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault>;
}

impl Sink for ObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Ok(Self::write(self, bytes)?)
    }
}

impl Sink for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        Ok(Self::write(self, bytes)?)
    }
}

/// Why bytes were not taken.
pub(super) enum Fault {
    /// The vault did not take them.
    Vault(VaultError),
    /// They are not what they should be.
    Refused(S3Error),
}

impl From<VaultError> for Fault {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl Fault {
    /// The same as an S3 error about `what`.
    pub fn about(self, what: &str) -> S3Error {
        match self {
            Self::Vault(error) => from_vault(&error, what),
            Self::Refused(error) => error,
        }
    }
}

/// Where bytes go: into the vault and through the client's checksums, in one pass.
pub(super) struct Lane<S> {
    pub sink: S,
    pub hasher: Hasher,
}

impl<S: Sink> Lane<S> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.hasher.update(bytes);
        self.sink.write(bytes)
    }

    fn take_all(&mut self, gathered: &Gathered) -> Result<(), Fault> {
        gathered
            .pieces
            .iter()
            .try_for_each(|piece| self.take(piece))
    }

    fn hand_over(mut self: Box<Self>, gathered: Gathered) -> JoinHandle<Result<Box<Self>, Fault>> {
        spawn_blocking(move || self.take_all(&gathered).map(|()| self))
    }
}

/// What has arrived, as it came: the vault puts it together where it goes.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Gathered {
    /// Takes a piece, and gives away everything once it is enough.
    fn add(&mut self, piece: Bytes) -> Option<Self> {
        self.bytes += piece.len();
        self.pieces.push(piece);
        (self.bytes >= GATHER || self.pieces.len() >= PIECES).then(|| std::mem::take(self))
    }
}

enum Place<S> {
    Here(Box<Lane<S>>),
    Writing(JoinHandle<Result<Box<Lane<S>>, Fault>>),
}

impl<S: Sink> Place<S> {
    async fn back(self, what: &str) -> S3Result<Box<Lane<S>>> {
        match self {
            Self::Here(lane) => Ok(lane),
            Self::Writing(task) => task
                .await
                .map_err(|error| interrupted(&error))?
                .map_err(|fault| fault.about(what)),
        }
    }
}

/// Moves the whole body through `lane`; while one piece is written the next one arrives.
///
/// `length` is what the client promised; `what` names the object in errors.
pub(super) async fn receive<S: Sink>(
    body: Option<StreamingBlob>,
    lane: Lane<S>,
    length: Option<i64>,
    what: &str,
) -> S3Result<Lane<S>> {
    let mut place = Place::Here(Box::new(lane));
    let mut gathered = Gathered::default();
    let mut total: u64 = 0;
    let mut body = body;
    while let Some(chunk) = match &mut body {
        Some(body) => body.next().await,
        None => None,
    } {
        let chunk = chunk.map_err(|error| body_error(error.as_ref(), what))?;
        total += chunk.len() as u64;
        if chunk.is_empty() {
            continue;
        }
        if let Some(enough) = gathered.add(chunk) {
            let lane = place.back(what).await?;
            place = Place::Writing(lane.hand_over(enough));
        }
    }
    if let Some(expected) = length
        && u64::try_from(expected) != Ok(total)
    {
        return Err(s3_error!(
            IncompleteBody,
            "{what}: {total} bytes arrived, the client promised {expected}; nothing was stored, send it again"
        ));
    }
    let mut lane = place.back(what).await?;
    if gathered.bytes <= S::INLINE {
        lane.take_all(&gathered)
            .map_err(|fault| fault.about(what))?;
        return Ok(*lane);
    }
    let written = Place::Writing(lane.hand_over(gathered));
    Ok(*written.back(what).await?)
}

/// Why a body ended early, as the client should know it.
///
/// s3s keeps the types of its stream errors to itself; their names are all that can be told apart.
fn body_error(error: &(dyn std::error::Error + Send + Sync + 'static), what: &str) -> S3Error {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    if text.contains("Sha256Mismatch") {
        let mut refused = S3Error::with_message(
            s3s::S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            format!(
                "{what}: the SHA-256 of the bytes that arrived is not the signed one; nothing was stored, send it again"
            ),
        );
        refused.set_status_code(http::StatusCode::BAD_REQUEST);
        return refused;
    }
    if text.contains("SignatureMismatch") {
        return s3_error!(
            SignatureDoesNotMatch,
            "{what}: a chunk's signature is wrong; nothing was stored, send it again"
        );
    }
    if text.contains(super::limits::STALLED) {
        return s3_error!(
            RequestTimeout,
            "{what}: the body stopped arriving; nothing was stored, send it again"
        );
    }
    s3_error!(
        IncompleteBody,
        "{what}: the body ended early ({text}); nothing was stored, send it again"
    )
}
