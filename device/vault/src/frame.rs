//! Frames: how a run of an object's bytes lies in a segment.

use crate::{
    codec::Put,
    config::BLOCK,
    crypto::{SealKey, Secret, TAG, Unsealed},
    keyring::JobNo,
};

/// The key of one job in one incarnation of a segment.
pub(crate) struct FrameKey {
    key: SealKey,
    context: Vec<u8>,
}

impl FrameKey {
    pub(crate) fn derive(
        secret: &Secret,
        vault: &[u8; 16],
        job: JobNo,
        (segment, incarnation): (u32, u64),
        salt: &[u8; 32],
    ) -> Self {
        let mut context = Vec::with_capacity(48);
        context.put_raw(vault);
        context.put_u32(job);
        context.put_u32(segment);
        context.put_u64(incarnation);
        let key = SealKey::derive(secret, salt, &[b"longhaul vault frame v1", &context]);
        Self { key, context }
    }

    /// Seals the first `len` bytes of `frame`, appends the tag and clears the rest.
    ///
    /// `at` is the frame's first byte in its segment: written once per incarnation, so the nonce
    /// made of it is used once per key.
    pub(crate) fn seal(&self, at: u64, frame: &mut [u8], len: usize) {
        let (data, rest) = frame.split_at_mut(len);
        let tag = self.key.seal(at / BLOCK, &self.associated(at, len), data);
        rest[..TAG].copy_from_slice(&tag);
        rest[TAG..].fill(0);
    }

    /// Opens the `len` bytes that were sealed at `at`, in place.
    pub(crate) fn open(&self, at: u64, frame: &mut [u8], len: usize) -> Result<(), Unsealed> {
        let sealed = frame.get_mut(..len + TAG).ok_or(Unsealed)?;
        self.key
            .open(at / BLOCK, &self.associated(at, len), sealed)
            .map(drop)
    }

    fn associated(&self, at: u64, len: usize) -> Vec<u8> {
        let mut out = self.context.clone();
        out.put_u64(at);
        out.put_count(len);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    #[test]
    fn a_frame_opens_only_where_it_was_written() {
        let secret = Zeroizing::new([1; 32]);
        let key = FrameKey::derive(&secret, &[2; 16], 1, (3, 4), &[5; 32]);
        let mut frame = vec![7; 4096];
        key.seal(8192, &mut frame, 100);
        assert!(frame[100 + TAG..].iter().all(|byte| *byte == 0));

        let mut copy = frame.clone();
        key.open(8192, &mut copy, 100).expect("own frame");
        assert_eq!(copy[..100], [7; 100]);

        let elsewhere = [
            FrameKey::derive(&secret, &[9; 16], 1, (3, 4), &[5; 32]),
            FrameKey::derive(&secret, &[2; 16], 2, (3, 4), &[5; 32]),
            FrameKey::derive(&secret, &[2; 16], 1, (9, 4), &[5; 32]),
            FrameKey::derive(&secret, &[2; 16], 1, (3, 9), &[5; 32]),
            FrameKey::derive(&secret, &[2; 16], 1, (3, 4), &[9; 32]),
        ];
        for other in elsewhere {
            assert_eq!(other.open(8192, &mut frame.clone(), 100), Err(Unsealed));
        }
        assert_eq!(key.open(4096, &mut frame.clone(), 100), Err(Unsealed));
        assert_eq!(key.open(8192, &mut frame.clone(), 99), Err(Unsealed));
        assert_eq!(key.open(8192, &mut frame, 5000), Err(Unsealed));
    }
}
