use longhaul_protocol::ids::EpochId;
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::receipt::RootClaims;
use longhaul_protocol::value::Jws;
use p256::Key;

use super::*;
use crate::ca::Pki;
use crate::jws::Signer;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// A software key in place of the TPM's.
mod p256 {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    pub struct Key(EcdsaKeyPair);

    impl Key {
        pub fn new() -> Self {
            let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
            Self(EcdsaKeyPair::generate(algorithm).expect("a key"))
        }

        pub fn spki(&self) -> Vec<u8> {
            let point = self.0.public_key().as_ref().try_into().expect("a point");
            crate::oid::p256_spki(point)
        }

        pub fn sign(&self, message: &[u8]) -> Vec<u8> {
            let signature = self.0.sign(&SystemRandom::new(), message);
            signature.expect("signs").as_ref().to_vec()
        }
    }
}

struct Fleet {
    pki: Pki,
    anchors: Anchors,
    _dir: tempfile::TempDir,
}

fn fleet() -> Fleet {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = Pki::init(&dir.path().join("pki"), NOW).expect("authorities");
    let anchors = pki.root_anchor().expect("an anchor");
    Fleet {
        pki,
        anchors,
        _dir: dir,
    }
}

fn box_id(n: u8) -> BoxId {
    BoxId::from_ek_sha256(&[n; 32])
}

fn leaf(n: u64) -> Leaf {
    Leaf {
        object: ObjectVersion {
            bucket: "survey".to_owned(),
            key: format!("line/{n}.seg").parse().expect("a key"),
            version: n,
        },
        bytes: n,
        blake3: Digest32([7; 32]),
        stored: NOW,
    }
}

/// The root over these leaves as box `n` signs it, and what proves that leaf `at` is in it.
fn seal(
    fleet: &Fleet,
    n: u8,
    leaves: &[Leaf],
    change: impl FnOnce(&mut RootClaims),
) -> (Jws, tree::Tree) {
    let key = Key::new();
    let chain = fleet.pki.issue_ldevid(&box_id(n), &key.spki(), 3600, NOW);
    let chain = chain.expect("a certificate");
    let hashes = leaves.iter().map(|l| tree::leaf_hash(l).expect("hashes"));
    let tree = tree::Tree::new(hashes.collect());
    let mut claims = RootClaims {
        v: VERSION,
        box_id: box_id(n),
        epoch: "epoch-1".parse::<EpochId>().expect("an epoch"),
        root: tree.root().expect("leaves"),
        leaves: leaves.len() as u64,
        sealed: NOW.plus_secs(5),
    };
    change(&mut claims);
    let signer = RootSigner {
        chain: &chain,
        sign: &|message| Ok(key.sign(message)),
    };
    (signer.sign(&claims).expect("signed"), tree)
}

fn countersign(fleet: &Fleet, box_id: BoxId, leaf: Leaf) -> Jws {
    let identity = fleet.pki.issue_statement_signer("cloud", 3600, NOW);
    let signer = Signer::new(&identity.expect("issued")).expect("a signer");
    let claims = DeliveryClaims {
        v: VERSION,
        box_id,
        leaf,
        verified: NOW.plus_secs(9),
        signed: NOW.plus_secs(10),
    };
    let payload = serde_json::to_vec(&claims).expect("encodes");
    signer.sign(Kind::Receipt, &payload).expect("signed")
}

fn receipt(fleet: &Fleet) -> Receipt {
    let leaves: Vec<_> = (0..5).map(leaf).collect();
    let (root, tree) = seal(fleet, 1, &leaves, |_| ());
    Receipt {
        v: VERSION,
        leaf: leaves[3].clone(),
        proof: tree.prove(3).expect("a proof"),
        root,
        delivery: Some(countersign(fleet, box_id(1), leaves[3].clone())),
    }
}

fn bytes(receipt: &Receipt) -> Vec<u8> {
    serde_json::to_vec(receipt).expect("encodes")
}

#[test]
fn a_receipt_proves_who_took_what_and_when_it_arrived() {
    let fleet = fleet();
    let mut receipt = receipt(&fleet);

    let proven = verify(&bytes(&receipt), &fleet.anchors).expect("holds");
    assert_eq!(
        (proven.box_id.clone(), proven.leaf.clone()),
        (box_id(1), leaf(3))
    );
    assert_eq!(proven.verified, Some(NOW.plus_secs(9)));
    assert!(proven.is_of(3, Digest32([7; 32])) && !proven.is_of(3, Digest32([8; 32])));

    receipt.delivery = None;
    let proven = verify(&bytes(&receipt), &fleet.anchors).expect("safe on the box");
    assert_eq!(proven.verified, None);
}

#[test]
fn a_receipt_with_any_bit_flipped_is_refused() {
    let fleet = fleet();
    let good = bytes(&receipt(&fleet));
    for at in 0..good.len() {
        // One bit of each byte, another one each time: all eight over the whole text.
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let result = verify(&bad, &fleet.anchors);
        assert!(result.is_err(), "byte {at} of {}: {result:?}", good.len());
    }
    for cut in 0..good.len() {
        assert!(
            verify(&good[..cut], &fleet.anchors).is_err(),
            "cut at {cut}"
        );
    }
    let spaced = [good.as_slice(), b" "].concat();
    assert!(matches!(
        verify(&spaced, &fleet.anchors),
        Err(ReceiptError::Malformed(_))
    ));
}

#[test]
fn each_forgery_is_named() {
    let fleet = fleet();
    let other = self::fleet();
    let good = receipt(&fleet);
    let judge = |receipt: &Receipt| verify(&bytes(receipt), &fleet.anchors).expect_err("refused");

    let strangers = receipt(&other);
    assert!(matches!(
        judge(&strangers),
        ReceiptError::Root(RootError::Signer(_))
    ));
    let mut claimed = good.clone();
    claimed.leaf.blake3 = Digest32([9; 32]);
    assert!(matches!(judge(&claimed), ReceiptError::Proof(_)));
    let mut swapped = good.clone();
    swapped.delivery = Some(countersign(&fleet, box_id(1), leaf(2)));
    assert!(matches!(judge(&swapped), ReceiptError::OtherDelivery(_)));
    swapped.delivery = Some(countersign(&fleet, box_id(2), leaf(3)));
    assert!(matches!(judge(&swapped), ReceiptError::OtherDelivery(_)));
    swapped.delivery = strangers.delivery;
    assert!(matches!(judge(&swapped), ReceiptError::Delivery { .. }));
    swapped.delivery = Some(good.root.clone());
    assert!(matches!(judge(&swapped), ReceiptError::Delivery { .. }));
}

#[test]
fn a_root_counts_only_from_the_box_that_it_names_while_its_certificate_held() {
    let fleet = fleet();
    let leaves = [leaf(0)];
    let judge = |change: fn(&mut RootClaims)| {
        let (root, _) = seal(&fleet, 1, &leaves, change);
        verify_root(&root, &fleet.anchors).expect_err("refused")
    };

    assert!(matches!(
        judge(|c| c.box_id = box_id(2)),
        RootError::OtherBox { .. }
    ));
    assert!(matches!(
        judge(|c| c.sealed = NOW.plus_secs(7200)),
        RootError::Signer(_)
    ));
    assert!(matches!(judge(|c| c.v = 9), RootError::Malformed(_)));
}
