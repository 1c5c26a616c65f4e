//! The boxes' port: who gets in, and for what.

use longhaul_fleet_api::fleet::FleetErrorKind;
use longhaul_fleet_api::store::boxes::BoxState;
use longhaul_protocol::command::CommandKind;
use longhaul_protocol::enrol::{
    ChallengeRequest, Evidence, LanCertificate, LanCertificateRequest, Problem,
};
use longhaul_protocol::value::{Blob, Jws};
use longhaul_provisioning::ca::Pki;

use crate::bench::{Bench, operator};

async fn problem(answer: reqwest::Response) -> Problem {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    answer.json().await.expect("a problem")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_initial_identity_is_good_for_enrolment_only() {
    let bench = Bench::start().await;
    let of = bench.make(1).await;
    let https = bench.https(&of.idevid, &of.key);

    let answer = https
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(
        problem(answer).await.kind,
        "urn:longhaul:problem:not-enrolled"
    );

    let request = ChallengeRequest {
        v: 1,
        ek_certificate: Blob(vec![9; 40]),
        iak_public: Blob(vec![9; 40]),
    };
    let answer = https
        .post(bench.url("/v1/enrol/challenge"))
        .json(&request)
        .send()
        .await
        .expect("an answer");
    let refused = problem(answer).await;
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (403, "urn:longhaul:problem:bad-endorsement-key")
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_without_a_challenge_is_refused() {
    let bench = Bench::start().await;
    let of = bench.make(2).await;
    let https = bench.https(&of.idevid, &of.key);
    let blob = || Blob(vec![0; 16]);
    let evidence = Evidence {
        v: 1,
        challenge: "0123".to_owned(),
        activated: blob(),
        ldevid_public: blob(),
        certify_attest: blob(),
        certify_signature: blob(),
        quote_attest: blob(),
        quote_signature: blob(),
        pcr_values: [].into(),
        csr: blob(),
    };

    let answer = https
        .post(bench.url("/v1/enrol/certificate"))
        .json(&evidence)
        .send()
        .await
        .expect("an answer");

    let refused = problem(answer).await;
    assert_eq!(
        (refused.status, refused.kind.as_str()),
        (409, "urn:longhaul:problem:challenge-gone")
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_do_not_get_past_tls() {
    let bench = Bench::start().await;
    let of = bench.enrolled(3).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let other = Pki::init(&elsewhere.path().join("pki"), bench.fleet.now()).expect("authorities");
    let spki = rcgen::PublicKeyData::subject_public_key_info(&of.key);
    let forged = other
        .issue_ldevid(&of.id, &spki, 3600, bench.fleet.now())
        .expect("issued");

    let refused = bench
        .https(&forged, &of.key)
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await;
    assert!(refused.is_err(), "a certificate from another fleet");
    let long_ago = bench.fleet.now().plus_secs(-8 * 86_400);
    let ended = bench.pki().issue_ldevid(&of.id, &spki, 3600, long_ago);
    let refused = bench
        .https(&ended.expect("issued"), &of.key)
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await;
    assert!(refused.is_err(), "a certificate that has ended");

    let honest = bench.https(&of.ldevid, &of.key);
    let answer = honest
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let answer = honest
        .get(bench.url("/v1/box/nothing"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(problem(answer).await.status, 404);
    let answer = honest
        .post(bench.url("/v1/box/uploads/start"))
        .body("{\"objects\": 7")
        .send()
        .await
        .expect("an answer");
    assert_eq!(problem(answer).await.status, 400);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_is_not_in_the_inventory_is_told_so() {
    let bench = Bench::start().await;
    let of = bench.make(4).await;
    let stranger = longhaul_protocol::ids::BoxId::from_ek_sha256(&[200; 32]);
    let spki = rcgen::PublicKeyData::subject_public_key_info(&of.key);
    let chain = bench
        .pki()
        .issue_idevid(&stranger, &spki, bench.fleet.now())
        .expect("issued");

    let https = bench.https(&chain, &of.key);
    let answer = https
        .get(bench.url("/v1/box/credentials"))
        .send()
        .await
        .expect("an answer");

    assert_eq!(
        problem(answer).await.kind,
        "urn:longhaul:problem:unknown-box"
    );
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inventory_comes_from_the_factory_only() {
    let bench = Bench::start().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let now = bench.fleet.now();
    let other = Pki::init(&elsewhere.path().join("pki"), now).expect("authorities");
    let factory = other
        .issue_record_signer("elsewhere", now)
        .expect("a signer");
    let signer = longhaul_provisioning::jws::Signer::new(&factory).expect("a signer");
    let forged = signer
        .sign(longhaul_provisioning::jws::Kind::Inventory, b"{}")
        .expect("signed");

    for record in [forged, Jws("a.b.c".to_owned()), Jws(String::new())] {
        let refused = bench.fleet.inventory_import(&operator(), &record).await;
        assert_eq!(
            refused.expect_err("refused").kind(),
            FleetErrorKind::Invalid
        );
    }
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lan_certificates_are_for_the_customers_network_only() {
    let bench = Bench::start().await;
    let of = bench.enrolled(5).await;
    let https = bench.https(&of.ldevid, &of.key);
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&of.key)
        .expect("a request");
    let mut request = LanCertificateRequest {
        v: 1,
        csr: Blob(csr.der().to_vec()),
        addresses: vec!["192.168.1.9".parse().expect("an address")],
    };
    let url = bench.url("/v1/box/lan-certificate");

    let answer = https
        .post(&url)
        .json(&request)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let issued: LanCertificate = answer.json().await.expect("a certificate");
    assert_eq!(issued.certificate_chain.len(), 2);

    request.addresses = vec!["8.8.8.8".parse().expect("an address")];
    let answer = https
        .post(&url)
        .json(&request)
        .send()
        .await
        .expect("an answer");
    assert_eq!(problem(answer).await.status, 400);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn releases_can_be_fetched_from_where_they_stopped() {
    let bench = Bench::start().await;
    let of = bench.enrolled(6).await;
    let targets = bench.dir.path().join("tuf/targets");
    std::fs::create_dir_all(&targets).expect("made");
    std::fs::write(targets.join("agent-1.bin"), b"0123456789").expect("written");
    let https = bench.https(&of.ldevid, &of.key);
    let url = bench.url("/v1/box/tuf/targets/agent-1.bin");

    let whole = https.get(&url).send().await.expect("an answer");
    assert_eq!(whole.bytes().await.expect("a body"), "0123456789");
    let rest = https
        .get(&url)
        .header("range", "bytes=4-")
        .send()
        .await
        .expect("an answer");
    assert_eq!(rest.status(), 206);
    assert_eq!(rest.headers()["content-range"], "bytes 4-9/10");
    assert_eq!(rest.bytes().await.expect("a body"), "456789");
    let missing = https
        .get(bench.url("/v1/box/tuf/targets/other"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(missing.status(), 404);
    bench.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarantined_box_gets_and_delivers_nothing_until_it_is_released() {
    let bench = Bench::start().await;
    let of = bench.enrolled(7).await;
    bench.set_state(&of.id, BoxState::Quarantined).await;
    let https = bench.https(&of.ldevid, &of.key);
    let abort = serde_json::json!({ "upload": "up-1", "parts": [1] });
    let deliver = async || {
        let url = bench.url("/v1/box/uploads/parts");
        let answer = https
            .post(url)
            .json(&abort)
            .send()
            .await
            .expect("an answer");
        problem(answer).await.kind
    };
    let command = async || {
        let kind = CommandKind::ReportNow;
        bench
            .fleet
            .command_send(&operator(), &of.id, kind, 60)
            .await
    };

    let secrets = async || {
        let url = bench.url("/v1/box/credentials");
        https.get(url).send().await.expect("an answer")
    };

    assert_eq!(deliver().await, "urn:longhaul:problem:quarantined");
    let refused = problem(secrets().await).await;
    assert_eq!(refused.kind, "urn:longhaul:problem:quarantined");
    assert_eq!(
        command().await.expect_err("refused").kind(),
        FleetErrorKind::Conflict
    );

    bench
        .fleet
        .box_release(&operator(), &of.id)
        .await
        .expect("released");

    assert_eq!(deliver().await, "urn:longhaul:problem:unknown-upload");
    assert_eq!(secrets().await.status(), 200);
    assert!(command().await.is_ok());
    let again = bench.fleet.box_release(&operator(), &of.id).await;
    assert_eq!(again.expect_err("refused").kind(), FleetErrorKind::Conflict);
    bench.stop().await;
}
