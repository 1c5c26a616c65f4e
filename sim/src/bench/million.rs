//! A million objects: a page of the list, a restart, and their seal. Straight at the vault and at the
//! receipts, in this process: through S3 it would take longer to put them there than all other
//! benchmarks together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use longhaul_device::journal;
use longhaul_device::receipts::{Closed, Receipts, Sealer, Taken};
use longhaul_protocol::ids::{BoxId, EpochId};
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::receipt::RootClaims;
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use longhaul_provisioning::receipt::RootSigner;

use longhaul_vault::{
    Checksums, Commit, Condition, JobId, Metadata, ObjectInfo, Vault, VaultConfig,
};
use zeroize::Zeroizing;

use super::row::{Better, Metric};
use super::{Bench, BenchError};

const LIST: Metric = Metric {
    name: "a million objects: a page of 1,000 (vault)",
    unit: "ms",
    better: Better::Lower,
    target: Some(50.0),
};
const RESTART: Metric = Metric {
    name: "a million objects: restart (vault)",
    unit: "s",
    better: Better::Lower,
    target: Some(5.0),
};
const SEAL: Metric = Metric {
    name: "a million objects: sealed (receipts)",
    unit: "s",
    better: Better::Lower,
    target: Some(10.0),
};
/// Leaves that are taken at a time, as the box's recorder does.
const LEAVES: usize = 256;
/// Objects that wait for their durability at a time.
const WINDOW: usize = 512;
const PAGES: usize = 21;

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count: usize = bench.settings.size(1_000_000, 20_000);
    bench.note(format!(
        "{count} objects of 100 bytes in a vault of this process's own; a restart reads checkpoint and log again"
    ));
    let config = VaultConfig::new(bench.path("vault"), 16 << 30);
    let key = Zeroizing::new([7; 32]);
    let job: JobId = "bench".parse().map_err(|_| failed("name a job")("bench"))?;
    let open = || {
        Vault::open(config.clone(), &key, Arc::new(|| 0))
            .map_err(|error| failed("open")(&super::chain(&error)))
    };

    let (vault, _) = open()?;
    vault
        .create_job(&job)
        .map_err(|e| failed("make a job")(&e.to_string()))?;
    let start = Instant::now();
    fill(&vault, &job, count)?;
    bench.note(format!("filled in {:.1} s", start.elapsed().as_secs_f64()));
    let pages = pages(&vault, &job, count)?;
    vault.close();
    drop(vault);

    let mut restarts = Vec::new();
    for _ in 0..bench.settings.runs() {
        let start = Instant::now();
        let (vault, report) = open()?;
        restarts.push(start.elapsed().as_secs_f64());
        let held = vault.stats().objects;
        if held != count as u64 {
            return Err(BenchError::Unexpected(format!(
                "{held} of {count} objects after a restart: {report:?}"
            )));
        }
    }
    let mut seals = Vec::new();
    for run in 0..bench.settings.runs() {
        seals.push(sealed(bench, run, count).await?);
    }
    bench.add(LIST, &pages, &[]);
    bench.add(RESTART, &restarts, &[]);
    bench.add(SEAL, &seals, &[]);
    Ok(())
}

/// Signs with a key in memory: a chip takes some 0.2 to 0.6 s for each epoch.
struct InMemory {
    key: EcdsaKeyPair,
    box_id: BoxId,
}

impl Sealer for InMemory {
    fn seal(&self, closed: &Closed) -> Result<Option<Jws>, String> {
        let sign = |message: &[u8]| {
            let signature = self.key.sign(&SystemRandom::new(), message);
            signature
                .map(|s| s.as_ref().to_vec())
                .map_err(|e| e.to_string())
        };
        let claims = RootClaims {
            v: longhaul_protocol::envelope::VERSION,
            box_id: self.box_id.clone(),
            epoch: closed.epoch.clone(),
            root: closed.root,
            leaves: closed.leaves,
            sealed: UnixMillis(0),
        };
        let signer = RootSigner {
            chain: &[],
            sign: &sign,
        };
        signer.sign(&claims).map(Some).map_err(|e| super::chain(&e))
    }
}

