//! Random operations, faults and crashes against a model: what was acknowledged is there byte for
//! byte, what was not is there whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use longhaul_vault::{
    Checksums, Condition, Delivery, DeliveryEvent, Error, Metadata, ObjectInfo, PartNumber,
    UploadId, Vault, VaultConfig, Version,
};
use proptest::prelude::*;

use crate::{
    fault_disk::{Fault, FaultDisk},
    support::{bytes, clock, job, key, read_all},
};

const SIZES: [usize; 7] = [0, 100, 512, 600, 8176, 9000, 40_000];

#[derive(Clone, Copy, Debug)]
enum Step {
    Put {
        name: u8,
        size: usize,
    },
    Delete {
        name: u8,
    },
    CreateUpload {
        name: u8,
    },
    PutPart {
        upload: usize,
        number: u16,
        size: usize,
    },
    Complete {
        upload: usize,
    },
    Abort {
        upload: usize,
    },
    Deliver {
        name: u8,
        event: u8,
    },
    Checkpoint,
    ForgetDeletion,
    Plan {
        calls: u32,
        fault: Fault,
    },
    Reopen,
    Crash {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = || prop::sample::select(&SIZES[..]);
    let fault = prop::sample::select(
        &[
            Fault::Fail,
            Fault::Short,
            Fault::Torn,
            Fault::Full,
            Fault::PowerCut,
        ][..],
    );
    let step = prop_oneof![
        12 => (0..5_u8, size()).prop_map(|(name, size)| Step::Put { name, size }),
        2 => (0..5_u8).prop_map(|name| Step::Delete { name }),
        2 => (0..5_u8).prop_map(|name| Step::CreateUpload { name }),
        6 => (any::<usize>(), 1..5_u16, size())
            .prop_map(|(upload, number, size)| Step::PutPart { upload, number, size }),
        3 => any::<usize>().prop_map(|upload| Step::Complete { upload }),
        1 => any::<usize>().prop_map(|upload| Step::Abort { upload }),
        6 => (0..5_u8, 0..7_u8).prop_map(|(name, event)| Step::Deliver { name, event }),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::ForgetDeletion),
        3 => (0..12_u32, fault).prop_map(|(calls, fault)| Step::Plan { calls, fault }),
        1 => Just(Step::Reopen),
        3 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone, Debug, PartialEq)]
struct Object {
    data: Vec<u8>,
    delivery: Delivery,
    released: bool,
}

/// What a name may stand for.
#[derive(Clone, Debug, Default)]
struct Slot {
    acknowledged: Option<Object>,
    /// What operations that failed would have made of it.
    possible: Vec<Option<Object>>,
}

#[derive(Clone, Debug)]
struct Upload {
    id: UploadId,
    name: u8,
    parts: BTreeMap<u16, (Vec<u8>, String)>,
    /// An operation on it failed: it may be gone, or have other parts.
    unsure: bool,
}

struct Run {
    disk: FaultDisk,
    vault: Option<Vault>,
    slots: BTreeMap<u8, Slot>,
    uploads: Vec<Upload>,
    newest: Version,
    /// Deletions that were acknowledged and not forgotten.
    deletions: BTreeSet<Version>,
    /// Those of which nobody may hear again.
    forgotten: BTreeSet<Version>,
    seed: u64,
}

fn config() -> VaultConfig {
    VaultConfig {
        // So little that runs are written and merged all the time.
        index_bytes: 1 << 10,
        // Small enough to be full now and then.
        ..VaultConfig::new("/vault", 768 << 10).small()
    }
}

fn open(disk: &FaultDisk) -> Vault {
    let (vault, _) = Vault::open_on(Arc::new(disk.clone()), config(), &key(), clock())
        .expect("a vault opens after whatever happened");
    vault
}

impl Run {
    fn new() -> Self {
        let disk = FaultDisk::default();
        let vault = Some(open(&disk));
        let (slots, uploads) = (BTreeMap::new(), Vec::new());
        Self {
            disk,
            vault,
            slots,
            uploads,
            newest: Version(0),
            deletions: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            seed: 0,
        }
    }

    fn vault(&self) -> &Vault {
        self.vault.as_ref().expect("open between steps")
    }

