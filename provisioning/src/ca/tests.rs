use std::net::Ipv4Addr;
use std::sync::Arc;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::UnixMillis;
use rcgen::{KeyPair, PublicKeyData};
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};

use super::*;
use crate::oid;

const NOW_SECS: u64 = 1_800_000_000;

fn now() -> UnixMillis {
    UnixMillis(1_800_000_000_000)
}

fn pki() -> (tempfile::TempDir, Pki) {
    let dir = tempfile::tempdir().expect("a directory");
    let pki = Pki::init(&dir.path().join("pki"), now()).expect("authorities");
    (dir, pki)
}

fn box_id() -> BoxId {
    "0123456789AB".parse().expect("a box id")
}

fn new_spki() -> Vec<u8> {
    KeyPair::generate()
        .expect("a key")
        .subject_public_key_info()
}

fn roots(certificate: &CertificateDer<'static>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).expect("an anchor");
    Arc::new(roots)
}

fn as_client(
    anchor: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    now: UnixMillis,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(anchor), provider)
        .build()
        .expect("a verifier");
    verifier
        .verify_client_cert(&chain[0], &chain[1..], trust::unix_time(now))
        .map(drop)
}

fn as_server(
    anchor: &CertificateDer<'static>,
    chain: &[CertificateDer<'static>],
    name: &'static str,
    now: UnixMillis,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(roots(anchor), provider)
            .build()
            .expect("a verifier");
    let name = ServerName::try_from(name).expect("a name");
    verifier
        .verify_server_cert(&chain[0], &chain[1..], &name, &[], trust::unix_time(now))
        .map(drop)
}

#[test]
fn what_was_made_can_be_opened_and_is_not_overwritten() {
    let (dir, made) = pki();
    let path = dir.path().join("pki");

    let opened = Pki::open(&path).expect("opened");

    assert_eq!(opened.root(), made.root());
    assert!(matches!(Pki::init(&path, now()), Err(CaError::Exists(_))));
    assert!(matches!(Pki::open(dir.path()), Err(CaError::Missing(_))));
}

#[test]
fn a_machine_without_the_key_can_verify_but_not_issue() {
    let (dir, _) = pki();
    let path = dir.path().join("pki");
    std::fs::remove_file(path.join("boxes/key.pem")).expect("removed");
    std::fs::remove_dir_all(path.join("lan")).expect("removed");

    let pki = Pki::open(&path).expect("opened");

    assert!(pki.authority(Authority::Boxes).is_ok());
    let refused = pki.issue_ldevid(&box_id(), &new_spki(), 60, now());
    assert!(matches!(
        refused,
        Err(CaError::KeyMissing {
            authority: Authority::Boxes,
            ..
        })
    ));
    let refused = pki.issue_lan(&box_id(), &new_spki(), &[], 60, now());
    assert!(matches!(
        refused,
        Err(CaError::AuthorityMissing {
            authority: Authority::Lan,
            ..
        })
    ));
}

#[test]
fn a_key_beside_the_wrong_certificate_is_refused() {
    let (dir, _) = pki();
    let path = dir.path().join("pki");
    std::fs::copy(path.join("lan/key.pem"), path.join("boxes/key.pem")).expect("copied");

    assert!(matches!(Pki::open(&path), Err(CaError::KeyMismatch(_))));
}

#[test]
fn rustls_takes_a_box_as_a_client_and_reads_its_name() {
    let (_dir, pki) = pki();
    let chain = pki
        .issue_ldevid(&box_id(), &new_spki(), MAX_LDEVID_SECS, now())
        .expect("a chain");

    as_client(pki.root(), &chain, now()).expect("under the root");
    let boxes = pki.authority(Authority::Boxes).expect("boxes");
    as_client(boxes, &chain, now()).expect("under the boxes authority alone");
    assert_eq!(crate::names::box_id(&chain[0]), Ok(box_id()));
    let skewed = now().plus_secs(60 - i64::try_from(LEAF_BACKDATE_SECS).expect("small"));
    as_client(pki.root(), &chain, skewed).expect("with a slow clock");
    let late = now().plus_secs(72 * 3_600 + 1);
    assert!(matches!(
        as_client(pki.root(), &chain, late),
        Err(rustls::Error::InvalidCertificate(
            CertificateError::ExpiredContext { .. }
        ))
    ));
}

#[test]
fn a_box_identity_lives_for_seventy_two_hours_at_the_most() {
    let (_dir, pki) = pki();

    let refused = pki.issue_ldevid(&box_id(), &new_spki(), MAX_LDEVID_SECS + 1, now());

    assert!(matches!(refused, Err(CaError::TooLong { .. })));
}

#[test]
fn an_initial_identity_is_no_identity_in_service() {
    let (_dir, pki) = pki();
    let chain = pki
        .issue_idevid(&box_id(), &new_spki(), now())
        .expect("a chain");

    let factory = pki.authority(Authority::Factory).expect("factory");
    as_client(factory, &chain, now()).expect("a client of the enrolment port");
    let ten_years = now().plus_secs(10 * 365 * 86_400);
    as_client(factory, &chain, ten_years).expect("still, after ten years on a shelf");
    let boxes = pki.authority(Authority::Boxes).expect("boxes");
    assert!(
        as_client(boxes, &chain, now()).is_err(),
        "not a client of the MQTT edge"
    );
}

#[test]
fn a_server_is_taken_for_its_own_names_only() {
    let (_dir, pki) = pki();
    let names = ServerNames {
        dns: vec!["cloud.example.com".to_owned(), "localhost".to_owned()],
        ips: vec![Ipv4Addr::LOCALHOST.into()],
    };
    let server = pki
        .issue_server(names, 90 * DAY_SECS, now())
        .expect("a server");

    as_server(pki.root(), server.chain(), "cloud.example.com", now()).expect("by name");
    as_server(pki.root(), server.chain(), "127.0.0.1", now()).expect("by address");
    assert!(as_server(pki.root(), server.chain(), "other.example.com", now()).is_err());
    assert!(
        as_client(pki.root(), server.chain(), now()).is_err(),
        "not a client"
    );
}

#[test]
fn a_server_cannot_have_a_name_of_the_customers_network() {
    let (_dir, pki) = pki();
    let names = ServerNames {
        dns: vec!["printer.local".to_owned()],
        ips: vec![],
    };
    let server = pki.issue_server(names, 60, now()).expect("issued");

    let refused = as_server(pki.root(), server.chain(), "printer.local", now());

    assert!(refused.is_err(), "the name constraint refuses it");
}

#[test]
fn a_box_on_a_customers_network_cannot_pose_as_the_cloud() {
    let (_dir, pki) = pki();
    let private = [
        Ipv4Addr::new(192, 168, 1, 7).into(),
        "fd00::7".parse().expect("an address"),
    ];
    let good = pki
        .issue_lan(&box_id(), &new_spki(), &private, 60, now())
        .expect("a chain");
    let public = [Ipv4Addr::new(203, 0, 113, 9).into()];
    let bad = pki
        .issue_lan(&box_id(), &new_spki(), &public, 60, now())
        .expect("a chain");

    let name = "0123456789ab.box.longhaul.internal";
    as_server(pki.root(), &good, name, now()).expect("by its own name");
    as_server(pki.root(), &good, "longhaul-0123456789ab.local", now()).expect("by its mDNS name");
    as_server(pki.root(), &good, "192.168.1.7", now()).expect("by its private address");
    as_server(pki.root(), &good, "fd00::7", now()).expect("by its unique local address");
    assert!(
        as_server(pki.root(), &bad, name, now()).is_err(),
        "a public address spoils it"
    );
    assert!(as_client(pki.root(), &good, now()).is_err(), "not a client");
}

/// Signs what the authority would never issue, to see that verifiers refuse it themselves.
fn forged(
    pki: &Pki,
    authority: Authority,
    name: rcgen::SanType,
    purpose: &[u8],
) -> Vec<CertificateDer<'static>> {
    let secs = NOW_SECS;
    let mut params = base("forged", secs, secs + 60).expect("params");
    params.subject_alt_names = vec![name];
    params.custom_extensions = vec![extended_key_usage(&[purpose])];
    let spki = SubjectPublicKeyInfo::from_der(&new_spki()).expect("a key");
    pki.sign(authority, &params, &spki).expect("signed")
}

