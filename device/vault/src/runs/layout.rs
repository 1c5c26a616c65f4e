//! How a run's blocks look when their seals are open. Total on any bytes.

use super::bloom::{Bloom, NameHash};
use crate::codec::{Malformed, Put, Take};

/// Log files that a record points into, lowest and highest.
pub(crate) type Logs = Option<(u32, u32)>;

/// What a run says about one version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Record<'a> {
    pub(crate) version: u64,
    pub(crate) logs: Logs,
    pub(crate) payload: &'a [u8],
}

/// Where a block of records lies, and what is in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DataBlock {
    pub(super) first: u64,
    pub(super) at: u64,
    pub(super) len: u32,
    pub(super) logs: Logs,
}

/// Where a block of names lies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NameBlock {
    pub(super) first: Box<str>,
    pub(super) at: u64,
    pub(super) len: u32,
}

/// What is kept in memory of a run.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) data: Vec<DataBlock>,
    /// The highest version.
    pub(super) last: u64,
    pub(super) records: u64,
    pub(super) names: Vec<NameBlock>,
    pub(super) bloom: Bloom,
}

pub(super) fn put_record(out: &mut Vec<u8>, record: &Record<'_>) {
    out.put_u64(record.version);
    put_logs(out, record.logs);
    out.put_bytes(record.payload);
}

fn put_logs(out: &mut Vec<u8>, logs: Logs) {
    // Nothing is written as a range that is none.
    let (low, high) = logs.unwrap_or((u32::MAX, 0));
    out.put_u32(low);
    out.put_u32(high);
}

fn take_logs(take: &mut Take<'_>) -> Result<Logs, Malformed> {
    match (take.u32()?, take.u32()?) {
        (u32::MAX, 0) => Ok(None),
        (low, high) if low <= high => Ok(Some((low, high))),
        _ => Err(Malformed("range of log files")),
    }
}

pub(super) fn join(one: Logs, other: Logs) -> Logs {
    match (one, other) {
        (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
        (one, other) => one.or(other),
    }
}

/// The next record of a block, and `None` at its end.
pub(super) fn take_record<'a>(take: &mut Take<'a>) -> Result<Option<Record<'a>>, Malformed> {
    if take.end().is_ok() {
        return Ok(None);
    }
    Ok(Some(Record {
        version: take.u64()?,
        logs: take_logs(take)?,
        payload: take.bytes()?,
    }))
}

pub(super) fn put_name(out: &mut Vec<u8>, name: &str, version: u64) {
    out.put_text(name);
    out.put_u64(version);
}

/// The next name of a block and its version, and `None` at its end.
pub(super) fn take_name<'a>(take: &mut Take<'a>) -> Result<Option<(&'a str, u64)>, Malformed> {
    if take.end().is_ok() {
        return Ok(None);
    }
    Ok(Some((take.text()?, take.u64()?)))
}

impl Contents {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64(self.records);
        out.put_u64(self.last);
        out.put_count(self.data.len());
        for block in &self.data {
            out.put_u64(block.first);
            out.put_u64(block.at);
            out.put_u32(block.len);
            put_logs(&mut out, block.logs);
        }
        out.put_count(self.names.len());
        for block in &self.names {
            out.put_text(&block.first);
            out.put_u64(block.at);
            out.put_u32(block.len);
        }
        self.bloom.encode(&mut out);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take(bytes);
        let (records, last) = (take.u64()?, take.u64()?);
        let data = (0..take.count()?).map(|_| {
            Ok(DataBlock {
                first: take.u64()?,
                at: take.u64()?,
                len: take.u32()?,
                logs: take_logs(&mut take)?,
            })
        });
        let data: Vec<_> = data.collect::<Result<_, _>>()?;
        let names = (0..take.count()?).map(|_| {
            Ok(NameBlock {
                first: take.text()?.into(),
                at: take.u64()?,
                len: take.u32()?,
            })
        });
        let names: Vec<_> = names.collect::<Result<_, _>>()?;
        let bloom = Bloom::decode(&mut take)?;
        take.end()?;
        let ordered = data.is_sorted_by(|one, next| one.first < next.first)
            && names.is_sorted_by(|one, next| one.first <= next.first)
            && data.last().is_none_or(|block| block.first <= last);
        if !ordered {
            return Err(Malformed("order of blocks"));
        }
        Ok(Self {
            data,
            last,
            records,
            names,
            bloom,
        })
    }

    /// The block that holds `version`, if any does.
    pub(super) fn data_block(&self, version: u64) -> Option<usize> {
        let behind = self.data.partition_point(|block| block.first <= version);
        behind.checked_sub(1).filter(|_| version <= self.last)
    }

    /// The first block that may hold `name` or what sorts behind it.
    pub(super) fn name_block(&self, name: &str) -> usize {
        // A name with several versions may begin in the block before the one that it begins.
        let behind = self.names.partition_point(|block| &*block.first < name);
        behind.saturating_sub(1)
    }

    pub(super) fn may_hold(&self, name: NameHash) -> bool {
        self.bloom.may_hold(name)
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzzed(bytes: &[u8]) {
    if let Ok(contents) = Contents::decode(bytes) {
        let again = contents.encode();
        assert_eq!(again, bytes, "what is in memory is what was read");
        for version in [0, contents.last, u64::MAX] {
            let _ = contents.data_block(version);
        }
        let _ = (contents.name_block("name"), contents.name_block(""));
        let _ = contents.may_hold(NameHash::of("name"));
    }
    let (mut take, mut out) = (Take(bytes), Vec::new());
    while let Ok(Some(record)) = take_record(&mut take) {
        put_record(&mut out, &record);
        assert!(bytes.starts_with(&out), "a record is written as it is read");
    }
    let (mut take, mut out) = (Take(bytes), Vec::new());
    while let Ok(Some((name, version))) = take_name(&mut take) {
        put_name(&mut out, name, version);
        assert!(bytes.starts_with(&out), "a name is written as it is read");
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz_seeds() -> Vec<Vec<u8>> {
    let (mut records, mut names) = (Vec::new(), Vec::new());
    let mut bloom = Bloom::new(2);
    for (version, name) in [(7, "a"), (9, "b/c")] {
        let payload = b"payload";
        let record = Record {
            version,
            logs: (version == 9).then_some((1, 2)),
            payload,
        };
        put_record(&mut records, &record);
        put_name(&mut names, name, version);
        bloom.insert(NameHash::of(name));
    }
    let data = DataBlock {
        first: 7,
        at: 128,
        len: 80,
        logs: Some((1, 2)),
    };
    let name = NameBlock {
        first: "a".into(),
        at: 208,
        len: 50,
    };
    let contents = Contents {
        data: vec![data],
        last: 9,
        records: 2,
        names: vec![name],
        bloom,
    };
    vec![contents.encode(), records, names]
}
