//! The TPM's key derivation functions, for the hash of an endorsement key's name.

use aws_lc_rs::{digest, hmac};

/// The hash algorithm that a key's name is made with; also that of its derivations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
}

impl Hash {
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    pub(super) fn hmac(self, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
        };
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
        for part in parts {
            context.update(part);
        }
        context.sign()
    }

    fn digest(self, parts: &[&[u8]]) -> digest::Digest {
        let mut context = digest::Context::new(match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
        });
        for part in parts {
            context.update(part);
        }
        context.finish()
    }

    /// `KDFa` for at most one digest's worth of bytes, which is all that we derive (Part 1,
    /// section 11.4.10.2). The label's terminating zero is part of what is hashed.
    pub(super) fn kdf_a(self, key: &[u8], label: &str, u: &[u8], bytes: usize) -> Vec<u8> {
        debug_assert!(bytes <= self.bytes());
        let counter = 1_u32.to_be_bytes();
        let bits = bits(bytes);
        let tag = self.hmac(key, &[&counter, label.as_bytes(), &[0], u, &bits]);
        tag.as_ref()[..bytes].to_vec()
    }

    /// `KDFe` for one digest (Part 1, section 11.4.10.3).
    pub(super) fn kdf_e(self, z: &[u8], label: &str, party_u: &[u8], party_v: &[u8]) -> Vec<u8> {
        let counter = 1_u32.to_be_bytes();
        self.digest(&[&counter, z, label.as_bytes(), &[0], party_u, party_v])
            .as_ref()
            .to_vec()
    }
}

fn bits(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes * 8).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivations_differ_by_label_and_context() {
        let a = Hash::Sha256.kdf_a(&[7; 32], "STORAGE", b"name", 16);
        let b = Hash::Sha256.kdf_a(&[7; 32], "INTEGRITY", b"name", 16);
        let c = Hash::Sha256.kdf_a(&[7; 32], "STORAGE", b"eman", 16);

        assert_eq!(a.len(), 16);
        assert!(a != b && a != c);
        assert_eq!(
            Hash::Sha384.kdf_e(&[1; 48], "IDENTITY", b"u", b"v").len(),
            48
        );
    }
}
