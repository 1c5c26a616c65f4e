//! The edge's limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use serde::Deserialize;

/// Where the edge listens and what it allows. The defaults suit a fleet of ten thousand boxes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeConfig {
    /// Address of the MQTT-over-TLS listener; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Largest packet that a box may send, in bytes.
    pub max_packet_bytes: u32,
    /// Largest will, in bytes of payload.
    pub max_will_bytes: u32,
    /// Connections that have not finished CONNECT, over all addresses. One address gets at most
    /// as many as are still free, so no single one can take them all.
    pub max_half_open: u32,
    /// Boxes connected at once.
    pub max_sessions: u32,
    /// From accepting a TCP connection to its CONNECT, in milliseconds.
    pub handshake_timeout_ms: NonZeroU32,
    /// Unacknowledged messages of quality of service 1, each way.
    pub receive_maximum: u16,
    /// Longest keep alive; a box that asks for more, or for none, is given this. In seconds.
    pub max_keep_alive_secs: u16,
    /// A peer that takes no byte for so long is cut off, in milliseconds.
    pub write_stall_ms: NonZeroU32,
    /// What one box may send on average; above it the edge reads no faster.
    pub max_packets_per_second: NonZeroU32,
    /// Packets of one box above the average.
    pub packet_burst: NonZeroU32,
    /// What one box may send on average, in bytes.
    pub max_bytes_per_second: NonZeroU32,
    /// Bytes of one box above the average.
    pub byte_burst: NonZeroU32,
    /// Messages that wait for one box.
    pub max_queued_messages: u32,
    /// Bytes that wait for one box.
    pub max_queued_bytes: u32,
    /// Messages accepted from boxes that the cloud has not taken yet, in bytes, each counted with
    /// 640 more than its payload. The backbone holds memory of about this size for good.
    pub backlog_bytes: u32,
    /// How long a message waits for room in the backlog before it is refused with "quota
    /// exceeded", in milliseconds. Its box is not read meanwhile.
    pub quota_wait_ms: u32,
    /// How long connections get to end at a shutdown, in milliseconds.
    pub shutdown_grace_ms: u32,
}

/// A number that is written in the source and is not zero.
const fn non_zero(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).expect("not zero")
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8883)),
            max_packet_bytes: 256 * 1024,
            max_will_bytes: 4 * 1024,
            max_half_open: 4096,
            max_sessions: 20_000,
            handshake_timeout_ms: non_zero(5_000),
            receive_maximum: 64,
            max_keep_alive_secs: 300,
            write_stall_ms: non_zero(20_000),
            max_packets_per_second: non_zero(200),
            packet_burst: non_zero(2_000),
            max_bytes_per_second: non_zero(1024 * 1024),
            byte_burst: non_zero(4 * 1024 * 1024),
            max_queued_messages: 256,
            max_queued_bytes: 1024 * 1024,
            backlog_bytes: 32 * 1024 * 1024,
            quota_wait_ms: 1_000,
            shutdown_grace_ms: 5_000,
        }
    }
}

impl EdgeConfig {
    pub(crate) fn handshake_timeout(&self) -> Duration {
        millis(self.handshake_timeout_ms.get())
    }

    pub(crate) fn write_stall(&self) -> Duration {
        millis(self.write_stall_ms.get())
    }

    pub(crate) fn quota_wait(&self) -> Duration {
        millis(self.quota_wait_ms)
    }

    pub(crate) fn shutdown_grace(&self) -> Duration {
        millis(self.shutdown_grace_ms)
    }

    /// The limit as a length.
    pub(crate) fn max_packet_len(&self) -> usize {
        len(self.max_packet_bytes)
    }
}

fn millis(n: u32) -> Duration {
    Duration::from_millis(u64::from(n))
}

/// A `u32` as a length; every platform that runs the edge has at least 32-bit lengths.
pub(crate) fn len(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
