//! The master key opens on this machine, in its state, and says so where it does not.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[expect(dead_code, reason = "other tests use the rest of it")]
mod support;

use std::fs;
use std::sync::Arc;

use longhaul_device::chip::Chip;
use longhaul_device::sealed::{MasterKey, SealError};
use longhaul_device::tpm::TpmChip;
use longhaul_device::vault_key::VaultKey;
use longhaul_provisioning::tpm::Tpm;
use longhaul_vault::{Checksums, Condition, Metadata, Vault, VaultConfig};
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

fn open_vault(factory: &Factory, master: &Arc<MasterKey>) -> (VaultKey, Vault) {
    let chip: Arc<dyn Chip> = Arc::new(TpmChip::open(&factory.tcti()).unwrap());
    let config = VaultConfig::new(factory.state().join("vault"), 64 << 20).small();
    let clock: longhaul_vault::Clock = Arc::new(|| 0);
    let (key, vault, _) = VaultKey::open(Arc::clone(master), chip, &config, &clock).unwrap();
    (key, vault)
}

fn put(vault: &Vault, job: &str, data: &[u8]) {
    let job = job.parse().unwrap();
    vault.create_job(&job).unwrap();
    let mut writer = vault.begin(&job, "object", Metadata::default()).unwrap();
    writer.write(data).unwrap();
    let stored = writer.finish(Checksums::new(), Condition::Any);
    stored.wait().unwrap();
}

fn get(vault: &Vault, job: &str) -> Result<Vec<u8>, longhaul_vault::Error> {
    let mut reader = vault.get(&job.parse().unwrap(), "object", None)?;
    let mut data = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        data.extend_from_slice(&chunk);
    }
    Ok(data)
}

#[test]
fn an_erased_bucket_stays_erased_for_who_has_the_chip_and_an_old_copy_of_the_disk() {
    let factory = Factory::new();
    let chip = TpmChip::open(&factory.tcti()).unwrap();
    let master = Arc::new(MasterKey::open(&factory.state(), &chip, &PCRS).unwrap());
    drop(chip);
    let keyring = factory.state().join("vault/keyring");
    let (key, vault) = open_vault(&factory, &master);
    put(&vault, "kept", b"kept");
    put(&vault, "secret", b"secret");
    let spare = fs::read(&keyring).unwrap();
    let before = key.current().unwrap();

    assert!(key.erase(&vault, &"secret".parse().unwrap()).unwrap());

    assert!(!key.erase(&vault, &"secret".parse().unwrap()).unwrap());
    assert_ne!(*key.current().unwrap(), *before);
    drop((key, vault));
    let (key, vault) = open_vault(&factory, &master);
    assert_eq!(get(&vault, "kept").unwrap(), b"kept");
    assert!(get(&vault, "secret").is_err());
    // Again, so that the first place is used twice.
    put(&vault, "second", b"second");
    assert!(key.erase(&vault, &"second".parse().unwrap()).unwrap());
    drop((key, vault));
    let now = fs::read(&keyring).unwrap();
    fs::write(&keyring, spare).unwrap();
    let chip: Arc<dyn Chip> = Arc::new(TpmChip::open(&factory.tcti()).unwrap());
    let config = VaultConfig::new(factory.state().join("vault"), 64 << 20).small();
    let clock: longhaul_vault::Clock = Arc::new(|| 0);
    let refused = VaultKey::open(Arc::clone(&master), chip, &config, &clock).err();
    let wrong =
        longhaul_device::vault_key::VaultKeyError::Open(longhaul_vault::OpenError::WrongKey {
            path: keyring.clone(),
        });
    assert_eq!(refused.unwrap().to_string(), wrong.to_string());
    fs::write(&keyring, now).unwrap();
    let (_, vault) = open_vault(&factory, &master);
    assert_eq!(get(&vault, "kept").unwrap(), b"kept");
}

#[test]
fn a_vault_of_a_release_before_opens_under_the_master_key_alone_until_a_bucket_is_erased() {
    let factory = Factory::new();
    let chip = TpmChip::open(&factory.tcti()).unwrap();
    let master = Arc::new(MasterKey::open(&factory.state(), &chip, &PCRS).unwrap());
    drop(chip);
    let config = VaultConfig::new(factory.state().join("vault"), 64 << 20).small();
    let bare = master.derive("vault").unwrap();
    let clock: longhaul_vault::Clock = Arc::new(|| 0);
    let former = || Vault::open(config.clone(), &bare, Arc::clone(&clock));
    let (vault, _) = former().unwrap();
    put(&vault, "kept", b"kept");
    put(&vault, "secret", b"secret");
    drop(vault);
    drop(open_vault(&factory, &master));
    // Going back to the release before must stay possible.
    drop(former().unwrap());

    let (key, vault) = open_vault(&factory, &master);
    assert!(key.erase(&vault, &"secret".parse().unwrap()).unwrap());

    drop((key, vault));
    assert!(former().is_err());
    let (_, vault) = open_vault(&factory, &master);
    assert_eq!(get(&vault, "kept").unwrap(), b"kept");
    assert!(get(&vault, "secret").is_err());
}
