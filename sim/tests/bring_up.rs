//! The box in a customer's network that has something wrong with it, for real: the right code, and
//! back by itself once it is lifted. Each test has network namespaces of its own.

use longhaul_sim::lab::{self, Fault, Lab, Reading, come_up, walk};
use longhaul_sim::system::Programs;

/// Runs a story in a lab of its own; the thread takes its namespace before any other is made.
fn in_a_lab(story: impl AsyncFnOnce(&mut Lab)) {
    if !lab::enter().expect("a namespace") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::find().expect("programs");
        let mut lab = Lab::start(folder.path(), programs).await.expect("a lab");
        story(&mut lab).await;
    });
}

async fn suffer_all(lab: &mut Lab, faults: &[Fault]) {
    come_up(lab).await.expect("online");
    for fault in faults {
        let outcome = lab.suffer(*fault).await;
        let outcome = outcome.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        println!(
            "{:<40} {:>5.1} s {:>5.1} s",
            fault.title(),
            outcome.diagnosed.as_secs_f32(),
            outcome.recovered.as_secs_f32()
        );
    }
}

#[test]
fn a_fault_between_box_and_router_is_named_and_survived() {
    in_a_lab(async |lab| {
        suffer_all(
            lab,
            &[
                Fault::NoCable,
                Fault::NoDhcp,
                Fault::NoRouter,
                Fault::AddressConflict,
                Fault::GatewaySilent,
                Fault::Ipv6Only,
            ],
        )
        .await;
    });
}

#[test]
fn a_fault_of_names_or_walls_is_named_and_survived() {
    in_a_lab(async |lab| {
        suffer_all(
            lab,
            &[
                Fault::DnsSilent,
                Fault::DnsLying,
                Fault::DnsSlow,
                Fault::Portal,
                Fault::MqttBlocked,
            ],
        )
        .await;
    });
}

#[test]
fn a_fault_on_the_way_to_the_cloud_is_named_and_survived() {
    in_a_lab(async |lab| {
        suffer_all(
            lab,
            &[
                Fault::ProxyNeeded,
                Fault::ProxyLogin,
                Fault::Intercepted,
                Fault::PathMtu,
                Fault::LineSlow,
                Fault::ClockWrong,
            ],
        )
        .await;
    });
}

#[test]
fn a_fault_at_our_side_is_told_from_the_customers() {
    in_a_lab(async |lab| {
        let refused = |code: &str| Reading::Code(code.to_owned());
        lab.plug().await.expect("plugged in");
        lab.shows(&refused("LH-902")).await.expect("unknown to us");
        suffer_all(
            lab,
            &[Fault::CloudDown, Fault::CloudBlocked, Fault::HalfOpen],
        )
        .await;
        lab.revoke().await.expect("revoked");
        lab.shows(&refused("LH-903")).await.expect("revoked by us");
    });
}

/// Faults in any order. `make soak` walks further: `LONGHAUL_WALK=100`.
#[test]
fn no_order_of_faults_leaves_the_box_stuck() {
    let changes = std::env::var("LONGHAUL_WALK").ok();
    let changes = changes.and_then(|n| n.parse().ok()).unwrap_or(6);
    let seed = rand::random();
    println!("seed {seed}");
    in_a_lab(async |lab| {
        come_up(lab).await.expect("online");
        let quick = [
            Fault::NoCable,
            Fault::NoDhcp,
            Fault::AddressConflict,
            Fault::DnsLying,
            Fault::Portal,
            Fault::Intercepted,
            Fault::HalfOpen,
        ];
        let faults: &[Fault] = if changes > 10 { &Fault::ALL } else { &quick };
        let walked = walk(lab, seed, changes, faults, |outcome| {
            println!("{outcome:?}");
        });
        walked.await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
    });
}
