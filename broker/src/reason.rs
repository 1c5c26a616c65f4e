//! MQTT 5 reason codes that the edge sends or acts on.

/// Why a packet was refused or a connection ended, as it goes over the wire.
///
/// Source: MQTT 5.0, 2.4 "Reason Code".
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// Accepted; as a DISCONNECT, an end without a will.
    #[error("success")]
    Success = 0x00,
    /// There was no such subscription.
    #[error("no subscription existed")]
    NoSubscriptionExisted = 0x11,
    /// None of the other reasons, or one that the peer need not know.
    #[error("unspecified error")]
    Unspecified = 0x80,
    /// Bytes that are not MQTT 5.
    #[error("malformed packet")]
    MalformedPacket = 0x81,
    /// A packet that MQTT 5 does not allow here.
    #[error("protocol error")]
    ProtocolError = 0x82,
    /// The peer speaks another version of MQTT.
    #[error("unsupported protocol version")]
    UnsupportedProtocolVersion = 0x84,
    /// The client id is not the box that the certificate names.
    #[error("client identifier not valid")]
    ClientIdentifierNotValid = 0x85,
    /// The topic, or the box, is not allowed.
    #[error("not authorized")]
    NotAuthorized = 0x87,
    /// Full for now; worth trying again later.
    #[error("server busy")]
    ServerBusy = 0x89,
    /// The box is revoked.
    #[error("banned")]
    Banned = 0x8A,
    /// The edge is stopping; another, or this one, will be back.
    #[error("server shutting down")]
    ServerShuttingDown = 0x8B,
    /// The client asked for an exchange that the edge does not do.
    #[error("bad authentication method")]
    BadAuthenticationMethod = 0x8C,
    /// Nothing was heard for one and a half keep-alive intervals.
    #[error("keep alive timeout")]
    KeepAliveTimeout = 0x8D,
    /// The same box connected again.
    #[error("session taken over")]
    SessionTakenOver = 0x8E,
    /// A topic alias, of which the edge allows none.
    #[error("topic alias invalid")]
    TopicAliasInvalid = 0x94,
    /// The packet is larger than the edge takes.
    #[error("packet too large")]
    PacketTooLarge = 0x95,
    /// The cloud is behind, or a limit was reached; the message was not taken.
    #[error("quota exceeded")]
    QuotaExceeded = 0x97,
    /// An operator's decision, such as a revocation.
    #[error("administrative action")]
    AdministrativeAction = 0x98,
    /// Retained messages are not supported.
    #[error("retain not supported")]
    RetainNotSupported = 0x9A,
    /// Quality of service 2 is not supported.
    #[error("quality of service not supported")]
    QosNotSupported = 0x9B,
    /// `$share` is not supported.
    #[error("shared subscriptions not supported")]
    SharedSubscriptionsNotSupported = 0x9E,
    /// The certificate expired while it was connected.
    #[error("maximum connect time")]
    MaximumConnectTime = 0xA0,
    /// Subscription identifiers are not supported.
    #[error("subscription identifiers not supported")]
    SubscriptionIdentifiersNotSupported = 0xA1,
}

impl Reason {
    /// The byte that goes over the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }
}
