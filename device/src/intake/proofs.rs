//! Receipts for customers whose network lets the box out and nobody else: the box passes the question on.

use futures::future::BoxFuture;
use longhaul_protocol::receipt::{BOX_RECEIPTS_PATH, ReceiptAsk, ReceiptTexts};

use crate::cloud::{CloudClient, chain};

/// Who has the receipts.
pub trait Proofs: Send + Sync {
    /// A page of them; the error says why not, for people.
    fn page(&self, ask: ReceiptAsk) -> BoxFuture<'_, Result<ReceiptTexts, String>>;
}

impl Proofs for CloudClient {
    fn page(&self, ask: ReceiptAsk) -> BoxFuture<'_, Result<ReceiptTexts, String>> {
        Box::pin(async move {
            let page = self.post(BOX_RECEIPTS_PATH, &ask).await;
            page.map_err(|error| chain(&error))
        })
    }
}
