//! A box with a TPM enrols itself with a cloud that verifies its evidence.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod support;

use std::fs;
use std::sync::Arc;

use http::StatusCode;
use longhaul_device::console::Status;
use longhaul_protocol::diag::{Code, Rung, RungStatus};
use longhaul_protocol::enrol::{CERTIFICATE_PATH, CHALLENGE_PATH};
use longhaul_provisioning::tpm::Tpm;
use longhaul_provisioning::tpm::soft::SoftTpm;
use support::Factory;
use support::cloud::Cloud;

fn holds(status: &Status, rung: Rung) -> bool {
    let mut rungs = status.lan.rungs.iter();
    rungs.any(|r| r.rung == rung && r.status == RungStatus::Ok)
}

fn fails_with(status: &Status, code: Code) -> bool {
    status.lan.rungs.iter().any(|r| r.code == Some(code))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_box_enrols_by_attestation_and_keeps_its_certificate_over_restarts() {
    let factory = Arc::new(Factory::new());
    let cloud = Cloud::start(&factory).await;
    let running = factory.start();

    // Nobody listens on the MQTT port, which the ladder must say, and nothing lower.
    let blocked = |s: &Status| fails_with(s, Code::BROKER_BLOCKED);
    let status = running.until("a blocked broker", blocked).await;

    assert!(holds(&status, Rung::Enrolled), "{status:#?}");
    assert_eq!(&status.lan.box_id, factory.box_id());
    assert!(
        status.journal.last >= 10,
        "each rung is in the journal: {status:#?}"
    );
    assert_eq!(cloud.asked(CHALLENGE_PATH, "factory"), 1);
    running.stop().await;

    let running = factory.start();
    let status = running.until("a blocked broker", blocked).await;
    assert!(holds(&status, Rung::Enrolled));
    assert_eq!(
        cloud.asked(CERTIFICATE_PATH, ""),
        1,
        "the certificate still holds"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_certificate_is_renewed_with_the_one_before_it() {
    let factory = Arc::new(Factory::new());
    let cloud = Cloud::start(&factory).await;
    // Half of it is over at once, because certificates are issued for whole seconds.
    cloud.state.lock().validity_secs = 6;
    let running = factory.start();
    let first = running
        .until("a certificate", |s| s.certificate_expires.is_some())
        .await;

    let renewed = |s: &Status| s.certificate_expires > first.certificate_expires;
    running.until("a renewal", renewed).await;

    assert_eq!(cloud.asked(CERTIFICATE_PATH, "factory"), 1);
    assert!(cloud.asked(CERTIFICATE_PATH, "boxes") >= 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_refused_box_says_why_and_a_lost_certificate_is_asked_for_again() {
    let factory = Arc::new(Factory::new());
    let cloud = Cloud::start(&factory).await;
    cloud.state.lock().refuse = Some((StatusCode::FORBIDDEN, "revoked"));
    let running = factory.start();
    let revoked = |s: &Status| fails_with(s, Code::ENROL_REVOKED);
    let status = running.until("its revocation", revoked).await;
    assert!(holds(&status, Rung::CloudTls));

    cloud.state.lock().refuse = None;
    running
        .until("the end of it", |s| holds(s, Rung::Enrolled))
        .await;
    running.stop().await;

    fs::write(factory.state().join("ldevid.json"), b"\xff garbage").unwrap();
    let running = factory.start();
    running
        .until("enrolment", |s| holds(s, Rung::Enrolled))
        .await;
    assert_eq!(cloud.asked(CERTIFICATE_PATH, "factory"), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn papers_of_another_factory_are_refused_before_anything_is_asked() {
    let (factory, other) = (Factory::new(), Arc::new(Factory::new()));
    let cloud = Cloud::start(&other).await;
    fs::copy(
        other.state().join("factory/box-config.jws"),
        factory.state().join("factory/box-config.jws"),
    )
    .unwrap();

    let ended = factory.start().ended().await.unwrap_err();

    assert_eq!(ended.exit_code(), 2, "{ended}");
    assert_eq!(cloud.state.lock().asked.len(), 0);
}

fn state_changed(status: &Status) -> Option<String> {
    let mut rungs = status.lan.rungs.iter();
    let rung = rungs.find(|r| r.rung == Rung::Enrolled && r.code == Some(Code::STATE_CHANGED));
    rung.map(|r| r.evidence.clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn another_state_is_named_with_its_code_and_told_to_the_cloud_at_once() {
    let factory = Arc::new(Factory::new());
    let cloud = Cloud::start(&factory).await;
    let running = factory.start();
    running
        .until("a certificate", |s| s.certificate_expires.is_some())
        .await;
    running.stop().await;
    let vault = fs::read_dir(factory.state().join("vault")).unwrap().count();
    assert!(vault > 0);
    let asked = cloud.state.lock().asked.len();

    Tpm::open(&factory.tcti())
        .unwrap()
        .extend(7, [1; 32])
        .unwrap();
    let running = factory.start();
    let status = running
        .until("the cloud's refusal", |s| {
            state_changed(s).is_some_and(|evidence| evidence.contains("the cloud"))
        })
        .await;

    let evidence = state_changed(&status).unwrap();
    assert!(evidence.contains("the vault stays closed"), "{evidence}");
    assert!(evidence.contains("PCR 7"), "{evidence}");
    assert_eq!(status.lan.vault.capacity_bytes, 0, "nothing is open");
    assert!(status.lan_urls.is_empty(), "nobody listens for customers");
    assert!(cloud.state.lock().asked.len() > asked, "it asked at once");
    running.stop().await;

    // The machine is switched off and on: its PCRs are as they were.
    *factory.tpm.lock() = None;
    let tpm = SoftTpm::start(&factory.dir.path().join("tpm")).unwrap();
    *factory.tpm.lock() = Some(tpm);
    let running = factory.start();
    let open = |s: &Status| s.lan.vault.capacity_bytes > 0 && state_changed(s).is_none();
    running.until("its own state again", open).await;
    running.stop().await;
}
