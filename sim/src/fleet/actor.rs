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
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use super::enrol::enrol;
use super::frames;
use super::link::{self, Link};
use super::members::{Member, Papers};

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
    /// Boxes whose birth is committed and whose session lasts.
    pub online: AtomicU64,
    /// Certificates that boxes have got since they began.
    pub enrolled: AtomicU64,
    /// Attempts to get one that failed.
    pub not_enrolled: AtomicU64,
}

/// What happens to a box.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    /// It loses its power for so long. Nobody says goodbye: the connection stands, and is silent.
    PowerCut {
        /// How long it is dark.
        dark: Duration,
    },
    /// It starts again in good order, as after an update.
    Restart,
}

/// How a session ended that did not fail.
enum End {
    /// Something happened to the box.
    Deed(Deed, Link<TlsStream<TcpStream>>),
    /// Its certificate is to be renewed.
    Renewal(Link<TlsStream<TcpStream>>),
}

/// What the boxes of a crowd do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// How often each sends telemetry.
    pub telemetry: Duration,
    /// Whether each fills its journal as fast as the cloud commits.
    pub journal: bool,
    /// Whether boxes that can enrol wait until their certificates have ended, as after months on a
    /// shelf, instead of renewing them at half life.
    pub renews_late: bool,
}

/// A simulated box.
#[derive(Debug)]
pub struct Actor {
    member: Member,
    number: usize,
    mqtt: SocketAddr,
    https: SocketAddr,
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
    /// Whether the birth of the session is committed.
    online: bool,
    /// When the certificate in service ends.
    expires: UnixMillis,
    /// When it is to be renewed.
    renews: UnixMillis,
}

impl Actor {
    /// The box `member`, the `number`th of its crowd; `now` is the time that its clock begins with.
    pub fn new(
        member: Member,
        number: usize,
        (mqtt, https): (SocketAddr, SocketAddr),
        habits: Habits,
        counts: Arc<Counts>,
        mut random: SmallRng,
        now: UnixMillis,
    ) -> Self {
        let whole_life = (now, now.plus_millis(24 * 3_600_000));
        let life = |papers: &Arc<Papers>| (papers.issued, papers.expires);
        let (issued, expires) = member.papers.as_ref().map_or(whole_life, life);
        let renews = renewal(&mut random, habits, issued, expires);
        Self {
            journal: random.random(),
            member,
            number,
            mqtt,
            https,
            habits,
            counts,
            random,
            began: (Instant::now(), now),
            through: 0,
            open: Vec::new(),
            sessions: 0,
            packet_id: 0,
            online: false,
            expires,
            renews,
        }
    }

    /// Lives until it is aborted; what comes by `deeds` happens to it while it has a session.
    pub async fn live(mut self, mut deeds: mpsc::Receiver<Deed>) {
        let mut pause = FIRST_PAUSE;
        // What the other side of a power cut still takes for a session.
        let mut cut = None;
        loop {
            if self.member.papers.is_some() && self.now() >= self.renews {
                self.renew().await;
            }
            let born = self.sessions;
            let ended = self.session(&mut deeds, &mut cut).await;
            if std::mem::take(&mut self.online) {
                self.counts.online.fetch_sub(1, Ordering::Relaxed);
            }
            // Why a session failed is the cloud's affair; that it did is counted.
            match ended {
                Ok(End::Deed(Deed::PowerCut { dark }, link)) => {
                    cut = Some(link);
                    // Not all machines start equally fast.
                    let start = dark.mul_f64(0.1 * self.random.random::<f64>());
                    tokio::time::sleep(dark + start).await;
                    continue;
                }
                Ok(End::Deed(Deed::Restart, mut link) | End::Renewal(mut link)) => {
                    let _ = link.send(&frames::DISCONNECT).await;
                    continue;
                }
                Err(_) => {}
            }
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

    /// Gets the next certificate; where that fails, after a while again.
    async fn renew(&mut self) {
        let Some(papers) = self.member.papers.clone() else {
            return;
        };
        let valid = self.now() < self.expires;
        let shown = if valid {
            &self.member.tls
        } else {
            &papers.idevid
        };
        if let Ok((tls, life)) = enrol(&papers, shown, self.https).await {
            let now = self.now();
            self.member.tls = tls;
            self.expires = now.plus_millis(life);
            self.renews = renewal(&mut self.random, self.habits, now, self.expires);
            self.counts.enrolled.fetch_add(1, Ordering::Relaxed);
        } else {
            self.counts.not_enrolled.fetch_add(1, Ordering::Relaxed);
            let pause = self.random.random_range(1_000..3_000);
            self.renews = self.now().plus_millis(pause);
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

    async fn session(
        &mut self,
        deeds: &mut mpsc::Receiver<Deed>,
        cut: &mut Option<Link<TlsStream<TcpStream>>>,
    ) -> io::Result<End> {
        // Drawn, as on a real box: the end of an older session must not be taken for this one's.
        let name = format!("{:016x}", self.random.random::<u64>());
        let name = name.parse().map_err(io::Error::other)?;
        let stream = link::tls(
            self.mqtt,
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
            return Err(io::ErrorKind::InvalidData.into());
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
            certificate_expires: self.expires,
            lan_urls: vec!["https://192.0.2.7:8420".to_owned()],
            rungs: Vec::new(),
        });
        self.send(&mut link, Up::Presence, &birth).await?;
        self.sessions += 1;
        *cut = None;
        // Not all at the same moment of each interval.
        let first = self.habits.telemetry.mul_f64(self.random.random());
        let mut telemetry =
            tokio::time::interval_at(tokio::time::Instant::now() + first, self.habits.telemetry);
        self.offer(&mut link).await?;
        let lasts = u64::try_from(self.renews.millis_since(self.now())).unwrap_or(0);
        let renewal = tokio::time::sleep(Duration::from_millis(lasts));
        tokio::pin!(renewal);
        loop {
            tokio::select! {
                Some(deed) = deeds.recv() => return Ok(End::Deed(deed, link)),
                () = &mut renewal, if self.renews_itself() => return Ok(End::Renewal(link)),
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

    /// Whether it renews its certificate while it has a session, rather than waiting to be thrown
    /// out.
    fn renews_itself(&self) -> bool {
        self.member.papers.is_some() && !self.habits.renews_late
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
                if !std::mem::replace(&mut self.online, true) {
                    self.counts.online.fetch_add(1, Ordering::Relaxed);
                }
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

/// When a certificate is to be renewed: at half its life, give or take a tenth, or when it is over.
fn renewal(
    random: &mut SmallRng,
    habits: Habits,
    issued: UnixMillis,
    expires: UnixMillis,
) -> UnixMillis {
    if habits.renews_late {
        return expires;
    }
    let life = expires.millis_since(issued).max(0);
    issued.plus_millis(life / 2 + random.random_range(-life / 10..=life / 10))
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
