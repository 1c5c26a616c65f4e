//! The cloud's truth: one schema and one SQL text on SQLite or PostgreSQL.
//!
//! One module per table family holds every statement that touches its tables. Functions read
//! `noun_verb`; `None` or `false` means absent, an error means that the database failed. The caller
//! owns the transaction: [`Db::read`] or [`Db::write`] opens one, [`Tx::commit`] ends it, dropping
//! it undoes it. Times are integer milliseconds UTC.

#[macro_use]
mod tx;
mod listing;

pub mod alert_channels;
pub mod alert_rules;
pub mod alerts;
pub mod api_tokens;
pub mod audit;
pub mod batch;
pub mod boxes;
pub mod bring_up;
pub mod bulk;
pub mod challenges;
pub mod command_traces;
pub mod commands;
pub mod destinations;
pub mod edges;
pub mod filter;
pub mod idempotency;
pub mod identities;
pub mod journal;
pub mod locks;
pub mod objects;
pub mod offline;
pub mod operators;
pub mod order_networks;
pub mod orders;
pub mod packs;
pub mod presence;
pub mod proposals;
pub mod quarantines;
pub mod receipts;
pub mod releases;
pub mod rollouts;
pub mod seal;
pub mod settings;
pub mod telemetry;
pub mod tenants;
#[cfg(test)]
#[expect(
    clippy::missing_panics_doc,
    reason = "a test that cannot be set up panics"
)]
pub mod testing;
#[cfg(test)]
pub(crate) mod tests;
pub mod tickets;
pub mod timeline;
pub mod twins;
pub mod uploads;
pub mod vault_keys;

pub use tx::{Db, StoreError, StoreResult, Tx};

/// Declares an enumeration that is stored and sent as text.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd,
            serde::Deserialize, serde::Serialize, utoipa::ToSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$vdoc])* $variant),*
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The text that is stored and sent.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::store::UnknownText;

            fn from_str(text: &str) -> Result<Self, $crate::store::UnknownText> {
                match text {
                    $($text => Ok(Self::$variant),)*
                    _ => Err($crate::store::UnknownText {
                        kind: stringify!($name),
                        text: text.chars().take(64).collect(),
                    }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::store::UnknownText;

            fn try_from(text: String) -> Result<Self, $crate::store::UnknownText> {
                text.parse()
            }
        }
    };
}
pub(crate) use text_enum;

/// A text that is none of an enumeration's.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a {kind}: {text:?}")]
pub struct UnknownText {
    /// The enumeration.
    pub kind: &'static str,
    /// The text, cut to 64 characters.
    pub text: String,
}

/// A random identifier: `prefix-` and a UUID that sorts by its time.
pub fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
}
