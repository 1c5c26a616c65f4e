//! The cloud's word on who may connect.

use longhaul_protocol::ids::BoxId;

use crate::reason::Reason;

/// Why the cloud refuses a box whose certificate is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The box, or this certificate, is revoked.
    #[error("revoked")]
    Revoked,
    /// The cloud does not know the box, or holds it back.
    #[error("not admitted")]
    NotAdmitted,
    /// The cloud cannot say now; the box should come back later.
    #[error("busy")]
    Busy,
}

impl Refused {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Revoked => Reason::Banned,
            Self::NotAdmitted => Reason::NotAuthorized,
            Self::Busy => Reason::ServerBusy,
        }
    }
}

/// Decides at each CONNECT whether a box with a valid certificate may in.
///
/// Called twice: before the box displaces an older connection of its own, and again once
/// [`Edge::disconnect`](crate::Edge::disconnect) can reach it. So a revocation that first makes
/// `admit` refuse and then calls `disconnect` leaves no gap.
pub trait Admission: Send + Sync + 'static {
    /// Says whether `box_id`, holding the certificate `cert_der`, may connect.
    ///
    /// Synchronous and called on the network threads: an answer from memory, in microseconds.
    fn admit(&self, box_id: &BoxId, cert_der: &[u8]) -> Result<(), Refused>;
}
