//! The only MQTT topic strings: `fleet/v1/{box}/up/..` and `fleet/v1/{box}/dn/..`.

use std::fmt;
use std::str::FromStr;

use crate::ids::BoxId;

const PREFIX: &str = "fleet/v1/";

/// What a box publishes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Up {
    /// Birth and, as the will, death of a session; quality of service 1.
    Presence,
    /// Live health; quality of service 0, loss is acceptable.
    Telemetry,
    /// Durable facts, numbered per box; quality of service 1, one batch in flight.
    Journal,
    /// Reported state with the version that it answers; quality of service 1.
    Reported,
    /// Accepted, rejected or progress of a command; quality of service 1.
    Command,
    /// Leased, rate-capped log tail; quality of service 0.
    Log,
}

/// What the cloud publishes to one box.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Dn {
    /// Highest journal number that the cloud has committed; quality of service 1.
    Ack,
    /// Desired state, full and signed; quality of service 1.
    Desired,
    /// A signed command; quality of service 1.
    Command,
    /// One-time token for a terminal; quality of service 1.
    Tunnel,
}

impl Up {
    /// Every channel, in the order of the blueprint.
    pub const ALL: [Self; 6] = [
        Self::Presence,
        Self::Telemetry,
        Self::Journal,
        Self::Reported,
        Self::Command,
        Self::Log,
    ];

    /// The last part of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Telemetry => "telemetry",
            Self::Journal => "journal",
            Self::Reported => "reported",
            Self::Command => "command",
            Self::Log => "log",
        }
    }
}

impl Dn {
    /// Every channel, in the order of the blueprint.
    pub const ALL: [Self; 4] = [Self::Ack, Self::Desired, Self::Command, Self::Tunnel];

    /// The last part of the topic.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ack => "ack",
            Self::Desired => "desired",
            Self::Command => "command",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A channel in one direction.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Channel {
    /// From the box to the cloud.
    Up(Up),
    /// From the cloud to the box.
    Dn(Dn),
}

/// One box's topic.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Topic {
    /// The box that the topic belongs to.
    pub box_id: BoxId,
    /// Direction and channel.
    pub channel: Channel,
}

impl Topic {
    /// The topic on which `box_id` publishes `channel`.
    pub fn up(box_id: BoxId, channel: Up) -> Self {
        Self {
            box_id,
            channel: Channel::Up(channel),
        }
    }

    /// The topic on which the cloud publishes `channel` to `box_id`.
    pub fn dn(box_id: BoxId, channel: Dn) -> Self {
        Self {
            box_id,
            channel: Channel::Dn(channel),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, channel) = match self.channel {
            Channel::Up(up) => ("up", up.as_str()),
            Channel::Dn(dn) => ("dn", dn.as_str()),
        };
        write!(f, "{PREFIX}{}/{direction}/{channel}", self.box_id)
    }
}

/// Why a text is not one of the fleet's topics.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a fleet topic: {0:?}")]
pub struct InvalidTopic(pub String);

impl FromStr for Topic {
    type Err = InvalidTopic;

    fn from_str(text: &str) -> Result<Self, InvalidTopic> {
        let refuse = || InvalidTopic(text.chars().take(128).collect());
        let mut parts = text.strip_prefix(PREFIX).ok_or_else(refuse)?.split('/');
        let (Some(id), Some(direction), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        let channel = match direction {
            "up" => Up::ALL
                .into_iter()
                .find(|c| c.as_str() == name)
                .map(Channel::Up),
            "dn" => Dn::ALL
                .into_iter()
                .find(|c| c.as_str() == name)
                .map(Channel::Dn),
            _ => None,
        };
        Ok(Self {
            box_id: id.parse().map_err(|_| refuse())?,
            channel: channel.ok_or_else(refuse)?,
        })
    }
}

/// The one filter that a box subscribes: `fleet/v1/{box}/dn/#`.
pub fn dn_filter(box_id: &BoxId) -> String {
    format!("{PREFIX}{box_id}/dn/#")
}

/// Whether `box_id` may publish to `topic`: exactly its own `up/` channels.
pub fn may_publish(box_id: &BoxId, topic: &str) -> bool {
    topic
        .parse::<Topic>()
        .is_ok_and(|t| t.box_id == *box_id && matches!(t.channel, Channel::Up(_)))
}

/// Whether `box_id` may subscribe `filter`: its own `dn/#`, or one channel below it.
pub fn may_subscribe(box_id: &BoxId, filter: &str) -> bool {
    filter == dn_filter(box_id)
        || filter
            .parse::<Topic>()
            .is_ok_and(|t| t.box_id == *box_id && matches!(t.channel, Channel::Dn(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn box_id(text: &str) -> BoxId {
        text.parse().expect("a box id")
    }

    #[test]
    fn every_topic_survives_its_text_form() {
        let id = box_id("0123456789AB");
        let ups = Up::ALL.map(|c| Topic::up(id.clone(), c));
        let dns = Dn::ALL.map(|c| Topic::dn(id.clone(), c));

        for topic in ups.into_iter().chain(dns) {
            assert_eq!(topic.to_string().parse::<Topic>().expect("own text"), topic);
        }
    }

    #[test]
    fn a_box_reaches_nothing_but_its_own_topics() {
        let (me, other) = (box_id("0123456789AB"), box_id("ZZZZZZZZZZZZ"));

        assert!(may_publish(&me, "fleet/v1/0123456789AB/up/presence"));
        for topic in [
            "fleet/v1/ZZZZZZZZZZZZ/up/presence",
            "fleet/v1/0123456789AB/dn/command",
            "fleet/v1/0123456789AB/up/#",
            "fleet/v1/0123456789AB/up/presence/x",
            "fleet/v1/0123456789AB/up/",
            "fleet/v1/+/up/presence",
            "$SYS/broker",
        ] {
            assert!(!may_publish(&me, topic), "{topic}");
        }
        assert!(may_subscribe(&me, &dn_filter(&me)));
        assert!(may_subscribe(&me, "fleet/v1/0123456789AB/dn/ack"));
        for filter in [
            "#",
            "fleet/#",
            "fleet/v1/+/dn/#",
            &dn_filter(&other),
            "$share/g/fleet/v1/0123456789AB/dn/#",
        ] {
            assert!(!may_subscribe(&me, filter), "{filter}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = text.parse::<Topic>();
        }
    }
}
