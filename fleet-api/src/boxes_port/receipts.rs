//! Receipts by way of the box: for customers whose network lets the box out and nobody else.

use http::StatusCode;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::receipt::{MAX_RECEIPTS, ReceiptAsk, ReceiptTexts};

use super::Refusal;
use super::uploads::may_deliver;
use crate::fleet::{Fleet, FleetError, ReceiptQuery};
use crate::store::receipts::ReceiptPlace;

/// Where a page ended: key, box, epoch, place.
type Cursor = (String, String, String, i64);

/// Receipts of what this box brought; the box has looked at the customer's ticket.
pub(super) async fn page(
    fleet: &Fleet,
    box_id: &BoxId,
    ask: ReceiptAsk,
) -> Result<ReceiptTexts, Refusal> {
    may_deliver(fleet, box_id)?;
    let invalid = |text: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid", text);
    let cursor: Option<Cursor> = match &ask.cursor {
        None => None,
        Some(text) => Some(
            serde_json::from_str(text)
                .map_err(|_| invalid("cursor is not one that an answer gave"))?,
        ),
    };
    let texts = cursor
        .iter()
        .flat_map(|(key, of, epoch, _)| [key, of, epoch]);
    if texts.chain([&ask.prefix]).any(|text| text.contains('\0')) {
        return Err(invalid("no key has a NUL"));
    }
    let query = ReceiptQuery {
        box_id: Some(box_id.clone()),
        bucket: ask.bucket,
        prefix: ask.prefix,
        after: cursor.map(|(key, box_id, epoch, place)| ReceiptPlace {
            key,
            box_id,
            epoch,
            place,
        }),
        limit: MAX_RECEIPTS,
    };
    let page = fleet.receipts_list(&query).await?;
    let failed = |e| FleetError::internal("failed to write a receipt", e);
    let items = page.receipts.iter().map(serde_json::to_string);
    let next = page.next.map(|p| (p.key, p.box_id, p.epoch, p.place));
    let next = next.map(|place: Cursor| serde_json::to_string(&place));
    Ok(ReceiptTexts {
        items: items.collect::<Result<_, _>>().map_err(failed)?,
        next: next.transpose().map_err(failed)?,
    })
}
