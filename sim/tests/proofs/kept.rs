//! A fleet, and a folder that was sent to one of its boxes: with receipts as box and cloud sign them.
//! The examples read this file too, so that the Python package is tried with the same.

use std::path::Path;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journal::ObjectVersion;
use longhaul_protocol::receipt::{DeliveryClaims, Leaf, Receipt, RootClaims};
use longhaul_protocol::ticket::{Secret, Ticket};
use longhaul_protocol::value::{Digest32, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{Kind, Signer};
use longhaul_provisioning::receipt::RootSigner;
use longhaul_provisioning::receipt::tree::{Tree, leaf_hash};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
/// What stands before the point in a public key of P-256 (RFC 5480 section 2).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const FILES: [(&str, &str); 3] = [("a.csv", "one"), ("sub/b.csv", "two"), ("sub/c.csv", "")];

pub fn box_id(n: u8) -> BoxId {
    BoxId::from_ek_sha256(&[n; 32])
}

/// Makes it in `dir`: `folder`, `receipts` of box 1, `others` of box 2, `root.pem`, and a `ticket.json` of
/// box 1 that has ended.
pub fn make(dir: &Path) {
    let pki = Pki::init(&dir.join("pki"), NOW).expect("authorities");
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("written");
    for (name, content) in FILES {
        let path = dir.join("folder").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    write("root.pem", pki.root_pem());
    write("receipts", receipts(&pki, 1).join("\n"));
    write("others", receipts(&pki, 2).join("\n"));
    let ticket = Ticket {
        v: VERSION,
        id: "tk-1".parse().expect("an id"),
        box_id: box_id(1),
        order: None,
        bucket: "survey".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "LHKEPT".to_owned(),
        secret_key: Secret("kept".to_owned()),
        issued: None,
        expires: UnixMillis(1),
        root_pem: pki.root_pem(),
        lan_urls: Vec::new(),
        // Nobody listens at the reserved port.
        cloud_url: Some("https://127.0.0.1:1".to_owned()),
    };
    write(
        "ticket.json",
        serde_json::to_string(&ticket).expect("encodes"),
    );
}

/// The receipts of the folder, as box `n` and the cloud signed them; the last is not delivered yet.
fn receipts(pki: &Pki, n: u8) -> Vec<String> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).expect("a key");
    let spki = [P256_SPKI, key.public_key().as_ref()].concat();
    let chain = pki.issue_ldevid(&box_id(n), &spki, 3600, NOW);
    let chain = chain.expect("a certificate");
    let leaves: Vec<Leaf> = (1..).zip(FILES).map(|(v, f)| leaf(v, f)).collect();
    let hashes = leaves.iter().map(|l| leaf_hash(l).expect("hashes"));
    let tree = Tree::new(hashes.collect());
    let claims = RootClaims {
        v: VERSION,
        box_id: box_id(n),
        epoch: "epoch-1".parse().expect("an epoch"),
        root: tree.root().expect("leaves"),
        leaves: leaves.len() as u64,
        sealed: NOW.plus_secs(5),
    };
    let sign = |message: &[u8]| {
        let signature = key.sign(&SystemRandom::new(), message);
        Ok(signature.expect("signs").as_ref().to_vec())
    };
    let root = RootSigner {
        chain: &chain,
        sign: &sign,
    };
    let root = root.sign(&claims).expect("signed");
    let cloud = pki.issue_statement_signer("cloud", 3600, NOW);
    let cloud = Signer::new(&cloud.expect("issued")).expect("a signer");
    let mut lines = Vec::new();
    for (place, leaf) in (0..).zip(leaves) {
        let claims = DeliveryClaims {
            v: VERSION,
            box_id: box_id(n),
            leaf: leaf.clone(),
            verified: NOW.plus_secs(9),
            signed: NOW.plus_secs(10),
        };
        let payload = serde_json::to_vec(&claims).expect("encodes");
        let delivery = (place < 2).then(|| cloud.sign(Kind::Receipt, &payload).expect("signed"));
        let receipt = Receipt {
            v: VERSION,
            leaf,
            proof: tree.prove(place).expect("a proof"),
            root: root.clone(),
            delivery,
        };
        lines.push(serde_json::to_string(&receipt).expect("encodes"));
    }
    lines
}

fn leaf(version: u64, (name, content): (&str, &str)) -> Leaf {
    Leaf {
        object: ObjectVersion {
            bucket: "survey".to_owned(),
            key: format!("run/{name}").parse().expect("a key"),
            version,
        },
        bytes: content.len() as u64,
        blake3: Digest32(*blake3::hash(content.as_bytes()).as_bytes()),
        stored: NOW,
    }
}
