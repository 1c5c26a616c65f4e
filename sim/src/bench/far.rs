//! Small files to a bucket that is far away: from the customer's folder to objects in the bucket.

use std::time::Duration;

use super::peers::Client;
use super::rig::Rig;
use super::row::{Beside, Better, Metric};
use super::{Bench, BenchError, float};
use crate::files::{self, FolderPlan};

const RATE: Metric = Metric {
    name: "small files (10 KiB) to a bucket 100 ms away",
    unit: "files/s",
    better: Better::Higher,
    target: None,
};
/// So many times faster than rclone is wanted.
const WANTED: f64 = 10.0;
/// Half of the way there and back.
const ONE_WAY: Duration = Duration::from_millis(50);
const BYTES: usize = 10 << 10;
const RCLONE: Client = Client::Rclone(32);

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count: usize = bench.settings.size(3_000, 100);
    let runs = bench.settings.runs();
    let number = float(count as u64);
    let folder = bench.path("customer");
    let plan = FolderPlan {
        small: count,
        small_bytes: (BYTES, BYTES),
        large_bytes: 0,
        seed: bench.settings.seed,
    };
    files::make(&folder, plan).map_err(BenchError::io("make small files"))?;
    bench.note(format!(
        "{count} files of 10 KiB, {runs} runs, over a line of {} ms there and back in front of the same object store; \
         ours ends when every object was read back and compared in the cloud",
        2 * ONE_WAY.as_millis()
    ));
    let rig = Rig::stand(bench, 8 << 30, Some(ONE_WAY)).await?;
    let before = rig.threads()?;
    let mut ours = Vec::new();
    for run in 0..runs {
        let push = rig.push(&folder, &format!("run-{run}"), true);
        ours.push(number / rig.measured(&push).await?.seconds);
    }
    bench.found.detail.threads = rig.threads_since(&before)?;
    let place = rig.far_place()?;
    let mut peers = Vec::new();
    for client in bench.peers.clients(&[RCLONE, Client::S5cmd]) {
        let mut beside = Beside {
            name: client.name(),
            samples: Vec::new(),
        };
        for run in 0..runs {
            let prefix = format!("{}-{run}", client.name().replace(' ', ""));
            let upload = bench.peers.upload(client, &folder, &place, &prefix);
            let Some(upload) = upload else { break };
            let spent = bench.peer(rig.id()?, &upload).await?;
            beside
                .samples
                .extend(spent.map(|spent| number / spent.seconds));
        }
        peers.push(beside);
    }
    rig.stop().await?;
    for peer in &peers {
        let metric = Metric {
            target: super::row::median(&peer.samples)
                .map(|rate| super::row::rounded(WANTED * rate)),
            ..RATE
        };
        bench.add(metric, &ours, std::slice::from_ref(peer));
    }
    Ok(())
}
