//! Public parts of our signing keys (`TPMT_PUBLIC`): ECDSA P-256 with SHA-256 and nothing else.

use aws_lc_rs::digest::{SHA256, digest};

use super::{ALG_ECC, ALG_ECDSA, ALG_NULL, ALG_SHA256, Malformed, Reader};
use crate::oid;

/// `TPM_ECC_NIST_P256`.
const CURVE_P256: u16 = 0x0003;

/// `fixedTPM | fixedParent | sensitiveDataOrigin | userWithAuth | sign`: made in this TPM, never
/// leaves it, signs what it is given.
const DEVICE_KEY: u32 = 0x0004_0072;
/// The same, and `restricted`: signs only what the TPM itself says.
const ATTESTATION_KEY: u32 = 0x0005_0072;

/// `noDA`: the TPM does not defend the key's (empty) password against guesses. Keys from before have
/// it not; it makes no difference to what they may do.
const NO_DA: u32 = 0x0000_0400;

/// What a key may do, as its attributes say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Use {
    /// Signs what it is given: an identity (IDevID, LDevID).
    Device,
    /// Signs only structures that the TPM made: an attestation key (IAK).
    Attestation,
}

/// The public part of a signing key in a TPM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SigningPublic {
    usage: Use,
    name: [u8; 34],
    point: [u8; 65],
}

impl SigningPublic {
    /// Reads a `TPMT_PUBLIC`. The attributes must be exactly those of a device or an attestation
    /// key: a key that could be duplicated out of its TPM proves nothing.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says what is not as it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new("TPMT_PUBLIC", bytes);
        r.expect(ALG_ECC, "not an ECC key")?;
        r.expect(ALG_SHA256, "its name algorithm is not SHA-256")?;
        let usage = match r.u32()? & !NO_DA {
            DEVICE_KEY => Use::Device,
            ATTESTATION_KEY => Use::Attestation,
            _ => return Err(r.malformed("attributes of neither a device nor an attestation key")),
        };
        if !r.sized()?.is_empty() {
            return Err(r.malformed("it has an authorisation policy"));
        }
        r.expect(ALG_NULL, "a signing key has no symmetric algorithm")?;
        r.expect(ALG_ECDSA, "its scheme is not ECDSA")?;
        r.expect(ALG_SHA256, "its scheme's hash is not SHA-256")?;
        r.expect(CURVE_P256, "its curve is not P-256")?;
        r.expect(ALG_NULL, "a signing key has no key derivation")?;
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&r.scalar()?);
        point[33..].copy_from_slice(&r.scalar()?);
        r.finish()?;

        // Name = nameAlg || H(TPMT_PUBLIC); Part 1, section 16.
        let mut name = [0; 34];
        name[..2].copy_from_slice(&ALG_SHA256.to_be_bytes());
        name[2..].copy_from_slice(digest(&SHA256, bytes).as_ref());
        Ok(Self { usage, name, point })
    }

    /// What the key may do.
    pub fn usage(&self) -> Use {
        self.usage
    }

    /// The key's TPM name.
    pub fn name(&self) -> &[u8; 34] {
        &self.name
    }

    /// The public point, uncompressed (SEC 1).
    pub fn point(&self) -> &[u8; 65] {
        &self.point
    }

    /// The key as SubjectPublicKeyInfo (DER).
    pub fn spki(&self) -> Vec<u8> {
        oid::p256_spki(&self.point)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `TPMT_PUBLIC` as a TPM would write it.
    pub(in crate::tcg) fn marshal(attributes: u32, x: &[u8], y: &[u8]) -> Vec<u8> {
        let mut out = vec![0x00, 0x23, 0x00, 0x0b];
        out.extend(attributes.to_be_bytes());
        out.extend([
            0, 0, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10,
        ]);
        for scalar in [x, y] {
            out.extend(u16::try_from(scalar.len()).expect("short").to_be_bytes());
            out.extend(scalar);
        }
        out
    }

    #[test]
    fn leading_zeros_may_be_missing() {
        let key = SigningPublic::parse(&marshal(DEVICE_KEY, &[1; 31], &[2; 32])).expect("a key");

        assert_eq!(key.point()[..3], [4, 0, 1]);
        assert_eq!(key.usage(), Use::Device);
    }

    #[test]
    fn a_key_that_can_leave_its_tpm_is_refused() {
        for bit in 0..32 {
            let attributes = DEVICE_KEY ^ (1 << bit);
            let parsed = SigningPublic::parse(&marshal(attributes, &[1; 32], &[2; 32]));
            // The one bit between the two kinds of key makes the other kind, and one does not count.
            match parsed {
                Ok(key) if bit == 10 => assert_eq!(key.usage(), Use::Device),
                Ok(key) => assert_eq!((bit, key.usage()), (16, Use::Attestation)),
                Err(error) => assert!(error.rule.contains("attributes"), "{error}"),
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = marshal(ATTESTATION_KEY, &[1; 32], &[2; 32]);
        bytes.push(0);

        assert!(SigningPublic::parse(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SigningPublic::parse(&bytes);
        }

        #[test]
        fn no_cut_or_longer_number_passes(cut in 0_usize..88, x in 33_usize..80) {
            let whole = marshal(DEVICE_KEY, &[1; 32], &[2; 32]);
            prop_assert!(SigningPublic::parse(&whole[..cut.min(whole.len() - 1)]).is_err());
            prop_assert!(SigningPublic::parse(&marshal(DEVICE_KEY, &vec![1; x], &[2; 32])).is_err());
        }
    }
}