    fn fresh(&mut self, size: usize) -> Vec<u8> {
        self.seed += 1;
        bytes(self.seed, size)
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put { name, size } => {
                let data = self.fresh(size);
                let result = self.put(name, &data);
                self.noted(name, result, data);
            }
            Step::Delete { name } => {
                let current = self.vault().head(&job(), &key_of(name)).ok();
                let result = self
                    .vault()
                    .delete(&job(), &key_of(name), Condition::Any)
                    .wait();
                let slot = self.slots.entry(name).or_default();
                match result {
                    Ok(existed) => {
                        assert_eq!(existed, slot.acknowledged.is_some());
                        self.deletions.extend(current.map(|info| info.version));
                        *slot = Slot::default();
                    }
                    Err(_) => slot.possible.push(None),
                }
            }
            Step::CreateUpload { name } => {
                let metadata = Metadata::default();
                let commit =
                    self.vault()
                        .create_upload(&job(), &key_of(name), metadata, Checksums::new());
                if let Ok(id) = commit.wait() {
                    let parts = BTreeMap::new();
                    self.uploads.push(Upload {
                        id,
                        name,
                        parts,
                        unsure: false,
                    });
                }
            }
            Step::PutPart {
                upload,
                number,
                size,
            } => self.put_part(upload, number, size),
            Step::Complete { upload } => self.complete(upload),
            Step::Abort { upload } => {
                if self.uploads.is_empty() {
                    return;
                }
                let at = upload % self.uploads.len();
                match self.vault().abort_upload(&self.uploads[at].id).wait() {
                    Ok(()) => drop(self.uploads.remove(at)),
                    Err(_) => self.uploads[at].unsure = true,
                }
            }
            Step::Deliver { name, event } => self.deliver(name, event),
            Step::Checkpoint => drop(self.vault().checkpoint()),
            Step::ForgetDeletion => self.forget_deletion(),
            Step::Plan { calls, fault } => self.disk.plan(calls, fault),
            Step::Reopen => {
                // A clean stop, unless the power is off already.
                self.vault.take();
                self.disk.crash(|| true);
                self.vault = Some(open(&self.disk));
                self.check(true);
            }
            Step::Crash { seed } => {
                let image = self.disk.clone();
                let mut state = seed | 1;
                image.crash(|| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state % 3 != 0
                });
                self.vault.take();
                self.vault = Some(open(&self.disk));
                self.check(true);
            }
        }
    }

    fn put(&self, name: u8, data: &[u8]) -> Result<ObjectInfo, Error> {
        let mut writer = self
            .vault()
            .begin(&job(), &key_of(name), Metadata::default())?;
        for piece in data.chunks(5000) {
            writer.write(piece)?;
        }
        writer.finish(Checksums::new(), Condition::Any).wait()
    }

    /// Notes what came of writing `data` under `name`.
    fn noted(&mut self, name: u8, result: Result<ObjectInfo, Error>, data: Vec<u8>) {
        let object = Object {
            data,
            delivery: Delivery::OnBox,
            released: false,
        };
        let slot = self.slots.entry(name).or_default();
        match result {
            Ok(info) => {
                assert!(info.version > self.newest, "versions grow");
                self.newest = info.version;
                *slot = Slot {
                    acknowledged: Some(object),
                    possible: Vec::new(),
                };
            }
            Err(_) => slot.possible.push(Some(object)),
        }
    }

    fn forget_deletion(&mut self) {
        let Some(first) = self.vault().deletions(1).pop() else {
            return;
        };
        let forgotten = self.vault().forget_deletion(first.version).wait();
        self.deletions.remove(&first.version);
        if forgotten.is_ok() {
            self.forgotten.insert(first.version);
        }
    }

    /// Every deletion that was acknowledged is told, and nothing else is.
    fn check_deletions(&self) {
        let told = self.vault().deletions(usize::MAX);
        let told: BTreeSet<_> = told.into_iter().map(|gone| gone.version).collect();
        assert!(told.is_superset(&self.deletions), "a deletion was lost");
        assert!(told.is_disjoint(&self.forgotten), "a deletion came back");
        for version in told {
            let gone = self.vault().head_version(version);
            assert!(matches!(gone, Err(Error::NoSuchVersion(_))), "{gone:?}");
        }
    }

    fn put_part(&mut self, upload: usize, number: u16, size: usize) {
        if self.uploads.is_empty() {
            return;
        }
        let at = upload % self.uploads.len();
        let data = self.fresh(size);
        let number_of = PartNumber::new(number).expect("in range");
        let result = (|| {
            let mut writer = self.vault().begin_part(&self.uploads[at].id, number_of)?;
            writer.write(&data)?;
            writer.finish(Checksums::new()).wait()
        })();
        let upload = &mut self.uploads[at];
        match result {
            Ok(part) => drop(upload.parts.insert(number, (data, part.etag))),
            Err(_) => upload.unsure = true,
        }
    }

    fn complete(&mut self, upload: usize) {
        if self.uploads.is_empty() {
            return;
        }
        let at = upload % self.uploads.len();
        let Upload {
            id,
            name,
            parts,
            unsure,
        } = self.uploads[at].clone();
        let list = parts
            .iter()
            .map(|(number, (_, etag))| (PartNumber::new(*number).expect("in range"), etag.clone()));
        let commit =
            self.vault()
                .complete_upload(&id, list.collect(), Checksums::new(), Condition::Any);
        let result = commit.wait();
        let data: Vec<u8> = parts.values().flat_map(|(data, _)| data.clone()).collect();
        match &result {
            Ok(_) => drop(self.uploads.remove(at)),
            Err(Error::NoParts) => return assert!(parts.is_empty()),
            Err(Error::InvalidPart(_) | Error::NoSuchUpload(_)) => return assert!(unsure),
            Err(_) => self.uploads[at].unsure = true,
        }
        if result.is_ok() || !parts.is_empty() {
            self.noted(name, result, data);
        }
    }

    fn deliver(&mut self, name: u8, event: u8) {
        let Ok(info) = self.vault().head(&job(), &key_of(name)) else {
            return;
        };
        let event = match event {
            0 => DeliveryEvent::Started {
                upload: format!("u{}", info.version),
            },
            1 => DeliveryEvent::PartDone {
                number: 1,
                etag: "e".into(),
            },
            2 => DeliveryEvent::Delivered,
            3 => DeliveryEvent::Verified,
            4 => DeliveryEvent::Failed {
                reason: "403".into(),
            },
            5 => DeliveryEvent::Reset,
            _ => DeliveryEvent::Released,
        };
        let result = self.vault().deliver(info.version, event.clone()).wait();
        let slot = self.slots.entry(name).or_default();
        let mut next = slot.acknowledged.clone().expect("head found it");
        if next.delivery.step(event.clone()).is_err() {
            assert!(result.is_err(), "an impossible event is refused");
            return;
        }
        next.released |= event == DeliveryEvent::Released;
        match result {
            Ok(()) => {
                *slot = Slot {
                    acknowledged: Some(next),
                    possible: Vec::new(),
                }
            }
            Err(_) => slot.possible.push(Some(next)),
        }
    }

    /// Compares everything; after a crash, what was possible becomes what is.
    fn check(&mut self, after_crash: bool) {
        self.check_deletions();
        let vault = self.vault.clone().expect("open between steps");
        let mut pending = Vec::new();
        for (name, slot) in &mut self.slots {
            let found = actual(&vault, *name);
            if let Ok(info) = vault.head(&job(), &key_of(*name)) {
                self.newest = self.newest.max(info.version);
                if info.delivery.is_pending() {
                    pending.push(info.version);
                }
            }
            if after_crash && found != slot.acknowledged {
                assert!(
                    slot.possible.contains(&found),
                    "{name} is neither acknowledged nor whole"
                );
            } else {
                assert_eq!(found, slot.acknowledged, "{name}");
            }
            if after_crash {
                *slot = Slot {
                    acknowledged: found,
                    possible: Vec::new(),
                };
            }
        }
        pending.sort();
        let listed: Vec<_> = vault
            .pending(None, 99)
            .into_iter()
            .map(|p| p.version)
            .collect();
        assert_eq!(listed, pending);
        let listing = vault.list(&job(), "", None, 99).expect("a listing").items;
        let there = self
            .slots
            .values()
            .filter(|slot| slot.acknowledged.is_some())
            .count();
        assert_eq!(listing.len(), there);
        self.check_uploads(&vault, after_crash);
        let scrub = vault.scrub();
        assert!(scrub.damaged.is_empty(), "{:?}", scrub.damaged);
    }

    fn check_uploads(&mut self, vault: &Vault, after_crash: bool) {
        for upload in self.uploads.iter().filter(|upload| !upload.unsure) {
            let parts = vault
                .parts(&upload.id, None, 99)
                .expect("the upload is there")
                .items;
            let found: Vec<_> = parts
                .iter()
                .map(|p| (p.number.get(), p.etag.clone()))
                .collect();
            let expected: Vec<_> = upload
                .parts
                .iter()
                .map(|(number, (_, etag))| (*number, etag.clone()))
                .collect();
            assert_eq!(found, expected);
        }
        if after_crash {
            // Whatever became of the unsure ones, the vault knows; the model starts anew.
            for upload in vault
                .uploads(&job(), "", None, 999)
                .expect("a listing")
                .items
            {
                let known = self.uploads.iter().any(|u| u.id == upload.id && !u.unsure);
                if !known {
                    let _ = vault.abort_upload(&upload.id).wait();
                }
            }
            self.uploads.retain(|upload| !upload.unsure);
        }
    }
}

