//! What is kept beside an object's checksums: which upload made it, and where its parts lay.
//!
//! The vault joins parts without copying and forgets them. S3 clients ask for them later: by part
//! number, in `GetObjectAttributes`, and by completing the same upload again after a lost answer.

use std::fmt::Write as _;
use std::ops::Range;

use longhaul_vault::{Checksums, ObjectInfo, PartInfo, UploadId};

use super::checksum::Algorithm;

/// The upload that an object was made by.
const UPLOAD: &str = "upload";
/// Hash of the numbers of the parts that it was completed with.
const NUMBERS: &str = "part-numbers";
/// Lengths of the parts: `LENGTH` or `LENGTH*COUNT`, comma separated.
const LENGTHS: &str = "parts";
/// Checksums of the parts: the algorithm's name, a colon, base64 texts, comma separated.
const SUMS: &str = "part-sums";
/// Longest list of either; a longer one is not kept, because the vault has no room for it.
const MAX_LIST: usize = 12 << 10;

/// Parts of an object, as they were sent.
pub(super) struct Layout {
    /// Lengths in bytes.
    pub lengths: Vec<u64>,
    /// One algorithm's checksum of every part, if the client sent them.
    pub sums: Option<(Algorithm, Vec<String>)>,
}

/// Adds to `kept` what is worth knowing of the parts that an upload was completed with.
pub(super) fn keep(
    kept: &mut Checksums,
    upload: &UploadId,
    parts: &[PartInfo],
    chosen: Option<Algorithm>,
) {
    kept.insert(UPLOAD.to_owned(), upload.to_string());
    let numbers = parts.iter().map(|part| u32::from(part.number.get()));
    kept.insert(NUMBERS.to_owned(), hash(numbers));
    let mut runs: Vec<(u64, usize)> = Vec::new();
    for part in parts {
        match runs.last_mut() {
            Some((length, count)) if *length == part.digests.size => *count += 1,
            _ => runs.push((part.digests.size, 1)),
        }
    }
    let mut lengths = String::new();
    for (length, count) in runs {
        let comma = if lengths.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = if count == 1 {
            write!(lengths, "{comma}{length}")
        } else {
            write!(lengths, "{comma}{length}*{count}")
        };
    }
    if lengths.len() > MAX_LIST {
        return;
    }
    kept.insert(LENGTHS.to_owned(), lengths);
    // Every part has a CRC-64/NVME; a list of it is worth keeping only if the client chose it.
    for algorithm in Algorithm::ALL {
        let sums: Option<Vec<&str>> = parts
            .iter()
            .map(|part| part.checksums.get(algorithm.name()).map(String::as_str))
            .collect();
        let wanted = chosen.map_or(algorithm != Algorithm::Crc64Nvme, |c| c == algorithm);
        let Some(sums) = sums.filter(|_| wanted) else {
            continue;
        };
        let text = format!("{}:{}", algorithm.name(), sums.join(","));
        if text.len() <= MAX_LIST {
            kept.insert(SUMS.to_owned(), text);
        }
        return;
    }
}

/// The object's checksums alone, of all of its bytes: a composite one speaks of parts.
pub(super) fn of_bytes(kept: Checksums) -> Checksums {
    kept.into_iter()
        .filter(|(name, value)| {
            Algorithm::ALL.iter().any(|a| a.name() == name) && !value.contains('-')
        })
        .collect()
}

/// Whether one of the checksums speaks of parts.
pub(super) fn is_composite(kept: &Checksums) -> bool {
    let composite = |a: &Algorithm| kept.get(a.name()).is_some_and(|v| v.contains('-'));
    Algorithm::ALL.iter().any(composite)
}

/// Whether `upload` made this object, completed with parts of these numbers.
pub(super) fn made_by(info: &ObjectInfo, upload: &str, numbers: impl Iterator<Item = u32>) -> bool {
    let same = |name: &str, text: &str| info.checksums.get(name).is_none_or(|kept| kept == text);
    info.checksums.contains_key(UPLOAD) && same(UPLOAD, upload) && same(NUMBERS, &hash(numbers))
}

fn hash(numbers: impl Iterator<Item = u32>) -> String {
    let mut hasher = blake3::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    // Half of it: nobody gains anything by two lists that look alike.
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Where the parts lay, if the object was made of some and they are still known.
pub(super) fn of(info: &ObjectInfo) -> Option<Layout> {
    let mut lengths = Vec::new();
    for run in info.checksums.get(LENGTHS)?.split(',') {
        let (length, count) = run.split_once('*').unwrap_or((run, "1"));
        let (length, count) = (length.parse::<u64>().ok()?, count.parse::<usize>().ok()?);
        if lengths.len() + count > 10_000 {
            return None;
        }
        lengths.extend(std::iter::repeat_n(length, count));
    }
    let sums = info.checksums.get(SUMS).and_then(|text| {
        let (name, sums) = text.split_once(':')?;
        let algorithm = Algorithm::ALL.into_iter().find(|a| a.name() == name)?;
        let sums: Vec<String> = sums.split(',').map(str::to_owned).collect();
        (sums.len() == lengths.len()).then_some((algorithm, sums))
    });
    Some(Layout { lengths, sums })
}

impl Layout {
    /// The checksum of part `number`, counted from 1.
    pub fn checksums(&self, number: usize) -> Checksums {
        let sum = self.sums.as_ref().and_then(|(algorithm, sums)| {
            let sum = sums.get(number.checked_sub(1)?)?;
            Some((algorithm.name().to_owned(), sum.clone()))
        });
        sum.into_iter().collect()
    }

    /// The bytes of part `number`, counted from 1.
    pub fn range(&self, number: usize) -> Option<Range<u64>> {
        let index = number.checked_sub(1)?;
        let length = *self.lengths.get(index)?;
        let start: u64 = self.lengths.iter().take(index).sum();
        Some(start..start + length)
    }
}
