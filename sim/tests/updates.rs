//! Updates of a real box, with `kill -9` of its supervisor and its agent at any moment.

use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::operator::Operator;
use longhaul_sim::process::Process;
use longhaul_sim::releases::{Contents, runs};
use longhaul_sim::system::{Programs, Stage, online};
use longhaul_sim::wait::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const BUCKET: &str = "survey";
/// Updates that are disturbed, unless `LONGHAUL_UPDATE_KILLS` says otherwise.
const ROUNDS: u64 = 4;
const PATIENCE: Duration = Duration::from_mins(1);
const VAULT_BYTES: u64 = 512 << 20;

/// A cloud with a repository, and a box that runs what it was made with.
struct Fleet {
    stage: Stage,
    operator: Operator,
    box_id: String,
    tcti: String,
    data_port: u16,
    running: Process,
    _others: Vec<Process>,
    _folder: tempfile::TempDir,
}

impl Fleet {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let stage = Stage::new(folder.path(), Programs::find().expect("built")).expect("a stage");
        let (cloud, ready) = stage.cloud(None).await.expect("a cloud");
        let (name, password) = stage.first_admin().expect("an administrator");
        let operator = Operator::log_in(&ready.people_url, &ready.root_pem, &name, &password)
            .await
            .expect("logged in");
        let (tpm, tcti) = stage.software_tpm().await.expect("a TPM");
        let repository = stage.make_repository().await.expect("a repository");
        let made = stage.make_box(&ready, &tcti, Some(&repository)).await;
        let box_id = made.expect("a box");
        stage.import(&operator, &box_id).await.expect("imported");
        let data_port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port")
            .port();
        let mut running = stage
            .start_box(&tcti, VAULT_BYTES, data_port)
            .expect("started");
        online(&operator, &box_id, &mut running)
            .await
            .expect("online");
        Self {
            stage,
            operator,
            box_id,
            tcti,
            data_port,
            running,
            _others: vec![cloud, tpm],
            _folder: folder,
        }
    }

    /// Signs a release and assigns it; yields the rollout.
    async fn assign(&self, version: &str, what: Contents) -> String {
        let signed = self.stage.sign_release(version, what).await;
        signed.expect("signed");
        let rollout = self.operator.roll_out(&self.box_id, version).await;
        rollout.expect("assigned")
    }

    /// Kills the supervisor, and the agent with it, and starts it anew.
    async fn cut_power(&mut self) {
        self.running.kill().await.expect("killed");
        let started = self
            .stage
            .start_box(&self.tcti, VAULT_BYTES, self.data_port);
        self.running = started.expect("started again");
    }

    /// Kills the agent alone, if there is one now.
    fn kill_agent(&self) {
        let supervisor = self.running.id().expect("runs");
        if let Some(agent) = child_of(supervisor) {
            // It may have ended by itself meanwhile.
            let _ = kill(agent, Signal::SIGKILL);
        }
    }

    /// A file goes through to the bucket.
    async fn delivers(&self, name: &str) {
        let ticket = self.operator.ticket(&self.box_id, BUCKET).await;
        let path = self.stage.path("ticket.json");
        std::fs::write(&path, ticket.expect("a ticket")).expect("written");
        let folder = self.stage.path("customer").join(name);
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
        let pushed = self.stage.run("push", "longhaul", arguments).await;
        pushed.expect("pushed");
        for (file, digest) in digests {
            let key = format!("{name}/{file}");
            let there = self.operator.object_digest(BUCKET, &key).await;
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
        let detail = fleet.operator.box_detail(&fleet.box_id).await;
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
                fleet.cut_power().await;
            } else {
                fleet.kill_agent();
            }
        }

        let ended = fleet.operator.rolled_out(&rollout).await.expect("ended");

        match ended["state"].as_str() {
            Some("committed") => version = next,
            Some("rolled_back") => assert!(ended["reason"].is_string(), "{ended}"),
            _ => panic!("round {round}: {ended}"),
        }
        runs(&fleet.operator, &fleet.box_id, &version)
            .await
            .expect("the box lives");
    }
    fleet.delivers("after").await;
    fleet.running.stop().await.expect("stops when asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_program_is_rolled_back_and_a_good_release_follows() {
    let fleet = Fleet::new().await;
    fleet.delivers("before").await;

    let rollout = fleet.assign("2.0.0", Contents::Garbage).await;
    let ended = fleet.operator.rolled_out(&rollout).await.expect("ended");
    assert_eq!(ended["state"], "rolled_back", "{ended}");
    let reason = ended["reason"].as_str().expect("a reason");
    assert!(reason.contains("no program"), "{reason}");

    let rollout = fleet.assign("3.0.0", Contents::Good).await;
    let ended = fleet.operator.rolled_out(&rollout).await.expect("ended");
    assert_eq!(ended["state"], "committed", "{ended}");
    let slots = runs(&fleet.operator, &fleet.box_id, "3.0.0").await;
    assert_eq!(slots.expect("runs")["active"], "b");
    fleet.delivers("after").await;
    fleet.running.stop().await.expect("stops when asked");
}
