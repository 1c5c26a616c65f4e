//! How a log file looks: a header, then records, each framed in the clear and sealed inside.

use crc_fast::{CrcAlgorithm::Crc32Iscsi, Digest};

use crate::{
    codec::{Put, Take, narrow, wide},
    crypto::{SealKey, Secret, TAG, Unsealed, random},
    keyring::JobNo,
};

/// A file's header has the first block for itself.
pub(crate) const FILE_HEADER: u64 = 4096;
pub(crate) const RECORD_HEADER: usize = 32;
/// Records begin at multiples of this.
pub(crate) const ALIGN: u64 = 8;
/// No record is longer: an object of 10 TB in the smallest runs stays below.
pub(crate) const MAX_SEALED: u32 = 256 << 20;

/// Longest payload of a record.
pub(crate) const MAX_PAYLOAD: usize = MAX_SEALED as usize - TAG;

const MAGIC: &[u8; 8] = b"LHVLTLOG";
/// Of log files. Theirs is still what it was, so that a release that has written nothing else can be
/// gone back from.
const FORMAT: u32 = 1;
/// Of checkpoints and runs: since there are runs.
const FORMAT_RUNS: u32 = 2;
pub(crate) const HEADER_LEN: usize = 8 + 4 + 4 + 16 + 8 + 8 + 4 + 4 + 32 + 4;
const LAST_IN_BATCH: u32 = 1 << 31;

/// What a file is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Log,
    Checkpoint,
    Run,
}

impl Kind {
    /// The format that is written.
    fn format(self) -> u32 {
        match self {
            Self::Log => FORMAT,
            Self::Checkpoint | Self::Run => FORMAT_RUNS,
        }
    }

    /// True if files of `format` are read.
    fn reads(self, format: u32) -> bool {
        match self {
            Self::Log => format == FORMAT,
            Self::Checkpoint => (FORMAT..=FORMAT_RUNS).contains(&format),
            Self::Run => format == FORMAT_RUNS,
        }
    }
}

/// The first block of a log file or checkpoint, and what a run begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FileHeader {
    pub(crate) kind: Kind,
    format: u32,
    pub(crate) vault: [u8; 16],
    pub(crate) number: u32,
    /// No record in the file has a smaller number.
    pub(crate) first_lsn: u64,
    /// How many bytes of the file before this one count; what lies behind was never acknowledged.
    /// Of a checkpoint: how many of the log file of its number it covers.
    pub(crate) previous_len: u64,
    /// Of a checkpoint: how many batches those bytes are. Of a run: its job.
    pub(crate) extra: u32,
    /// Makes every key of this file its own, so that counters may begin anew.
    salt: [u8; 32],
}

impl FileHeader {
    pub(crate) fn new(
        kind: Kind,
        vault: [u8; 16],
        number: u32,
        first_lsn: u64,
        previous_len: u64,
    ) -> Self {
        Self {
            kind,
            format: kind.format(),
            vault,
            number,
            first_lsn,
            previous_len,
            extra: 0,
            salt: random(),
        }
    }

    /// The header of run `number`, of `job`.
    pub(crate) fn run(vault: [u8; 16], number: u32, job: JobNo) -> Self {
        Self {
            extra: job,
            ..Self::new(Kind::Run, vault, number, 0, 0)
        }
    }

    pub(crate) fn salt(&self) -> [u8; 32] {
        self.salt
    }

    /// The format of `block`, if it is the header of a file of a newer release.
    pub(crate) fn newer_format(block: &[u8]) -> Option<u32> {
        let mut take = Take(block);
        let magic: [u8; 8] = take.array().ok()?;
        let format = take.u32().ok()?;
        (magic == *MAGIC && format > FORMAT_RUNS).then_some(format)
    }

    fn fields(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.put_raw(MAGIC);
        out.put_u32(self.format);
        out.put_u32(match self.kind {
            Kind::Log => 0,
            Kind::Checkpoint => 1,
            Kind::Run => 2,
        });
        out.put_raw(&self.vault);
        out.put_u64(self.first_lsn);
        out.put_u64(self.previous_len);
        out.put_u32(self.number);
        out.put_u32(self.extra);
        out.put_raw(&self.salt);
        out
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = self.fields();
        out.put_u32(crc32c(0, &out));
        out.resize(narrow(FILE_HEADER), 0);
        out
    }

