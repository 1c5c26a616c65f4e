//! How an object travels: in one piece, or in how many parts.

/// Objects up to this length travel with one request.
const SINGLE_BYTES: u64 = 16 << 20;
/// The least length of a part.
const MIN_PART_BYTES: u64 = 16 << 20;
/// Parts of one object at the most; the store allows 10,000.
const MAX_PARTS: u64 = 9_000;

/// Length of a part of an object of `bytes`; 0 if it travels in one piece.
pub(super) fn part_bytes(bytes: u64) -> u64 {
    if bytes <= SINGLE_BYTES {
        return 0;
    }
    bytes.div_ceil(MAX_PARTS).max(MIN_PART_BYTES)
}

/// How many parts of `part_bytes` an object of `bytes` has.
pub(super) fn part_count(bytes: u64, part_bytes: u64) -> u32 {
    if part_bytes == 0 {
        return 0;
    }
    u32::try_from(bytes.div_ceil(part_bytes)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::names::MAX_OBJECT_BYTES;
    use proptest::prelude::*;

    #[test]
    fn small_objects_travel_in_one_piece() {
        assert_eq!(part_bytes(0), 0);
        assert_eq!(part_bytes(SINGLE_BYTES), 0);
        assert_eq!(
            part_count(SINGLE_BYTES + 1, part_bytes(SINGLE_BYTES + 1)),
            2
        );
    }

    proptest! {
        #[test]
        fn every_length_fits_the_stores_limits(bytes in SINGLE_BYTES + 1..=MAX_OBJECT_BYTES) {
            let part = part_bytes(bytes);
            let count = u64::from(part_count(bytes, part));

            prop_assert!(part >= MIN_PART_BYTES);
            prop_assert!((2..=MAX_PARTS).contains(&count));
            prop_assert!((count - 1) * part < bytes && bytes <= count * part);
        }
    }
}