/// A name for the next epoch of this process.
fn next_epoch() -> EpochId {
    static EPOCHS: AtomicU64 = AtomicU64::new(0);
    let number = EPOCHS.fetch_add(1, Ordering::Relaxed);
    let name = format!("epoch-{number}").parse();
    name.unwrap_or_else(|_| unreachable!("a word and a number name an epoch"))
}

/// Seconds from the last leaf to the last signed root in the journal; none was signed before.
async fn sealed(bench: &mut Bench<'_>, run: usize, count: usize) -> Result<f64, BenchError> {
    let say = |what: &'static str| move |e: &dyn std::error::Error| failed(what)(&super::chain(e));
    let clock = || UnixMillis(0);
    let folder = bench.path(&format!("receipts-{run}"));
    let receipts = Receipts::open(&folder, next_epoch, clock);
    let receipts = receipts.map_err(|e| say("open receipts")(&e))?;
    let journal = bench.path(&format!("journal-{run}"));
    let (journal, thread) = journal::open(&journal, 1 << 30, next_epoch(), clock)
        .map_err(|e| say("open a journal")(&e))?;
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
    let sealer: Arc<dyn Sealer> = Arc::new(InMemory {
        key: key.map_err(|e| failed("make a key")(&e.to_string()))?,
        box_id: "ZZZZZZZZZZZZ"
            .parse()
            .map_err(|_| failed("name a box")("ZZZZZZZZZZZZ"))?,
    });
    let start = Instant::now();
    for first in (0..count).step_by(LEAVES) {
        let taken = (first..count.min(first + LEAVES)).map(leaf);
        let taken = taken
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| failed("name an object")("receipts"))?;
        receipts
            .take(taken)
            .await
            .map_err(|e| say("take leaves")(&e))?;
    }
    bench.note(format!(
        "leaves taken, durable, in {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    let start = Instant::now();
    receipts
        .seal(true, &sealer, &journal)
        .await
        .map_err(|e| say("seal")(&e))?;
    let seconds = start.elapsed().as_secs_f64();
    let position = *journal.position().borrow();
    bench.note(format!("signed roots: {position:?}"));
    drop(journal);
    thread.join().map_err(|e| say("end the journal")(&e))?;
    Ok(seconds)
}

fn leaf(index: usize) -> Option<Taken> {
    let name = name(index);
    Some(Taken {
        blake3: Digest32(*blake3::hash(name.as_bytes()).as_bytes()),
        object: ObjectVersion {
            bucket: "bench".to_owned(),
            key: name.parse().ok()?,
            version: index as u64 + 1,
        },
        bytes: 100,
    })
}

fn name(index: usize) -> String {
    format!("line-{:04}/shot-{index:07}.seg", index / 1_000)
}

fn fill(vault: &Vault, job: &JobId, count: usize) -> Result<(), BenchError> {
    let mut waiting: VecDeque<Commit<ObjectInfo>> = VecDeque::new();
    let body = [42; 100];
    for index in 0..count {
        let put = vault
            .begin(job, &name(index), Metadata::default())
            .and_then(|mut writer| {
                writer.write(&body)?;
                Ok(writer.finish(Checksums::new(), Condition::Any))
            });
        waiting.push_back(put.map_err(|e| failed("take an object")(&e.to_string()))?);
        let full = waiting.len() >= WINDOW;
        if let Some(first) = full.then(|| waiting.pop_front()).flatten() {
            first
                .wait()
                .map_err(|e| failed("store an object")(&e.to_string()))?;
        }
    }
    for commit in waiting {
        commit
            .wait()
            .map_err(|e| failed("store an object")(&e.to_string()))?;
    }
    Ok(())
}

/// Milliseconds for each of some pages, spread over the whole list.
fn pages(vault: &Vault, job: &JobId, count: usize) -> Result<Vec<f64>, BenchError> {
    let mut times = Vec::new();
    for page in 0..PAGES {
        let after = name(page * (count / (PAGES + 1)));
        let start = Instant::now();
        let listed = vault
            .list(job, "", Some(&after), 1_000)
            .map_err(|e| failed("list")(&e.to_string()))?;
        times.push(1e3 * start.elapsed().as_secs_f64());
        drop(listed);
    }
    Ok(times)
}

fn failed(what: &'static str) -> impl Fn(&str) -> BenchError {
    move |why| BenchError::Vault {
        what,
        why: why.to_owned(),
    }
}