    pub(crate) fn decode(block: &[u8]) -> Option<Self> {
        let fields = block.get(..HEADER_LEN)?;
        let (checked, crc) = fields.split_at(HEADER_LEN - 4);
        if crc != crc32c(0, checked).to_le_bytes() {
            return None;
        }
        let mut take = Take(checked);
        if take.array().ok()? != *MAGIC {
            return None;
        }
        let format = take.u32().ok()?;
        let kind = match take.u32().ok()? {
            0 => Kind::Log,
            1 => Kind::Checkpoint,
            2 => Kind::Run,
            _ => return None,
        };
        if !kind.reads(format) {
            return None;
        }
        let vault = take.array().ok()?;
        let (first_lsn, previous_len) = (take.u64().ok()?, take.u64().ok()?);
        let number = take.u32().ok()?;
        let extra = take.u32().ok()?;
        let salt = take.array().ok()?;
        // Older releases wrote nothing there, and their keys do not know of it.
        let extra = if format == FORMAT { 0 } else { extra };
        Some(Self {
            kind,
            format,
            vault,
            number,
            first_lsn,
            previous_len,
            extra,
            salt,
        })
    }

    /// The key of one job in this file. The header is part of its derivation, so an altered
    /// header opens nothing.
    pub(crate) fn key(&self, secret: &Secret) -> SealKey {
        SealKey::derive(
            secret,
            &self.salt,
            &[b"longhaul vault log v1", &self.fields()],
        )
    }

    /// Mixed into every record's checksum: a record of an older file in recycled space is not one
    /// of this file.
    pub(crate) fn mark(&self) -> u32 {
        crc32c(0, &self.salt)
    }
}

/// The clear part of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RecordHeader {
    pub(crate) sealed_len: u32,
    pub(crate) job: JobNo,
    pub(crate) lsn: u64,
    /// Batches are numbered in a file; one is written only when the one before is durable.
    pub(crate) batch: u32,
    pub(crate) last_in_batch: bool,
    payload_crc: u32,
}

impl RecordHeader {
    fn fields(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(RECORD_HEADER);
        out.put_u32(self.sealed_len);
        out.put_u32(self.job);
        out.put_u64(self.lsn);
        out.put_u32(self.batch | if self.last_in_batch { LAST_IN_BATCH } else { 0 });
        out
    }

    /// Parses a header; `None` if it is not one of the file with this mark.
    pub(crate) fn decode(bytes: &[u8], mark: u32) -> Option<Self> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        let (checked, crc) = bytes.split_at(RECORD_HEADER - 4);
        if crc != crc32c(mark, checked).to_le_bytes() {
            return None;
        }
        let mut take = Take(checked);
        let sealed_len = take.u32().ok()?;
        let (job, lsn, batch) = (take.u32().ok()?, take.u64().ok()?, take.u32().ok()?);
        take.u32().ok()?;
        let payload_crc = take.u32().ok()?;
        if narrow(u64::from(sealed_len)) < TAG || sealed_len > MAX_SEALED {
            return None;
        }
        Some(Self {
            sealed_len,
            job,
            lsn,
            batch: batch & !LAST_IN_BATCH,
            last_in_batch: batch & LAST_IN_BATCH != 0,
            payload_crc,
        })
    }

    pub(crate) fn sealed_len(&self) -> usize {
        narrow(u64::from(self.sealed_len))
    }

    /// Bytes from this record's beginning to the next one's.
    pub(crate) fn span(&self) -> u64 {
        (wide(RECORD_HEADER) + u64::from(self.sealed_len)).next_multiple_of(ALIGN)
    }

    /// True if `sealed` is what was written, whoever holds the key.
    pub(crate) fn is_whole(&self, sealed: &[u8]) -> bool {
        sealed.len() == self.sealed_len() && crc32c(0, sealed) == self.payload_crc
    }

    /// Decrypts the record's payload in place.
    pub(crate) fn open<'a>(
        &self,
        key: &SealKey,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unsealed> {
        key.open(self.lsn, &self.fields(), sealed)
    }
}

