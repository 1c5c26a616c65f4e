//! What a log record says: one operation, as it was asked for.
//!
//! Operations are logged first and judged when they are applied, in order, so that replay comes
//! to the same index as the run did. Nothing in here depends on when or where it is applied.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod samples;
pub(crate) mod wire;

use std::sync::Arc;

use crate::{
    Checksums, Condition, DeliveryEvent, Digests, UploadId, Version,
    codec::{Malformed, Put, Take, narrow},
    tree::PartTree,
};
use wire::{
    put_condition, put_digests, put_event, put_extent, put_owner, put_source, take_condition,
    take_digests, take_event, take_extent, take_owner, take_source,
};

/// A run of bytes of an object, and where they lie.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// Frames that follow each other in a segment; all are full but the last.
    Frames {
        incarnation: u64,
        /// In blocks of 4,096 bytes from the segment's beginning.
        at: u32,
        len: u64,
    },
    /// The tail of a log record's payload.
    Log {
        file: u32,
        /// Of the record, from the file's beginning.
        offset: u32,
        len: u32,
    },
}

impl Extent {
    pub(crate) fn len(self) -> u64 {
        match self {
            Self::Frames { len, .. } => len,
            Self::Log { len, .. } => u64::from(len),
        }
    }
}

/// An object's bytes, in order.
pub(crate) type Body = Arc<[Extent]>;

/// Where the bytes of a new object or part are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// In frames, durable already.
    Frames(Vec<Extent>),
    /// At the end of this very record.
    Inline { len: u32 },
}

/// Who owns an extent that moves from an old log file into this record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    Object(u64),
    Part(UploadId, u16),
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    Put {
        key: String,
        content: Digests,
        source: Source,
        detail: Vec<u8>,
        condition: Condition,
        now: i64,
    },
    Delete {
        key: String,
        condition: Condition,
    },
    CreateUpload {
        id: UploadId,
        key: String,
        detail: Vec<u8>,
        now: i64,
    },
    PutPart {
        upload: UploadId,
        number: u16,
        content: Digests,
        tree: PartTree,
        source: Source,
        checksums: Checksums,
        now: i64,
    },
    Complete {
        upload: UploadId,
        parts: Vec<(u16, String)>,
        checksums: Checksums,
        condition: Condition,
        now: i64,
    },
    Abort {
        upload: UploadId,
    },
    Deliver {
        version: Version,
        event: DeliveryEvent,
    },
    Forget {
        version: Version,
        upload: String,
    },
    /// Somebody else remembers the deletion of this version now.
    ForgetDeletion {
        version: Version,
    },
    /// The bytes of `from`, a log extent, now lie at the end of this record.
    Move {
        owner: Owner,
        from: Extent,
    },
    /// The BLAKE3 of an object made of parts, from reading it.
    Hashed {
        version: Version,
        blake3: [u8; 32],
    },
    /// A segment begins a new life from block `base` on, under keys from `salt`.
    Incarnate {
        segment: u32,
        base: u32,
        salt: [u8; 32],
    },
}

