//! How the pieces of operations and facts are encoded.

use super::{Extent, Owner, Source};
use crate::{
    Condition, Delivery, DeliveryEvent, Digests, UploadId, Version,
    codec::{Malformed, Put, Take, narrow},
};

/// Longer than any segment, in bytes: sums of extents stay far below what a number holds.
const MAX_EXTENT: u64 = 1 << 40;
/// Longer than any object, in bytes.
pub(crate) const MAX_SIZE: u64 = 1 << 50;

pub(crate) fn put_owner(out: &mut Vec<u8>, owner: Owner) {
    match owner {
        Owner::Object(version) => {
            out.put_u8(0);
            out.put_u64(version);
        }
        Owner::Part(upload, number) => {
            out.put_u8(1);
            out.put_raw(&upload.0);
            out.put_u16(number);
        }
    }
}

pub(crate) fn take_owner(take: &mut Take<'_>) -> Result<Owner, Malformed> {
    match take.u8()? {
        0 => Ok(Owner::Object(take.u64()?)),
        1 => Ok(Owner::Part(UploadId(take.array()?), take.u16()?)),
        _ => Err(Malformed("owner")),
    }
}

pub(crate) fn put_digests(out: &mut Vec<u8>, digests: &Digests) {
    out.put_u64(digests.size);
    out.put_raw(&digests.blake3);
    out.put_u64(digests.crc64nvme);
}

pub(crate) fn take_digests(take: &mut Take<'_>) -> Result<Digests, Malformed> {
    let digests = Digests {
        size: take.u64()?,
        blake3: take.array()?,
        crc64nvme: take.u64()?,
    };
    if digests.size > MAX_SIZE {
        return Err(Malformed("size"));
    }
    Ok(digests)
}

pub(crate) fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Frames {
            incarnation,
            at,
            len,
        } => {
            out.put_u8(0);
            out.put_u64(*incarnation);
            out.put_u32(*at);
            out.put_u64(*len);
        }
        Extent::Log { file, offset, len } => {
            out.put_u8(1);
            out.put_u32(*file);
            out.put_u32(*offset);
            out.put_u32(*len);
        }
    }
}

pub(crate) fn take_extent(take: &mut Take<'_>) -> Result<Extent, Malformed> {
    let extent = match take.u8()? {
        0 => Extent::Frames {
            incarnation: take.u64()?,
            at: take.u32()?,
            len: take.u64()?,
        },
        1 => Extent::Log {
            file: take.u32()?,
            offset: take.u32()?,
            len: take.u32()?,
        },
        _ => return Err(Malformed("extent")),
    };
    if extent.len() > MAX_EXTENT {
        return Err(Malformed("length of an extent"));
    }
    Ok(extent)
}

pub(crate) fn put_extents(out: &mut Vec<u8>, extents: &[Extent]) {
    out.put_count(extents.len());
    for extent in extents {
        put_extent(out, extent);
    }
}

pub(crate) fn take_extents(take: &mut Take<'_>) -> Result<Vec<Extent>, Malformed> {
    let count = take.count()?;
    (0..count).map(|_| take_extent(take)).collect()
}

/// The source comes last, because inline bytes are whatever follows it.
pub(crate) fn put_source(out: &mut Vec<u8>, source: &Source) {
    match source {
        Source::Frames(extents) => {
            out.put_u8(0);
            put_extents(out, extents);
        }
        Source::Inline { len } => {
            out.put_u8(1);
            out.put_u32(*len);
        }
    }
}

pub(crate) fn take_source(take: &mut Take<'_>) -> Result<Source, Malformed> {
    match take.u8()? {
        0 => take_extents(take).map(Source::Frames),
        1 => {
            let len = take.u32()?;
            take.raw(narrow(u64::from(len)))?;
            Ok(Source::Inline { len })
        }
        _ => Err(Malformed("source")),
    }
}

pub(crate) fn put_condition(out: &mut Vec<u8>, condition: &Condition) {
    match condition {
        Condition::Any => out.put_u8(0),
        Condition::Absent => out.put_u8(1),
        Condition::Present => out.put_u8(2),
        Condition::Etag(etag) => {
            out.put_u8(3);
            out.put_text(etag);
        }
        Condition::Version(version) => {
            out.put_u8(4);
            out.put_u64(version.0);
        }
    }
}

pub(crate) fn take_condition(take: &mut Take<'_>) -> Result<Condition, Malformed> {
    Ok(match take.u8()? {
        0 => Condition::Any,
        1 => Condition::Absent,
        2 => Condition::Present,
        3 => Condition::Etag(take.string()?),
        4 => Condition::Version(Version(take.u64()?)),
        _ => return Err(Malformed("condition")),
    })
}

pub(crate) fn put_event(out: &mut Vec<u8>, event: &DeliveryEvent) {
    match event {
        DeliveryEvent::Started { upload } => {
            out.put_u8(0);
            out.put_text(upload);
        }
        DeliveryEvent::PartDone { number, etag } => {
            out.put_u8(1);
            out.put_u32(*number);
            out.put_text(etag);
        }
        DeliveryEvent::Delivered => out.put_u8(2),
        DeliveryEvent::Verified => out.put_u8(3),
        DeliveryEvent::Failed { reason } => {
            out.put_u8(4);
            out.put_text(reason);
        }
        DeliveryEvent::Reset => out.put_u8(5),
        DeliveryEvent::Released => out.put_u8(6),
    }
}

pub(crate) fn take_event(take: &mut Take<'_>) -> Result<DeliveryEvent, Malformed> {
    Ok(match take.u8()? {
        0 => DeliveryEvent::Started {
            upload: take.string()?,
        },
        1 => DeliveryEvent::PartDone {
            number: take.u32()?,
            etag: take.string()?,
        },
        2 => DeliveryEvent::Delivered,
        3 => DeliveryEvent::Verified,
        4 => DeliveryEvent::Failed {
            reason: take.string()?,
        },
        5 => DeliveryEvent::Reset,
        6 => DeliveryEvent::Released,
        _ => return Err(Malformed("delivery event")),
    })
}

pub(crate) fn put_delivery(out: &mut Vec<u8>, delivery: &Delivery) {
    match delivery {
        Delivery::OnBox => out.put_u8(0),
        Delivery::InFlight { upload, parts } => {
            out.put_u8(1);
            out.put_text(upload);
            out.put_count(parts.len());
            for (number, etag) in parts {
                out.put_u32(*number);
                out.put_text(etag);
            }
        }
        Delivery::InCloud => out.put_u8(2),
        Delivery::Verified => out.put_u8(3),
        Delivery::Failed { reason } => {
            out.put_u8(4);
            out.put_text(reason);
        }
    }
}

pub(crate) fn take_delivery(take: &mut Take<'_>) -> Result<Delivery, Malformed> {
    Ok(match take.u8()? {
        0 => Delivery::OnBox,
        1 => {
            let upload = take.string()?;
            let count = take.count()?;
            let parts = (0..count)
                .map(|_| Ok((take.u32()?, take.string()?)))
                .collect::<Result<_, Malformed>>()?;
            Delivery::InFlight { upload, parts }
        }
        2 => Delivery::InCloud,
        3 => Delivery::Verified,
        4 => Delivery::Failed {
            reason: take.string()?,
        },
        _ => return Err(Malformed("delivery")),
    })
}
