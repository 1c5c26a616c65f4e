//! Small files by packs: many in one streaming request, an answer for each.
//!
//! Data moves one way: `queue -> reader (blocking thread) -> request -> answers -> push`. Two such
//! lanes share one queue. A file is done when the box has answered that it is durable; what was
//! sent and not answered goes back into the queue when a connection breaks, and the box recognises
//! what it has already.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::lan::PACKS;
use longhaul_protocol::pack::{CONTENT_TYPE, PACKS_PATH, PackLine, StopCode};
use reqwest::header;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::advice;
use crate::client::{BoxClient, bounded};
use crate::journal::Done;
use crate::pack_read::{Item, Moving, Packed, Read, read_pack};
use crate::plan::Planned;
use crate::push::{SendError, Sender, Sent};
use crate::report::Outcome;
use crate::retry::{Pauses, S3Error};

/// Files up to this length, in bytes, travel in packs: longer ones gain nothing by it.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Packs at once: while the box waits for its disk in one, the other fills the line.
const LANES: usize = 2;
/// Files in one pack at the most.
const PACK_FILES: usize = 4096;
/// Pieces of a body between the reader and the connection.
const PIECES: usize = 4;
/// Longest time in which neither the box takes a byte nor answers one.
const STALL: Duration = Duration::from_secs(90);
/// The whole request; its own limit is [`STALL`].
const REQUEST: Duration = Duration::from_hours(24);
/// Longest line and longest refusal that are read, in bytes.
const MAX_LINE_BYTES: usize = 64 << 10;
/// How often the box may find a file damaged on its way before it counts as failed.
const ATTEMPTS: u32 = 3;

/// What became of a file.
pub enum Told {
    /// It is safe on the box.
    Sent(usize, Box<Sent>),
    /// It is not.
    Failed(usize, SendError),
    /// It cannot travel in a pack: send it by itself.
    Alone(usize),
    /// Nothing more can be sent.
    Stopped(usize, S3Error),
}

/// Whether the box takes packs; one that does not say takes S3 alone.
pub async fn available(client: &BoxClient) -> bool {
    let status = client.status().await;
    status.is_ok_and(|status| status.capabilities.iter().any(|c| c == PACKS))
}