#[test]
fn stolen_authority_keys_stay_in_their_lane() {
    let (_dir, pki) = pki();
    let cloud = || rcgen::SanType::DnsName("cloud.example.com".try_into().expect("ascii"));
    let address = || rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into());

    for authority in [
        Authority::Boxes,
        Authority::Commands,
        Authority::Factory,
        Authority::Lan,
    ] {
        for name in [cloud(), address()] {
            if authority == Authority::Lan && name == address() {
                continue;
            }
            let chain = forged(&pki, authority, name, oid::EKU_SERVER_AUTH);
            assert!(
                as_server(pki.root(), &chain, "cloud.example.com", now()).is_err(),
                "{authority}"
            );
            assert!(
                as_server(pki.root(), &chain, "127.0.0.1", now()).is_err(),
                "{authority}"
            );
            // Also where the purpose would be right, the name is not.
            let chain = forged(&pki, authority, cloud(), oid::EKU_CLIENT_AUTH);
            assert!(as_client(pki.root(), &chain, now()).is_err(), "{authority}");
        }
    }
    for authority in [Authority::Servers, Authority::Commands, Authority::Lan] {
        let uri = rcgen::SanType::URI("urn:longhaul:box:0123456789AB".try_into().expect("ascii"));
        let chain = forged(&pki, authority, uri, oid::EKU_CLIENT_AUTH);
        assert!(as_client(pki.root(), &chain, now()).is_err(), "{authority}");
    }
}

