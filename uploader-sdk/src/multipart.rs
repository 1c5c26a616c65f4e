//! Large files: equal parts, several at once, continued after anything.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use aws_sdk_s3::types::{ChecksumMode, Part};
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use crate::body;
use crate::journal::{Done, DonePart, OpenUpload, Origin};
use crate::plan::Planned;
use crate::push::{SendError, Sender, Sent, etag, unreadable};
use crate::report::Outcome;
use crate::retry::{S3Error, persist};
use crate::source::{Crc64, Piece, Source, Stamp};

/// Parts of one object at the most: S3 allows 10,000, a tenth is left for files that grow.
const MAX_PARTS: u64 = 9_000;
const MIB: u64 = 1024 * 1024;

/// Bytes per part: `least`, or what it takes to stay below [`MAX_PARTS`], in whole MiB.
fn part_bytes(size: u64, least: u64) -> u64 {
    least.max(size.div_ceil(MAX_PARTS).div_ceil(MIB) * MIB)
}

/// Why an attempt ended early.
enum Stop {
    Changed,
    Failed(SendError),
}

impl From<S3Error> for Stop {
    fn from(error: S3Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Sends one file in parts; `None` where it changed while it was read.
pub async fn send(sender: &Sender<'_>, file: &Planned) -> Result<Option<Sent>, SendError> {
    let path = file.path.clone();
    let source = spawn_blocking(move || Source::open(&path))
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
        .map_err(|e| unreadable(&e))?;
    let stamp = source.stamp();
    let upload = open_upload(sender, file, stamp).await?;
    let kept = upload.parts.len();
    let large = Large {
        sender,
        file,
        stamp,
        upload,
        source: Arc::new(Mutex::new(source)),
    };
    match large.run().await {
        Ok((done, bytes)) => Ok(Some(Sent {
            done,
            outcome: match kept {
                0 => Outcome::Sent,
                parts_kept => Outcome::Resumed { parts_kept },
            },
            bytes,
        })),
        Err(Stop::Changed) => {
            abort(sender, file, &large.upload.upload_id).await;
            Ok(None)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

/// The upload that an earlier push left, where it is of this very file, or a new one.
async fn open_upload(
    sender: &Sender<'_>,
    file: &Planned,
    stamp: Stamp,
) -> Result<OpenUpload, SendError> {
    let origin = Origin::new(&file.path, stamp);
    if let Some(mut upload) = sender.journal.upload(&file.key) {
        if upload.origin == origin && upload.part_bytes > 0 {
            if let Some(listed) = list_parts(sender, file, &upload.upload_id).await? {
                upload.parts.retain(|number, part| {
                    let length = part_length(stamp.size, upload.part_bytes, *number);
                    listed.get(number).is_some_and(|l| matches(l, part, length))
                });
                return Ok(upload);
            }
        } else {
            abort(sender, file, &upload.upload_id).await;
        }
    }
    let answer = persist(sender.patience(0), &sender.progress, || async {
        let ticket = sender.client.ticket();
        let request = sender.client.s3().create_multipart_upload();
        Ok(request
            .bucket(&ticket.bucket)
            .key(file.key.as_str())
            .metadata("mtime", stamp.mtime_text())
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .send()
            .await?)
    })
    .await?;
    let upload = OpenUpload {
        origin,
        upload_id: answer
            .upload_id
            .ok_or_else(|| S3Error::malformed("UploadId"))?,
        part_bytes: part_bytes(stamp.size, sender.options.part_bytes),
        parts: BTreeMap::new(),
    };
    sender.journal.remember_upload(&file.key, upload.clone());
    Ok(upload)
}

/// Whether the box holds the part that the journal remembers.
fn matches(listed: &Part, part: &DonePart, length: u64) -> bool {
    let same = |theirs: Option<&str>, ours: &str| theirs.is_none_or(|theirs| theirs == ours);
    listed.size() == i64::try_from(length).ok()
        && same(listed.e_tag().map(|t| t.trim_matches('"')), &part.etag)
        && same(listed.checksum_crc64_nvme(), &part.crc.header())
}

/// Length of a part; 0 for a number beyond the end.
fn part_length(size: u64, part_bytes: u64, number: i32) -> u64 {
    let before = u64::try_from(number - 1)
        .unwrap_or(u64::MAX)
        .saturating_mul(part_bytes);
    size.saturating_sub(before).min(part_bytes)
}

/// The parts that the box holds; `None` where it does not know the upload.
async fn list_parts(
    sender: &Sender<'_>,
    file: &Planned,
    upload_id: &str,
) -> Result<Option<BTreeMap<i32, Part>>, S3Error> {
    let mut parts = BTreeMap::new();
    let mut marker: Option<String> = None;
    loop {
        let page = persist(sender.patience(0), &sender.progress, || async {
            let request = sender.client.s3().list_parts();
            Ok(request
                .bucket(&sender.client.ticket().bucket)
                .key(file.key.as_str())
                .upload_id(upload_id)
                .set_part_number_marker(marker.clone())
                .send()
                .await?)
        })
        .await;
        let page = match page {
            Ok(page) => page,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let before = parts.len();
        let more = page.is_truncated() == Some(true);
        marker.clone_from(&page.next_part_number_marker);
        let numbered = |part: Part| Some((part.part_number()?, part));
        parts.extend(page.parts.into_iter().flatten().filter_map(numbered));
        // A page without anything new would be asked for again for ever.
        if !more || marker.is_none() || parts.len() == before {
            return Ok(Some(parts));
        }
    }
}

/// Frees the parts of an upload that will not be finished; a failure costs the box space until it
/// cleans up by itself.
async fn abort(sender: &Sender<'_>, file: &Planned, upload_id: &str) {
    sender.journal.forget(&file.key);
    let request = sender.client.s3().abort_multipart_upload();
    let aborted = request
        .bucket(&sender.client.ticket().bucket)
        .key(file.key.as_str())
        .upload_id(upload_id)
        .send()
        .await;
    if let Err(error) = aborted {
        tracing::debug!(error = %S3Error::from(error), key = %file.key, "upload not aborted");
    }
}

struct Large<'a> {
    sender: &'a Sender<'a>,
    file: &'a Planned,
    stamp: Stamp,
    upload: OpenUpload,
    source: Arc<Mutex<Source>>,
}

/// A part in memory, with the right to be there.
struct Read {
    number: i32,
    piece: Piece,
    memory: Option<OwnedSemaphorePermit>,
}

/// A part that the box holds.
struct OnBox {
    number: i32,
    length: u64,
    part: DonePart,
    sent: bool,
}

impl Large<'_> {
    async fn run(&self) -> Result<(Done, u64), Stop> {
        let count = self.stamp.size.div_ceil(self.upload.part_bytes);
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        let mut parts = BTreeMap::new();
        let result = self.send_parts(count, &mut parts).await;
        if let Err(stop) = result {
            self.sender
                .progress
                .bytes_lost(parts.values().map(|p: &OnBox| p.length).sum());
            return Err(stop);
        }
        let sent = parts.values().filter(|p| p.sent).map(|p| p.length).sum();
        let crc = parts
            .values()
            .fold(Crc64::default(), |crc, p| crc.then(p.part.crc, p.length));
        let etag = self.complete(&parts, crc).await?;
        let blake3 = self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .blake3();
        let done = Done {
            origin: Origin::new(&self.file.path, self.stamp),
            etag,
            blake3,
        };
        Ok((done, sent))
    }

    async fn send_parts(&self, count: i32, parts: &mut BTreeMap<i32, OnBox>) -> Result<(), Stop> {
        let at_once = self.sender.options.parts_at_once.max(1);
        let mut unread = 1..=count;
        // At most one read: reading is in order, because hashing is; sending is not.
        let mut reading = FuturesUnordered::new();
        let mut sending = FuturesUnordered::new();
        loop {
            if reading.is_empty()
                && sending.len() < at_once
                && let Some(number) = unread.next()
            {
                reading.push(self.read(number).boxed());
            }
            tokio::select! {
                Some(read) = reading.next() => sending.push(self.send_part(read?).boxed()),
                Some(sent) = sending.next() => {
                    let on_box: OnBox = sent?;
                    self.sender.progress.bytes_on_box(on_box.length);
                    parts.insert(on_box.number, on_box);
                }
                else => break,
            }
        }
        let source = Arc::clone(&self.source);
        let path = self.file.path.clone();
        let changed = spawn_blocking(move || {
            source
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .changed(&path)
        });
        match changed.await {
            Ok(false) => Ok(()),
            _ => Err(Stop::Changed),
        }
    }

    async fn read(&self, number: i32) -> Result<Read, Stop> {
        let length = part_length(self.stamp.size, self.upload.part_bytes, number);
        let memory = self.sender.memory(length).await;
        let source = Arc::clone(&self.source);
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let piece = spawn_blocking(move || {
            source
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .piece(wanted)
        })
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
        .map_err(|e| Stop::Failed(unreadable(&e)))?;
        if piece.bytes.len() < wanted {
            return Err(Stop::Changed);
        }
        Ok(Read {
            number,
            piece,
            memory,
        })
    }

    async fn send_part(&self, read: Read) -> Result<OnBox, Stop> {
        let Read {
            number,
            piece,
            memory: _memory,
        } = read;
        let length = piece.bytes.len() as u64;
        let kept = self.upload.parts.get(&number);
        if let Some(part) = kept.filter(|part| part.crc == piece.crc) {
            return Ok(OnBox {
                number,
                length,
                part: part.clone(),
                sent: false,
            });
        }
        let tag = persist(
            self.sender.patience(length),
            &self.sender.progress,
            || async {
                let request = self.sender.client.s3().upload_part();
                let answer = request
                    .bucket(&self.sender.client.ticket().bucket)
                    .key(self.file.key.as_str())
                    .upload_id(&self.upload.upload_id)
                    .part_number(number)
                    .content_length(i64::try_from(length).unwrap_or(i64::MAX))
                    .checksum_crc64_nvme(piece.crc.header())
                    .body(body::counted(
                        piece.bytes.clone(),
                        Arc::clone(&self.sender.progress),
                    ))
                    .customize()
                    .disable_payload_signing()
                    .send()
                    .await?;
                etag(answer.e_tag())
            },
        )
        .await?;
        let part = DonePart {
            etag: tag,
            crc: piece.crc,
        };
        self.sender
            .journal
            .remember_part(&self.file.key, number, part.clone());
        Ok(OnBox {
            number,
            length,
            part,
            sent: true,
        })
    }

    async fn complete(&self, parts: &BTreeMap<i32, OnBox>, crc: Crc64) -> Result<String, S3Error> {
        let list: Vec<CompletedPart> = parts
            .values()
            .map(|p| {
                CompletedPart::builder()
                    .part_number(p.number)
                    .e_tag(&p.part.etag)
                    .checksum_crc64_nvme(p.part.crc.header())
                    .build()
            })
            .collect();
        let size = i64::try_from(self.stamp.size).unwrap_or(i64::MAX);
        let answer = persist(
            self.sender.patience(self.stamp.size),
            &self.sender.progress,
            || async {
                let request = self.sender.client.s3().complete_multipart_upload();
                let list = CompletedMultipartUpload::builder().set_parts(Some(list.clone()));
                let answer = request
                    .bucket(&self.sender.client.ticket().bucket)
                    .key(self.file.key.as_str())
                    .upload_id(&self.upload.upload_id)
                    .checksum_type(ChecksumType::FullObject)
                    .checksum_crc64_nvme(crc.header())
                    .mpu_object_size(size)
                    .multipart_upload(list.build())
                    .send()
                    .await?;
                etag(answer.e_tag())
            },
        )
        .await;
        match answer {
            // The box may have completed it and its answer may have been lost.
            Err(error) if error.is_not_found() => self.completed_before(crc).await.ok_or(error),
            answer => answer,
        }
    }

    /// The tag of the object, where the box holds exactly these bytes.
    async fn completed_before(&self, crc: Crc64) -> Option<String> {
        let head = persist(self.sender.patience(0), &self.sender.progress, || async {
            let request = self.sender.client.s3().head_object();
            Ok(request
                .bucket(&self.sender.client.ticket().bucket)
                .key(self.file.key.as_str())
                .checksum_mode(ChecksumMode::Enabled)
                .send()
                .await?)
        })
        .await
        .ok()?;
        let same_size = head.content_length() == i64::try_from(self.stamp.size).ok();
        let same_bytes = head.checksum_crc64_nvme() == Some(crc.header().as_str());
        (same_size && same_bytes).then(|| etag(head.e_tag()).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_the_file_and_stay_below_the_limit(
            size in 1_u64..5 * 1024 * 1024 * MIB,
            least in 5_u64..64,
        ) {
            let part = part_bytes(size, least * MIB);
            let count = size.div_ceil(part);

            prop_assert!(count <= MAX_PARTS);
            prop_assert!(part >= least * MIB);
            let last = i32::try_from(count).expect("few");
            let covered = (count - 1) * part + part_length(size, part, last);
            prop_assert_eq!(covered, size);
            prop_assert_eq!(part_length(size, part, last + 1), 0);
        }
    }
}
