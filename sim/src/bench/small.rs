//! Many small files: how many of them a push makes durable in a second.

use super::peers::{Client, Place};
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
    let box_place = rig.place();
    if let Some(place) = &box_place {
        beside
            .peer(bench, (&folder, number), (place, "the box"), rig.id()?)
            .await?;
    }
    rig.stop().await?;
    for peer in bench.peers.servers(&bench.folder).await? {
        let id = rig::id(&peer.process)?;
        let name = format!("{}, plain HTTP", peer.name);
        beside
            .peer(bench, (&folder, number), (&peer.place, &name), id)
            .await?;
        peer.process.stop().await?;
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
    async fn peer(
        &mut self,
        bench: &Bench<'_>,
        (folder, number): (&std::path::Path, f64),
        (place, target): (&Place, &str),
        server: u32,
    ) -> Result<(), BenchError> {
        let each = (0..bench.settings.runs()).map(|run| {
            let peers = &bench.peers;
            let tar = format!("tar-{run}.tar");
            [
                peers.upload(Client::S5cmd, folder, place, &format!("s5cmd-{run}")),
                peers.tar_pipe(folder, place, &tar),
            ]
        });
        for commands in each {
            for command in commands.into_iter().flatten() {
                let spent = rig::measured(server, &command, &bench.folder).await?;
                let name = format!("{} to {target}", command.name);
                note(&mut self.rate, &name, number / spent.seconds);
                note(&mut self.client, &name, 1e3 * spent.client / number);
                note(&mut self.server, &name, 1e3 * spent.server / number);
            }
        }
        Ok(())
    }
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
