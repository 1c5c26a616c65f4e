//! Small files: read whole, sent in one request.

use std::sync::Arc;

use longhaul_protocol::lan::NOTICE_HEADER;
use tokio::task::spawn_blocking;

use crate::body;
use crate::ear::Ear;
use crate::journal::{Done, Origin};
use crate::plan::Planned;
use crate::push::{Attempt, SendError, Sender, Sent, content_type, etag, unreadable};
use crate::report::Outcome;
use crate::retry::{S3Error, persist};
use crate::source::{Piece, Source, Stamp};

/// One file in one request.
pub async fn send(sender: &Sender<'_>, file: &Planned, size: u64) -> Result<Attempt, SendError> {
    let _memory = sender.memory(size).await;
    let path = file.path.clone();
    let buffers = sender.buffers.clone();
    let read = spawn_blocking(move || -> std::io::Result<Option<(Source, Piece)>> {
        let mut source = Source::open(&path)?;
        // One byte more than there should be: a file that has grown gives it.
        let length = usize::try_from(source.stamp().size + 1).unwrap_or(usize::MAX);
        if source.stamp().size != size {
            return Ok(None);
        }
        let piece = source.piece(length, &buffers)?;
        let whole = piece.bytes.len() as u64 == size && !source.changed(&path);
        Ok(whole.then_some((source, piece)))
    })
    .await
    .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    .map_err(|e| unreadable(&e))?;
    let Some((source, piece)) = read else {
        return Ok(Attempt::Changed);
    };
    let ear = Ear::for_header(NOTICE_HEADER);
    let etag = persist(sender.patience(size), &sender.progress, || {
        put(sender, file, source.stamp(), &piece, &ear)
    })
    .await?;
    sender.progress.bytes_on_box(size);
    Ok(Attempt::Sent(Sent {
        done: Done {
            origin: Origin::new(&file.path, source.stamp()),
            etag,
            blake3: source.blake3(),
        },
        outcome: Outcome::Sent,
        bytes: size,
        notice: ear.heard(),
    }))
}

async fn put(
    sender: &Sender<'_>,
    file: &Planned,
    stamp: Stamp,
    piece: &Piece,
    ear: &Ear,
) -> Result<String, S3Error> {
    let answer = sender
        .client
        .s3()
        .put_object()
        .bucket(&sender.client.ticket().bucket)
        .key(file.key.as_str())
        .content_type(content_type(&file.key))
        .metadata("mtime", stamp.mtime_text())
        .content_length(i64::try_from(piece.bytes.len()).unwrap_or(i64::MAX))
        .checksum_crc64_nvme(piece.crc.header())
        .body(body::counted(
            piece.bytes.clone(),
            Arc::clone(&sender.progress),
        ))
        .customize()
        // TLS and the checksum guard the bytes; signing them too would hash them twice.
        .disable_payload_signing()
        .interceptor(ear.clone())
        .send()
        .await?;
    etag(answer.e_tag())
}
