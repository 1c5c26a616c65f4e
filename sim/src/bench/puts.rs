//! Small objects, each its own S3 `PUT`: how many a second, and what one costs the server.

use super::load::{self, Server};
use super::rig::{self, Rig};
use super::row::{Beside, Better, Metric};
use super::{Bench, BenchError, float, peers};
use crate::sign::Signer;

const RATE: Metric = Metric {
    name: "10 KiB S3 PUT, durable",
    unit: "PUT/s",
    better: Better::Higher,
    target: Some(5_000.0),
};
const COST: Metric = Metric {
    name: "10 KiB S3 PUT, durable: cost",
    unit: "ms of server CPU",
    better: Better::Lower,
    target: Some(0.15),
};
const BYTES: usize = 10 << 10;
const CONNECTIONS: usize = 64;
/// Objects in a folder.
const FOLDER: usize = 200;

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count: usize = bench.settings.size(20_000, 1_000);
    bench.note(format!(
        "{count} presigned PUTs of 10 KiB over {CONNECTIONS} connections, requests prepared ahead; the cloud is stopped"
    ));
    let mut rig = Rig::stand(bench, 8 << 30, None).await?;
    rig.go_offline().await?;
    let before = rig.threads()?;
    let (server, signer) = rig.server(&bench.settings.now)?;
    let (rate, cost) = sampled(bench, rig.id()?, &server, &signer, (rig::BUCKET, count)).await?;
    bench.found.detail.threads = rig.threads_since(&before)?;
    rig.stop().await?;

    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for peer in bench.peers.servers(&bench.folder).await? {
        let server = Server {
            address: peer.address,
            tls: None,
        };
        let signer = Signer {
            access_key: peer.place.access_key.clone(),
            secret_key: peer.place.secret_key.clone(),
            region: "us-east-1".to_owned(),
            host: peer.address.to_string(),
            at: bench.settings.now.clone(),
        };
        let id = rig::id(&peer.process)?;
        let target = (peers::BUCKET, count);
        let name = format!("{}, plain HTTP, no sync", peer.name);
        match sampled(bench, id, &server, &signer, target).await {
            Ok((rate, cost)) => {
                rates.push(Beside {
                    name: name.clone(),
                    samples: rate,
                });
                costs.push(Beside {
                    name,
                    samples: cost,
                });
            }
            // A peer that does not take presigned requests is left out, and that is said.
            Err(error) => bench.note(format!("{name}: {}", super::chain(&error))),
        }
        peer.stop().await?;
    }
    bench.add(RATE, &rate, &rates);
    bench.add(COST, &cost, &costs);
    Ok(())
}

/// Rate and cost of each run.
async fn sampled(
    bench: &Bench<'_>,
    id: u32,
    server: &Server,
    signer: &Signer,
    (bucket, count): (&str, usize),
) -> Result<(Vec<f64>, Vec<f64>), BenchError> {
    let number = float(count as u64);
    let (mut rate, mut cost) = (Vec::new(), Vec::new());
    for run in 0..bench.settings.runs() {
        // Each folder holds an object before many come at once: `rclone serve s3` makes a folder for
        // the first one, and answers 500 where two are the first
        let folders = (0..count)
            .step_by(FOLDER)
            .map(|i| request(signer, bucket, run, i / FOLDER, "first"));
        send(server, folders.collect(), 1).await?;
        let requests = (0..count)
            .map(|i| request(signer, bucket, run, i / FOLDER, &format!("{i:06}")))
            .collect();
        let before = rig::rested(id).await?;
        let seconds = send(server, requests, CONNECTIONS).await?;
        rate.push(number / seconds);
        cost.push(1e3 * (rig::rested(id).await? - before) / number);
    }
    Ok((rate, cost))
}

/// Sends the requests, and says how many seconds that took.
async fn send(
    server: &Server,
    requests: Vec<Vec<u8>>,
    connections: usize,
) -> Result<f64, BenchError> {
    let server = server.clone();
    let sent =
        tokio::task::spawn_blocking(move || load::run(&server, &requests, connections)).await;
    Ok(sent
        .unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
        .map_err(BenchError::io("send requests"))?
        .as_secs_f64())
}

fn request(signer: &Signer, bucket: &str, run: usize, folder: usize, name: &str) -> Vec<u8> {
    let path = format!("/{bucket}/put-{run}/{folder:03}/{name}");
    let target = signer.presigned("PUT", &path);
    let mut request = format!(
        "PUT {target} HTTP/1.1\r\nHost: {}\r\nContent-Length: {BYTES}\r\n\r\n",
        signer.host
    )
    .into_bytes();
    request.extend((0..=250).cycle().take(BYTES));
    request
}
