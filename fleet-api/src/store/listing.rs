//! Lists that are put together: what a route asks, a filter, a place, an order.

use longhaul_protocol::ids::OrderId;

use super::filter::{Filter, FilterField, Holds};
use super::tx::Piece;

pub(super) const fn field(name: &'static str, sql: &'static str, holds: Holds) -> FilterField {
    FilterField { name, sql, holds }
}

/// A statement under construction. Conditions are joined by `AND`, so that none opens what another
/// closes: a filter narrows what its caller may see, and never widens it.
pub(super) struct Listing(Vec<Piece>);

impl Listing {
    /// Begins with `SELECT .. WHERE condition`; SQL of the program's own.
    pub fn of(select: &'static str) -> Self {
        Self(vec![select.into()])
    }

    /// Adds ` AND column = value`, if there is a value.
    pub fn equal(mut self, column: &'static str, value: Option<&str>) -> Self {
        if let Some(value) = value {
            self.0.extend([
                " AND ".into(),
                column.into(),
                " = ".into(),
                Piece::Text(value.to_owned()),
            ]);
        }
        self
    }

    /// Adds a condition of the program's own with one value in it, if there is one.
    pub fn with(
        mut self,
        before: &'static str,
        value: Option<&OrderId>,
        after: &'static str,
    ) -> Self {
        if let Some(value) = value {
            let value = Piece::Text(value.as_str().to_owned());
            self.0.extend([before.into(), value, after.into()]);
        }
        self
    }

    /// Adds a condition without a value.
    pub fn and(mut self, condition: &'static str) -> Self {
        self.0.push(condition.into());
        self
    }

    /// Adds what the caller asks for.
    pub fn filter(mut self, filter: &Filter) -> Self {
        filter.push(&mut self.0);
        self
    }

    /// Newest first, from the one before `before`: the value of `at`, and that of `id`.
    pub fn newest(
        mut self,
        (at, id): (&'static str, &'static str),
        before: Option<(i64, &str)>,
        limit: u32,
    ) -> Vec<Piece> {
        let out = &mut self.0;
        if let Some((time, name)) = before {
            out.extend([" AND (".into(), at.into(), " < ".into(), Piece::Int(time)]);
            out.extend([" OR (".into(), at.into(), " = ".into(), Piece::Int(time)]);
            out.extend([" AND ".into(), id.into(), " < ".into()]);
            out.extend([Piece::Text(name.to_owned()), "))".into()]);
        }
        out.extend([" ORDER BY ".into(), at.into(), " DESC, ".into(), id.into()]);
        out.extend([" DESC LIMIT ".into(), Piece::Int(i64::from(limit))]);
        self.0
    }
}
