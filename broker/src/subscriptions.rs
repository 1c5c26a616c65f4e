//! What one box has subscribed: its own `dn/#`, or channels below it.

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::topic::{self, Channel, Dn, Topic};

use crate::reason::Reason;
use crate::wire::packet::Qos;

/// A filter that its box may subscribe.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Filter {
    /// `dn/#`.
    All,
    One(Dn),
}

impl Filter {
    /// Parses a filter that `box_id` asks for; the error goes into SUBACK.
    pub fn parse(box_id: &BoxId, filter: &str) -> Result<Self, Reason> {
        if filter.starts_with("$share/") {
            return Err(Reason::SharedSubscriptionsNotSupported);
        }
        if !topic::may_subscribe(box_id, filter) {
            return Err(Reason::NotAuthorized);
        }
        match filter.parse::<Topic>().map(|topic| topic.channel) {
            Ok(Channel::Dn(channel)) => Ok(Self::One(channel)),
            Ok(Channel::Up(_)) => Err(Reason::NotAuthorized),
            // Allowed and not a topic: the one wildcard.
            Err(_) => Ok(Self::All),
        }
    }
}

/// The subscriptions of one session, at most one for each possible filter.
#[derive(Clone, Debug, Default)]
pub struct Subscriptions {
    all: Option<Qos>,
    one: [Option<Qos>; Dn::ALL.len()],
}

impl Subscriptions {
    pub fn add(&mut self, filter: Filter, qos: Qos) {
        *self.slot(filter) = Some(qos);
    }

    /// Whether there was such a subscription.
    pub fn remove(&mut self, filter: Filter) -> bool {
        self.slot(filter).take().is_some()
    }

    /// The quality of service for `channel`: the best of what matches, and `None` if nothing does.
    pub fn qos(&self, channel: Dn) -> Option<Qos> {
        self.all.max(self.one[index(channel)])
    }

    fn slot(&mut self, filter: Filter) -> &mut Option<Qos> {
        match filter {
            Filter::All => &mut self.all,
            Filter::One(channel) => &mut self.one[index(channel)],
        }
    }
}

const fn index(channel: Dn) -> usize {
    match channel {
        Dn::Ack => 0,
        Dn::Desired => 1,
        Dn::Command => 2,
        Dn::Tunnel => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_subscriptions_deliver_once_at_the_better_quality() {
        let mut subscriptions = Subscriptions::default();
        assert_eq!(subscriptions.qos(Dn::Ack), None);

        subscriptions.add(Filter::All, Qos::AtMostOnce);
        subscriptions.add(Filter::One(Dn::Ack), Qos::AtLeastOnce);

        assert_eq!(subscriptions.qos(Dn::Ack), Some(Qos::AtLeastOnce));
        assert_eq!(subscriptions.qos(Dn::Command), Some(Qos::AtMostOnce));
        assert!(subscriptions.remove(Filter::All));
        assert!(!subscriptions.remove(Filter::All));
        assert_eq!(subscriptions.qos(Dn::Command), None);
        assert_eq!(subscriptions.qos(Dn::Ack), Some(Qos::AtLeastOnce));
    }

    #[test]
    fn filters_outside_the_box_are_refused() {
        let me: BoxId = "0123456789AB".parse().expect("an id");
        let parse = |filter: &str| Filter::parse(&me, filter);

        assert_eq!(parse("fleet/v1/0123456789AB/dn/#"), Ok(Filter::All));
        for channel in Dn::ALL {
            let filter = Topic::dn(me.clone(), channel).to_string();
            assert_eq!(parse(&filter), Ok(Filter::One(channel)));
        }
        for filter in [
            "#",
            "+/+/+/+/+",
            "fleet/v1/0123456789AB/#",
            "fleet/v1/ZZZZZZZZZZZZ/dn/#",
            "fleet/v1/0123456789AB/up/presence",
            "",
            "$SYS/#",
        ] {
            assert_eq!(parse(filter), Err(Reason::NotAuthorized), "{filter}");
        }
        assert_eq!(
            parse("$share/g/fleet/v1/0123456789AB/dn/#"),
            Err(Reason::SharedSubscriptionsNotSupported)
        );
    }
}
