//! The customer's whole way, from the crate to the last verified file: one list for box, portal and
//! documents.

use serde::de::IntoDeserializer as _;
use serde::de::value::{Error, StrDeserializer};
use serde::{Deserialize, Deserializer, Serialize};

/// One step of the journey, in order.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Unpack the box and look at its seal.
    Unpack,
    /// Connect it to the network.
    Cable,
    /// Switch it on.
    Power,
    /// It finds its way to us.
    Online,
    /// Say that it is yours.
    Claim,
    /// Get the right to push to it.
    Ticket,
    /// Push the files.
    Push,
    /// Every file is in the bucket, compared byte by byte.
    Verified,
    /// Done: the box may go back.
    Finish,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 9] = [
        Self::Unpack,
        Self::Cable,
        Self::Power,
        Self::Online,
        Self::Claim,
        Self::Ticket,
        Self::Push,
        Self::Verified,
        Self::Finish,
    ];

    /// A few words, as in a list.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Unpack => "Unpack and check the seal",
            Self::Cable => "Plug in the network cable",
            Self::Power => "Switch it on",
            Self::Online => "The box goes online",
            Self::Claim => "Claim the box",
            Self::Ticket => "Get a ticket",
            Self::Push => "Push your files",
            Self::Verified => "Every file verified",
            Self::Finish => "Finish",
        }
    }

    /// What to do at this step.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unpack => {
                "Take the box out of its crate. If the seal is broken, do not use the box: call us."
            }
            Self::Cable => {
                "Plug a network cable into the box and into your switch; both lights at the socket should come on."
            }
            Self::Power => "Plug in the power cable; the box starts by itself.",
            Self::Online => {
                "Nothing to do: the box finds its way to us, or says here what it needs."
            }
            Self::Claim => {
                "Log in to the portal and enter the claim code that is printed on the box."
            }
            Self::Ticket => {
                "Download a ticket in the portal: the box takes files from whoever has one."
            }
            Self::Push => {
                "Run `longhaul push FOLDER`, or use any S3 client with the ticket's keys."
            }
            Self::Verified => {
                "Nothing to do: the files travel to your bucket and are compared there, one by one."
            }
            Self::Finish => {
                "Everything that you pushed is in your bucket. Push more, or switch the box off and send it back."
            }
        }
    }

    /// Where a box is that speaks for itself: what it knows of its network, tickets and files.
    pub const fn of_box(known: BoxKnows) -> Self {
        match known {
            BoxKnows { cable: false, .. } => Self::Cable,
            BoxKnows { online: false, .. } => Self::Online,
            BoxKnows { tickets: 0, .. } => Self::Claim,
            BoxKnows { objects: 0, .. } => Self::Push,
            BoxKnows { pending: 0, .. } => Self::Finish,
            BoxKnows { .. } => Self::Verified,
        }
    }
}

/// Characters of a guide's text that are shown.
const MAX_TEXT: usize = 400;

/// Where the cloud sees the customer, and what to do there in its words.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Guide {
    /// The step.
    pub step: Step,
    /// What to do at it: it may name what the box does not know.
    pub text: String,
}

impl Guide {
    /// The step to show and what to say there: the box's own, unless the cloud is further. Without a
    /// line, only the box knows what to do.
    pub fn current(own: Step, guide: Option<&Self>) -> (Step, String) {
        match guide {
            Some(guide) if own > Step::Online && guide.step >= own => {
                let plain = guide.text.chars().filter(|c| !c.is_control());
                (guide.step, plain.take(MAX_TEXT).collect())
            }
            _ => (own, own.text().to_owned()),
        }
    }
}

/// Reads a guide where one to a step that this program does not know yet is no reason to refuse the rest.
pub(crate) fn known_guide<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Guide>, D::Error> {
    #[derive(Deserialize)]
    struct Told {
        step: String,
        text: String,
    }
    let told = Option::<Told>::deserialize(deserializer)?;
    Ok(told.and_then(|Told { step, text }| {
        let name: StrDeserializer<'_, Error> = step.as_str().into_deserializer();
        let step = Step::deserialize(name).ok()?;
        Some(Guide { step, text })
    }))
}

/// What a box knows of the journey by itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BoxKnows {
    /// Whether a cable is plugged in.
    pub cable: bool,
    /// Whether every rung of the ladder holds.
    pub online: bool,
    /// Tickets that may push to it.
    pub tickets: usize,
    /// Files that it holds.
    pub objects: u64,
    /// Files that are not yet in the bucket.
    pub pending: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cloud_guides_a_box_that_is_online_and_not_further_than_it() {
        let guide = |step| Guide {
            step,
            text: "In the cloud's\n words".to_owned(),
        };
        let shown = |own: Step, step| Guide::current(own, Some(&guide(step)));
        let told = |step| (step, "In the cloud's words".to_owned());
        let own = |step: Step| (step, step.text().to_owned());

        assert_eq!(shown(Step::Claim, Step::Ticket), told(Step::Ticket));
        assert_eq!(shown(Step::Push, Step::Push), told(Step::Push));
        assert_eq!(shown(Step::Verified, Step::Push), own(Step::Verified));
        assert_eq!(shown(Step::Cable, Step::Push), own(Step::Cable));
        assert_eq!(shown(Step::Online, Step::Push), own(Step::Online));
        assert_eq!(Guide::current(Step::Push, None), own(Step::Push));
    }

    #[test]
    fn a_step_that_is_not_known_yet_is_no_guide() {
        let read = |json: &str| known_guide(&mut serde_json::Deserializer::from_str(json));

        let known = read(r#"{"step":"push","text":"a"}"#).unwrap();
        assert_eq!(known.map(|guide| guide.step), Some(Step::Push));
        assert_eq!(read(r#"{"step":"dance","text":"a"}"#).unwrap(), None);
        assert_eq!(read("null").unwrap(), None);
    }

    #[test]
    fn a_box_moves_on_through_the_journey() {
        let mut knows = BoxKnows::default();
        let mut seen = vec![Step::of_box(knows)];
        let changes: [fn(&mut BoxKnows); 5] = [
            |knows| knows.cable = true,
            |knows| knows.online = true,
            |knows| knows.tickets = 1,
            |knows| (knows.objects, knows.pending) = (3, 3),
            |knows| knows.pending = 0,
        ];
        for change in changes {
            change(&mut knows);
            seen.push(Step::of_box(knows));
        }

        assert!(seen.is_sorted() && seen[0] == Step::Cable, "{seen:?}");
        assert_eq!(seen.last(), Some(&Step::Finish));
        assert!(Step::ALL.is_sorted());
    }
}
