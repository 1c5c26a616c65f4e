//! Plain little-endian encoding of what goes into records: bounded, and total on any input.

use std::collections::BTreeMap;

use crate::{Checksums, Metadata};

/// Bytes that do not parse; names what was being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A length in memory as a number in a file.
pub(crate) fn wide(len: usize) -> u64 {
    len as u64
}

/// A number in a file as a length in memory; the vault runs on 64-bit machines only.
#[expect(
    clippy::cast_possible_truncation,
    reason = "usize has 64 bits, asserted below"
)]
pub(crate) fn narrow(len: u64) -> usize {
    len as usize
}

const _: () = assert!(size_of::<usize>() == 8, "the vault needs a 64-bit machine");

/// Appends values to a buffer.
pub(crate) trait Put {
    fn put_u8(&mut self, value: u8);
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    fn put_i64(&mut self, value: i64);
    fn put_raw(&mut self, bytes: &[u8]);
    fn put_bytes(&mut self, bytes: &[u8]);
    fn put_text(&mut self, text: &str);
    fn put_map(&mut self, map: &BTreeMap<String, String>);
    fn put_count(&mut self, count: usize);
}

impl Put for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_count(bytes.len());
        self.extend_from_slice(bytes);
    }

    fn put_text(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }

    fn put_map(&mut self, map: &BTreeMap<String, String>) {
        self.put_count(map.len());
        for (name, value) in map {
            self.put_text(name);
            self.put_text(value);
        }
    }

    fn put_count(&mut self, count: usize) {
        // Everything counted here is bounded far below 4 Gi before it is encoded.
        self.put_u32(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

/// Takes values from the front of a slice.
pub(crate) struct Take<'a>(pub(crate) &'a [u8]);

impl<'a> Take<'a> {
    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count()?;
        self.raw(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("text is not UTF-8"))
    }

    pub(crate) fn string(&mut self) -> Result<String, Malformed> {
        self.text().map(str::to_owned)
    }

    pub(crate) fn map(&mut self) -> Result<BTreeMap<String, String>, Malformed> {
        let count = self.count()?;
        (0..count)
            .map(|_| Ok((self.string()?, self.string()?)))
            .collect()
    }

    /// A count of things that take at least one byte each, so that nobody reserves memory for
    /// more than there can be.
    pub(crate) fn count(&mut self) -> Result<usize, Malformed> {
        let count = narrow(u64::from(self.u32()?));
        if count > self.0.len() {
            return Err(Malformed("count exceeds what follows"));
        }
        Ok(count)
    }

    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("bytes behind the end"))
        }
    }
}

/// Metadata and checksums as one run of bytes: what the index keeps in memory per object.
pub(crate) fn encode_detail(metadata: &Metadata, checksums: &Checksums) -> Vec<u8> {
    let mut out = Vec::new();
    if *metadata == Metadata::default() && checksums.is_empty() {
        return out;
    }
    match &metadata.content_type {
        None => out.put_u8(0),
        Some(text) => {
            out.put_u8(1);
            out.put_text(text);
        }
    }
    out.put_map(&metadata.user);
    out.put_map(&metadata.headers);
    out.put_map(checksums);
    out
}

pub(crate) fn decode_detail(bytes: &[u8]) -> Result<(Metadata, Checksums), Malformed> {
    if bytes.is_empty() {
        return Ok((Metadata::default(), Checksums::new()));
    }
    let mut take = Take(bytes);
    let content_type = match take.u8()? {
        0 => None,
        1 => Some(take.string()?),
        _ => return Err(Malformed("content type")),
    };
    let metadata = Metadata {
        content_type,
        user: take.map()?,
        headers: take.map()?,
    };
    let checksums = take.map()?;
    take.end()?;
    Ok((metadata, checksums))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn details_survive_their_encoding(
            content_type: Option<String>,
            user: BTreeMap<String, String>,
            checksums: BTreeMap<String, String>,
        ) {
            let metadata = Metadata { content_type, user, headers: BTreeMap::new() };
            let bytes = encode_detail(&metadata, &checksums);
            prop_assert_eq!(decode_detail(&bytes), Ok((metadata, checksums)));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode_detail(&bytes);
        }
    }
}
