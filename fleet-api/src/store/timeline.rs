//! One box's history: sessions, journal and commands in one line, newest first.
//!
//! Ordered by the cloud's clock, which is one clock: a command stands before what the box made of
//! it, whatever the box thinks the time is. Journal entries of one batch keep their numbers' order.

use longhaul_protocol::ids::BoxId;
use sqlx::FromRow;

use super::{StoreResult, Tx, text_enum};

text_enum! {
    /// Where an item of the timeline comes from.
    TimelineSource {
        /// A session began or ended.
        Presence = "presence",
        /// The box wrote it down.
        Journal = "journal",
        /// An operator sent it.
        Command = "command",
    }
}

/// A place in a timeline.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct TimelinePlace {
    /// The cloud's clock.
    pub received: i64,
    /// Rank of the source where the clock is equal: a command before what follows from it.
    pub rank: i64,
    /// Name of the item, or of the journal's epoch.
    pub id: String,
    /// Number in the journal, else 0.
    pub number: i64,
}

/// One item.
#[derive(Clone, Debug, FromRow, PartialEq)]
pub struct TimelineRow {
    /// The cloud's clock.
    pub received: i64,
    /// Rank of the source.
    pub rank: i64,
    /// Name of the item, or of the journal's epoch.
    pub id: String,
    /// Number in the journal, else 0.
    pub number: i64,
    /// When it happened: the box's clock for the journal.
    pub at: i64,
    /// What happened, in a word.
    pub kind: String,
    /// What happened: JSON.
    pub detail: String,
    /// State of a command.
    pub state: Option<String>,
}

impl TimelineRow {
    /// Where it stands.
    pub fn place(&self) -> TimelinePlace {
        TimelinePlace {
            received: self.received,
            rank: self.rank,
            id: self.id.clone(),
            number: self.number,
        }
    }

    /// Where it comes from.
    pub fn source(&self) -> TimelineSource {
        match self.rank {
            0 => TimelineSource::Command,
            1 => TimelineSource::Presence,
            _ => TimelineSource::Journal,
        }
    }
}

/// A box's history, newest first, from the item before `before`.
pub async fn timeline_list(
    tx: &mut Tx,
    box_id: &BoxId,
    before: Option<&TimelinePlace>,
    limit: u32,
) -> StoreResult<Vec<TimelineRow>> {
    let (received, rank, id, number) = before.map_or((i64::MAX, 0, "", 0), |p| {
        (p.received, p.rank, p.id.as_str(), p.number)
    });
    // Each table is cut to the limit through its own index before they are merged.
    fetch!(
        all,
        tx,
        TimelineRow,
        "SELECT received, rank, id, number, at, kind, detail, state FROM ( \
           SELECT * FROM (SELECT created AS received, CAST(0 AS BIGINT) AS rank, \
             command_id AS id, CAST(0 AS BIGINT) AS number, created AS at, kind, detail, state \
             FROM commands WHERE box_id = $1 AND created <= $2 \
               AND (created < $2 OR (0, command_id, 0) < ($3, $4, $5)) \
             ORDER BY created DESC, command_id DESC LIMIT $6) AS c \
           UNION ALL \
           SELECT * FROM (SELECT at AS received, CAST(1 AS BIGINT) AS rank, \
             presence_id AS id, CAST(0 AS BIGINT) AS number, at, kind, detail, \
             CAST(NULL AS TEXT) AS state \
             FROM presence WHERE box_id = $1 AND at <= $2 \
               AND (at < $2 OR (1, presence_id, 0) < ($3, $4, $5)) \
             ORDER BY at DESC, presence_id DESC LIMIT $6) AS p \
           UNION ALL \
           SELECT * FROM (SELECT received, CAST(2 AS BIGINT) AS rank, \
             epoch AS id, number, at, kind, detail, CAST(NULL AS TEXT) AS state \
             FROM journal WHERE box_id = $1 AND kind <> 'telemetry' AND received <= $2 \
               AND (received < $2 OR (2, epoch, number) < ($3, $4, $5)) \
             ORDER BY received DESC, epoch DESC, number DESC LIMIT $6) AS j \
         ) AS t ORDER BY received DESC, rank DESC, id DESC, number DESC LIMIT $6",
        box_id.as_str(),
        received,
        rank,
        id,
        number,
        i64::from(limit),
    )
}
