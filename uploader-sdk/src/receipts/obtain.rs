//! Receipts from whoever can be reached: the cloud, and otherwise the box, which asks it for us.

use std::path::Path;

use longhaul_protocol::ticket::Ticket;

use super::{CloudAccess, FetchError, fetch_by_box_to, fetch_to};
use crate::advice;
use crate::client::BoxClient;

/// What is known of who may be asked for which receipts.
#[derive(Clone, Default)]
pub struct Wanted {
    /// The ticket that the files were sent with; it may have ended, but then the box passes nothing on.
    pub ticket: Option<Ticket>,
    /// A token for the cloud; then nobody else is asked.
    pub token: Option<String>,
    /// The bucket, with a token; otherwise the ticket's.
    pub bucket: Option<String>,
    /// The cloud's URL; otherwise the ticket's.
    pub cloud: Option<String>,
    /// The fleet's root certificate, PEM; otherwise the ticket's.
    pub root_pem: Option<String>,
    /// Where the box is; otherwise it is looked for.
    pub at: Option<String>,
    /// Only objects whose keys start with this.
    pub prefix: String,
}

/// Keeps the receipts in the file `output`, and says how many there are. The cloud is asked first; where
/// it is not known or cannot be reached from here, the ticket's box is asked.
///
/// # Errors
///
/// [`FetchError`]; where neither answered, it says why of both.
pub async fn obtain(wanted: &Wanted, output: &Path) -> Result<u64, FetchError> {
    let ticket = wanted.ticket.as_ref();
    if ticket.is_none() && wanted.token.is_none() {
        return Err(FetchError::Unsaid {
            what: "ticket or token",
        });
    }
    let bucket = wanted.bucket.as_ref();
    let bucket = bucket.or_else(|| Some(&ticket?.bucket));
    let bucket = bucket.ok_or(FetchError::Unsaid { what: "bucket" })?;
    let (token, cloud) = (wanted.token.clone(), wanted.cloud.clone());
    let fetched = match CloudAccess::new(ticket, token, cloud, wanted.root_pem.clone()) {
        Ok(cloud) => fetch_to(&cloud, bucket, &wanted.prefix, output).await,
        Err(error) => Err(error),
    };
    match (fetched, ticket) {
        (Err(error), Some(ticket)) if wanted.token.is_none() && error.is_unreachable() => {
            by_box(wanted, ticket, output, &error).await
        }
        (fetched, _) => fetched,
    }
}

async fn by_box(
    wanted: &Wanted,
    ticket: &Ticket,
    output: &Path,
    error: &FetchError,
) -> Result<u64, FetchError> {
    tracing::debug!(%error, "asking the box");
    let fetched = match &BoxClient::connect(ticket, wanted.at.as_deref()).await {
        Ok(client) => fetch_by_box_to(client, &wanted.prefix, output)
            .await
            .map_err(|error| advice::chain(&error)),
        Err(error) => Err(advice::chain(error)),
    };
    fetched.map_err(|by_box| FetchError::ByBox(format!("{by_box}; and {}", advice::chain(error))))
}