/// Appends one record to `out`, which ends at a multiple of [`ALIGN`] before and after.
pub(crate) fn append(
    out: &mut Vec<u8>,
    key: &SealKey,
    mark: u32,
    (job, lsn): (JobNo, u64),
    (batch, last_in_batch): (u32, bool),
    parts: &[&[u8]],
) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    // Callers refuse what is longer than a record can be.
    let sealed_len = u32::try_from(len + TAG).unwrap_or(u32::MAX);
    let mut header = RecordHeader {
        sealed_len,
        job,
        lsn,
        batch,
        last_in_batch,
        payload_crc: 0,
    };
    let fields = header.fields();
    let begin = out.len();
    out.resize(begin + RECORD_HEADER, 0);
    for part in parts {
        out.extend_from_slice(part);
    }
    let body = begin + RECORD_HEADER;
    let tag = key.seal(lsn, &fields, &mut out[body..]);
    out.extend_from_slice(&tag);
    header.payload_crc = crc32c(0, &out[body..]);

    let mut framed = fields;
    framed.put_u32(0);
    framed.put_u32(header.payload_crc);
    framed.put_u32(crc32c(mark, &framed));
    out[begin..body].copy_from_slice(&framed);
    out.resize(out.len().next_multiple_of(narrow(ALIGN)), 0);
}

fn crc32c(mark: u32, bytes: &[u8]) -> u32 {
    let mut digest = Digest::new(Crc32Iscsi);
    digest.update(&mark.to_le_bytes());
    digest.update(bytes);
    // The digest of a 32-bit checksum fits.
    u32::try_from(digest.finalize()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zeroize::Zeroizing;

    fn sample() -> (FileHeader, SealKey) {
        let header = FileHeader::new(Kind::Log, [1; 16], 3, 40, 5000);
        let key = header.key(&Zeroizing::new([9; 32]));
        (header, key)
    }

    #[test]
    fn a_header_survives_its_block_and_no_bit_of_it_may_change() {
        let (header, _) = sample();
        let block = header.encode();
        assert_eq!(FileHeader::decode(&block), Some(header));
        for bit in 0..HEADER_LEN * 8 {
            let mut altered = block.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FileHeader::decode(&altered), None, "bit {bit}");
        }
    }

    #[test]
    fn a_record_opens_as_written_and_no_bit_of_it_may_change() {
        let (header, key) = sample();
        let mut out = Vec::new();
        append(
            &mut out,
            &key,
            header.mark(),
            (2, 41),
            (7, true),
            &[b"some ", b"payload"],
        );
        let parsed = RecordHeader::decode(&out, header.mark()).expect("own record");
        assert_eq!((parsed.job, parsed.lsn, parsed.batch), (2, 41, 7));
        assert!(parsed.last_in_batch);
        assert_eq!(parsed.span(), wide(out.len()));
        let mut sealed = out[RECORD_HEADER..RECORD_HEADER + parsed.sealed_len()].to_vec();
        assert!(parsed.is_whole(&sealed));
        assert_eq!(
            parsed.open(&key, &mut sealed),
            Ok(&mut b"some payload".to_vec()[..])
        );

        for bit in 0..(RECORD_HEADER + parsed.sealed_len()) * 8 {
            let mut altered = out.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let whole = RecordHeader::decode(&altered, header.mark())
                .is_some_and(|h| h.is_whole(&altered[RECORD_HEADER..][..parsed.sealed_len()]));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn a_record_of_another_file_is_none_of_this_one() {
        let (header, key) = sample();
        let mut out = Vec::new();
        append(&mut out, &key, header.mark(), (2, 41), (7, true), &[b"x"]);
        let (other, _) = sample();
        assert_eq!(RecordHeader::decode(&out, other.mark()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, mark: u32) {
            let _ = RecordHeader::decode(&bytes, mark);
            let _ = FileHeader::decode(&bytes);
        }
    }
}
