//! One simulated box at a real cloud: it is born, reports, obeys, keeps its journal's numbers, and
//! comes back as real boxes do.
//!
//! What is simulated: it believes what it is told without verifying the signature, and a command is
//! done as soon as it arrives.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use longhaul_protocol::command::{CommandClaims, CommandState, CommandUpdate, SignedCommand};
use longhaul_protocol::envelope::{self, Message};
use longhaul_protocol::ids::EpochId;
use longhaul_protocol::journal::{
    Fact, JournalAck, JournalBatch, JournalEntry, MAX_BATCH_ENTRIES, Outcome,
};
use longhaul_protocol::presence::{Birth, Death, Presence};
use longhaul_protocol::telemetry::{Disk, Telemetry};
use longhaul_protocol::topic::{Channel, Dn, Topic, Up, dn_filter};
use longhaul_protocol::value::UnixMillis;
use rand::Rng as _;
use rand::rngs::SmallRng;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::frames;
use super::link::{self, Link};
use super::members::Member;

/// First and longest pause before a box comes back, as on a real one: each time a random part of
/// the pause, which doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What all boxes of a crowd count together.
#[derive(Debug, Default)]
pub struct Counts {
    /// Births that the cloud has committed: it answered with the desired state.
    pub settled: AtomicU64,
    /// Sessions that ended.
    pub lost: AtomicU64,
    /// Attempts that did not become a session.
    pub refused: AtomicU64,
    /// Samples sent.
    pub telemetry: AtomicU64,
    /// Journal entries that the cloud has acknowledged.
    pub committed: AtomicU64,
    /// Commands carried out.
    pub commands: AtomicU64,
}

/// What the boxes of a crowd do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// How often each sends telemetry.
    pub telemetry: Duration,
    /// Whether each fills its journal as fast as the cloud commits.
    pub journal: bool,
}

/// A simulated box.
#[derive(Debug)]
pub struct Actor {
    member: Member,
    number: usize,
    to: SocketAddr,
    habits: Habits,
    counts: Arc<Counts>,
    random: SmallRng,
    began: (Instant, UnixMillis),
    journal: u64,
    /// The number of the last journal entry that was acknowledged.
    through: u64,
    /// Entries that are not, oldest first.
    open: Vec<JournalEntry>,
    sessions: u64,
    packet_id: u16,
}

impl Actor {
    /// The box `member`, the `number`th of its crowd; `now` is the time that its clock begins with.
    pub fn new(
        member: Member,
        number: usize,
        to: SocketAddr,
        habits: Habits,
        counts: Arc<Counts>,
        mut random: SmallRng,
        now: UnixMillis,
    ) -> Self {
        Self {
            journal: random.random(),
            member,
            number,
            to,
            habits,
            counts,
            random,
            began: (Instant::now(), now),
            through: 0,
            open: Vec::new(),
            sessions: 0,
            packet_id: 0,
        }
    }

