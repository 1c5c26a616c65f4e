//! What edges and the rest of the cloud say to each other where a NATS cluster stands between them.
//!
//! Nothing here is the truth: a message that is lost comes again, from a box's journal or from the
//! database. Subjects carry who and what, so that the servers' permissions can tell roles apart.

use crate::ids::BoxId;
use crate::topic::{Dn, Up};

/// Begins every subject.
const PREFIX: &str = "fleet.v1";
/// The first byte of every frame.
const VERSION: u8 = 1;
/// The code of a [`Down::Call`]; channels have smaller ones.
const CALL: u8 = 0xff;

/// The queue group of those who take boxes' messages.
pub const WORKERS: &str = "cloud";
/// Every message of every box.
pub const ALL_UP: &str = "fleet.v1.up.*.*";
/// What is sent to any box.
pub const ALL_DN: &str = "fleet.v1.dn.*";
/// Every claim of an edge to a box's session.
pub const ALL_SEATS: &str = "fleet.v1.seat.*";
/// A box was put into another state: look into the database.
pub const STATES: &str = "fleet.v1.state";
/// What happens, for live views.
pub const EVENTS: &str = "fleet.v1.event";

/// Who uses the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Holds boxes' sessions.
    Edge,
    /// Takes boxes' messages, and answers them.
    Cloud,
    /// Both, in one process.
    All,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Edge, Self::Cloud, Self::All];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Cloud => "cloud",
            Self::All => "all",
        }
    }

    /// The URI in its certificate, which is also its user name at the cluster.
    pub fn uri(self) -> String {
        format!("spiffe://fleet/role/{}", self.as_str())
    }

    /// The subjects that it may publish.
    pub fn publishes(self) -> &'static [&'static str] {
        match self {
            Self::Edge => &[ALL_UP, ALL_SEATS, STATES, EVENTS],
            Self::Cloud => &[ALL_DN, STATES, EVENTS],
            Self::All => &[ALL_UP, ALL_SEATS, ALL_DN, STATES, EVENTS],
        }
    }

    /// The subjects that it may subscribe; [`ALL_UP`] only in the queue group [`WORKERS`].
    pub fn subscribes(self) -> &'static [&'static str] {
        match self {
            Self::Edge => &[ALL_DN, ALL_SEATS, STATES],
            Self::Cloud => &[ALL_UP, STATES, EVENTS],
            Self::All => &[ALL_UP, ALL_DN, ALL_SEATS, STATES, EVENTS],
        }
    }
}

/// One start of one edge: no two are the same.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EdgeId(pub u128);

impl std::fmt::Display for EdgeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The subject of a box's message.
pub fn up_subject(box_id: &BoxId, channel: Up) -> String {
    format!("{PREFIX}.up.{}.{box_id}", channel.as_str())
}

/// The box and channel that a subject names, if [`up_subject`] made it.
pub fn parse_up(subject: &str) -> Option<(BoxId, Up)> {
    let rest = subject.strip_prefix(PREFIX)?.strip_prefix(".up.")?;
    let (name, box_id) = rest.split_once('.')?;
    let channel = Up::ALL.into_iter().find(|c| c.as_str() == name)?;
    Some((box_id.parse().ok()?, channel))
}

/// The subject of what is sent to a box.
pub fn dn_subject(box_id: &BoxId) -> String {
    format!("{PREFIX}.dn.{box_id}")
}

/// The subject on which an edge says that it has a box's session.
pub fn seat_subject(box_id: &BoxId) -> String {
    format!("{PREFIX}.seat.{box_id}")
}

/// The box of a claim, if [`seat_subject`] made the subject.
pub fn parse_seat(subject: &str) -> Option<BoxId> {
    let rest = subject.strip_prefix(PREFIX)?;
    rest.strip_prefix(".seat.")?.parse().ok()
}

