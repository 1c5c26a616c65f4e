//! The master key opens on this machine, in its state, and says so where it does not.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::fs;

use longhaul_device::sealed::{MasterKey, SealError};
use longhaul_device::tpm::TpmChip;
use longhaul_provisioning::tpm::Tpm;
use support::Factory;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::handles::{KeyHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::structures::{
    Digest, KeyedHashScheme, PublicBuilder, PublicKeyedHashParameters, SensitiveData,
};
use tss_esapi::traits::Marshall;

const PCRS: [u8; 3] = [0, 7, 11];

/// Seals as the first version did: under the storage root key, with the empty password.
fn seal_as_before(tcti: &str, secret: &[u8; 32]) -> Vec<u8> {
    // The storage root key must be there, as it is on a box.
    Tpm::open(tcti).unwrap().seal(&[0; 32], &PCRS).unwrap();
    let mut context = tss_esapi::Context::new(tcti.parse().unwrap()).unwrap();
    let srk = TpmHandle::Persistent(PersistentTpmHandle::new(0x8100_0001).unwrap());
    let srk = context.execute_without_session(|c| c.tr_from_tpm_public(srk));
    let srk = KeyHandle::from(srk.unwrap());
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_no_da(true)
        .with_user_with_auth(true)
        .build()
        .unwrap();
    let template = PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::Null))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .unwrap();
    let secret = SensitiveData::try_from(secret.as_slice()).unwrap();
    let made = context
        .execute_with_nullauth_session(|c| c.create(srk, template, None, Some(secret), None, None))
        .unwrap();
    let public = made.out_public.marshall().unwrap();
    let len = u16::try_from(public.len()).unwrap().to_be_bytes();
    [&len, public.as_slice(), made.out_private.value()].concat()
}

#[test]
fn a_key_that_was_sealed_without_a_policy_is_sealed_anew_once_and_stays_the_same() {
    let factory = Factory::new();
    let path = factory.state().join("master.sealed");
    let old = seal_as_before(&factory.tcti(), &[9; 32]);
    fs::write(&path, &old).unwrap();
    let chip = TpmChip::open(&factory.tcti()).unwrap();

    let first = MasterKey::open(&factory.state(), &chip, &PCRS).unwrap();
    let sealed_anew = fs::read(&path).unwrap();
    let second = MasterKey::open(&factory.state(), &chip, &PCRS).unwrap();

    assert_eq!(first.derive("x").unwrap(), second.derive("x").unwrap());
    assert_ne!(sealed_anew, old);
    assert_eq!(fs::read(&path).unwrap(), sealed_anew, "once is enough");
    drop(chip);
    Tpm::open(&factory.tcti())
        .unwrap()
        .extend(7, [1; 32])
        .unwrap();
    let chip = TpmChip::open(&factory.tcti()).unwrap();
    let closed = MasterKey::open(&factory.state(), &chip, &PCRS)
        .err()
        .unwrap();
    assert!(matches!(&closed, SealError::StateChanged(_)), "{closed}");
    assert!(closed.to_string().contains("PCR 7"), "{closed}");
    // It was not made anew: what it opened before is still to be opened.
    assert_eq!(fs::read(&path).unwrap(), sealed_anew);
    for garbage in [&b"{"[..], b"{}", b"", b"\0\0\0", &sealed_anew[..40]] {
        fs::write(&path, garbage).unwrap();
        assert!(MasterKey::open(&factory.state(), &chip, &PCRS).is_err());
    }
}
