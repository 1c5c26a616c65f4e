//! A tar archive, entry by entry, from pieces of any size.
//!
//! Takes what GNU tar, bsdtar and Python write: ustar, GNU long names, pax extended headers. Fed like
//! [`longhaul_protocol::pack::Decoder`]; holds one block, or one extended header of bounded length.

/// Everything in a tar is counted in blocks of this many bytes.
const BLOCK: usize = 512;
/// Longest extended header or long name, in bytes; a key has 1,024 at the most.
const MAX_EXTENDED: u64 = 64 << 10;

/// What an entry is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    File,
    Folder,
    /// A link, a device, a sparse file: by its type flag.
    Other(u8),
}

/// An entry's description.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Header {
    /// As it stands in the archive; not always UTF-8.
    pub path: Vec<u8>,
    pub kind: Kind,
    /// Length of its body in bytes.
    pub bytes: u64,
}

/// What comes next.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Event<'a> {
    Entry(Header),
    /// Some of its body; never empty.
    Body(&'a [u8]),
    EntryEnd,
}

/// Why bytes are not a tar archive.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum TarError {
    #[error("it is compressed; send an uncompressed tar")]
    Compressed,
    #[error("the header of entry {entry} is damaged or none of a tar")]
    Header { entry: u64 },
    #[error(
        "the extended header of entry {entry} has {bytes} bytes; at most {MAX_EXTENDED} are taken"
    )]
    TooLong { entry: u64, bytes: u64 },
    #[error("it ends in the middle of entry {entry}")]
    Truncated { entry: u64 },
}

enum State {
    Header,
    /// An extended header's content: its type flag, and how much is left of it and of its padding.
    Extended {
        flag: u8,
        left: u64,
        padding: u64,
    },
    Body {
        left: u64,
        padding: u64,
    },
    Padding(u64),
    /// Behind the archive's end: whatever comes is filling.
    End,
}

/// Reads a tar archive.
pub(super) struct Decoder {
    state: State,
    held: Vec<u8>,
    entry: u64,
    long_path: Option<Vec<u8>>,
    long_bytes: Option<u64>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            state: State::Header,
            held: Vec::new(),
            entry: 1,
            long_path: None,
            long_bytes: None,
        }
    }
}

impl Decoder {
    /// Takes what it can from the front of `input`; `None` asks for more input.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, TarError> {
        loop {
            match self.state {
                State::Header => {
                    if !self.hold(input, BLOCK) {
                        return Ok(None);
                    }
                    let block = std::mem::take(&mut self.held);
                    if let Some(header) = self.header(&block)? {
                        return Ok(Some(Event::Entry(header)));
                    }
                }
                State::Extended {
                    flag,
                    left,
                    padding,
                } => {
                    let left = usize::try_from(left).unwrap_or(usize::MAX);
                    if !self.hold(input, left) {
                        return Ok(None);
                    }
                    let content = std::mem::take(&mut self.held);
                    self.extended(flag, &content)?;
                    self.state = State::Padding(padding);
                }
                State::Body { left: 0, padding } => {
                    self.state = State::Padding(padding);
                    self.entry += 1;
                    return Ok(Some(Event::EntryEnd));
                }
                State::Body { left, padding } => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let body = take(input, left);
                    let left = left - body.len() as u64;
                    self.state = State::Body { left, padding };
                    return Ok(Some(Event::Body(body)));
                }
                State::Padding(0) => self.state = State::Header,
                State::Padding(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let skipped = take(input, left).len() as u64;
                    self.state = State::Padding(left - skipped);
                }
                State::End => {
                    *input = &[];
                    return Ok(None);
                }
            }
        }
    }

    /// Says whether the stream ended where an archive may end: behind its end mark, or, as some
    /// programs leave the mark out, between two entries.
    pub fn finish(&self) -> Result<(), TarError> {
        let between = matches!(self.state, State::Header | State::Padding(0))
            && self.held.is_empty()
            && self.long_path.is_none()
            && self.long_bytes.is_none();
        match self.state {
            State::End => Ok(()),
            _ if between => Ok(()),
            _ => Err(TarError::Truncated { entry: self.entry }),
        }
    }

    fn header(&mut self, block: &[u8]) -> Result<Option<Header>, TarError> {
        if block.iter().all(|b| *b == 0) {
            self.state = State::End;
            return Ok(None);
        }
        let damaged = TarError::Header { entry: self.entry };
        if self.entry == 1 && is_compressed(block) {
            return Err(TarError::Compressed);
        }
        // The checksum field counts as spaces.
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, b)| u64::from(if (148..156).contains(&at) { b' ' } else { *b }))
            .sum();
        if number(&block[148..156]) != Some(sum) {
            return Err(damaged);
        }
        let bytes = number(&block[124..136]).ok_or(damaged)?;
        let padding = padding(bytes);
        let flag = block[156];
        if matches!(flag, b'x' | b'g' | b'L' | b'K') {
            if bytes > MAX_EXTENDED {
                return Err(TarError::TooLong {
                    entry: self.entry,
                    bytes,
                });
            }
            self.state = State::Extended {
                flag,
                left: bytes,
                padding,
            };
            return Ok(None);
        }
        let path = self.long_path.take().unwrap_or_else(|| path(block));
        let kind = match flag {
            b'5' => Kind::Folder,
            // Before ustar, folders were files whose name ends in a slash.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Folder,
            b'0' | 0 | b'7' => Kind::File,
            other => Kind::Other(other),
        };
        let long = self.long_bytes.take();
        // Links and devices have no body, whatever length stands there (POSIX.1, pax, "ustar").
        let bytes = match kind {
            Kind::Other(b'1'..=b'6') => 0,
            _ => long.unwrap_or(bytes),
        };
        self.state = State::Body {
            left: bytes,
            padding: self::padding(bytes),
        };
        Ok(Some(Header { path, kind, bytes }))
    }

    fn extended(&mut self, flag: u8, content: &[u8]) -> Result<(), TarError> {
        match flag {
            b'L' => {
                let end = content.iter().position(|b| *b == 0);
                self.long_path = content
                    .get(..end.unwrap_or(content.len()))
                    .map(<[u8]>::to_vec);
            }
            b'x' => {
                let damaged = || TarError::Header { entry: self.entry };
                let (mut long_path, mut long_bytes) = (None, None);
                for record in records(content) {
                    match record.ok_or_else(damaged)? {
                        (b"path", value) => long_path = Some(value.to_vec()),
                        (b"size", value) => {
                            let text = std::str::from_utf8(value).map_err(|_| damaged())?;
                            long_bytes = Some(text.parse().map_err(|_| damaged())?);
                        }
                        _ => {}
                    }
                }
                self.long_path = long_path.or(self.long_path.take());
                self.long_bytes = long_bytes.or(self.long_bytes);
            }
            // The target of a link, and what is said of all entries: neither is used.
            _ => {}
        }
        Ok(())
    }

    /// Moves bytes from `input` until `length` are held; says whether they are.
    fn hold(&mut self, input: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.held.len());
        self.held.extend_from_slice(take(input, missing as u64));
        self.held.len() == length
    }
}

