//! Updates of a real box, with `kill -9` of its supervisor and its agent at any moment.

use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::releases::{Contents, runs};
use longhaul_sim::site::{BUCKET, Plan, Site};
use longhaul_sim::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// Updates that are disturbed, unless `LONGHAUL_UPDATE_KILLS` says otherwise.
const ROUNDS: u64 = 4;
const PATIENCE: Duration = Duration::from_mins(1);

/// A cloud with a repository, and a box that runs what it was made with.
struct Fleet {
    site: Site,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let plan = Plan {
            releases: true,
            ..Plan::default()
        };
        Self {
            site: Site::stand(folder.path(), plan).await.expect("a site"),
            _folder: folder,
        }
    }

    /// Signs a release and assigns it; yields the rollout.
    async fn assign(&self, version: &str, what: Contents) -> String {
        let signed = self.site.stage.sign_release(version, what).await;
        signed.expect("signed");
        let rollout = self
            .site
            .operator
            .roll_out(&self.site.box_id, version)
            .await;
        rollout.expect("assigned")
    }

    /// Kills the agent alone, if there is one now.
    fn kill_agent(&self) {
        let supervisor = self.site.device.id().expect("runs");
        if let Some(agent) = child_of(supervisor) {
            // It may have ended by itself meanwhile.
            let _ = kill(agent, Signal::SIGKILL);
        }
    }

    /// A file goes through to the bucket.
    async fn delivers(&self, name: &str) {
        let path = self.site.stage.path("ticket.json");
        let folder = self.site.stage.path("customer").join(name);
        let plan = FolderPlan {
            small: 5,
            small_bytes: (100, 4_000),
            large_bytes: 1 << 20,
            seed: 3,
        };
        let digests = files::make(&folder, plan).expect("a folder");
        let arguments = [
            "push".to_owned(),
            format!("--ticket={}", path.display()),
            format!("--prefix={name}"),
            "--json".to_owned(),
            "--wait".to_owned(),
            "--patience=60".to_owned(),
            folder.display().to_string(),
        ];
        let pushed = self.site.stage.run("push", "longhaul", arguments).await;
        pushed.expect("pushed");
        for (file, digest) in digests {
            let key = format!("{name}/{file}");
            let there = self.site.operator.object_digest(BUCKET, &key).await;
            assert_eq!(there.expect("there"), digest, "{key}");
        }
    }
}

fn rounds() -> u64 {
    let told = std::env::var("LONGHAUL_UPDATE_KILLS");
    told.map_or(ROUNDS, |text| text.parse().expect("a number of rounds"))
}

/// A child of the process, from the process table.
fn child_of(parent: u32) -> Option<Pid> {
    let parent = parent.to_string();
    let processes = std::fs::read_dir("/proc").ok()?;
    let found = processes.filter_map(|entry| {
        let name = entry.ok()?.file_name().to_str()?.parse::<i32>().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
        // pid (name) state ppid ..; the name may hold anything.
        let after = stat.rsplit_once(')')?.1;
        let ppid = after.split_whitespace().nth(1)?;
        (ppid == parent).then_some(Pid::from_raw(name))
    });
    found.last()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_update_ends_in_committed_or_rolled_back_and_the_box_lives() {
    let mut fleet = Fleet::new().await;
    // When to kill is drawn, but the same in every run: a failure can be looked at again.
    let mut random = SmallRng::seed_from_u64(7);
    let mut version = until("the box's first report", PATIENCE, async || {
        let detail = fleet.site.operator.box_detail(&fleet.site.box_id).await;
        let detail = detail.map_err(|e| e.to_string())?;
        let version = detail["reported"]["agent_version"].as_str();
        version
            .map(ToOwned::to_owned)
            .ok_or_else(|| detail.to_string())
    })
    .await
    .expect("a version");

    for round in 1..=rounds() {
        let next = format!("{}.0.0", round + 1);
        let rollout = fleet.assign(&next, Contents::Good).await;
        for _ in 0..random.random_range(1..=2) {
            let pause = Duration::from_millis(random.random_range(50..3_000));
            tokio::time::sleep(pause).await;
            if random.random_bool(0.7) {
                // The agent goes with its supervisor.
                let struck = fleet.site.strike_box().await;
                struck.expect("started again");
            } else {
                fleet.kill_agent();
            }
        }

        let ended = fleet
            .site
            .operator
            .rolled_out(&rollout)
            .await
            .expect("ended");

        match ended["state"].as_str() {
            Some("committed") => version = next,
            Some("rolled_back") => assert!(ended["reason"].is_string(), "{ended}"),
            _ => panic!("round {round}: {ended}"),
        }
        runs(&fleet.site.operator, &fleet.site.box_id, &version)
            .await
            .expect("the box lives");
    }
    fleet.delivers("after").await;
    fleet.site.stop().await.expect("stops when asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_program_is_rolled_back_and_a_good_release_follows() {
    let fleet = Fleet::new().await;
    fleet.delivers("before").await;

    let rollout = fleet.assign("2.0.0", Contents::Garbage).await;
    let ended = fleet
        .site
        .operator
        .rolled_out(&rollout)
        .await
        .expect("ended");
    assert_eq!(ended["state"], "rolled_back", "{ended}");
    let reason = ended["reason"].as_str().expect("a reason");
    assert!(reason.contains("no program"), "{reason}");

    let rollout = fleet.assign("3.0.0", Contents::Good).await;
    let ended = fleet
        .site
        .operator
        .rolled_out(&rollout)
        .await
        .expect("ended");
    assert_eq!(ended["state"], "committed", "{ended}");
    let slots = runs(&fleet.site.operator, &fleet.site.box_id, "3.0.0").await;
    assert_eq!(slots.expect("runs")["active"], "b");
    fleet.delivers("after").await;
    fleet.site.stop().await.expect("stops when asked");
}
