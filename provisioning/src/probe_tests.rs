use longhaul_protocol::diag::Code;
use longhaul_protocol::inventory::NetworkHints;
use longhaul_protocol::probe::{Finding, Ipv6, MAX_LIST, Nat};
use proptest::prelude::*;

use super::*;
use crate::ca::Pki;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Fleet {
    anchors: Anchors,
    signer: Signer,
    root_pem: String,
    _dir: tempfile::TempDir,
}

fn fleet() -> Fleet {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = Pki::init(&dir.path().join("pki"), NOW).expect("authorities");
    let identity = pki.issue_statement_signer("cloud", 30 * 86_400, NOW);
    Fleet {
        anchors: pki.root_anchor().expect("an anchor"),
        signer: Signer::new(&identity.expect("issued")).expect("a signer"),
        root_pem: pki.root_pem(),
        _dir: dir,
    }
}

fn given(fleet: &Fleet) -> ProbeTicket {
    let claims = ProbeClaims {
        v: VERSION,
        id: "pt-1".parse().expect("an id"),
        order: "order-1".parse().expect("an id"),
        endpoints: Vec::new(),
        root_pem: fleet.root_pem.clone(),
        hints: NetworkHints::default(),
        egress: Vec::new(),
        key: Blob::default(),
        issued: NOW,
        expires: NOW.plus_secs(3_600),
    };
    ticket(&fleet.signer, claims).expect("a ticket")
}

fn report() -> ProbeReport {
    ProbeReport {
        v: VERSION,
        ticket: "pt-1".parse().expect("an id"),
        probe_version: "0.1.0".into(),
        at: NOW,
        findings: Vec::new(),
        ladder: Vec::new(),
        interfaces: Vec::new(),
        gateway: None,
        dns: Vec::new(),
        nat: Nat::Unknown,
        path_mtu: None,
        proxy: None,
        egress: Vec::new(),
        multicast: None,
        clock_ahead_ms: None,
        line: None,
        ipv6: Ipv6::default(),
    }
}

#[test]
fn a_report_is_believed_under_its_own_ticket_only() {
    let (ours, others) = (fleet(), fleet());
    let (mine, twin) = (given(&ours), given(&ours));
    let signed = sign(&mine, &report()).expect("signed");
    let refused =
        |signed: &SignedReport, now| verify(signed, &ours.anchors, now).expect_err("refused");

    let (claims, read) = verify(&signed, &ours.anchors, NOW).expect("verified");
    assert_eq!((claims.order.as_str(), read), ("order-1", report()));
    let text = serde_json::to_vec(&mine).expect("JSON");
    assert_eq!(open(&text).expect("whole").1.id, claims.id);

    assert!(matches!(
        refused(&signed, NOW.plus_secs(3_600)),
        ProbeError::Expired
    ));
    let foreign = sign(&given(&others), &report()).expect("signed");
    assert!(matches!(refused(&foreign, NOW), ProbeError::Ticket(_)));
    let moved = SignedReport {
        ticket: twin.ticket.clone(),
        ..signed.clone()
    };
    assert!(matches!(refused(&moved, NOW), ProbeError::Signature));
    let altered = SignedReport {
        report: signed.report.replace("0.1.0", "0.1.1"),
        ..signed.clone()
    };
    assert!(matches!(refused(&altered, NOW), ProbeError::Signature));
    let other = ProbeReport {
        ticket: "pt-2".parse().expect("an id"),
        ..report()
    };
    let other = sign(&mine, &other).expect("signed");
    assert!(matches!(refused(&other, NOW), ProbeError::OtherTicket));
    let finding = Finding {
        code: Code::NO_CABLE,
        evidence: String::new(),
    };
    let long = ProbeReport {
        findings: vec![finding; MAX_LIST + 1],
        ..report()
    };
    let long = sign(&mine, &long).expect("signed");
    assert!(matches!(refused(&long, NOW), ProbeError::TooMuch(_)));
    let seed = ProbeTicket {
        seed: twin.seed,
        ..mine
    };
    assert!(matches!(
        open(&serde_json::to_vec(&seed).expect("JSON")),
        Err(ProbeError::Key)
    ));
}

proptest! {
    #[test]
    fn no_file_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
        prop_assert!(open(&bytes).is_err());
        let file = serde_json::json!({ "ticket": format!("{text}.{text}.{text}"), "seed": text });
        prop_assert!(open(file.to_string().as_bytes()).is_err());
    }
}
