//! The edge beside mosquitto: memory of an idle connection, connections a second, messages a
//! second. The same simulated boxes, with the same certificates, by turns at both.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use longhaul_protocol::topic::{Topic, Up};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Run;
use super::crowd::{self, Connected, Silent};
use super::link::{self, Link};
use super::members::Member;
use super::servers::{self, Papers, Server};
use crate::bench::row::{Better, Metric};
use crate::bench::{BenchError, cpu, float};
use crate::wait::until;

const IDLE: Metric = Metric {
    name: "memory of an idle mTLS connection",
    unit: "KiB",
    better: Better::Lower,
    target: Some(12.0),
};
const CONNECTS: Metric = Metric {
    name: "connects",
    unit: "boxes/s",
    better: Better::Higher,
    target: None,
};
const CONNECT_COST: Metric = Metric {
    name: "connects: cost",
    unit: "ms of server CPU",
    better: Better::Lower,
    target: None,
};
const CONNECTS_BESIDE_SILENT: Metric = Metric {
    name: "connects beside 500 half-open peers",
    unit: "boxes/s",
    better: Better::Higher,
    target: None,
};
const MESSAGES: Metric = Metric {
    name: "QoS 1, 256 B, mTLS, lossless closed loop",
    unit: "messages/s",
    better: Better::Higher,
    target: None,
};
const MESSAGE_COST: Metric = Metric {
    name: "the same: cost",
    unit: "us of server CPU per message",
    better: Better::Lower,
    target: None,
};

/// Half-open peers.
const SILENT: usize = 500;
/// Publishers.
const PUBLISHERS: usize = 100;
/// Messages of each publisher that are not acknowledged yet.
const WINDOW: u16 = 32;
/// Size of a message.
const MESSAGE: usize = 256;
/// How long an acknowledged message may take to whoever takes all.
const TAKING: Duration = Duration::from_mins(1);

/// Who is measured.
#[derive(Clone, Copy)]
pub(super) enum Who {
    Ours,
    Mosquitto,
}

pub(super) const BOTH: [Who; 2] = [Who::Ours, Who::Mosquitto];

impl Who {
    async fn start(self, run: &Run<'_>, papers: &Papers) -> Result<Server, BenchError> {
        match self {
            Self::Ours => servers::edge(papers, &run.programs).await,
            Self::Mosquitto => servers::mosquitto(papers).await,
        }
    }
}

/// Memory of idle connections.
pub(super) async fn idle(run: &mut Run<'_>, papers: &Papers) -> Result<(), BenchError> {
    let boxes = run.members(&papers.pki, run.settings.boxes)?;
    let mut found = [Vec::new(), Vec::new()];
    for who in BOTH {
        let server = who.start(run, papers).await?;
        let id = server.id()?;
        // The first connections fill what all the others use.
        let (few, many) = boxes.split_at(boxes.len() / 20);
        let (warm, _) = crowd::connect(few, server.address).await?;
        let before = memory(id)?;
        let (held, seconds) = crowd::connect(many, server.address).await?;
        let after = memory(id)?;
        let each = (float(after) - float(before)) / float(held.len() as u64) / 1024.0;
        run.note(format!(
            "{}: {} boxes in {seconds:.1} s, {} MiB before, {} MiB after: {each:.1} KiB each",
            server.name,
            warm.len() + held.len(),
            before >> 20,
            after >> 20,
        ));
        found[who as usize].push(each);
        drop((warm, held));
        server.end().await?;
    }
    run.add(IDLE, &found, "mosquitto");
    Ok(())
}

/// Connects a second, alone and beside peers that say nothing.
pub(super) async fn connects(run: &mut Run<'_>, papers: &Papers) -> Result<(), BenchError> {
    let boxes = run.members(&papers.pki, run.settings.connects)?;
    let (mut rates, mut costs, mut beside) = (
        <[Vec<f64>; 2]>::default(),
        <[Vec<f64>; 2]>::default(),
        <[Vec<f64>; 2]>::default(),
    );
    for _ in 0..run.settings.runs {
        for who in BOTH {
            let server = who.start(run, papers).await?;
            let (rate, cost) = connect_all(&boxes, &server).await?;
            rates[who as usize].push(rate);
            costs[who as usize].push(cost);
            let silent = Silent::gather(SILENT, server.address).await?;
            let (rate, _) = connect_all(&boxes, &server).await?;
            beside[who as usize].push(rate);
            run.note(format!(
                "{}: {:.0} boxes/s at {cost:.3} ms, {rate:.0} beside {} silent peers",
                server.name,
                rates[who as usize].last().copied().unwrap_or_default(),
                silent.count(),
            ));
            server.end().await?;
        }
    }
    run.add_times(CONNECTS, &rates, "mosquitto", 3.0);
    run.add(CONNECT_COST, &costs, "mosquitto");
    run.add_times(CONNECTS_BESIDE_SILENT, &beside, "mosquitto", 3.0);
    Ok(())
}

/// Boxes a second, and milliseconds of the server's processor for each.
async fn connect_all(boxes: &[Member], server: &Server) -> Result<(f64, f64), BenchError> {
    let id = server.id()?;
    let before = processor(id)?;
    let (held, seconds) = crowd::connect(boxes, server.address).await?;
    let spent = processor(id)? - before;
    let count = float(held.len() as u64);
    Ok((count / seconds, 1000.0 * spent / count))
}

