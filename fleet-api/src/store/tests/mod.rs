//! Every table family on both databases.

mod boxes;
mod commands;
mod enrolment;
mod history;
mod people;
mod receipts;
mod schema;
mod telemetry;
mod transfers;

use longhaul_protocol::ids::{BoxId, CommandId, TicketId};
use longhaul_protocol::journal::{Fact, JournalEntry};
use longhaul_protocol::presence::Birth;
use longhaul_protocol::value::UnixMillis;

use crate::store::boxes::box_next_counter;
use crate::store::commands::{NewCommand, command_insert};
use crate::store::tickets::{TicketRow, ticket_get, ticket_insert};
use crate::store::{Db, Tx};

async fn write(db: &Db) -> Tx {
    db.write().await.expect("begins")
}

pub fn birth(session: &str) -> Birth {
    Birth {
        session: session.parse().expect("an id"),
        boot: "boot-1".parse().expect("an id"),
        epoch: "epoch-1".parse().expect("an id"),
        agent_version: "1.0\0".into(),
        os_version: None,
        capabilities: vec!["identify".into()],
        desired_version: 3,
        certificate_expires: UnixMillis(9000),
        lan_urls: vec!["https://10.0.0.2:443".into()],
        rungs: Vec::new(),
    }
}

fn entries(numbers: impl IntoIterator<Item = u64>) -> Vec<JournalEntry> {
    numbers
        .into_iter()
        .map(|number| JournalEntry {
            number,
            at: UnixMillis(500),
            fact: Fact::Failure {
                part: "disk".into(),
                text: format!("entry {number} with a \0"),
            },
        })
        .collect()
}

async fn add_command(db: &Db, box_id: &BoxId, id: &str, expires: i64, now: i64) -> CommandId {
    let command_id: CommandId = id.parse().expect("an id");
    let mut tx = write(db).await;
    let counter = box_next_counter(&mut tx, box_id, 0)
        .await
        .expect("draws")
        .expect("the box exists");
    let new = NewCommand {
        command_id: &command_id,
        box_id,
        counter,
        kind: "report_now",
        detail: r#"{"kind":"report_now"}"#,
        jws: "jws",
        created_by: "ada",
        not_before: now,
        expires,
        rollout_id: None,
        proposal_id: None,
    };
    command_insert(&mut tx, &new, now).await.expect("inserts");
    tx.commit().await.expect("commits");
    command_id
}

async fn add_ticket(db: &Db, box_id: &BoxId, id: &str, expires: i64) -> TicketId {
    let row = TicketRow {
        ticket_id: id.parse().expect("an id"),
        box_id: box_id.clone(),
        order_id: None,
        bucket: "bucket".into(),
        access_key: format!("AK{id}"),
        secret_sealed: vec![0, 1, 255],
        created_by: "ada".into(),
        created: 1,
        expires,
        revoked: None,
        tenant_id: None,
    };
    let mut tx = write(db).await;
    ticket_insert(&mut tx, &row).await.expect("inserts");
    assert_eq!(
        ticket_get(&mut tx, &row.ticket_id).await.expect("gets"),
        Some(row.clone())
    );
    tx.commit().await.expect("commits");
    row.ticket_id
}
