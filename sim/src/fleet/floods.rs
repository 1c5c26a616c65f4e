//! The edge beside mosquitto while somebody floods it: what honest boxes notice, and how much memory
//! that takes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use longhaul_protocol::topic::{Topic, Up, dn_filter};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use super::crowd::Connected;
use super::frames;
use super::link::{self, Link};
use super::members::Member;
use super::servers::{self, Papers, Server};
use super::{Run, edge};
use crate::bench::row::{Better, Metric};
use crate::bench::{BenchError, cpu, float};

/// Honest boxes that are connected, and send.
const HONEST: usize = 50;
/// Honest boxes that come anew, one after the other.
const NEWCOMERS: usize = 10;
/// Boxes with valid certificates that have gone bad.
const BAD: usize = 16;
/// Between two messages of an honest box.
const EVERY: Duration = Duration::from_millis(100);
/// An honest box that waits longer has lost its session.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a refusal, so that attempts are bounded.
const PAUSE: Duration = Duration::from_millis(10);
/// What an oversized packet says of its length: nearly the most that MQTT can say.
const OVERSIZED: [u8; 5] = [0x30, 0xff, 0xff, 0xff, 0x7f];

/// What is done to the edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Flood {
    /// Nothing: what the others are compared with.
    None,
    /// Peers that send their hello byte by byte.
    SlowLoris,
    /// Connections that are closed as soon as they stand.
    Connections,
    /// Boxes that come with valid certificates, over and over.
    Sessions,
    /// Boxes that publish each message to another topic, and subscribe to as many.
    Topics,
    /// Boxes that send packets of a quarter of a gigabyte.
    Oversized,
}

impl Flood {
    const ALL: [Self; 6] = [
        Self::None,
        Self::SlowLoris,
        Self::Connections,
        Self::Sessions,
        Self::Topics,
        Self::Oversized,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::None => "no flood",
            Self::SlowLoris => "slow loris",
            Self::Connections => "connections",
            Self::Sessions => "sessions",
            Self::Topics => "topics",
            Self::Oversized => "oversized packets",
        }
    }

    /// How many take part.
    fn peers(self, run: &Run<'_>) -> usize {
        match self {
            Self::None => 0,
            Self::SlowLoris => run.settings.connects.min(2_000),
            Self::Connections => 64,
            Self::Sessions | Self::Topics | Self::Oversized => BAD,
        }
    }
}

const ROUND_TRIP: Metric = Metric {
    name: "honest round trip, p99",
    unit: "ms",
    better: Better::Lower,
    target: None,
};
const COMING: Metric = Metric {
    name: "honest connect, slowest",
    unit: "ms",
    better: Better::Lower,
    target: None,
};
const LOST: Metric = Metric {
    name: "honest sessions lost",
    unit: "sessions",
    better: Better::Lower,
    target: Some(0.0),
};
const GROWN: Metric = Metric {
    name: "memory grown by, at most",
    unit: "MiB",
    better: Better::Lower,
    target: Some(64.0),
};

/// What honest boxes noticed.
#[derive(Default)]
struct Noticed {
    round_trips: Vec<f64>,
    connects: Vec<f64>,
    lost: f64,
    grown: f64,
    attempts: f64,
}

/// One flood after the other, at the edge as it is shipped and at mosquitto.
pub(super) async fn floods(run: &mut Run<'_>, papers: &Papers) -> Result<(), BenchError> {
    let boxes = run.members(&papers.pki, HONEST + NEWCOMERS + BAD)?;
    let limits = ["--limits".to_owned()];
    for flood in Flood::ALL {
        let mut noticed = [Noticed::default(), Noticed::default()];
        for who in edge::BOTH {
            let server = match who {
                edge::Who::Ours => servers::edge_with(papers, &run.programs, &limits).await?,
                edge::Who::Mosquitto => servers::mosquitto(papers).await?,
            };
            let found = one(run, flood, &boxes, &server).await?;
            run.note(format!(
                "{}, {}: {} round trips, p99 {:.1} ms; {} connects, slowest {:.1} ms; {} sessions lost; {:.1} MiB more; the flood tried {} times",
                flood.name(),
                server.name,
                found.round_trips.len(),
                percentile(&found.round_trips, 99),
                found.connects.len(),
                percentile(&found.connects, 100),
                found.lost,
                found.grown,
                found.attempts,
            ));
            noticed[who as usize] = found;
            server.end().await?;
        }
        let of = |value: fn(&Noticed) -> f64| [vec![value(&noticed[0])], vec![value(&noticed[1])]];
        let case = flood.name();
        run.add_beside(ROUND_TRIP, case, &of(|n| percentile(&n.round_trips, 99)));
        run.add_beside(COMING, case, &of(|n| percentile(&n.connects, 100)));
        run.add_beside(LOST, case, &of(|n| n.lost));
        run.add_beside(GROWN, case, &of(|n| n.grown));
    }
    Ok(())
}