/// Sends the files at `indices` of the plan, and tells what became of each.
pub async fn send(
    sender: &Sender<'_>,
    files: &[Planned],
    indices: Vec<usize>,
    told: mpsc::Sender<Told>,
) {
    let items = indices
        .into_iter()
        .map(|i| Arc::new(Item::new(i, &files[i])));
    let queue = Queue {
        items: Mutex::new(items.collect()),
        damaged: Mutex::default(),
    };
    let lane = |told| Lane {
        sender,
        files,
        queue: &queue,
        told,
    };
    let lanes: [Lane<'_>; LANES] = std::array::from_fn(|_| lane(told.clone()));
    drop(told);
    futures::future::join_all(lanes.into_iter().map(Lane::run)).await;
}

/// What waits for its turn.
struct Queue {
    items: Mutex<VecDeque<Arc<Item>>>,
    /// How often each file arrived damaged.
    damaged: Mutex<HashMap<usize, u32>>,
}

impl Queue {
    /// The next pack's files: a lane's share of what is left, so that all lanes end together.
    fn next(&self) -> Vec<Arc<Item>> {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let share = items.len().div_ceil(LANES).min(PACK_FILES);
        items.drain(..share).collect()
    }

    fn all(&self) -> VecDeque<Arc<Item>> {
        std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put_back(&self, items: impl Iterator<Item = Arc<Item>>) {
        let mut waiting = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend(items);
    }

    /// Whether a file that arrived damaged is worth another try.
    fn again(&self, index: usize) -> bool {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let times = damaged.entry(index).or_default();
        *times += 1;
        *times < ATTEMPTS
    }
}

struct Lane<'a> {
    sender: &'a Sender<'a>,
    files: &'a [Planned],
    queue: &'a Queue,
    told: mpsc::Sender<Told>,
}

/// Why a pack ended early.
enum Broken {
    /// The connection or the box.
    Box(S3Error),
    /// The push itself has ended.
    Unheard,
}

impl Lane<'_> {
    async fn run(self) {
        let mut pauses = Pauses::new(self.sender.patience(0));
        loop {
            let items = self.queue.next();
            let Some(first) = items.first().map(|item| item.index) else {
                return;
            };
            let mut pack = Pack::new(items);
            let broken = self.pack(&mut pack).await.err();
            if pack.answered > 0 {
                pauses.reset();
            }
            self.queue.put_back(pack.unanswered());
            let Some(broken) = broken else { continue };
            let Broken::Box(error) = broken else { return };
            match pauses.after(&error) {
                Some(pause) => {
                    self.sender.progress.retried();
                    tracing::debug!(%error, ?pause, "sending the rest of a pack again");
                    tokio::time::sleep(pause).await;
                }
                None if error.ends_everything() => {
                    let _ = self.told.send(Told::Stopped(first, error)).await;
                    return;
                }
                None => {
                    tracing::warn!(%error, "the box does not take packs as it said");
                    for item in self.queue.all() {
                        if self.tell(Told::Alone(item.index)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Sends one pack and tells what became of its entries.
    async fn pack(&self, pack: &mut Pack) -> Result<(), Broken> {
        let (pieces, body) = mpsc::channel::<Bytes>(PIECES);
        let (tell, mut read) = mpsc::unbounded_channel();
        let items = pack.items.iter().cloned().collect();
        let reader = spawn_blocking(move || read_pack(items, &pieces, &tell));
        let moved = Arc::new(Mutex::new(Instant::now()));
        let body = counted(body, Arc::clone(&moved));
        let client = self.sender.client;
        let ticket = client.ticket();
        let request = client
            .http()
            .post(format!("{}{PACKS_PATH}/{}", client.url(), ticket.bucket))
            .basic_auth(&ticket.access_key, Some(&ticket.secret_key.0))
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .timeout(REQUEST)
            .body(reqwest::Body::wrap_stream(body));
        let result = self.talk(request, &mut read, pack, &moved).await;
        self.remember(pack);
        // The body is gone with the request, so the reader ends.
        drop(read);
        if let Err(error) = reader.await {
            std::panic::resume_unwind(error.into_panic());
        }
        result
    }

    async fn talk(
        &self,
        request: reqwest::RequestBuilder,
        read: &mut mpsc::UnboundedReceiver<Read>,
        pack: &mut Pack,
        moved: &Mutex<Instant>,
    ) -> Result<(), Broken> {
        let mut answer = still(moved, request.send())
            .await?
            .map_err(|e| Broken::Box(S3Error::broken(advice::chain(&e))))?;
        if !answer.status().is_success() {
            return Err(Broken::Box(refused(answer).await));
        }
        let mut held = Vec::new();
        loop {
            // What the reader could not put into the pack is known before the box answers.
            while let Ok(read) = read.try_recv() {
                self.read(read, pack).await?;
            }
            let chunk = still(moved, answer.chunk())
                .await?
                .map_err(|e| Broken::Box(S3Error::broken(advice::chain(&e))))?;
            let Some(chunk) = chunk else {
                let cut = "the box ended its answer early".to_owned();
                return Err(Broken::Box(S3Error::broken(cut)));
            };
            held.extend_from_slice(&chunk);
            let mut begin = 0;
            while let Some(length) = held[begin..].iter().position(|b| *b == b'\n') {
                let line = serde_json::from_slice(&held[begin..begin + length]);
                begin += length + 1;
                let line = line.map_err(|_| Broken::Box(S3Error::malformed("line of a pack")))?;
                while let Ok(read) = read.try_recv() {
                    self.read(read, pack).await?;
                }
                if self.line(line, pack).await? {
                    return Ok(());
                }
            }
            held.drain(..begin);
            self.remember(pack);
            if held.len() > MAX_LINE_BYTES {
                return Err(Broken::Box(S3Error::malformed("line of a pack")));
            }
        }
    }

    /// Writes down what the box has taken, as much at a time as it has said at a time.
    fn remember(&self, pack: &mut Pack) {
        if !pack.unwritten.is_empty() {
            let done = std::mem::take(&mut pack.unwritten);
            self.sender.journal.remember_all_done(done);
        }
    }

    async fn read(&self, read: Read, pack: &mut Pack) -> Result<(), Broken> {
        let told = match read {
            Read::Packed(packed) => {
                let bytes = packed.origin.stamp.size;
                let moving = Moving::new(&self.sender.progress, bytes);
                pack.sent.push_back((packed, moving));
                return Ok(());
            }
            Read::Failed(index, error) => Told::Failed(index, error),
            Read::Grown(index) => Told::Alone(index),
        };
        let (Told::Failed(index, _) | Told::Alone(index)) = &told else {
            return Ok(());
        };
        pack.forget(*index);
        self.tell(told).await
    }

    /// Takes one line; true for the last one.
    async fn line(&self, line: PackLine, pack: &mut Pack) -> Result<bool, Broken> {
        let told = match line {
            PackLine::Stored {
                entry,
                etag,
                notice,
                ..
            } => {
                let packed = pack.answer(entry)?;
                let bytes = packed.origin.stamp.size;
                self.sender.progress.bytes_on_box(bytes);
                let done = Done {
                    origin: packed.origin,
                    etag,
                    blake3: packed.blake3,
                };
                let key = self.files[packed.item.index].key.clone();
                pack.unwritten.push((key, done.clone()));
                let sent = Sent {
                    done,
                    outcome: Outcome::Sent,
                    bytes,
                    notice,
                };
                Told::Sent(packed.item.index, Box::new(sent))
            }
            PackLine::Refused { entry, reason } => {
                let index = pack.answer(entry)?.item.index;
                Told::Failed(
                    index,
                    SendError::File(format!("the box refuses it: {reason}")),
                )
            }
            PackLine::Damaged { entry } => {
                let item = pack.answer(entry)?.item;
                if self.queue.again(item.index) {
                    self.sender.progress.retried();
                    self.queue.put_back(std::iter::once(item));
                    return Ok(false);
                }
                let why =
                    format!("it arrived damaged {ATTEMPTS} times; have the network looked at");
                Told::Failed(item.index, SendError::File(why))
            }
            PackLine::End { .. } if pack.is_answered() => return Ok(true),
            PackLine::End { .. } => {
                return Err(Broken::Box(S3Error::malformed("result for every entry")));
            }
            PackLine::Stopped { code, reason } => return Err(Broken::Box(stopped(code, &reason))),
        };
        self.tell(told).await?;
        Ok(false)
    }

    async fn tell(&self, told: Told) -> Result<(), Broken> {
        self.told.send(told).await.map_err(|_| Broken::Unheard)
    }
}

/// One pack on its way.
struct Pack {
    items: VecDeque<Arc<Item>>,
    /// Sent and not yet answered, in order.
    sent: VecDeque<(Packed, Moving)>,
    answered: u64,
    /// Taken by the box and not yet in the journal.
    unwritten: Vec<(ObjectKey, Done)>,
}

impl Pack {
    fn new(items: Vec<Arc<Item>>) -> Self {
        Self {
            items: items.into(),
            sent: VecDeque::new(),
            answered: 0,
            unwritten: Vec::new(),
        }
    }

    /// The entry that the box speaks about: they are answered in order.
    fn answer(&mut self, entry: u64) -> Result<Packed, Broken> {
        let next = (entry == self.answered + 1).then(|| self.sent.pop_front());
        let Some(Some((packed, _))) = next else {
            return Err(Broken::Box(S3Error::malformed("result for the next entry")));
        };
        self.answered += 1;
        self.forget(packed.item.index);
        Ok(packed)
    }

    /// The item is settled; items are settled nearly in order.
    fn forget(&mut self, index: usize) {
        if let Some(at) = self.items.iter().position(|item| item.index == index) {
            self.items.remove(at);
        }
    }

    fn is_answered(&self) -> bool {
        self.items.is_empty()
    }

    fn unanswered(self) -> impl Iterator<Item = Arc<Item>> {
        self.items.into_iter()
    }
}

/// The body, noting when it moves.
fn counted(
    pieces: mpsc::Receiver<Bytes>,
    moved: Arc<Mutex<Instant>>,
) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures::stream::unfold((pieces, moved), |(mut pieces, moved)| async {
        let piece = pieces.recv().await?;
        *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Some((Ok(piece), (pieces, moved)))
    })
}

/// Waits for the box as long as something moves in either direction.
async fn still<T>(moved: &Mutex<Instant>, answer: impl Future<Output = T>) -> Result<T, Broken> {
    let mut answer = std::pin::pin!(answer);
    loop {
        let last = *moved.lock().unwrap_or_else(PoisonError::into_inner);
        let left = STALL.saturating_sub(last.elapsed());
        if let Ok(answer) = timeout(left, answer.as_mut()).await {
            *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(answer);
        }
        let last = *moved.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= STALL {
            return Err(Broken::Box(S3Error::timeout(STALL)));
        }
    }
}

/// The box does not take the pack at all.
async fn refused(answer: reqwest::Response) -> S3Error {
    let status = answer.status().as_u16();
    let said = bounded(answer, MAX_LINE_BYTES).await.unwrap_or_default();
    let detail = serde_json::from_slice::<serde_json::Value>(&said).ok();
    let detail = detail.and_then(|problem| Some(problem.get("detail")?.as_str()?.to_owned()));
    let code = match status {
        401 => "InvalidAccessKeyId",
        403 => "AccessDenied",
        503 => "SlowDown",
        _ => "PackRefused",
    };
    S3Error::answered(status, code, detail.as_deref().unwrap_or("no reason given"))
}

/// The box stopped to take the pack.
fn stopped(code: StopCode, reason: &str) -> S3Error {
    let (status, code) = match code {
        StopCode::SlowDown => (503, "SlowDown"),
        StopCode::Full => (507, "InsufficientStorage"),
        StopCode::Unavailable => (503, "ServiceUnavailable"),
        StopCode::Stalled => (408, "RequestTimeout"),
        StopCode::Malformed => (400, "IncompleteBody"),
    };
    S3Error::answered(status, code, reason)
}
