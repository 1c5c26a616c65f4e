//! Large files: read in order, sent as parts, several at once, and put together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::types::{ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;

use crate::ear::Ear;
use crate::journal::{Done, DonePart, OpenUpload, Origin};
use crate::plan::Planned;
use crate::push::{Attempt, SendError, Sender, Sent, etag, unreadable};
use crate::report::Outcome;
use crate::retry::{S3Error, persist};
use crate::source::{Crc64, Piece, Source, Stamp};
use crate::{body, upload};
use longhaul_protocol::lan::NOTICE_HEADER;

/// Why an attempt ended early.
enum Stop {
    Changed,
    UploadLost,
    Failed(SendError),
}

impl From<S3Error> for Stop {
    fn from(error: S3Error) -> Self {
        if error.code.as_deref() == Some("NoSuchUpload") {
            Self::UploadLost
        } else {
            Self::Failed(error.into())
        }
    }
}

/// Sends one file in parts.
pub async fn send(sender: &Sender<'_>, file: &Planned) -> Result<Attempt, SendError> {
    let path = file.path.clone();
    let source = spawn_blocking(move || Source::open(&path))
        .await
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
        .map_err(|e| unreadable(&e))?;
    let stamp = source.stamp();
    let upload = upload::open(sender, file, stamp).await?;
    let kept = upload.parts.len();
    let large = Large {
        sender,
        file,
        stamp,
        upload,
        source: Arc::new(Mutex::new(source)),
        ear: Ear::for_header(NOTICE_HEADER),
    };
    match large.run().await {
        Ok((done, bytes)) => Ok(Attempt::Sent(Sent {
            done,
            outcome: match kept {
                0 => Outcome::Sent,
                parts_kept => Outcome::Resumed { parts_kept },
            },
            bytes,
            notice: large.ear.heard(),
        })),
        Err(Stop::Changed) => {
            upload::abort(sender, file, &large.upload.upload_id).await;
            Ok(Attempt::Changed)
        }
        Err(Stop::UploadLost) => {
            sender.journal.forget(&file.key);
            Ok(Attempt::UploadLost)
        }
        Err(Stop::Failed(error)) => Err(error),
    }
}

struct Large<'a> {
    sender: &'a Sender<'a>,
    file: &'a Planned,
    stamp: Stamp,
    upload: OpenUpload,
    source: Arc<Mutex<Source>>,
    ear: Ear,
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
        let result = match self.send_parts(count, &mut parts).await {
            Ok(()) => self.complete(&parts).await.map_err(Stop::from),
            Err(stop) => Err(stop),
        };
        let length = |only_sent: bool| -> u64 {
            let counted = |p: &&OnBox| p.sent || !only_sent;
            parts.values().filter(counted).map(|p| p.length).sum()
        };
        if result.is_err() {
            self.sender.progress.bytes_lost(length(false));
        }
        let etag = result?;
        let sent = length(true);
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
        let length = upload::part_length(self.stamp.size, self.upload.part_bytes, number);
        let memory = self.sender.memory(length).await;
        let source = Arc::clone(&self.source);
        let buffers = self.sender.buffers.clone();
        let wanted = usize::try_from(length).unwrap_or(usize::MAX);
        let piece = spawn_blocking(move || {
            source
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .piece(wanted, &buffers)
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

    async fn complete(&self, parts: &BTreeMap<i32, OnBox>) -> Result<String, S3Error> {
        let crc = parts
            .values()
            .fold(Crc64::default(), |crc, p| crc.then(p.part.crc, p.length));
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
                    .customize()
                    .interceptor(self.ear.clone())
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
