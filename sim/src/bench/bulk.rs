//! Large files: how much of a processor a GB costs, on the box and at the customer's.

use super::peers::Client;
use super::rig::{self, Rig};
use super::row::{Beside, Better, Metric};
use super::{Bench, BenchError, float, remove};
use crate::files::{self, FolderPlan};

const INTAKE: Metric = Metric {
    name: "bulk intake: TLS, durable, encrypted, verified",
    unit: "GB per server CPU s",
    better: Better::Higher,
    target: Some(0.9),
};
const FOREIGN: Metric = Metric {
    name: "bulk intake from s5cmd",
    target: None,
    ..INTAKE
};
const CLIENT: Metric = Metric {
    name: "bulk client",
    unit: "GB per client CPU s",
    better: Better::Higher,
    target: Some(2.0),
};
const WALL: Metric = Metric {
    name: "bulk push, client and box on this machine",
    unit: "GB/s",
    better: Better::Higher,
    target: None,
};
const PEERS: [Client; 3] = [Client::S5cmd, Client::Rclone(4), Client::Aws];

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let bytes: u64 = bench.settings.size(1 << 30, 64 << 20);
    let runs = bench.settings.runs();
    let gigabytes = float(bytes) / 1e9;
    let folder = bench.path("customer");
    let plan = FolderPlan {
        small: 0,
        small_bytes: (0, 0),
        large_bytes: bytes,
        seed: bench.settings.seed,
    };
    files::make(&folder, plan).map_err(BenchError::io("make a large file"))?;
    bench.note(format!(
        "one file of {} MiB, {runs} runs; the cloud is stopped, so the box only takes it",
        bytes >> 20
    ));

    let mut rig = Rig::stand(bench, (16 * bytes).max(4 << 30), None).await?;
    rig.go_offline().await?;
    let before = rig.threads()?;
    let (mut intake, mut client, mut wall) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        let push = rig.push(&folder, &format!("run-{run}"), false);
        let spent = rig.measured(&push).await?;
        intake.push(gigabytes / spent.server);
        client.push(gigabytes / spent.client);
        wall.push(gigabytes / spent.seconds);
    }
    bench.found.detail.threads = rig.threads_since(&before)?;
    let mut foreign = Vec::new();
    let place = rig.place()?;
    for run in 0..runs {
        let prefix = format!("foreign-{run}");
        let upload = bench.peers.upload(Client::S5cmd, &folder, &place, &prefix);
        let Some(upload) = upload else { break };
        let spent = bench.peer(rig.id()?, &rig.knowing(upload)?).await?;
        foreign.extend(spent.map(|spent| gigabytes / spent.server));
    }
    rig.stop().await?;
    remove(&bench.path("rig"))?;

    let (mut servers, mut clients): (Vec<Beside>, Vec<Beside>) = (Vec::new(), Vec::new());
    let mut walls = Vec::new();
    for peer in bench.peers.servers(&bench.folder).await? {
        let id = rig::id(&peer.process)?;
        for tool in bench.peers.clients(&PEERS) {
            let named = |name: String| Beside {
                name,
                samples: Vec::new(),
            };
            let mut server = named(format!("{}, plain HTTP", peer.name));
            let mut client = named(tool.name());
            let mut wall = named(format!("{} to {}, plain HTTP", tool.name(), peer.name));
            for run in 0..runs {
                let prefix = format!("{}-{run}", tool.name().replace(' ', ""));
                let upload = bench
                    .peers
                    .upload(tool, &folder, &peer.place, &prefix)
                    .ok_or_else(|| BenchError::Unexpected(format!("{} is gone", tool.name())))?;
                let Some(spent) = bench.peer(id, &upload).await? else {
                    break;
                };
                server.samples.push(gigabytes / spent.server);
                client.samples.push(gigabytes / spent.client);
                wall.samples.push(gigabytes / spent.seconds);
            }
            // A server is judged by the cheapest client's load, a client by the first server.
            if tool == Client::S5cmd {
                servers.push(server);
                walls.push(wall);
            }
            if !clients.iter().any(|c| c.name == client.name) {
                clients.push(client);
            }
        }
        peer.stop().await?;
    }
    bench.add(INTAKE, &intake, &servers);
    bench.add(FOREIGN, &foreign, &servers);
    bench.add(CLIENT, &client, &clients);
    bench.add(WALL, &wall, &walls);
    Ok(())
}
