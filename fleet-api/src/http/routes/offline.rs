//! Boxes that have no line to us: what somebody carries for them.

use bytes::Bytes;
use longhaul_protocol::offline::{MAX_JOURNAL_FILE, MAX_REQUEST_TEXT};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, Nothing, Scope};
use crate::http::problem::Problem;
use crate::http::reply::File;
use crate::store::operators::Role;

pub(super) fn add(api: Api) -> Api {
    api.add::<OfflineAnswerMake>().add::<OfflineJournalAdd>()
}

endpoint! {
    /// Enrolment in one round trip.
    OfflineAnswerMake = POST "/v1/offline/answers" as "offlineAnswerMake", Scope::Shared(Role::Operator), OK;
    "Answers the request of a box that cannot reach us. The same request has the same answer; only that box's TPM opens it."
    (Nothing, Nothing, Json<OfflineRequest, { 2 * MAX_REQUEST_TEXT }>) -> File = answer
}

/// A box's request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OfflineRequest {
    /// The text of the file `request.txt` from the stick, or what the QR codes on the box's screen or
    /// page say, in any order.
    request: String,
}

async fn answer(call: Call<OfflineAnswerMake>) -> Result<File, Problem> {
    let fleet = &call.people.fleet;
    let (actor, tenant) = (call.caller.actor(), call.caller.tenant());
    let made = fleet
        .offline_answer(&actor, tenant, &call.body.0.request)
        .await?;
    let bytes = made.file.into_bytes();
    Ok(File {
        name: format!("longhaul-{}-answer.json", made.box_id),
        content_type: "application/json".to_owned(),
        bytes: bytes.len() as u64,
        body: Box::pin(futures::stream::iter([Ok(Bytes::from(bytes))])),
    })
}

endpoint! {
    /// Failures that came by stick.
    OfflineJournalAdd = POST "/v1/offline/journals" as "offlineJournalAdd", Scope::Shared(Role::Operator), OK;
    "Takes a file with a part of a box's journal. What came by wire before, or comes later, counts once."
    (Nothing, Nothing, Json<OfflineJournal, { 4 * MAX_JOURNAL_FILE }>) -> Json<OfflineJournalTaken> = journal
}

/// A part of a box's journal.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OfflineJournal {
    /// The text of a file `journal-….txt` from the stick.
    journal: String,
}

/// What became of it.
#[derive(Serialize, ToSchema)]
pub struct OfflineJournalTaken {
    /// Whose journal it is.
    #[serde(rename = "box")]
    box_id: String,
    /// Entries that were not known.
    taken: usize,
    /// Entries that were.
    known: usize,
    /// Everything up to this number is here now.
    through: u64,
}

async fn journal(call: Call<OfflineJournalAdd>) -> Result<Json<OfflineJournalTaken>, Problem> {
    let fleet = &call.people.fleet;
    let (actor, tenant) = (call.caller.actor(), call.caller.tenant());
    let done = fleet
        .offline_journal(&actor, tenant, &call.body.0.journal)
        .await?;
    Ok(Json(OfflineJournalTaken {
        box_id: done.box_id.to_string(),
        taken: done.taken,
        known: done.known,
        through: done.through,
    }))
}