fn key_of(name: u8) -> String {
    format!("name-{name}")
}

fn actual(vault: &Vault, name: u8) -> Option<Object> {
    let info = match vault.head(&job(), &key_of(name)) {
        Ok(info) => info,
        Err(Error::NoSuchObject(_)) => return None,
        Err(error) => panic!("{error}"),
    };
    let released = !info.resident;
    let data = if released {
        Vec::new()
    } else {
        read_all(vault.get_version(info.version, None).expect("a reader")).expect("verified")
    };
    Some(Object {
        data,
        delivery: info.delivery,
        released,
    })
}

/// A released object has no bytes to compare.
fn forget_released(slots: &mut BTreeMap<u8, Slot>) {
    for slot in slots.values_mut() {
        let objects = slot
            .acknowledged
            .iter_mut()
            .chain(slot.possible.iter_mut().flatten());
        for object in objects.filter(|object| object.released) {
            object.data.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_else_appears_half(steps in steps()) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
            forget_released(&mut run.slots);
        }
        run.disk.heal();
        run.step(Step::Crash { seed: 1 });
        // Whatever happened before, the vault works.
        let data = run.fresh(9000);
        run.put(9, &data).expect("a healthy disk takes an object");
        assert_eq!(actual(run.vault(), 9).map(|object| object.data), Some(data));
    }
}

fn cases() -> u32 {
    std::env::var("LONGHAUL_VAULT_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1000)
}
