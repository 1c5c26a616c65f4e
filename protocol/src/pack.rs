//! The pack: many small files in one stream, each with its own checksum.
//!
//! ```text
//! "LHPACK1\n"
//! entry*:  u32 header length | header (JSON, [`EntryHeader`]) | body (`bytes` of the header)
//! end:     u32 zero
//! ```
//! Numbers are big-endian. [`Decoder`] is fed whatever arrives and allocates no more than one
//! header; bodies are handed out as slices of the input.
//!
//! The same format serves twice. On the LAN a client posts a pack to [`PACKS_PATH`] and reads one
//! [`PackLine`] for each entry while it is still sending; towards the bucket the box sends a pack
//! as one object that the cloud takes apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::value::Digest32;

/// `POST` a pack to `{PACKS_PATH}/{bucket}` with the ticket's key pair as HTTP Basic; answers
/// lines of JSON, each a [`PackLine`], as the entries become durable.
pub const PACKS_PATH: &str = "/longhaul/v1/packs";

/// The content type of a pack.
pub const CONTENT_TYPE: &str = "application/vnd.longhaul.pack";

/// The content type of the answer: one [`PackLine`] a line.
pub const LINES_TYPE: &str = "application/x-ndjson";

/// Entries in one pack at the most.
pub const MAX_ENTRIES: u64 = 65_536;

/// The longest body of an entry, in bytes: what is longer gains nothing by travelling in a pack.
pub const MAX_ENTRY_BYTES: u64 = 16 << 20;

/// The first eight bytes of a pack.
pub const MAGIC: &[u8; 8] = b"LHPACK1\n";

/// The longest header, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// One entry's description, ahead of its body.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EntryHeader {
    /// The object's name, as the sender knows it. Whoever takes the entry parses it, so that a name
    /// that no bucket can hold refuses its own entry and not the pack.
    pub key: String,
    /// Length of the body in bytes.
    pub bytes: u64,
    /// BLAKE3 of the body.
    pub blake3: Digest32,
    /// Content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// User metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

/// One line of the answer to a pack. Entries count from 1 and are answered in the order of the pack.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum PackLine {
    /// The entry is durable on the box.
    Stored {
        /// Which entry.
        entry: u64,
        /// The vault's version of it.
        version: u64,
        /// The tag that S3 clients are shown of it, without quotes.
        etag: String,
        /// What is odd about it, such as a name that differs from another one in case alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notice: Option<String>,
    },
    /// The entry will not be taken, however often it is sent; the rest of the pack goes on.
    Refused {
        /// Which entry.
        entry: u64,
        /// Why, and what to do.
        reason: String,
    },
    /// Other bytes arrived than the header announced, and nothing was stored: send it again. The
    /// rest of the pack goes on.
    Damaged {
        /// Which entry.
        entry: u64,
    },
    /// The last line of a pack that was taken to its end.
    End {
        /// How many entries were answered.
        entries: u64,
    },
    /// The last line of a pack that was not. What was not answered before was not stored.
    Stopped {
        /// Why.
        code: StopCode,
        /// The same in words, and what to do.
        reason: String,
    },
}

/// Why the box stopped to take a pack.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCode {
    /// The stream is not a pack, is too long, or ended early.
    Malformed,
    /// The box is nearly full: wait and send the rest again.
    SlowDown,
    /// The box is full.
    Full,
    /// The box is stopping or its disk fails: try again later.
    Unavailable,
    /// The stream stood still, or crept.
    Stalled,
}

