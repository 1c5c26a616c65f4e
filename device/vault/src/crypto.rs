//! Keys and seals: HKDF-SHA256 and AES-256-GCM, nothing else.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Salt},
    rand,
};
use zeroize::Zeroizing;

/// Bytes that a seal adds.
pub(crate) const TAG: usize = 16;

/// A key from which others are derived; wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// The bytes are not what was sealed, or the key is another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Unsealed;

/// Random bytes from the system's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's generator fails only before it was ever seeded; no key may be made then.
    rand::fill(&mut bytes).expect("the system's random generator is seeded");
    bytes
}

/// A key for one purpose, with which every nonce is used once.
pub(crate) struct SealKey(LessSafeKey);

impl SealKey {
    /// Derives the key for `info` under `salt`.
    pub(crate) fn derive(secret: &Secret, salt: &[u8], info: &[&[u8]]) -> Self {
        let prk = Salt::new(HKDF_SHA256, salt).extract(&secret[..]);
        // HKDF-SHA256 gives up to 8,160 bytes; 32 cannot fail.
        let okm = prk
            .expand(info, &AES_256_GCM)
            .expect("a 32-byte key can be expanded");
        Self(LessSafeKey::new(UnboundKey::from(okm)))
    }

    /// Encrypts `data` in place and gives the tag.
    pub(crate) fn seal(&self, counter: u64, aad: &[u8], data: &mut [u8]) -> [u8; TAG] {
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce(counter), Aad::from(aad), data)
            // Fails only above 64 GiB; frames and records are bounded far below.
            .expect("a bounded message can be sealed");
        let mut out = [0; TAG];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Decrypts `sealed` (ciphertext and tag) in place.
    pub(crate) fn open<'a>(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Unsealed> {
        self.0
            .open_in_place(nonce(counter), Aad::from(aad), sealed)
            .map_err(|_| Unsealed)
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_key_counter_and_context_open_a_seal() {
        let secret = Secret::new([7; 32]);
        let key = SealKey::derive(&secret, b"salt", &[b"info"]);
        let mut sealed = b"bytes".to_vec();
        let tag = key.seal(1, b"context", &mut sealed);
        sealed.extend_from_slice(&tag);

        assert_eq!(
            key.open(1, b"context", &mut sealed.clone()),
            Ok(&mut b"bytes".to_vec()[..])
        );
        assert_eq!(key.open(2, b"context", &mut sealed.clone()), Err(Unsealed));
        assert_eq!(key.open(1, b"other", &mut sealed.clone()), Err(Unsealed));
        let other = SealKey::derive(&secret, b"salt", &[b"other"]);
        assert_eq!(
            other.open(1, b"context", &mut sealed.clone()),
            Err(Unsealed)
        );
        sealed[0] ^= 1;
        assert_eq!(key.open(1, b"context", &mut sealed), Err(Unsealed));
    }
}
