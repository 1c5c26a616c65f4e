//! Reads big-endian TPM structures; every read is bounded by what is there.

use super::Malformed;

pub(super) struct Reader<'a> {
    structure: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            structure,
            rest: bytes,
        }
    }

    pub(super) fn malformed(&self, rule: &'static str) -> Malformed {
        Malformed {
            structure: self.structure,
            rule,
        }
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .rest
            .split_at_checked(n)
            .ok_or_else(|| self.malformed("cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 16-bit length and that many bytes (`TPM2B`).
    pub(super) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }

    /// A `TPM2B` of at most 32 bytes, padded on the left: TPMs may drop leading zeros.
    pub(super) fn scalar(&mut self) -> Result<[u8; 32], Malformed> {
        let bytes = self.sized()?;
        let mut out = [0; 32];
        let start = out
            .len()
            .checked_sub(bytes.len())
            .ok_or_else(|| self.malformed("a number longer than 32 bytes"))?;
        out[start..].copy_from_slice(bytes);
        Ok(out)
    }

    pub(super) fn expect(&mut self, want: u16, rule: &'static str) -> Result<(), Malformed> {
        if self.u16()? == want {
            Ok(())
        } else {
            Err(self.malformed(rule))
        }
    }

    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes after its end"))
        }
    }
}
