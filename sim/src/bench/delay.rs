//! A long line in user space: a TCP proxy that holds every byte back for a fixed time.
//!
//! What is sent one behind the other arrives one behind the other, the same time later: a line
//! has latency, not a queue. The handshake costs a round trip, as it does on a real line, though
//! the kernel answers it at once.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// Bytes on the way in one direction at the most: the window of the line. At 100 ms of round
/// trip it lets 160 MB/s through.
const WINDOW: usize = 16 << 20;

/// One direction of a line: what went in, and when it comes out. Pure; told the time.
#[derive(Debug)]
pub struct Line {
    delay: Duration,
    /// Nothing enters before this moment.
    opens: Instant,
    underway: VecDeque<(Instant, Vec<u8>)>,
}

impl Line {
    /// A line that can be sent on from `opens` on.
    pub fn new(delay: Duration, opens: Instant) -> Self {
        Self {
            delay,
            opens,
            underway: VecDeque::new(),
        }
    }

    /// Sends `bytes` at `now`.
    pub fn push(&mut self, now: Instant, bytes: Vec<u8>) {
        self.underway
            .push_back((now.max(self.opens) + self.delay, bytes));
    }

    /// When the next bytes arrive.
    pub fn due(&self) -> Option<Instant> {
        self.underway.front().map(|(due, _)| *due)
    }

    /// The next bytes, if they have arrived by `now`.
    pub fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.underway
            .pop_front_if(|(due, _)| *due <= now)
            .map(|(_, bytes)| bytes)
    }
}

/// Listens at `listener` and passes everything to `target`, `one_way` later; never ends by itself.
///
/// # Errors
///
/// What accepting a connection says.
pub async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    one_way: Duration,
) -> io::Result<std::convert::Infallible> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (near, _) = accepted?;
                let opens = Instant::now() + one_way * 2;
                connections.spawn(async move {
                    // A connection that fails is closed; its ends see that.
                    let _ = join(near, target, one_way, opens).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn join(
    near: TcpStream,
    target: SocketAddr,
    one_way: Duration,
    opens: Instant,
) -> io::Result<()> {
    let far = TcpStream::connect(target).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let there = carry(near_in, far_out, Line::new(one_way, opens));
    let back = carry(far_in, near_out, Line::new(one_way, opens));
    tokio::try_join!(there, back)?;
    Ok(())
}

/// Carries one direction to its end, which arrives late like everything else.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, line: Line) -> io::Result<()> {
    let line = parking_lot::Mutex::new(line);
    let (entered, room) = (Notify::new(), Arc::new(Semaphore::new(WINDOW)));
    let enter = async {
        loop {
            let Ok(permit) = room
                .acquire_many(u32::try_from(CHUNK).unwrap_or(u32::MAX))
                .await
            else {
                return Ok(());
            };
            let mut bytes = vec![0; CHUNK];
            let read = from.read(&mut bytes).await?;
            bytes.truncate(read);
            // Only what is read takes room; an empty piece is the end.
            permit.forget();
            room.add_permits(CHUNK - read);
            line.lock().push(Instant::now(), bytes);
            entered.notify_one();
            if read == 0 {
                return Ok::<_, io::Error>(());
            }
        }
    };
    let leave = async {
        loop {
            let due = line.lock().due();
            let Some(due) = due else {
                entered.notified().await;
                continue;
            };
            tokio::time::sleep_until(due.into()).await;
            let arrived = line.lock().pop(Instant::now());
            let Some(bytes) = arrived else { continue };
            if bytes.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&bytes).await?;
            room.add_permits(bytes.len());
        }
    };
    tokio::try_join!(enter, leave)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(50);

    #[test]
    fn what_follows_closely_arrives_as_closely() {
        let start = Instant::now();
        let mut line = Line::new(DELAY, start);
        let at = |millis| start + Duration::from_millis(millis);

        line.push(at(0), vec![1]);
        line.push(at(1), vec![2]);

        assert_eq!(line.pop(at(49)), None);
        assert_eq!(line.pop(at(50)), Some(vec![1]));
        assert_eq!(line.pop(at(50)), None, "sent a millisecond later");
        assert_eq!(line.due(), Some(at(51)));
        assert_eq!(line.pop(at(51)), Some(vec![2]));
        assert_eq!(line.due(), None);
    }

    #[test]
    fn nothing_enters_before_the_handshake_has_gone_both_ways() {
        let start = Instant::now();
        let opens = start + DELAY * 2;
        let mut line = Line::new(DELAY, opens);

        line.push(start, vec![1]);

        assert_eq!(line.due(), Some(opens + DELAY));
    }

    #[tokio::test]
    async fn every_byte_comes_through_in_order_and_late() {
        let one_way = Duration::from_millis(5);
        let echo = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let target = echo.local_addr().expect("an address");
        let proxy = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let near = proxy.local_addr().expect("an address");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serve(proxy, target, one_way).await.map(drop) });
        tasks.spawn(async move {
            let (mut socket, _) = echo.accept().await?;
            let (mut from, mut to) = socket.split();
            tokio::io::copy(&mut from, &mut to).await?;
            to.shutdown().await
        });
        // More than the window, so that it has to be given back.
        let sent: Vec<u8> = (0..=250).cycle().take(WINDOW + 3 * CHUNK + 1).collect();

        let start = Instant::now();
        let mut socket = TcpStream::connect(near).await.expect("connected");
        let (mut from, mut to) = socket.split();
        let mut back = Vec::new();
        let (written, read) = tokio::join!(
            async {
                to.write_all(&sent).await?;
                to.shutdown().await
            },
            from.read_to_end(&mut back),
        );

        written.expect("written");
        read.expect("read to the end");
        assert!(back == sent, "the bytes that went in");
        assert!(
            start.elapsed() >= one_way * 4,
            "a handshake and a round trip"
        );
    }
}
