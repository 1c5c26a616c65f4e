//! What it costs to seal: takes a million objects into receipts as the recorder does, then seals what is
//! open, with a signer that takes as long as a slow TPM. Prints both times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longhaul_device::journal;
use longhaul_device::receipts::{Closed, Receipts, Sealer, Taken};
use longhaul_protocol::ids::EpochId;
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};

/// Objects.
const COUNT: u64 = 1_000_000;
/// Objects that the recorder takes at a time.
const BATCH: u64 = 256;
/// A signature of a slow TPM.
const SIGNATURE: Duration = Duration::from_millis(600);

struct Slow;

impl Sealer for Slow {
    fn seal(&self, closed: &Closed) -> Result<Option<Jws>, String> {
        std::thread::sleep(SIGNATURE);
        Ok(Some(Jws(closed.root.to_string())))
    }
}

fn fresh() -> EpochId {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("epoch-{number}").parse().expect("an epoch")
}

fn taken(version: u64) -> Taken {
    Taken {
        object: ObjectVersion {
            bucket: "survey-2026".to_owned(),
            key: format!("line-{:04}/shot-{version:07}.seg", version / 1000)
                .parse()
                .expect("a key"),
            version,
        },
        bytes: 10_240,
        blake3: Digest32(*blake3::hash(&version.to_le_bytes()).as_bytes()),
    }
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = || UnixMillis(1_000);
    let journal = journal::open(&dir.path().join("journal"), 64 << 20, fresh(), clock);
    let (journal, thread) = journal.expect("a journal");
    let receipts = Receipts::open(&dir.path().join("receipts"), fresh, clock).expect("opened");
    let sealer: Arc<dyn Sealer> = Arc::new(Slow);

    let begun = Instant::now();
    let mut next = 1;
    while next <= COUNT {
        let batch: Vec<Taken> = (next..(next + BATCH).min(COUNT + 1)).map(taken).collect();
        next += batch.len() as u64;
        receipts.take(batch).await.expect("taken");
    }
    let took = begun.elapsed();
    let begun = Instant::now();
    receipts
        .seal(true, &sealer, &journal)
        .await
        .expect("sealed");
    println!(
        "{COUNT} objects: taken in {:.2} s, durable; every epoch sealed and signed in {:.2} s",
        took.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    drop(journal);
    thread.join().expect("ended");
}
