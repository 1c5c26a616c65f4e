//! What fleets go through, in small: the files in `scenarios/` with few boxes and short times.
//!
//! Every step waits until all boxes are online, as they and the cloud see it, and commands are done.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use longhaul_protocol::value::UnixMillis;
use longhaul_sim::fleet::scenario::{Certificates, Scenario, Stage, Step, carry_out};

/// However slow the machine is.
const PATIENCE_SECS: u32 = 120;

#[expect(clippy::disallowed_methods, reason = "a test's certificates begin now")]
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.expect("after 1970").as_millis();
    UnixMillis(i64::try_from(millis).expect("before the year 292,000,000"))
}

fn secs(secs: u32) -> NonZeroU32 {
    NonZeroU32::new(secs).expect("some")
}

/// The same in small.
fn short(mut scenario: Scenario) -> Scenario {
    let within_secs = secs(PATIENCE_SECS);
    scenario.boxes = secs(20);
    scenario.telemetry_secs = secs(1);
    scenario.certificates = scenario.certificates.map(|of| Certificates {
        first_ends_secs: secs(15),
        wave_secs: 5,
        ..of
    });
    for step in &mut scenario.steps {
        *step = match *step {
            Step::Connect { .. } => Step::Connect { within_secs },
            Step::Steady { .. } => Step::Steady { secs: secs(2) },
            Step::PowerCut { percent, .. } => Step::PowerCut {
                percent,
                dark_secs: secs(1),
                within_secs,
            },
            Step::CloudDown { .. } => Step::CloudDown {
                secs: secs(1),
                within_secs,
            },
            Step::RestartBoxes { .. } => Step::RestartBoxes {
                groups: secs(4),
                within_secs,
            },
            Step::RestartCloud { .. } => Step::RestartCloud {
                times: secs(2),
                within_secs,
            },
            Step::Renewals { .. } => Step::Renewals { within_secs },
        };
    }
    scenario
}

async fn played(name: &str) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
    let scenario = Scenario::read(&file).expect("a scenario");
    let stage = Stage {
        folder: folder.path().join("stage"),
        database: None,
        now: now(),
    };
    let played = carry_out(&short(scenario), &stage).await;
    played.unwrap_or_else(|e| panic!("{name}: {e}: {:?}", std::error::Error::source(&e)))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_lost_while_nothing_happens() {
    assert_eq!(played("steady").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_back_from_a_power_cut() {
    let lines = played("power-cut").await;
    assert!(lines[2].starts_with("16 boxes were dark"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_comes_back_to_a_cloud_that_was_killed() {
    assert_eq!(played("cloud-down").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_stands_restarts_of_its_boxes_and_its_cloud() {
    assert_eq!(played("rolling-restarts").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_box_enrols_anew_when_all_certificates_end() {
    let lines = played("certificate-wave").await;
    assert!(lines[1].contains("20 certificates"), "{lines:?}");
}
