//! Lists in parts: how a caller asks for one, and where the next begins.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use crate::http::People;
use crate::http::cursor;
use crate::http::problem::{Fault, Problem};
use crate::store::filter::{Filter, FilterField};

/// Rows in one answer, where the caller does not say.
const DEFAULT_LIMIT: u32 = 100;
/// Rows in one answer at the most.
const MAX_LIMIT: u32 = 1000;

/// Which part of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PartQuery {
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000; 100 if absent.
    limit: Option<u32>,
}

impl PartQuery {
    /// The part that is asked for: what `P` names is the last row of the page before.
    pub fn part<P: DeserializeOwned>(&self) -> Result<Part<P>, Problem> {
        Part::new(self.cursor.as_deref(), self.limit)
    }
}

/// Which part of what a filter finds.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct FilteredQuery {
    /// Which rows.
    #[param(max_length = 1000)]
    filter: Option<String>,
    /// `next` of the page before.
    cursor: Option<String>,
    /// Rows at the most, 1 to 1,000; 100 if absent.
    limit: Option<u32>,
}

impl FilteredQuery {
    /// The part that is asked for: what `P` names is the last row of the page before.
    pub fn part<P: DeserializeOwned>(&self) -> Result<Part<P>, Problem> {
        Part::new(self.cursor.as_deref(), self.limit)
    }

    /// What is asked of the rows.
    pub fn filter(&self, fields: &[FilterField], people: &People) -> Result<Filter, Problem> {
        filter(self.filter.as_deref(), fields, people)
    }
}

/// Reads a list's `filter`.
pub(super) fn filter(
    text: Option<&str>,
    fields: &[FilterField],
    people: &People,
) -> Result<Filter, Problem> {
    Filter::parse(text.unwrap_or_default(), fields, people.clock.now()).map_err(|error| {
        let fault = Fault::parameter("filter", Some(error.position), error.text);
        Problem::faults(vec![fault])
    })
}

/// A part of a list, checked.
pub struct Part<P> {
    /// The last row of the page before; absent for the first page.
    pub place: Option<P>,
    /// Rows at the most.
    pub limit: u32,
}

impl<P: DeserializeOwned> Part<P> {
    /// Reads what the caller sent.
    pub fn new(cursor: Option<&str>, limit: Option<u32>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            let text = format!("{limit} is not within 1 to {MAX_LIMIT}");
            return Err(Problem::faults(vec![Fault::parameter("limit", None, text)]));
        }
        Ok(Self {
            place: cursor::decode(cursor)?,
            limit,
        })
    }
}

impl<P> Part<P> {
    /// The cursor of the page after these rows; absent where they are the last.
    pub fn next<R, C: Serialize>(
        &self,
        rows: &[R],
        place: impl FnOnce(&R) -> C,
    ) -> Result<Option<String>, Problem> {
        let full = rows.len() >= self.limit as usize;
        let last = rows.last().filter(|_| full);
        last.map(|row| cursor::encode(&place(row))).transpose()
    }
}

/// A row by its time and name, newest first.
#[derive(Deserialize)]
pub struct TimePlace(i64, String);

impl TimePlace {
    /// As the store wants it. No stored name has a NUL, and PostgreSQL takes none.
    pub fn place(&self) -> (i64, &str) {
        (self.0, self.1.split('\0').next().unwrap_or_default())
    }
}

/// Declares a page of a list.
macro_rules! page {
    ($(#[$doc:meta])* $name:ident of $item:ty) => {
        $(#[$doc])*
        #[derive(serde::Serialize, utoipa::ToSchema)]
        pub struct $name {
            /// The rows.
            items: Vec<$item>,
            /// Send it as `cursor` for the rows after these; absent at the end.
            #[serde(skip_serializing_if = "Option::is_none")]
            next: Option<String>,
            /// The cloud's clock, in milliseconds: what ages are counted from.
            server_time: i64,
        }

        impl $name {
            fn new(
                rows: impl IntoIterator<Item = impl Into<$item>>,
                next: Option<String>,
                people: &$crate::http::People,
            ) -> Self {
                Self {
                    items: rows.into_iter().map(Into::into).collect(),
                    next,
                    server_time: people.clock.now().0,
                }
            }
        }
    };
}
pub(super) use page;
