//! Reading small files one after the other into the body of a pack; on a blocking thread.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::pack::{EntryHeader, begin, end, entry};
use longhaul_protocol::value::Digest32;
use tokio::sync::mpsc;

use crate::journal::Origin;
use crate::pack::MAX_FILE_BYTES;
use crate::plan::Planned;
use crate::progress::Progress;
use crate::push::{SendError, content_type, unreadable};
use crate::source::Stamp;

/// Bytes that are handed over at a time.
const PIECE: usize = 256 << 10;
/// How often a file may change while it is read before it counts as failed.
const ATTEMPTS: usize = 3;

/// A file that may travel in a pack.
pub struct Item {
    /// Its place in the plan.
    pub index: usize,
    path: PathBuf,
    key: ObjectKey,
}

impl Item {
    /// The file at `index` of the plan.
    pub fn new(index: usize, file: &Planned) -> Self {
        Self {
            index,
            path: file.path.clone(),
            key: file.key.clone(),
        }
    }
}

/// What the reader did with an item; in the order of the pack.
pub enum Read {
    /// It is in the pack.
    Packed(Packed),
    /// It is not, and this is why.
    Failed(usize, SendError),
    /// It has grown too long for a pack.
    Grown(usize),
}

/// An entry of a pack as it was read.
pub struct Packed {
    /// The item, to be read again if need be.
    pub item: Arc<Item>,
    /// The file and its stamp.
    pub origin: Origin,
    /// Hash of the bytes that were read.
    pub blake3: Digest32,
}

/// Bytes on their way to the box that are counted as moving until they are dropped.
pub struct Moving {
    progress: Arc<Progress>,
    bytes: u64,
}

impl Moving {
    pub fn new(progress: &Arc<Progress>, bytes: u64) -> Self {
        progress.bytes_moving(bytes);
        Self {
            progress: Arc::clone(progress),
            bytes,
        }
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.progress.bytes_stopped(self.bytes);
    }
}

/// Reads `items` into a pack; ends early when nobody takes the pieces any more.
pub fn read_pack(
    items: Vec<Arc<Item>>,
    pieces: &mpsc::Sender<Bytes>,
    told: &mpsc::UnboundedSender<Read>,
) {
    let mut piece = BytesMut::with_capacity(PIECE + PIECE / 4);
    piece.extend_from_slice(&begin());
    let mut body = Vec::new();
    for item in items {
        let read = match read_still(&item.path, &mut body) {
            Ok(Some(stamp)) => pack(&item, stamp, &body, &mut piece),
            Ok(None) => Read::Grown(item.index),
            Err(error) => Read::Failed(item.index, error),
        };
        if told.send(read).is_err() {
            return;
        }
        if piece.len() >= PIECE {
            if pieces.blocking_send(piece.split().freeze()).is_err() {
                return;
            }
            piece.reserve(PIECE + PIECE / 4);
        }
    }
    piece.extend_from_slice(&end());
    let _ = pieces.blocking_send(piece.freeze());
}

fn pack(item: &Arc<Item>, stamp: Stamp, body: &[u8], piece: &mut BytesMut) -> Read {
    let blake3 = Digest32(*blake3::hash(body).as_bytes());
    let header = EntryHeader {
        key: item.key.to_string(),
        bytes: body.len() as u64,
        blake3,
        content_type: Some(content_type(&item.key).to_owned()),
        metadata: [("mtime".to_owned(), stamp.mtime_text())].into(),
    };
    match entry(&header) {
        Ok(header) => {
            piece.extend_from_slice(&header);
            piece.extend_from_slice(body);
            Read::Packed(Packed {
                item: Arc::clone(item),
                origin: Origin::new(&item.path, stamp),
                blake3,
            })
        }
        Err(error) => Read::Failed(item.index, SendError::File(error.to_string())),
    }
}

/// Reads a file that holds still meanwhile; `None` if it is too long for a pack.
fn read_still(path: &Path, body: &mut Vec<u8>) -> Result<Option<Stamp>, SendError> {
    for _ in 0..ATTEMPTS {
        let read = read(path, body).map_err(|e| unreadable(&e))?;
        match read {
            Some(stamp) if stamp.size > MAX_FILE_BYTES => return Ok(None),
            Some(stamp) => return Ok(Some(stamp)),
            None => {}
        }
    }
    Err(SendError::File(format!(
        "it changed {ATTEMPTS} times while it was read; push it when it is not being written"
    )))
}

/// `None` if the file changed while it was read; a file that is too long is not read.
fn read(path: &Path, body: &mut Vec<u8>) -> io::Result<Option<Stamp>> {
    let file = File::open(path)?;
    let stamp = Stamp::of(&file.metadata()?);
    if stamp.size > MAX_FILE_BYTES {
        return Ok(Some(stamp));
    }
    body.clear();
    body.reserve(usize::try_from(stamp.size).unwrap_or(0));
    (&file).take(stamp.size).read_to_end(body)?;
    // By its path, so that a file put in its place is noticed too; one that has grown is longer now.
    let after = Stamp::of(&std::fs::metadata(path)?);
    Ok((body.len() as u64 == stamp.size && after == stamp).then_some(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::pack::{Decoder, Event};

    fn item(path: &Path, key: &str) -> Arc<Item> {
        Arc::new(Item {
            index: 0,
            path: path.to_owned(),
            key: key.parse().expect("a key"),
        })
    }

    #[test]
    fn what_is_read_is_a_pack_and_what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = [
            ("a", vec![1; 300_000]),
            ("b", Vec::new()),
            ("c", vec![2; 7]),
        ];
        let mut items = Vec::new();
        for (name, bytes) in &files {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            items.push(item(&path, name));
        }
        items.insert(1, item(&dir.path().join("absent"), "absent"));
        let long = dir.path().join("long");
        std::fs::write(
            &long,
            vec![0; usize::try_from(MAX_FILE_BYTES).expect("fits") + 1],
        )
        .expect("written");
        items.push(item(&long, "long"));
        let (pieces, mut body) = mpsc::channel(16);
        let (told, mut read) = mpsc::unbounded_channel();

        read_pack(items, &pieces, &told);

        drop((pieces, told));
        let kinds: String = std::iter::from_fn(|| read.try_recv().ok())
            .map(|read| match read {
                Read::Packed(_) => 'p',
                Read::Failed(..) => 'f',
                Read::Grown(_) => 'g',
            })
            .collect();
        assert_eq!(kinds, "pfppg");
        let (mut decoder, mut found) = (Decoder::default(), Vec::new());
        while let Ok(piece) = body.try_recv() {
            let mut input = &piece[..];
            while let Some(event) = decoder.next(&mut input).expect("a pack") {
                match event {
                    Event::Entry(header) => found.push((header.key, Vec::new())),
                    Event::Body(bytes) => found.last_mut().expect("an entry").1.extend(bytes),
                    Event::EntryEnd | Event::End => {}
                }
            }
        }
        decoder.finish().expect("whole");
        let want: Vec<_> = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        assert_eq!(found, want);
    }
}