/// Why a stream is not a pack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The first bytes are not a pack's.
    #[error("not a pack: it does not begin with {MAGIC:?}")]
    Magic,
    /// A header is longer than any honest one.
    #[error(
        "header of entry {entry} is {bytes} bytes long; at most {MAX_HEADER_BYTES} are allowed"
    )]
    HeaderTooLong {
        /// Which entry, from 1.
        entry: u64,
        /// Its header's length in bytes.
        bytes: usize,
    },
    /// A body is longer than any honest one.
    #[error("body of entry {entry} is {bytes} bytes long; at most {MAX_ENTRY_BYTES} are allowed")]
    BodyTooLong {
        /// Which entry, from 1.
        entry: u64,
        /// Its body's length in bytes.
        bytes: u64,
    },
    /// There are more entries than in any honest pack.
    #[error("more than {MAX_ENTRIES} entries in one pack")]
    TooManyEntries,
    /// A header is not one.
    #[error("malformed header of entry {entry}")]
    Header {
        /// Which entry, from 1.
        entry: u64,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Bytes follow the end.
    #[error("bytes after the end of the pack")]
    Trailing,
    /// The stream ended early.
    #[error("the pack ends in the middle of entry {entry}")]
    Truncated {
        /// Which entry, from 1.
        entry: u64,
    },
}

/// The bytes that open a pack.
pub fn begin() -> Vec<u8> {
    MAGIC.to_vec()
}

/// The bytes that go ahead of the body of `header`.
///
/// # Errors
///
/// [`PackError::HeaderTooLong`] if no reader would accept it.
pub fn entry(header: &EntryHeader) -> Result<Vec<u8>, PackError> {
    let json =
        serde_json::to_vec(header).map_err(|source| PackError::Header { entry: 0, source })?;
    let too_long = || PackError::HeaderTooLong {
        entry: 0,
        bytes: json.len(),
    };
    if json.len() > MAX_HEADER_BYTES {
        return Err(too_long());
    }
    let length = u32::try_from(json.len()).map_err(|_| too_long())?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// The bytes that close a pack.
pub const fn end() -> [u8; 4] {
    [0; 4]
}

/// What a [`Decoder`] found next.
#[derive(Debug, Eq, PartialEq)]
pub enum Event<'a> {
    /// An entry begins.
    Entry(EntryHeader),
    /// Some of its body; never empty.
    Body(&'a [u8]),
    /// The entry's body is complete.
    EntryEnd,
    /// The pack is complete.
    End,
}

#[derive(Debug)]
enum State {
    Magic,
    Length,
    Header(usize),
    Body(u64),
    End,
}

/// Reads a pack from pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    held: Vec<u8>,
    entry: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Magic,
            held: Vec::new(),
            entry: 0,
        }
    }
}

