//! One object: its ranges, several at once, and the proof that they are the box's.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt as _};
use longhaul_protocol::value::Digest32;
use tokio::task::spawn_blocking;

use super::part_file::{PartFile, blake3_of};
use super::{GetOutcome, Getter, GotFile, VerifiedBy, Wanted, place};
use crate::advice;
use crate::push::SendError;
use crate::remote::{self, Held};
use crate::retry::{Patience, S3Error, persist};
use crate::source::{Crc64, Source};

/// How often an object is begun before it counts as failed.
const ATTEMPTS: usize = 3;

/// How one attempt ended, where it did not fail.
enum Attempt {
    Got(GotFile, u64),
    /// Somebody replaced the object meanwhile.
    Changed,
    /// The bytes do not have the checksum that the box says.
    Mismatch,
}

impl Getter<'_> {
    /// Fetches one object; the file, and the bytes that came over the network.
    pub(super) async fn get_one(&self, wanted: &Wanted) -> Result<(GotFile, u64), SendError> {
        let mut mismatched = false;
        for _ in 0..ATTEMPTS {
            let held = remote::head(
                self.client,
                wanted.key.as_str(),
                self.patience(0),
                &self.progress,
            )
            .await?;
            let Some(held) = held else {
                return Err(SendError::File(
                    "the box does not hold it any more".to_owned(),
                ));
            };
            match self.attempt(wanted, &held).await? {
                Attempt::Got(file, received) => return Ok((file, received)),
                Attempt::Changed => mismatched = false,
                Attempt::Mismatch => mismatched = true,
            }
            tracing::debug!(key = %wanted.key, mismatched, "fetching the object again");
        }
        Err(SendError::File(if mismatched {
            format!("what arrived was not what the box holds, {ATTEMPTS} times; call us")
        } else {
            format!(
                "it was replaced {ATTEMPTS} times while it was read; get it when it is not being written"
            )
        }))
    }

    async fn attempt(&self, wanted: &Wanted, held: &Held) -> Result<Attempt, SendError> {
        let root = self.root.clone();
        let inner = wanted.inner.clone();
        let id = self.id(wanted, held);
        let (size, range_bytes) = (held.size, self.options.range_bytes.max(1));
        let expected = held.clone();
        let opened = blocking(move || {
            place::make_parents(&root, &inner)?;
            let target = root.join(&inner);
            if let Some((by, blake3)) = same_here(&target, &expected)? {
                return Ok(Err((by, blake3)));
            }
            let dir = target.parent().unwrap_or(&root);
            PartFile::open(dir, &id, size, range_bytes).map(Ok)
        })
        .await?;
        let target = self.root.join(&wanted.inner);
        let file = |blake3, verified_by, outcome| GotFile {
            key: wanted.key.clone(),
            path: target.clone(),
            size,
            blake3,
            verified_by,
            outcome,
        };
        let (part, mut ranges) = match opened {
            Ok(opened) => opened,
            Err((by, blake3)) => {
                self.progress.bytes_on_box(size);
                return Ok(Attempt::Got(file(blake3, by, GetOutcome::AlreadyThere), 0));
            }
        };
        let part = Arc::new(part);
        let kept: u64 = ranges.keys().map(|index| part.range(*index).1).sum();
        self.progress.bytes_on_box(kept);
        let fetched = self.fetch(wanted, held, &part, &mut ranges).await;
        if !matches!(fetched, Ok(true)) {
            let lost = ranges.keys().map(|index| part.range(*index).1).sum();
            self.progress.bytes_lost(lost);
            return fetched.map(|_| Attempt::Changed);
        }
        let outcome = if kept > 0 {
            GetOutcome::Resumed
        } else {
            GetOutcome::Fetched
        };
        let expected = held.clone();
        let place = target.clone();
        let proven = blocking(move || {
            let Some(part) = Arc::into_inner(part) else {
                return Err(io::Error::other("the file is still being written"));
            };
            let Some(proof) = prove(&part, &ranges, &expected)? else {
                part.discard()?;
                return Ok(None);
            };
            part.finish(&place, expected.mtime_ns)?;
            Ok(Some(proof))
        })
        .await?;
        if let Some((by, blake3)) = proven {
            return Ok(Attempt::Got(file(blake3, by, outcome), size - kept));
        }
        self.progress.bytes_lost(size);
        Ok(Attempt::Mismatch)
    }

    /// Fetches what is missing; false where the object was replaced meanwhile.
    async fn fetch(
        &self,
        wanted: &Wanted,
        held: &Held,
        part: &Arc<PartFile>,
        ranges: &mut BTreeMap<u64, Crc64>,
    ) -> Result<bool, SendError> {
        let mut missing: Vec<u64> = (0..part.ranges()).collect();
        missing.retain(|index| !ranges.contains_key(index));
        let mut missing = missing.into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.options.ranges_at_once.max(1)
                && let Some(index) = missing.next()
            {
                let part = Arc::clone(part);
                running.push(async move { (index, self.range(wanted, held, part, index).await) });
            }
            let Some((index, result)) = running.next().await else {
                return Ok(true);
            };
            match result {
                Ok(crc) => {
                    self.progress.bytes_on_box(part.range(index).1);
                    ranges.insert(index, crc);
                }
                Err(SendError::S3(error)) if error.status == Some(412) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    async fn range(
        &self,
        wanted: &Wanted,
        held: &Held,
        part: Arc<PartFile>,
        index: u64,
    ) -> Result<Crc64, SendError> {
        // The semaphore is never closed, so there is always a permit in the end.
        let _permit = self.ranges.acquire().await.ok();
        let (begin, length) = part.range(index);
        let bytes = persist(self.patience(length), &self.progress, || {
            self.read(wanted, held, begin, length)
        })
        .await?;
        blocking(move || part.write(index, &bytes)).await
    }

    async fn read(
        &self,
        wanted: &Wanted,
        held: &Held,
        begin: u64,
        length: u64,
    ) -> Result<Bytes, S3Error> {
        let answer = self
            .client
            .s3()
            .get_object()
            .bucket(&self.client.ticket().bucket)
            .key(wanted.key.as_str())
            .range(format!("bytes={begin}-{}", begin + length - 1))
            .if_match(format!("\"{}\"", held.etag))
            .send()
            .await?;
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::with_capacity(limit);
        let mut body = answer.body;
        let mut moving = Moving {
            getter: self,
            bytes: 0,
        };
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|e| S3Error::broken(advice::chain(&e)))?;
            if bytes.len() + chunk.len() > limit {
                return Err(S3Error::malformed("the length that was asked for"));
            }
            moving.add(chunk.len() as u64);
            bytes.extend_from_slice(&chunk);
        }
        if bytes.len() < limit {
            return Err(S3Error::broken("the answer ended early".to_owned()));
        }
        Ok(bytes.freeze())
    }

    fn patience(&self, bytes: u64) -> Patience {
        Patience::for_bytes(self.options.patience, bytes)
    }

    /// The same for the same bytes on their way to the same place, and for nothing else.
    fn id(&self, wanted: &Wanted, held: &Held) -> String {
        let ticket = self.client.ticket();
        let mut hasher = blake3::Hasher::new();
        let range = self.options.range_bytes.to_string();
        let name = wanted.inner.to_string_lossy();
        for text in [
            ticket.box_id.as_str(),
            &ticket.bucket,
            wanted.key.as_str(),
            &held.etag,
            &range,
            &name,
        ] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// Bytes that have come and are not yet in the file.
struct Moving<'a> {
    getter: &'a Getter<'a>,
    bytes: u64,
}