/// Both sides at once, for as long as a measurement lasts.
async fn one(
    run: &Run<'_>,
    flood: Flood,
    boxes: &[Member],
    server: &Server,
) -> Result<Noticed, BenchError> {
    let (honest, rest) = boxes.split_at(HONEST);
    let (newcomers, bad) = rest.split_at(NEWCOMERS);
    let (id, to) = (server.id()?, server.address);
    let memory = || cpu::memory(id).map_err(BenchError::io("read a server's memory"));
    let (stop, lost) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let (mut talking, mut coming) = (JoinSet::new(), JoinSet::new());
    for (number, member) in honest.iter().cloned().enumerate() {
        let (stop, lost) = (Arc::clone(&stop), Arc::clone(&lost));
        talking.spawn(talk(number, member, to, stop, lost));
    }
    // Whoever is connected before the flood begins stays so.
    tokio::time::sleep(EVERY * 10).await;
    let before = memory()?;
    let attempts = Arc::<AtomicU64>::default();
    let mut peers = JoinSet::new();
    for number in 0..flood.peers(run) {
        let (member, attempts) = (bad[number % BAD].clone(), Arc::clone(&attempts));
        peers.spawn(attack(flood, number, member, to, attempts));
    }
    for (number, member) in newcomers.iter().cloned().enumerate() {
        let (stop, lost) = (Arc::clone(&stop), Arc::clone(&lost));
        coming.spawn(come(HONEST + number, member, to, stop, lost));
    }
    let (mut most, end) = (before, Instant::now() + run.settings.seconds);
    while Instant::now() < end {
        tokio::time::sleep(EVERY).await;
        most = most.max(memory()?);
    }
    stop.store(true, Ordering::Relaxed);
    Ok(Noticed {
        round_trips: talking.join_all().await.concat(),
        connects: coming.join_all().await.concat(),
        lost: float(lost.load(Ordering::Relaxed)),
        grown: float(most - before) / float(1 << 20),
        attempts: float(attempts.load(Ordering::Relaxed)),
    })
}

/// An honest box sends and waits for the acknowledgement; the times that took, in milliseconds.
async fn talk(
    number: usize,
    member: Member,
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
) -> Vec<f64> {
    let topic = Topic::up(member.id.clone(), Up::Journal).to_string();
    let frame = frames::publish(&topic, Some(1), b"an honest message");
    let (mut times, mut link) = (Vec::new(), None);
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(EVERY).await;
        let said = async {
            let mut there = match link.take() {
                Some(link) => link,
                None => enter(number, &member, to).await?,
            };
            let began = Instant::now();
            there.send(&frame).await?;
            while there.packet().await?.acknowledged() != Some(1) {}
            times.push(milliseconds(began));
            link = Some(there);
            io::Result::Ok(())
        };
        if !matches!(tokio::time::timeout(PATIENCE, said).await, Ok(Ok(()))) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    times
}

/// An honest box comes, over and over; the times that took, in milliseconds.
async fn come(
    number: usize,
    member: Member,
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    lost: Arc<AtomicU64>,
) -> Vec<f64> {
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        match tokio::time::timeout(PATIENCE, enter(number, &member, to)).await {
            Ok(Ok(_)) => times.push(milliseconds(began)),
            _ => {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    times
}

async fn enter(number: usize, member: &Member, to: SocketAddr) -> io::Result<Connected> {
    let stream = link::tls(to, link::source(number), Arc::clone(&member.tls)).await?;
    let mut link = Link::open(stream, member.id.as_str(), None).await?;
    link.subscribe(&dn_filter(&member.id)).await?;
    Ok(link)
}

/// Until it is aborted; each attempt is counted.
async fn attack(
    flood: Flood,
    number: usize,
    member: Member,
    to: SocketAddr,
    attempts: Arc<AtomicU64>,
) {
    // Strangers have addresses of their own.
    let last = u8::try_from(number % 200).unwrap_or(0);
    let source = Ipv4Addr::new(127, 0, 2, last + 1);
    for round in 0_u64.. {
        attempts.fetch_add(1, Ordering::Relaxed);
        let done: io::Result<()> = match flood {
            Flood::None => return,
            Flood::SlowLoris => dawdle(source, to).await,
            Flood::Connections => link::tcp(to, source).await.map(drop),
            Flood::Sessions => bad_link(source, &member, to).await.map(drop),
            Flood::Topics => wander(source, &member, to, round).await,
            Flood::Oversized => swell(source, &member, to).await,
        };
        if done.is_err() {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A TLS record that never comes to its end.
async fn dawdle(source: Ipv4Addr, to: SocketAddr) -> io::Result<()> {
    let mut stream = link::tcp(to, source).await?;
    for byte in [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]
        .into_iter()
        .chain([0; 512])
    {
        stream.write_all(&[byte]).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn bad_link(source: Ipv4Addr, member: &Member, to: SocketAddr) -> io::Result<Connected> {
    let stream = link::tls(to, source, Arc::clone(&member.tls)).await?;
    let mut link = Link::open(stream, member.id.as_str(), None).await?;
    link.subscribe(&dn_filter(&member.id)).await?;
    Ok(link)
}

/// Ever other topics: its own kind at first, then anybody's.
async fn wander(source: Ipv4Addr, member: &Member, to: SocketAddr, round: u64) -> io::Result<()> {
    let mut link = bad_link(source, member, to).await?;
    for number in 0..10_000 {
        let topic = format!("fleet/v1/{}/up/{round}-{number}", member.id);
        link.send(&frames::publish(&topic, None, b"x")).await?;
        let filter = format!("fleet/v1/{}/dn/{round}-{number}", member.id);
        link.subscribe(&filter).await?;
    }
    Ok(())
}

async fn swell(source: Ipv4Addr, member: &Member, to: SocketAddr) -> io::Result<()> {
    let mut link = bad_link(source, member, to).await?;
    link.send(&OVERSIZED).await?;
    let piece = vec![0; 64 << 10];
    for _ in 0..4_000 {
        link.send(&piece).await?;
    }
    Ok(())
}

fn milliseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// The value that `percent` of a hundred do not exceed; not a number where there is none.
fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or(f64::NAN)
}