#[test]
fn an_issuing_authority_cannot_make_another() {
    let (_dir, pki) = pki();
    let secs = NOW_SECS;
    let mut params = base("sub", secs, secs + 60).expect("params");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions = vec![extended_key_usage(&[oid::EKU_CLIENT_AUTH])];
    let sub_key = KeyPair::generate().expect("a key");
    let spki = SubjectPublicKeyInfo::from_der(&sub_key.subject_public_key_info()).expect("a key");
    let sub = pki.sign(Authority::Boxes, &params, &spki).expect("signed");
    let mut leaf = base("0123456789AB", secs, secs + 60).expect("params");
    leaf.custom_extensions = vec![extended_key_usage(&[oid::EKU_CLIENT_AUTH])];
    let issuer = Issuer::from_params(&params, &sub_key);
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = leaf.signed_by(&leaf_key, &issuer).expect("signed");

    let chain = [vec![leaf.der().clone()], sub].concat();

    assert!(as_client(pki.root(), &chain, now()).is_err());
}

#[test]
fn names_that_are_no_names_are_refused() {
    let (_dir, pki) = pki();

    for bad in ["", "a b", "-x-", "ä.example", "*", "a..b"] {
        let names = ServerNames {
            dns: vec![bad.to_owned()],
            ips: vec![],
        };
        assert!(
            matches!(
                pki.issue_server(names, 60, now()),
                Err(CaError::Name { .. })
            ),
            "{bad:?}"
        );
    }
    let none = pki.issue_server(ServerNames::default(), 60, now());
    assert!(matches!(none, Err(CaError::Name { .. })));
    assert!(matches!(
        pki.issue_command_signer("a\nb", 60, now()),
        Err(CaError::Name { .. })
    ));
    assert!(matches!(
        pki.issue_idevid(&box_id(), b"junk", now()),
        Err(CaError::NotP256)
    ));
}

#[test]
fn an_identity_survives_its_file() {
    let (dir, pki) = pki();
    let path = dir.path().join("signer.pem");
    let signer = pki
        .issue_command_signer("cloud", 60, now())
        .expect("a signer");

    signer.save(&path).expect("saved");
    let opened = Identity::open(&path).expect("read").expect("there");

    assert_eq!(opened.chain(), signer.chain());
    assert_eq!(opened.pkcs8(), signer.pkcs8());
    assert!(
        Identity::open(&dir.path().join("none"))
            .expect("read")
            .is_none()
    );
}