/// A box's message as it travels: who took it, and its bytes.
pub fn up_frame(edge: EdgeId, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(UP_HEADER + payload.len());
    out.push(VERSION);
    out.extend_from_slice(&edge.0.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// Bytes of [`up_frame`] before the payload.
pub const UP_HEADER: usize = 17;

/// The edge that took a message; its payload begins at [`UP_HEADER`]. `None` for anything else.
pub fn parse_up_frame(bytes: &[u8]) -> Option<EdgeId> {
    let (version, rest) = bytes.split_first()?;
    let id = rest.first_chunk::<16>().filter(|_| *version == VERSION)?;
    Some(EdgeId(u128::from_be_bytes(*id)))
}

/// What a claim says: which edge.
pub fn seat_frame(edge: EdgeId) -> Vec<u8> {
    up_frame(edge, &[])
}

/// What is sent to the edge that holds a box.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Down<'a> {
    /// Pass it on to the box.
    Forward(Dn, &'a [u8]),
    /// For the edge itself.
    Call(Call),
}

/// What an edge is to do for a box; the database says the rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    /// A session began, with this version of the desired state: send all that is open.
    Born {
        /// The version that the box has applied.
        applied: u64,
    },
    /// There are commands that were never sent.
    Commands,
}

impl Down<'_> {
    /// As it travels.
    pub fn frame(&self) -> Vec<u8> {
        match self {
            Self::Forward(channel, payload) => {
                let code = Dn::ALL.iter().position(|c| c == channel).unwrap_or(0);
                let mut out = Vec::with_capacity(2 + payload.len());
                out.extend([VERSION, u8::try_from(code).unwrap_or(0)]);
                out.extend_from_slice(payload);
                out
            }
            Self::Call(Call::Born { applied }) => {
                let mut out = vec![VERSION, CALL, 0];
                out.extend(applied.to_be_bytes());
                out
            }
            Self::Call(Call::Commands) => vec![VERSION, CALL, 1],
        }
    }
}

/// Bytes of a forwarded message's frame before its payload.
pub const DN_HEADER: usize = 2;

/// Reads what [`Down::frame`] wrote; `None` for anything else.
pub fn parse_down(bytes: &[u8]) -> Option<Down<'_>> {
    let (&[version, code], rest) = bytes.split_first_chunk::<DN_HEADER>()?;
    if version != VERSION {
        return None;
    }
    if code != CALL {
        let channel = *Dn::ALL.get(usize::from(code))?;
        return Some(Down::Forward(channel, rest));
    }
    match rest {
        [0, applied @ ..] => {
            let applied = u64::from_be_bytes(applied.try_into().ok()?);
            Some(Down::Call(Call::Born { applied }))
        }
        [1] => Some(Down::Call(Call::Commands)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn box_id() -> BoxId {
        "0123456789AB".parse().expect("a box id")
    }

    #[test]
    fn subjects_are_read_as_they_were_written() {
        for channel in Up::ALL {
            let subject = up_subject(&box_id(), channel);
            assert_eq!(parse_up(&subject), Some((box_id(), channel)), "{subject}");
        }
        assert_eq!(parse_seat(&seat_subject(&box_id())), Some(box_id()));
        assert_eq!(dn_subject(&box_id()), "fleet.v1.dn.0123456789AB");
        for garbage in [
            "",
            "fleet.v1.up.journal",
            "fleet.v1.up.journal.0123456789AB.x",
            "fleet.v1.up.nothing.0123456789AB",
            "fleet.v1.up.journal.*",
            "fleet.v2.up.journal.0123456789AB",
        ] {
            assert_eq!(parse_up(garbage), None, "{garbage}");
            assert_eq!(parse_seat(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn frames_are_read_as_they_were_written_and_garbage_is_refused() {
        let edge = EdgeId(7 << 90);
        let up = up_frame(edge, b"hello");
        assert_eq!(parse_up_frame(&up), Some(edge));
        assert_eq!(&up[UP_HEADER..], b"hello");
        for down in [
            Down::Forward(Dn::Ack, b"x"),
            Down::Forward(Dn::Tunnel, b""),
            Down::Call(Call::Born { applied: u64::MAX }),
            Down::Call(Call::Commands),
        ] {
            assert_eq!(parse_down(&down.frame()), Some(down));
        }
        for garbage in [
            &b""[..],
            &[1],
            &[2, 0],
            &[1, 9],
            &[1, CALL],
            &[1, CALL, 0, 1],
        ] {
            assert_eq!(parse_down(garbage), None);
            assert_eq!(parse_up_frame(garbage), None);
        }
    }
}
