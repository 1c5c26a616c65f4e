//! What boxes and cloud say to each other, as JSON.

use longhaul_protocol::command::{CommandClaims, CommandUpdate, SignedCommand};
use longhaul_protocol::enrol::{Challenge, ChallengeRequest, Evidence, Issued, Problem};
use longhaul_protocol::envelope::{self, Message};
use longhaul_protocol::inventory::{BoxConfig, InventoryRecord};
use longhaul_protocol::journal::{JournalAck, JournalBatch};
use longhaul_protocol::lan::LanStatus;
use longhaul_protocol::pack::{EntryHeader, PackLine};
use longhaul_protocol::presence::Presence;
use longhaul_protocol::receipt::{DeliveryClaims, Receipt, RootClaims};
use longhaul_protocol::telemetry::Telemetry;
use longhaul_protocol::ticket::{CredentialSet, Ticket};
use longhaul_protocol::twin::{Desired, Reported, SignedDesired};
use longhaul_protocol::upload::{
    BucketRefused, BucketState, CompleteResult, StartResult, StartUploads,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a box publishes.
pub(crate) fn up(bytes: &[u8]) {
    message::<Presence>(bytes);
    message::<Telemetry>(bytes);
    message::<JournalBatch>(bytes);
    message::<Reported>(bytes);
    message::<CommandUpdate>(bytes);
}

/// What the cloud publishes.
pub(crate) fn down(bytes: &[u8]) {
    message::<JournalAck>(bytes);
    message::<SignedCommand>(bytes);
    message::<SignedDesired>(bytes);
}

/// What is signed, and what travels over HTTPS.
pub(crate) fn documents(bytes: &[u8]) {
    document::<CommandClaims>(bytes);
    document::<Desired>(bytes);
    document::<BoxConfig>(bytes);
    document::<InventoryRecord>(bytes);
    document::<Ticket>(bytes);
    document::<CredentialSet>(bytes);
    document::<Receipt>(bytes);
    document::<RootClaims>(bytes);
    document::<DeliveryClaims>(bytes);
    document::<ChallengeRequest>(bytes);
    document::<Challenge>(bytes);
    document::<Evidence>(bytes);
    document::<Issued>(bytes);
    document::<Problem>(bytes);
    document::<StartUploads>(bytes);
    document::<StartResult>(bytes);
    document::<CompleteResult>(bytes);
    document::<BucketRefused>(bytes);
    document::<BucketState>(bytes);
    document::<EntryHeader>(bytes);
    document::<PackLine>(bytes);
    document::<LanStatus>(bytes);
}

fn message<T: Message + Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = envelope::decode::<T>(bytes) else {
        return;
    };
    // What is written again may be longer than what was read: escapes, and numbers.
    if let Ok(written) = envelope::encode(&read.body, read.sent) {
        let again = envelope::decode::<T>(&written).map(|again| again.body);
        let again = again.unwrap_or_else(|e| panic!("{} is not read again: {e}", T::NAME));
        assert_eq!(json(&again), json(&read.body));
    }
}

fn document<T: Serialize + DeserializeOwned>(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let written = json(&read);
    let again: T = serde_json::from_str(&written).unwrap_or_else(|e| panic!("{written}: {e}"));
    assert_eq!(json(&again), written);
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
