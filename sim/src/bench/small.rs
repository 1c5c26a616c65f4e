//! Many small files: how many of them a push makes durable in a second.

use std::path::Path;

use super::peers::{Client, Command, Place};
use super::rig::{self, Rig};
use super::row::{Beside, Better, Metric};
use super::{Bench, BenchError, float};
use crate::files::{self, FolderPlan};

const PUSH: Metric = Metric {
    name: "small files (10 KiB) by longhaul push",
    unit: "files/s",
    better: Better::Higher,
    target: Some(20_000.0),
};
const SERVER: Metric = Metric {
    name: "the same, cost for the box",
    unit: "ms of server CPU per file",
    better: Better::Lower,
    target: None,
};
const CLIENT: Metric = Metric {
    name: "the same, cost for the client",
    unit: "ms of client CPU per file",
    better: Better::Lower,
    target: None,
};
const BYTES: usize = 10 << 10;

pub async fn measure(bench: &mut Bench<'_>) -> Result<(), BenchError> {
    let count: usize = bench.settings.size(20_000, 500);
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
        "{count} files of 10 KiB, {runs} runs, from the client's start to its end; the cloud is stopped"
    ));
    let mut rig = Rig::stand(bench, 16 << 30, None).await?;
    rig.go_offline().await?;
    let before = rig.threads()?;
    let (mut rate, mut server, mut client) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs {
        let push = rig.push(&folder, &format!("run-{run}"), false);
        let spent = rig.measured(&push).await?;
        rate.push(number / spent.seconds);
        server.push(1e3 * spent.server / number);
        client.push(1e3 * spent.client / number);
    }
    bench.found.detail.threads = rig.threads_since(&before)?;

    let mut beside = Besides::default();
    let place = rig.place()?;
    let to_box = commands(bench, &folder, &place)
        .into_iter()
        .map(|command| rig.knowing(command))
        .collect::<Result<Vec<_>, _>>()?;
    beside
        .run(bench, (to_box, number), ("the box", rig.id()?))
        .await?;
    rig.stop().await?;
    for peer in bench.peers.servers(&bench.folder).await? {
        let id = rig::id(&peer.process)?;
        let name = format!("{}, plain HTTP", peer.name);
        let to_peer = commands(bench, &folder, &peer.place);
        beside.run(bench, (to_peer, number), (&name, id)).await?;
        peer.stop().await?;
    }
    bench.add(PUSH, &rate, &beside.rate);
    bench.add(SERVER, &server, &beside.server);
    bench.add(CLIENT, &client, &beside.client);
    Ok(())
}

/// What the peers did with the same files.
#[derive(Default)]
struct Besides {
    rate: Vec<Beside>,
    server: Vec<Beside>,
    client: Vec<Beside>,
}

impl Besides {
    async fn run(
        &mut self,
        bench: &mut Bench<'_>,
        (commands, number): (Vec<Command>, f64),
        (target, server): (&str, u32),
    ) -> Result<(), BenchError> {
        for command in commands {
            let Some(spent) = bench.peer(server, &command).await? else {
                continue;
            };
            let name = format!("{} to {target}", command.name);
            note(&mut self.rate, &name, number / spent.seconds);
            note(&mut self.client, &name, 1e3 * spent.client / number);
            note(&mut self.server, &name, 1e3 * spent.server / number);
        }
        Ok(())
    }
}

/// Every run of every peer.
fn commands(bench: &Bench<'_>, folder: &Path, place: &Place) -> Vec<Command> {
    let peers = &bench.peers;
    let runs = (0..bench.settings.runs()).flat_map(|run| {
        [
            peers.upload(Client::S5cmd, folder, place, &format!("s5cmd-{run}")),
            peers.tar_pipe(folder, place, &format!("tar-{run}.tar")),
        ]
    });
    runs.flatten().collect()
}

fn note(besides: &mut Vec<Beside>, name: &str, sample: f64) {
    match besides.iter_mut().find(|b| b.name == name) {
        Some(beside) => beside.samples.push(sample),
        None => besides.push(Beside {
            name: name.to_owned(),
            samples: vec![sample],
        }),
    }
}