    /// Lives until it is aborted. `random` must differ between two lives of the same box.
    pub async fn live(mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let born = self.sessions;
            // Why a session ended is the cloud's affair; that it did is counted.
            let _ = self.session().await;
            if self.sessions > born {
                self.counts.lost.fetch_add(1, Ordering::Relaxed);
                pause = FIRST_PAUSE;
            } else {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(pause.mul_f64(self.random.random())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The life of the journal, which begins with this actor's: its numbers begin anew, too.
    fn epoch(&self) -> io::Result<EpochId> {
        let epoch = format!("{:016x}", self.journal);
        epoch.parse().map_err(io::Error::other)
    }

    fn now(&self) -> UnixMillis {
        let since = i64::try_from(self.began.0.elapsed().as_millis()).unwrap_or(0);
        self.began.1.plus_millis(since)
    }

    async fn session(&mut self) -> io::Result<()> {
        // Drawn, as on a real box: the end of an older session must not be taken for this one's.
        let name = format!("{:016x}", self.random.random::<u64>());
        let name = name.parse().map_err(io::Error::other)?;
        let stream = link::tls(
            self.to,
            link::source(self.number),
            Arc::clone(&self.member.tls),
        )
        .await?;
        let death = Presence::Death(Death {
            session: name,
            reason: None,
        });
        let will = envelope::encode(&death, self.now()).map_err(io::Error::other)?;
        let Presence::Death(Death { session, .. }) = death else {
            return Ok(());
        };
        let topic = Topic::up(self.member.id.clone(), Up::Presence).to_string();
        let id = self.member.id.clone();
        let mut link = Link::open(stream, id.as_str(), Some((&topic, &will))).await?;
        link.subscribe(&dn_filter(&id)).await?;
        let birth = Presence::Birth(Birth {
            session,
            boot: "simulated".parse().map_err(io::Error::other)?,
            epoch: self.epoch()?,
            agent_version: "1.0.0".to_owned(),
            os_version: None,
            capabilities: Vec::new(),
            desired_version: 0,
            certificate_expires: self.now().plus_millis(24 * 3_600_000),
            lan_urls: vec!["https://192.0.2.7:8420".to_owned()],
            rungs: Vec::new(),
        });
        self.send(&mut link, Up::Presence, &birth).await?;
        self.sessions += 1;
        // Not all at the same moment of each interval.
        let first = self.habits.telemetry.mul_f64(self.random.random());
        let mut telemetry =
            tokio::time::interval_at(tokio::time::Instant::now() + first, self.habits.telemetry);
        self.offer(&mut link).await?;
        loop {
            tokio::select! {
                packet = link.packet() => self.take(&mut link, packet?).await?,
                _ = telemetry.tick() => {
                    let sample = sample(&mut self.random);
                    let bytes = self.encoded(&sample)?;
                    let topic = Topic::up(id.clone(), Up::Telemetry).to_string();
                    link.send(&frames::publish(&topic, None, &bytes)).await?;
                    self.counts.telemetry.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn encoded<T: Message>(&self, body: &T) -> io::Result<Vec<u8>> {
        envelope::encode(body, self.now()).map_err(io::Error::other)
    }

    async fn send<T: Message>(
        &mut self,
        link: &mut Link<TlsStream<TcpStream>>,
        channel: Up,
        body: &T,
    ) -> io::Result<()> {
        let bytes = self.encoded(body)?;
        let topic = Topic::up(self.member.id.clone(), channel).to_string();
        self.packet_id = self.packet_id % 1000 + 1;
        link.send(&frames::publish(&topic, Some(self.packet_id), &bytes))
            .await
    }

    async fn take(
        &mut self,
        link: &mut Link<TlsStream<TcpStream>>,
        packet: frames::Packet,
    ) -> io::Result<()> {
        let Some(published) = packet.published() else {
            return Ok(());
        };
        if let Some(id) = published.packet_id {
            link.send(&frames::puback(id)).await?;
        }
        let topic: Topic = published.topic.parse().map_err(io::Error::other)?;
        match topic.channel {
            Channel::Dn(Dn::Desired) => {
                self.counts.settled.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Channel::Dn(Dn::Ack) => {
                let ack = envelope::decode::<JournalAck>(&published.payload);
                let through = ack.map_err(io::Error::other)?.body.through;
                self.acknowledged(through);
                self.offer(link).await
            }
            Channel::Dn(Dn::Command) => {
                let command = envelope::decode::<SignedCommand>(&published.payload);
                let command = command.map_err(io::Error::other)?.body;
                self.obey(link, command.jws.0.as_str()).await
            }
            _ => Ok(()),
        }
    }

    fn acknowledged(&mut self, through: u64) {
        let before = self.open.len();
        self.open.retain(|entry| entry.number > through);
        let gone = (before - self.open.len()) as u64;
        self.counts.committed.fetch_add(gone, Ordering::Relaxed);
        self.through = self.through.max(through);
    }

    /// Sends the next batch of the journal, if there is one; one is on its way at a time.
    async fn offer(&mut self, link: &mut Link<TlsStream<TcpStream>>) -> io::Result<()> {
        if self.habits.journal && self.open.is_empty() {
            for _ in 0..MAX_BATCH_ENTRIES {
                self.note(Fact::Failure {
                    part: "simulated".to_owned(),
                    text: "nothing failed; this fills a journal".to_owned(),
                });
            }
        }
        if self.open.is_empty() {
            return Ok(());
        }
        let batch = JournalBatch {
            epoch: self.epoch()?,
            entries: self.open.iter().take(MAX_BATCH_ENTRIES).cloned().collect(),
        };
        self.send(link, Up::Journal, &batch).await
    }

    fn note(&mut self, fact: Fact) {
        let number = self.open.last().map_or(self.through, |entry| entry.number) + 1;
        let at = self.now();
        self.open.push(JournalEntry { number, at, fact });
    }

    async fn obey(&mut self, link: &mut Link<TlsStream<TcpStream>>, jws: &str) -> io::Result<()> {
        let payload = jws.split('.').nth(1).unwrap_or_default();
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(io::Error::other)?;
        let claims: CommandClaims = serde_json::from_slice(&payload)?;
        let accepted = CommandUpdate {
            id: Some(claims.id.clone()),
            state: CommandState::Accepted,
        };
        self.send(link, Up::Command, &accepted).await?;
        let idle = self.open.is_empty();
        self.note(Fact::CommandResult {
            id: claims.id,
            outcome: Outcome::Done {
                detail: serde_json::Value::Null,
            },
        });
        self.counts.commands.fetch_add(1, Ordering::Relaxed);
        if idle { self.offer(link).await } else { Ok(()) }
    }
}

/// A sample as a real box sends it, of the usual size.
fn sample(random: &mut SmallRng) -> Telemetry {
    Telemetry {
        uptime_secs: 86_400,
        load_1m: random.random_range(0.0..2.0),
        memory_total_bytes: 8 << 30,
        memory_available_bytes: random.random_range(4 << 30..7 << 30),
        disks: vec![Disk {
            mount: "/var/lib/longhaul".to_owned(),
            total_bytes: 4 << 40,
            free_bytes: random.random_range(1 << 40..4 << 40),
        }],
        ..Telemetry::default()
    }
}
