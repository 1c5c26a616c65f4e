use std::sync::atomic::{AtomicU64, Ordering};

use longhaul_protocol::receipt::MAX_EPOCH_LEAVES;
use longhaul_provisioning::receipt::tree::{Tree, leaf_hash};

use super::*;

fn fresh() -> EpochId {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("epoch-{number}").parse().unwrap()
}

fn open(dir: &Path) -> Receipts {
    Receipts::open(dir, fresh, || UnixMillis(1_000)).unwrap()
}

fn taken(version: u64) -> Taken {
    Taken {
        object: ObjectVersion {
            bucket: "survey".to_owned(),
            key: format!("k{version}").parse().unwrap(),
            version,
        },
        bytes: version,
        blake3: Digest32([1; 32]),
    }
}

fn leaf(version: u64) -> Leaf {
    let Taken {
        object,
        bytes,
        blake3,
    } = taken(version);
    Leaf {
        object,
        bytes,
        blake3,
        stored: UnixMillis(1_000),
    }
}

fn root(versions: impl Iterator<Item = u64>) -> Digest32 {
    let hashes = versions.map(|v| leaf_hash(&leaf(v)).unwrap()).collect();
    Tree::new(hashes).root().unwrap()
}

#[test]
fn what_was_taken_keeps_its_place_over_a_power_cut_at_any_byte() {
    let dir = tempfile::tempdir().unwrap();
    let before = open(dir.path()).take_now(vec![taken(1), taken(2)]).unwrap();
    let durable = std::fs::read(dir.path().join("open")).unwrap();
    open(dir.path()).take_now(vec![taken(3)]).unwrap();
    let longer = std::fs::read(dir.path().join("open")).unwrap();

    for cut in durable.len()..longer.len() {
        std::fs::write(dir.path().join("open"), &longer[..cut]).unwrap();
        let receipts = open(dir.path());
        let again = receipts
            .take_now(vec![taken(2), taken(3), taken(1)])
            .unwrap();
        assert_eq!([&again[2], &again[0]], [&before[0], &before[1]], "{cut}");
        assert_eq!(again[1].index, 2, "{cut}");
        let closed = receipts.due(true).unwrap();
        assert_eq!(closed[0].root, root(1..=3), "{cut}");
        log::forget(dir.path(), &closed[0].epoch).unwrap();
    }
}

#[test]
fn an_altered_leaf_ends_the_epoch_there_and_no_file_panics() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).take_now(vec![taken(1), taken(2)]).unwrap();
    let whole = std::fs::read(dir.path().join("open")).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        std::fs::write(dir.path().join("open"), &bad).unwrap();
        let receipts = open(dir.path());
        for closed in receipts.due(true).unwrap() {
            assert_eq!((closed.root, closed.leaves), (root(1..=1), 1), "{at}");
            log::forget(dir.path(), &closed.epoch).unwrap();
        }
    }
    std::fs::write(dir.path().join("open"), vec![b'x'; 100_000]).unwrap();
    assert!(open(dir.path()).due(true).unwrap().is_empty());
}

#[test]
fn an_epoch_ends_when_it_is_full_and_a_closed_one_is_not_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let receipts = open(dir.path());
    let step = 4096;
    for first in (0..MAX_EPOCH_LEAVES).step_by(4096) {
        receipts
            .take_now((first..first + step).map(taken).collect())
            .unwrap();
    }
    let next = receipts.take_now(vec![taken(MAX_EPOCH_LEAVES)]).unwrap();
    assert_eq!(next[0].index, 0);

    let closed = log::closed(dir.path()).unwrap();
    assert_eq!(closed[0].leaves, MAX_EPOCH_LEAVES);
    assert_eq!(closed[0].root, root(0..MAX_EPOCH_LEAVES));
    // As if the power had failed before the next epoch began.
    let header = format!("{{\"epoch\":\"{}\"}}", closed[0].epoch);
    let check = &blake3::hash(header.as_bytes()).to_hex()[..16];
    std::fs::write(dir.path().join("open"), format!("{check} {header}\n")).unwrap();
    let place = open(dir.path()).take_now(vec![taken(9)]).unwrap();
    assert_ne!(place[0].epoch, closed[0].epoch);
}

struct Fixed(Result<Option<Jws>, String>);

impl Sealer for Fixed {
    fn seal(&self, _: &Closed) -> Result<Option<Jws>, String> {
        self.0.clone()
    }
}

#[tokio::test]
async fn a_root_waits_for_its_signature_and_is_journalled_once() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = "journal-1".parse().unwrap();
    let journal = dir.path().join("journal");
    let (journal, _thread) =
        crate::journal::open(&journal, 1 << 20, epoch, || UnixMillis(0)).unwrap();
    let receipts = open(&dir.path().join("receipts"));
    receipts.take(vec![taken(1)]).await.unwrap();

    for no in [Ok(None), Err("the chip is busy".to_owned())] {
        let no: Arc<dyn Sealer> = Arc::new(Fixed(no));
        receipts.seal(true, &no, &journal).await.unwrap();
        assert_eq!(journal.batch().await.unwrap(), None);
    }
    let root = Jws("signed".to_owned());
    let yes: Arc<dyn Sealer> = Arc::new(Fixed(Ok(Some(root.clone()))));
    receipts.seal(false, &yes, &journal).await.unwrap();
    receipts.seal(true, &yes, &journal).await.unwrap();

    let batch = journal.batch().await.unwrap().unwrap();
    assert_eq!(batch.entries.len(), 1);
    assert_eq!(batch.entries[0].fact, Fact::Sealed { root });
}
