//! `kill -9` of customer, box and cloud at any moment of a push: what was acknowledged is in the bucket.

use std::time::Duration;

use longhaul_sim::files::{self, Digests, FolderPlan};
use longhaul_sim::lan_box::arg;
use longhaul_sim::site::{Plan, Site};
use longhaul_sim::wait::until;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const ROUNDS: u64 = 12;
const PATIENCE: Duration = Duration::from_mins(1);
const VAULT_BYTES: u64 = 1 << 30;

/// Who is killed in a round.
#[derive(Clone, Copy)]
struct Struck {
    customer: bool,
    device: bool,
    cloud: bool,
}

const fn struck(customer: bool, device: bool, cloud: bool) -> Struck {
    Struck {
        customer,
        device,
        cloud,
    }
}

const STRUCK: [Struck; 6] = [
    struck(true, true, true),
    struck(false, false, true),
    struck(true, false, false),
    struck(false, true, true),
    struck(true, true, false),
    struck(false, true, false),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_customer_box_and_cloud_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = Plan {
        vault_bytes: VAULT_BYTES,
        ..Plan::default()
    };
    let mut site = Site::stand(folder.path(), plan).await.expect("a site");
    let customer = site.customer();
    let source = site.stage.path("customer");
    let push = ["push", arg(&source), "--json", "--patience=60"];
    // Where to kill is drawn, but the same in every run: a failure can be looked at again.
    let mut random = SmallRng::seed_from_u64(20);
    let mut expected = Digests::new();

    for round in 0..ROUNDS {
        let batch = format!("round-{round}");
        let plan = FolderPlan {
            small: 60,
            small_bytes: (100, 40_000),
            large_bytes: 20 << 20,
            seed: round,
        };
        let made = files::make(&source.join(&batch), plan).expect("a folder");
        expected.extend(
            made.into_iter()
                .map(|(name, digest)| (format!("{batch}/{name}"), digest)),
        );
        let mut running = customer.command(push).spawn().expect("started");
        let pause = Duration::from_millis(random.random_range(50..1_500));
        tokio::time::sleep(pause).await;
        let struck = STRUCK[usize::try_from(round).expect("small") % STRUCK.len()];
        if struck.customer {
            // It may have ended by itself.
            let _ = running.kill().await;
        }
        if struck.cloud {
            site.cloud.kill().await.expect("killed");
        }
        if struck.device {
            site.strike_box().await.expect("started again");
        }
        // The last to come back: a box that was killed, too, finds nobody at first.
        if struck.cloud {
            site.start_cloud().await.expect("up again");
        }
        // It may have failed, for the box was killed under it.
        let _ = running.wait_with_output().await.expect("ended");
    }
    site.online().await.expect("online again");
    let takes = until("the box to take files", PATIENCE, || {
        customer.json(0, &["ls"])
    });
    takes.await.expect("it takes files again");
    let whole = [&push[..], &["--wait"]].concat();
    let output = customer.run(whole).await.expect("started");
    assert!(
        output.status.success(),
        "the last push, undisturbed, delivers everything: {output:?}"
    );

    site.holds_exactly(&expected).await.expect("all unchanged");
    site.stop().await.expect("they stop when asked");
}