impl Decoder {
    /// Takes what it can from the front of `input`, and says what that was; `None` asks for more
    /// input. Call it until `None`, then with what comes next.
    ///
    /// # Errors
    ///
    /// [`PackError`]; the stream cannot be read on after one.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, PackError> {
        loop {
            match self.state {
                State::Magic => {
                    if !self.hold(input, MAGIC.len()) {
                        // Refuse early: a wrong first byte is not worth waiting for.
                        return if MAGIC.starts_with(&self.held) {
                            Ok(None)
                        } else {
                            Err(PackError::Magic)
                        };
                    }
                    if self.held != MAGIC {
                        return Err(PackError::Magic);
                    }
                    self.held.clear();
                    self.state = State::Length;
                }
                State::Length => {
                    if !self.hold(input, 4) {
                        return Ok(None);
                    }
                    let mut length = [0; 4];
                    length.copy_from_slice(&self.held);
                    self.held.clear();
                    let length = u32::from_be_bytes(length) as usize;
                    if length == 0 {
                        self.state = State::End;
                        return Ok(Some(Event::End));
                    }
                    if self.entry == MAX_ENTRIES {
                        return Err(PackError::TooManyEntries);
                    }
                    self.entry += 1;
                    if length > MAX_HEADER_BYTES {
                        return Err(PackError::HeaderTooLong {
                            entry: self.entry,
                            bytes: length,
                        });
                    }
                    self.state = State::Header(length);
                }
                State::Header(length) => {
                    if !self.hold(input, length) {
                        return Ok(None);
                    }
                    let header: EntryHeader =
                        serde_json::from_slice(&self.held).map_err(|source| PackError::Header {
                            entry: self.entry,
                            source,
                        })?;
                    self.held.clear();
                    if header.bytes > MAX_ENTRY_BYTES {
                        return Err(PackError::BodyTooLong {
                            entry: self.entry,
                            bytes: header.bytes,
                        });
                    }
                    self.state = State::Body(header.bytes);
                    return Ok(Some(Event::Entry(header)));
                }
                State::Body(0) => {
                    self.state = State::Length;
                    return Ok(Some(Event::EntryEnd));
                }
                State::Body(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (body, rest) = input.split_at(take);
                    *input = rest;
                    self.state = State::Body(left - take as u64);
                    return Ok(Some(Event::Body(body)));
                }
                State::End => {
                    return if input.is_empty() {
                        Ok(None)
                    } else {
                        Err(PackError::Trailing)
                    };
                }
            }
        }
    }

    /// Says whether the stream ended where a pack ends.
    ///
    /// # Errors
    ///
    /// [`PackError::Truncated`] if it did not.
    pub fn finish(&self) -> Result<(), PackError> {
        match self.state {
            State::End => Ok(()),
            _ => Err(PackError::Truncated { entry: self.entry }),
        }
    }

    /// Moves bytes from `input` until `length` are held; says whether they are.
    fn hold(&mut self, input: &mut &[u8], length: usize) -> bool {
        let take = (length - self.held.len()).min(input.len());
        self.held.extend_from_slice(&input[..take]);
        *input = &input[take..];
        self.held.len() == length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(key: &str, body: &[u8]) -> EntryHeader {
        EntryHeader {
            key: key.to_owned(),
            bytes: body.len() as u64,
            blake3: Digest32([7; 32]),
            content_type: None,
            metadata: BTreeMap::new(),
        }
    }

    fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = begin();
        for (key, body) in files {
            bytes.extend(entry(&header(key, body)).expect("a short header"));
            bytes.extend(body);
        }
        bytes.extend(end());
        bytes
    }

    fn unpack(bytes: &[u8], piece: usize) -> Result<Vec<(String, Vec<u8>)>, PackError> {
        let (mut decoder, mut files) = (Decoder::default(), Vec::new());
        for mut input in bytes.chunks(piece) {
            while let Some(event) = decoder.next(&mut input)? {
                match event {
                    Event::Entry(h) => files.push((h.key, Vec::new())),
                    Event::Body(b) => files.last_mut().expect("an entry").1.extend(b),
                    Event::EntryEnd | Event::End => {}
                }
            }
        }
        decoder.finish()?;
        Ok(files)
    }

    #[test]
    fn a_pack_cut_anywhere_is_truncated() {
        let bytes = pack(&[("a".to_owned(), vec![1, 2, 3]), ("b".to_owned(), vec![])]);

        for cut in 0..bytes.len() {
            assert!(
                matches!(unpack(&bytes[..cut], 5), Err(PackError::Truncated { .. })),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_header_of_four_gigabytes_is_refused_before_it_is_held() {
        let mut bytes = begin();
        bytes.extend([0xff; 4]);

        assert!(matches!(
            unpack(&bytes, 64),
            Err(PackError::HeaderTooLong { .. })
        ));
    }

    #[test]
    fn a_body_of_exabytes_and_one_entry_too_many_are_refused() {
        let giant = EntryHeader {
            bytes: u64::MAX,
            ..header("a", b"")
        };
        let mut bytes = begin();
        bytes.extend(entry(&giant).expect("a short header"));
        assert!(matches!(
            unpack(&bytes, 64),
            Err(PackError::BodyTooLong { entry: 1, .. })
        ));

        let one = entry(&header("a", b"")).expect("a short header");
        let mut bytes = begin();
        for _ in 0..=MAX_ENTRIES {
            bytes.extend(&one);
        }
        assert!(matches!(
            unpack(&bytes, 4096),
            Err(PackError::TooManyEntries)
        ));
    }

    proptest! {
        #[test]
        fn packs_survive_any_cutting(
            files in prop::collection::vec(("[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..64)), 0..8),
            piece in 1_usize..40,
        ) {
            prop_assert_eq!(unpack(&pack(&files), piece).expect("a pack"), files);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..256), piece in 1_usize..40) {
            let _ = unpack(&bytes, piece);
            let mut pack = begin();
            pack.extend(bytes);
            let _ = unpack(&pack, piece);
        }
    }
}
