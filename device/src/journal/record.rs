//! One record of the journal's file: `length | !length | CRC-64 | kind | payload`.
//!
//! The length is there twice so that a flipped bit in it is told from a write that a power cut
//! ended early: the first is damage, the second never happened.

use crc_fast::{CrcAlgorithm, checksum};

/// The longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 48 * 1024;
/// Bytes before the payload: two lengths, a checksum, a kind.
const HEAD: usize = 4 + 4 + 8 + 1;

/// What a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The file's first record: which epoch, and the number of its first entry.
    Header = 1,
    /// A journal entry.
    Entry = 2,
    /// The cloud has committed everything up to a number.
    Ack = 3,
}

/// One record, read back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Record<'a> {
    pub kind: Kind,
    pub payload: &'a [u8],
    /// Where it begins in what was scanned.
    pub offset: usize,
    /// Its length on disk, in bytes.
    pub len: usize,
}

/// Appends a record to `out`; the payload is at most [`MAX_PAYLOAD`] bytes, the caller has checked.
pub fn write(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) -> usize {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend(len.to_le_bytes());
    out.extend((!len).to_le_bytes());
    out.extend(check(kind as u8, payload).to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(payload);
    HEAD + payload.len()
}

fn check(kind: u8, payload: &[u8]) -> u64 {
    let mut covered = Vec::with_capacity(payload.len() + 1);
    covered.push(kind);
    covered.extend_from_slice(payload);
    checksum(CrcAlgorithm::Crc64Nvme, &covered)
}

/// What lies at the start of some bytes.
enum Found<'a> {
    Whole(Kind, &'a [u8], usize),
    /// A record that the end of the file cuts short.
    Torn,
    Damaged,
}

fn look(bytes: &[u8]) -> Found<'_> {
    let Some((head, rest)) = bytes.split_at_checked(HEAD) else {
        return Found::Torn;
    };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let len = word(0);
    let payload_len = usize::try_from(len).unwrap_or(usize::MAX);
    if word(4) != !len || payload_len > MAX_PAYLOAD {
        return Found::Damaged;
    }
    let Some(payload) = rest.get(..payload_len) else {
        return Found::Torn;
    };
    let mut sum = [0; 8];
    sum.copy_from_slice(&head[8..16]);
    let kind = match head[16] {
        1 => Kind::Header,
        2 => Kind::Entry,
        3 => Kind::Ack,
        _ => return Found::Damaged,
    };
    if u64::from_le_bytes(sum) != check(head[16], payload) {
        return Found::Damaged;
    }
    Found::Whole(kind, payload, HEAD + payload_len)
}

/// Everything that can be read of a file.
#[derive(Debug)]
pub struct Scan<'a> {
    pub records: Vec<Record<'a>>,
    /// Where the last whole record ends; behind it there is nothing, or a write cut short.
    pub end: usize,
    /// Bytes in front of `end`, or behind it, that are no record and were not cut short.
    pub damaged_bytes: usize,
}

/// Reads every record, and goes on behind damage at the next one that is whole.
pub fn scan(bytes: &[u8]) -> Scan<'_> {
    let mut scan = Scan {
        records: Vec::new(),
        end: 0,
        damaged_bytes: 0,
    };
    let mut at = 0;
    while at < bytes.len() {
        match look(&bytes[at..]) {
            Found::Whole(kind, payload, len) => {
                scan.records.push(Record {
                    kind,
                    payload,
                    offset: at,
                    len,
                });
                at += len;
                scan.end = at;
            }
            // Some file systems leave zeros where a write was cut short.
            _ if bytes[at..].iter().all(|b| *b == 0) => break,
            Found::Torn if next_whole(&bytes[at + 1..]).is_none() => break,
            Found::Torn | Found::Damaged => {
                if let Some(skip) = next_whole(&bytes[at + 1..]) {
                    scan.damaged_bytes += skip + 1;
                    at += skip + 1;
                } else {
                    scan.damaged_bytes += bytes.len() - at;
                    break;
                }
            }
        }
    }
    scan
}

fn next_whole(bytes: &[u8]) -> Option<usize> {
    (0..bytes.len()).find(|at| matches!(look(&bytes[*at..]), Found::Whole(..)))
}

/// The payload of the record that `bytes` holds exactly, if it is whole and of this kind.
pub fn read(bytes: &[u8], expected: Kind) -> Option<&[u8]> {
    match look(bytes) {
        Found::Whole(kind, payload, len) if kind == expected && len == bytes.len() => Some(payload),
        _ => None,
    }
}

/// Reads bytes as a journal's file.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed(bytes: &[u8]) {
    let scan = scan(bytes);
    let mut end = 0;
    let mut covered = 0;
    for record in &scan.records {
        assert!(record.offset >= end, "records follow one another");
        end = record.offset + record.len;
        covered += record.len;
        let whole = read(&bytes[record.offset..end], record.kind);
        assert_eq!(whole, Some(record.payload));
    }
    assert_eq!(scan.end, end);
    assert!(covered + scan.damaged_bytes <= bytes.len());
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_seed() -> Vec<u8> {
    let mut out = Vec::new();
    for (kind, payload) in [
        (Kind::Header, &b"{}"[..]),
        (Kind::Entry, b"entry"),
        (Kind::Ack, b"1"),
    ] {
        write(&mut out, kind, payload);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            write(&mut out, Kind::Entry, payload);
        }
        out
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = scan(&bytes);
        }

        #[test]
        fn a_cut_loses_only_what_it_cuts(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let whole = file(&payloads);
            let cut = cut.index(whole.len());

            let scan = scan(&whole[..cut]);

            let kept: Vec<_> = scan.records.iter().map(|r| r.payload.to_vec()).collect();
            prop_assert_eq!(&payloads[..kept.len()], &kept[..]);
            prop_assert_eq!(scan.damaged_bytes, 0);
            prop_assert!(scan.end <= cut);
        }

        #[test]
        fn a_flipped_bit_loses_one_record_and_is_noticed(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 2..8),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let mut bytes = file(&payloads);
            let last = bytes.len() - HEAD - payloads[payloads.len() - 1].len();
            let at = at.index(last);
            bytes[at] ^= 1 << bit;

            let scan = scan(&bytes);

            prop_assert_eq!(scan.records.len(), payloads.len() - 1);
            prop_assert!(scan.damaged_bytes > 0);
        }
    }
}