impl Moving<'_> {
    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.getter.progress.bytes_moving(bytes);
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.getter.progress.bytes_stopped(self.bytes);
    }
}

/// What proves that the file at `target` is the object already; `None` where it is not, or where
/// nothing could prove it; blocks.
fn same_here(target: &Path, held: &Held) -> io::Result<Option<(VerifiedBy, Option<Digest32>)>> {
    match std::fs::symlink_metadata(target) {
        Ok(there) if there.is_file() && there.len() == held.size => {}
        _ => return Ok(None),
    }
    if let Some(expected) = held.blake3 {
        let hash = blake3_of(&File::open(target)?, held.size)?;
        return Ok((hash == expected).then_some((VerifiedBy::Blake3, Some(hash))));
    }
    let Some(expected) = held.crc else {
        return Ok(None);
    };
    let mut source = Source::open(target)?;
    let crc = source.checksum()?;
    let proof = (VerifiedBy::Crc64nvme, Some(source.blake3()));
    Ok((crc == expected).then_some(proof))
}

/// Compares what was fetched with what the box says; `None` where it differs; blocks.
fn prove(
    part: &PartFile,
    ranges: &BTreeMap<u64, Crc64>,
    held: &Held,
) -> io::Result<Option<(VerifiedBy, Option<Digest32>)>> {
    let crc = ranges.iter().fold(Crc64::default(), |crc, (index, next)| {
        crc.then(*next, part.range(*index).1)
    });
    if held.crc.is_some_and(|expected| expected != crc) {
        return Ok(None);
    }
    if let Some(expected) = held.blake3 {
        // Read back from the file: this is what will be in its place.
        let hash = part.blake3()?;
        return Ok((hash == expected).then_some((VerifiedBy::Blake3, Some(hash))));
    }
    Ok(Some((
        match held.crc {
            Some(_) => VerifiedBy::Crc64nvme,
            None => VerifiedBy::Length,
        },
        None,
    )))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SendError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
        .map_err(|e| SendError::File(format!("it could not be written: {}", advice::chain(&e))))
}
