//! A cursor over one packet's bytes.

use crate::reason::Reason;

/// Reads MQTT's data types (MQTT 5.0, 1.5); every read is checked against what is left.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Reason> {
        let (taken, left) = self
            .0
            .split_at_checked(len)
            .ok_or(Reason::MalformedPacket)?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Reason> {
        let (taken, left) = self.0.split_first_chunk().ok_or(Reason::MalformedPacket)?;
        self.0 = left;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Reason> {
        self.array().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Reason> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Reason> {
        self.array().map(u32::from_be_bytes)
    }

    /// A packet identifier: never zero.
    pub fn packet_id(&mut self) -> Result<u16, Reason> {
        match self.u16()? {
            0 => Err(Reason::ProtocolError),
            id => Ok(id),
        }
    }

    /// A variable byte integer, which must be in its shortest form.
    pub fn varint(&mut self) -> Result<usize, Reason> {
        match varint(self.0)? {
            Some((value, len)) => {
                self.bytes(len)?;
                Ok(value)
            }
            None => Err(Reason::MalformedPacket),
        }
    }

    pub fn binary(&mut self) -> Result<&'a [u8], Reason> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// UTF-8 without U+0000 (MQTT 5.0, 1.5.4).
    pub fn text(&mut self) -> Result<&'a str, Reason> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| Reason::MalformedPacket)?;
        if text.contains('\0') {
            return Err(Reason::MalformedPacket);
        }
        Ok(text)
    }
}

/// Reads a variable byte integer at the start of `bytes`: its value and length, or `None` while
/// its last byte has not arrived.
pub fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Reason> {
    let mut value = 0_usize;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if *byte == 0 && index > 0 {
                return Err(Reason::MalformedPacket);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 {
        return Err(Reason::MalformedPacket);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers_are_read_at_their_limits() {
        for (bytes, value) in [
            (&[0x00_u8][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
        ] {
            assert_eq!(varint(bytes), Ok(Some((value, bytes.len()))), "{bytes:x?}");
        }
        assert_eq!(varint(&[]), Ok(None));
        assert_eq!(varint(&[0x80, 0x80]), Ok(None));
        assert_eq!(varint(&[0x80, 0x00]), Err(Reason::MalformedPacket));
        assert_eq!(
            varint(&[0x80, 0x80, 0x80, 0x80]),
            Err(Reason::MalformedPacket)
        );
    }

    #[test]
    fn text_is_utf8_without_nul() {
        assert_eq!(Reader::new(b"\0\x02ab").text(), Ok("ab"));
        for bad in [&b"\0\x02a\0"[..], b"\0\x01\xff", b"\0\x05ab", b"\0"] {
            assert_eq!(
                Reader::new(bad).text(),
                Err(Reason::MalformedPacket),
                "{bad:x?}"
            );
        }
    }
}