/// Messages a second that are acknowledged, and all arrive.
pub(super) async fn messages(run: &mut Run<'_>, papers: &Papers) -> Result<(), BenchError> {
    let boxes = run.members(&papers.pki, PUBLISHERS)?;
    let (mut rates, mut costs) = (<[Vec<f64>; 2]>::default(), <[Vec<f64>; 2]>::default());
    for _ in 0..run.settings.runs {
        for who in BOTH {
            let server = who.start(run, papers).await?;
            let id = server.id()?;
            let tap = match server.tap {
                Some(address) => Some(Tap::open(address).await?),
                None => None,
            };
            let (links, _) = crowd::connect(&boxes, server.address).await?;
            let before = processor(id)?;
            let began = Instant::now();
            let acknowledged = publish_for(links, &boxes, run.settings.seconds).await?;
            let seconds = began.elapsed().as_secs_f64();
            until("what was acknowledged to arrive", TAKING, || {
                let taken = match &tap {
                    Some(tap) => Ok(tap.taken()),
                    None => servers::taken(papers).map_err(|e| e.to_string()),
                };
                async move {
                    let taken = taken?;
                    let all = taken >= acknowledged;
                    all.then_some(())
                        .ok_or_else(|| format!("{taken} of {acknowledged}"))
                }
            })
            .await?;
            let spent = processor(id)? - before;
            let (rate, cost) = (
                float(acknowledged) / seconds,
                1e6 * spent / float(acknowledged),
            );
            run.note(format!(
                "{}: {acknowledged} messages in {seconds:.1} s, {rate:.0}/s at {cost:.1} us, all arrived",
                server.name
            ));
            rates[who as usize].push(rate);
            costs[who as usize].push(cost);
            drop(tap);
            server.end().await?;
        }
    }
    run.add_times(MESSAGES, &rates, "mosquitto", 2.0);
    run.add(MESSAGE_COST, &costs, "mosquitto");
    Ok(())
}

/// Every box publishes as fast as it is acknowledged; how many messages were.
async fn publish_for(
    links: Vec<Connected>,
    boxes: &[Member],
    duration: Duration,
) -> Result<u64, BenchError> {
    let end = Instant::now() + duration;
    let mut publishers = JoinSet::new();
    // In which order they connected does not matter: each says who it is by its certificate, but
    // may publish only its own topic.
    for (number, link) in links.into_iter().enumerate() {
        let topic = Topic::up(boxes[number].id.clone(), Up::Journal).to_string();
        publishers.spawn(publisher(link, topic, end));
    }
    let mut acknowledged = 0;
    while let Some(ended) = publishers.join_next().await {
        let ended = ended.map_err(std::io::Error::other).and_then(|ended| ended);
        acknowledged += ended.map_err(BenchError::io("publish"))?;
    }
    Ok(acknowledged)
}

async fn publisher(mut link: Connected, topic: String, end: Instant) -> std::io::Result<u64> {
    let frames: Vec<Vec<u8>> = (1..=WINDOW)
        .map(|id| super::frames::publish(&topic, Some(id), &[b'x'; MESSAGE]))
        .collect();
    let mut open: HashSet<u16> = (1..=WINDOW).collect();
    link.send(&frames.concat()).await?;
    let (mut acknowledged, mut out) = (0, Vec::new());
    while !open.is_empty() {
        let mut next = Some(link.packet().await?);
        let more = Instant::now() < end;
        while let Some(packet) = next {
            let id = packet.acknowledged().filter(|_| packet.is_success());
            let Some(id) = id.filter(|id| open.contains(id)) else {
                return Err(std::io::Error::other(format!("{packet:?} for a message")));
            };
            acknowledged += 1;
            if more {
                out.extend_from_slice(&frames[usize::from(id) - 1]);
            } else {
                open.remove(&id);
            }
            next = link.ready();
        }
        if !out.is_empty() {
            link.send(&out).await?;
            out.clear();
        }
    }
    Ok(acknowledged)
}

/// Takes everything that boxes publish at a broker that keeps it for nobody else.
struct Tap {
    taken: std::sync::Arc<std::sync::atomic::AtomicU64>,
    _task: JoinSet<()>,
}

impl Tap {
    async fn open(address: std::net::SocketAddr) -> Result<Self, BenchError> {
        let failed = || BenchError::io("take what boxes publish");
        let stream = link::tcp(address, link::source(0))
            .await
            .map_err(failed())?;
        let mut link = Link::open(stream, "tap", None).await.map_err(failed())?;
        link.subscribe("fleet/v1/+/up/#").await.map_err(failed())?;
        let taken = std::sync::Arc::<std::sync::atomic::AtomicU64>::default();
        let (count, mut task) = (taken.clone(), JoinSet::new());
        task.spawn(async move {
            // Ends with the server; what is missing then is noticed by whoever counts.
            let _ = take(&mut link, &count).await;
        });
        Ok(Self { taken, _task: task })
    }

    fn taken(&self) -> u64 {
        self.taken.load(std::sync::atomic::Ordering::Relaxed)
    }
}

async fn take(
    link: &mut Link<TcpStream>,
    count: &std::sync::atomic::AtomicU64,
) -> std::io::Result<()> {
    let mut acks = Vec::new();
    loop {
        let mut next = Some(link.packet().await?);
        while let Some(packet) = next {
            if let Some(published) = packet.published() {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                acks.extend(
                    published
                        .packet_id
                        .iter()
                        .flat_map(|id| super::frames::puback(*id)),
                );
            }
            next = link.ready();
        }
        link.send(&acks).await?;
        acks.clear();
    }
}

fn memory(id: u32) -> Result<u64, BenchError> {
    cpu::memory(id).map_err(BenchError::io("read a server's memory"))
}

fn processor(id: u32) -> Result<f64, BenchError> {
    cpu::of_process(id).map_err(BenchError::io("read a server's processor time"))
}