/// At most `length` bytes from the front.
fn take<'a>(input: &mut &'a [u8], length: u64) -> &'a [u8] {
    let length = usize::try_from(length)
        .unwrap_or(usize::MAX)
        .min(input.len());
    let (front, rest) = input.split_at(length);
    *input = rest;
    front
}

fn padding(bytes: u64) -> u64 {
    let block = BLOCK as u64;
    (block - bytes % block) % block
}

/// gzip, zstd, bzip2, xz: by their first bytes.
fn is_compressed(block: &[u8]) -> bool {
    [
        &[0x1f_u8, 0x8b][..],
        &[0x28, 0xb5, 0x2f, 0xfd],
        b"BZh",
        &[0xfd, b'7', b'z', b'X', b'Z'],
        b"PK\x03\x04",
    ]
    .iter()
    .any(|magic| block.starts_with(magic))
}

/// A number field: octal text, or binary with the highest bit set (GNU).
fn number(field: &[u8]) -> Option<u64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().checked_sub(8)?);
        let high_is_zero = high
            .iter()
            .enumerate()
            .all(|(at, b)| if at == 0 { *b == 0x80 } else { *b == 0 });
        return high_is_zero.then(|| u64::from_be_bytes(low.try_into().unwrap_or([0xff; 8])));
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches(|c| c == ' ' || c == '\0');
    if text.is_empty() {
        return Some(0);
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(text, 8).ok()
}

fn path(block: &[u8]) -> Vec<u8> {
    let text = |field: &[u8]| {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        field.get(..end).unwrap_or_default().to_vec()
    };
    let name = text(&block[..100]);
    // GNU's own format has other fields where ustar has the prefix.
    let prefix = if block[257..263] == *b"ustar\0" {
        text(&block[345..500])
    } else {
        Vec::new()
    };
    if prefix.is_empty() {
        return name;
    }
    [prefix, name].join(&b'/')
}

/// The records of a pax header: `LENGTH KEY=VALUE\n`; `None` where one is malformed.
fn records(content: &[u8]) -> impl Iterator<Item = Option<(&[u8], &[u8])>> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = record(rest);
        match record {
            Some((length, _, _)) => rest = rest.get(length..).unwrap_or_default(),
            None => rest = &[],
        }
        Some(record.map(|(_, key, value)| (key, value)))
    })
}

fn record(rest: &[u8]) -> Option<(usize, &[u8], &[u8])> {
    let space = rest.iter().position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(rest.get(..space)?).ok()?.parse().ok()?;
    let body = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    Some((length, body.get(..equals)?, body.get(equals + 1..)?))
}

/// Reads bytes as an archive, once in pieces and once whole: both say the same.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed(bytes: &[u8]) {
    let Some((piece, archive)) = bytes.split_first() else {
        return;
    };
    let whole = told([archive].into_iter());
    let pieces = told(archive.chunks(usize::from(*piece).max(1)));
    assert_eq!(whole, pieces, "where the network cuts makes no difference");
    let body: usize = whole.1;
    assert!(body <= archive.len());
}

/// Every header, how many bytes of bodies there were, and how it ended.
#[cfg(feature = "fuzzing")]
fn told<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Header>, usize, Option<TarError>) {
    let (mut decoder, mut headers, mut body) = (Decoder::default(), Vec::new(), 0);
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(Event::Entry(header))) => headers.push(header),
                Ok(Some(Event::Body(bytes))) => body += bytes.len(),
                Ok(Some(Event::EntryEnd)) => {}
                Err(error) => return (headers, body, Some(error)),
            }
        }
    }
    let end = decoder.finish().err();
    (headers, body, end)
}

#[cfg(test)]
mod tests;