impl Op {
    /// The record's payload without the inline bytes, which follow it.
    #[expect(clippy::too_many_lines, reason = "one arm per operation")]
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match self {
            Self::Put {
                key,
                content,
                source,
                detail,
                condition,
                now,
            } => {
                out.put_u8(1);
                out.put_text(key);
                put_digests(&mut out, content);
                out.put_bytes(detail);
                put_condition(&mut out, condition);
                out.put_i64(*now);
                put_source(&mut out, source);
            }
            Self::Delete { key, condition } => {
                out.put_u8(2);
                out.put_text(key);
                put_condition(&mut out, condition);
            }
            Self::CreateUpload {
                id,
                key,
                detail,
                now,
            } => {
                out.put_u8(3);
                out.put_raw(&id.0);
                out.put_text(key);
                out.put_bytes(detail);
                out.put_i64(*now);
            }
            Self::PutPart {
                upload,
                number,
                content,
                tree,
                source,
                checksums,
                now,
            } => {
                out.put_u8(4);
                out.put_raw(&upload.0);
                out.put_u16(*number);
                put_digests(&mut out, content);
                tree.encode(&mut out);
                out.put_map(checksums);
                out.put_i64(*now);
                put_source(&mut out, source);
            }
            Self::Complete {
                upload,
                parts,
                checksums,
                condition,
                now,
            } => {
                out.put_u8(5);
                out.put_raw(&upload.0);
                out.put_count(parts.len());
                for (number, etag) in parts {
                    out.put_u16(*number);
                    out.put_text(etag);
                }
                out.put_map(checksums);
                put_condition(&mut out, condition);
                out.put_i64(*now);
            }
            Self::Abort { upload } => {
                out.put_u8(6);
                out.put_raw(&upload.0);
            }
            Self::Deliver { version, event } => {
                out.put_u8(7);
                out.put_u64(version.0);
                put_event(&mut out, event);
            }
            Self::Forget { version, upload } => {
                out.put_u8(8);
                out.put_u64(version.0);
                out.put_text(upload);
            }
            Self::ForgetDeletion { version } => {
                out.put_u8(12);
                out.put_u64(version.0);
            }
            Self::Move { owner, from } => {
                out.put_u8(9);
                put_owner(&mut out, *owner);
                put_extent(&mut out, from);
            }
            Self::Hashed { version, blake3 } => {
                out.put_u8(11);
                out.put_u64(version.0);
                out.put_raw(blake3);
            }
            Self::Incarnate {
                segment,
                base,
                salt,
            } => {
                out.put_u8(10);
                out.put_u32(*segment);
                out.put_u32(*base);
                out.put_raw(salt);
            }
        }
        out
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        let mut take = Take(payload);
        let op = match take.u8()? {
            1 => Self::Put {
                key: take.string()?,
                content: take_digests(&mut take)?,
                detail: take.bytes()?.to_vec(),
                condition: take_condition(&mut take)?,
                now: take.i64()?,
                source: take_source(&mut take)?,
            },
            2 => Self::Delete {
                key: take.string()?,
                condition: take_condition(&mut take)?,
            },
            3 => Self::CreateUpload {
                id: UploadId(take.array()?),
                key: take.string()?,
                detail: take.bytes()?.to_vec(),
                now: take.i64()?,
            },
            4 => Self::PutPart {
                upload: UploadId(take.array()?),
                number: take.u16()?,
                content: take_digests(&mut take)?,
                tree: PartTree::decode(&mut take)?,
                checksums: take.map()?,
                now: take.i64()?,
                source: take_source(&mut take)?,
            },
            5 => {
                let upload = UploadId(take.array()?);
                let count = take.count()?;
                let parts = (0..count)
                    .map(|_| Ok((take.u16()?, take.string()?)))
                    .collect::<Result<_, Malformed>>()?;
                let checksums = take.map()?;
                let condition = take_condition(&mut take)?;
                Self::Complete {
                    upload,
                    parts,
                    checksums,
                    condition,
                    now: take.i64()?,
                }
            }
            6 => Self::Abort {
                upload: UploadId(take.array()?),
            },
            7 => Self::Deliver {
                version: Version(take.u64()?),
                event: take_event(&mut take)?,
            },
            8 => Self::Forget {
                version: Version(take.u64()?),
                upload: take.string()?,
            },
            9 => {
                let owner = take_owner(&mut take)?;
                let from = take_extent(&mut take)?;
                take.raw(narrow(from.len()))?;
                Self::Move { owner, from }
            }
            10 => Self::Incarnate {
                segment: take.u32()?,
                base: take.u32()?,
                salt: take.array()?,
            },
            11 => Self::Hashed {
                version: Version(take.u64()?),
                blake3: take.array()?,
            },
            12 => Self::ForgetDeletion {
                version: Version(take.u64()?),
            },
            _ => return Err(Malformed("operation")),
        };
        take.end()?;
        Ok(op)
    }
}

#[cfg(test)]
mod tests {
    use super::samples::ops;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn operations_survive_their_encoding() {
        for op in ops() {
            assert_eq!(Op::decode(&op.encode()), Ok(op));
        }
    }

    #[test]
    fn inline_bytes_are_all_that_follows_the_source() {
        let from = Extent::Log {
            file: 1,
            offset: 2,
            len: 3,
        };
        let op = Op::Move {
            owner: Owner::Object(4),
            from,
        };
        let mut payload = op.encode();
        assert!(Op::decode(&payload).is_err());
        payload.extend_from_slice(b"abc");
        assert_eq!(Op::decode(&payload), Ok(op));
        payload.push(0);
        assert!(Op::decode(&payload).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Op::decode(&bytes);
        }

        #[test]
        fn no_cut_or_flipped_operation_panics(which in 0_usize..11, cut: usize, bit: usize) {
            let mut bytes = ops()[which].encode();
            bytes.truncate(cut % (bytes.len() + 1));
            if !bytes.is_empty() {
                let at = bit % (bytes.len() * 8);
                bytes[at / 8] ^= 1 << (at % 8);
            }
            let _ = Op::decode(&bytes);
        }
    }
}
