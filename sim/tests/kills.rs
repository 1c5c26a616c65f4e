//! `kill -9` of box and cloud at any moment of a push: what was acknowledged is in the bucket.

use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::operator::Operator;
use longhaul_sim::system::{Programs, Stage, online};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const BUCKET: &str = "survey";
const ROUNDS: u64 = 10;
const VAULT_BYTES: u64 = 1 << 30;

/// Who is killed in a round.
#[derive(Clone, Copy, PartialEq)]
enum Struck {
    Box,
    Cloud,
    Both,
}

const STRUCK: [Struck; 3] = [Struck::Both, Struck::Cloud, Struck::Box];

/// What a customer's `push` does in one round; it may fail, for the box is killed under it.
async fn push(stage: &Stage, round: u64, wait: bool) -> bool {
    let mut arguments = vec![
        "push".to_owned(),
        format!("--ticket={}", stage.path("ticket.json").display()),
        "--json".to_owned(),
        "--patience=60".to_owned(),
        stage.path("customer").display().to_string(),
    ];
    if wait {
        arguments.push("--wait".to_owned());
    }
    stage
        .run(&format!("push-{round}"), "longhaul", arguments)
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_box_and_cloud_are_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let stage = Stage::new(folder.path(), Programs::find().expect("built")).expect("a stage");
    let (mut cloud, ready) = stage.cloud(None).await.expect("a cloud");
    let (name, password) = stage.first_admin().expect("an administrator");
    let operator = Operator::log_in(&ready.people_url, &ready.root_pem, &name, &password)
        .await
        .expect("logged in");
    let (_tpm, tcti) = stage.software_tpm().await.expect("a TPM");
    let id = stage.make_box(&ready, &tcti, None).await.expect("a box");
    stage.import(&operator, &id).await.expect("imported");
    // The same after every restart: a push goes on where it was.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let mut running = stage.start_box(&tcti, VAULT_BYTES, port).expect("started");
    online(&operator, &id, &mut running).await.expect("online");
    let ticket = operator.ticket(&id, BUCKET).await.expect("a ticket");
    std::fs::write(stage.path("ticket.json"), ticket).expect("written");
    // Where to kill is drawn, but the same in every run: a failure can be looked at again.
    let mut random = SmallRng::seed_from_u64(20);
    let mut expected = files::Digests::new();

    for round in 0..ROUNDS {
        let batch = format!("round-{round}");
        let plan = FolderPlan {
            small: 60,
            small_bytes: (100, 40_000),
            large_bytes: 20 << 20,
            seed: round,
        };
        let made = files::make(&stage.path("customer").join(&batch), plan).expect("a folder");
        expected.extend(
            made.into_iter()
                .map(|(name, digest)| (format!("{batch}/{name}"), digest)),
        );
        let pause = Duration::from_millis(random.random_range(50..1_500));
        let strike = async {
            tokio::time::sleep(pause).await;
            let struck = STRUCK[usize::try_from(round).expect("small") % STRUCK.len()];
            if struck != Struck::Box {
                cloud.kill().await.expect("killed");
            }
            if struck != Struck::Cloud {
                running.kill().await.expect("killed");
                running = stage
                    .start_box(&tcti, VAULT_BYTES, port)
                    .expect("started again");
            }
            // The last to come back: a box that was killed, too, finds nobody at first.
            if struck != Struck::Box {
                cloud = stage.cloud(Some(ready.ports())).await.expect("up again").0;
            }
        };
        tokio::join!(push(&stage, round, false), strike);
    }
    online(&operator, &id, &mut running)
        .await
        .expect("online again");
    assert!(
        push(&stage, ROUNDS, true).await,
        "the last push, undisturbed, delivers everything"
    );

    let listed = operator.objects(BUCKET, "").await.expect("listed");
    assert_eq!(listed.len(), expected.len());
    for (name, digest) in &expected {
        let there = operator.object_digest(BUCKET, name).await.expect("there");
        assert_eq!(there, *digest, "{name}");
    }
    running.stop().await.expect("the box stops when asked");
    cloud.stop().await.expect("the cloud stops when asked");
}
