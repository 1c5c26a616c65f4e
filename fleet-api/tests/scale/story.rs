//! Every kind of process is killed once, while boxes write their journals.

use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_protocol::command::{CommandClaims, SignedCommand};
use longhaul_protocol::envelope::{self, Envelope};
use longhaul_protocol::topic::Dn;
use longhaul_provisioning::jws::{self, Kind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::boxes::{Hauler, LightBox, Session};
use crate::system::{Admin, Part, System, now};
use crate::until;

const HAULERS: u8 = 6;

/// A session at an edge, once that knows of the box: it looks for new ones twice a second.
async fn let_in(of: &LightBox, port: u16) -> Session {
    until("it is let in", || async {
        let session = of.connect(port).await;
        session.ok_or_else(|| "refused".to_owned())
    })
    .await
}

/// Waits until every journal has moved on by two batches since now; says how long that took.
async fn moves_on(what: &str, haulers: &[Hauler]) {
    let begun = Instant::now();
    for hauler in haulers {
        let goal = hauler.acked() + 10;
        until(what, || async {
            let acked = hauler.acked();
            if acked >= goal {
                Ok(())
            } else {
                Err(format!("{} is at {acked} of {goal}", hauler.of.id))
            }
        })
        .await;
    }
    println!("{what}: every journal moves on after {:?}", begun.elapsed());
}

async fn commands_arrive_in_order(
    system: &System,
    admin: &Admin,
    of: &LightBox,
    session: &mut Session,
) {
    let path = format!("/v1/boxes/{}/commands", of.id);
    let body = json!({ "kind": "report_now" });
    for _ in 0..2 {
        admin.post(&path, &body).await;
    }
    let anchors = system.pki.root_anchor().expect("anchors");
    let mut counters = Vec::new();
    while counters.len() < 2 {
        let next = tokio::time::timeout(crate::PATIENCE, session.next());
        let (channel, bytes) = next.await.expect("in time").expect("connected");
        if channel != Dn::Command {
            continue;
        }
        let signed: Envelope<SignedCommand> = envelope::decode(&bytes).expect("decoded");
        let verified = jws::verify(&signed.body.jws, Kind::Command, &anchors, now());
        let payload = verified.expect("signed by the fleet").payload;
        let claims: CommandClaims = serde_json::from_slice(&payload).expect("claims");
        counters.push(claims.counter);
    }
    assert!(counters[0] < counters[1], "{counters:?}");
}

/// A box that was at one edge comes to the other: the first connection ends, and the box is online.
async fn taken_over(system: &System, of: &LightBox, first: &Part, second: &Part) -> Session {
    let (_, before) = system.presence(&of.id).await;
    let old = let_in(of, first.port("mqtt")).await;
    let edge = until("the first edge has it", || async {
        match system.presence(&of.id).await {
            (true, edge) if edge != before => Ok(edge),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let begun = Instant::now();
    let new = let_in(of, second.port("mqtt")).await;
    old.until_ended().await;
    println!(
        "taken over: the old connection ended after {:?}",
        begun.elapsed()
    );
    until("the other edge has it", || async {
        match system.presence(&of.id).await {
            (true, other) if other != edge => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    new
}

async fn revoked_everywhere(system: &System, admin: &Admin, edges: [&Part; 2]) {
    for (number, edge) in edges.into_iter().enumerate() {
        let of = system
            .enrolled(100 + u8::try_from(number).expect("small"))
            .await;
        let session = let_in(&of, edge.port("mqtt")).await;
        let ending = tokio::spawn(session.until_ended());
        admin
            .post(&format!("/v1/boxes/{}/revoke", of.id), &Value::Null)
            .await;
        let answered = Instant::now();
        ending.await.expect("it ends");
        let gone = answered.elapsed();
        println!("revoked: gone {gone:?} after the answer");
        // A busy machine gets more than the second that is promised, and less than a keep alive.
        assert!(gone < Duration::from_secs(5), "{gone:?}");
        for edge in edges {
            until("it is refused", || async {
                match of.connect(edge.port("mqtt")).await {
                    None => Ok(()),
                    Some(_) => Err("let in".to_owned()),
                }
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_process_is_killed_and_nothing_acknowledged_is_lost() {
    let mut system = System::start().await;
    let mut edges = [system.part("edge", "edge-1"), system.part("edge", "edge-2")];
    let mut workers = [
        system.part("worker", "worker-1"),
        system.part("worker", "worker-2"),
    ];
    let mut api = system.part("api", "api");
    for part in edges.iter_mut().chain(&mut workers).chain([&mut api]) {
        system.ready(part).await;
    }
    let admin = Admin::log_in(&system, &api).await;
    let ports = [edges[0].port("mqtt"), edges[1].port("mqtt")];
    let stop = CancellationToken::new();
    let (mut haulers, mut tasks) = (Vec::new(), Vec::new());
    for number in 0..HAULERS {
        let hauler = Hauler {
            of: system.enrolled(number).await,
            acked: Arc::default(),
        };
        let mut order = ports.to_vec();
        order.rotate_left(usize::from(number % 2));
        tasks.push(tokio::spawn(hauler.clone().haul(order, stop.clone())));
        haulers.push(hauler);
    }
    moves_on("all is well", &haulers).await;

    let moving = system.enrolled(50).await;
    let [first, second] = &edges;
    let mut session = let_in(&moving, second.port("mqtt")).await;
    system.online(&moving.id, true).await;
    commands_arrive_in_order(&system, &admin, &moving, &mut session).await;
    drop(session);
    let session = taken_over(&system, &moving, first, second).await;
    drop(session);
    revoked_everywhere(&system, &admin, [first, second]).await;

    for worker in &mut workers {
        worker.process.kill();
        moves_on("a worker is killed", &haulers).await;
        system.restart(worker);
        system.ready(worker).await;
    }
    system.servers.kill(0);
    moves_on("a NATS server is killed", &haulers).await;
    system.servers.restart(0);

    // It knows this one edge only, so it stays away while that is dead.
    let lone = system.enrolled(60).await;
    let session = let_in(&lone, ports[0]).await;
    system.online(&lone.id, true).await;
    let lonely = tokio::spawn(session.until_ended());
    edges[0].process.kill();
    let begun = Instant::now();
    moves_on("an edge is killed", &haulers).await;
    system.online(&lone.id, false).await;
    println!(
        "an edge is killed: its box is offline after {:?}",
        begun.elapsed()
    );
    lonely.await.expect("cut off");
    system.restart(&mut edges[0]);
    system.ready(&mut edges[0]).await;
    let session = let_in(&lone, ports[0]).await;
    system.online(&lone.id, true).await;
    drop(session);
    api.process.kill();
    moves_on("the API is killed", &haulers).await;

    stop.cancel();
    for task in tasks {
        task.await.expect("ends");
    }
    for hauler in &haulers {
        let (count, most): (i64, i64) =
            sqlx::query_as("SELECT count(*), max(number) FROM journal WHERE box_id = $1")
                .bind(hauler.of.id.as_str())
                .fetch_one(&system.pool)
                .await
                .expect("a row");
        let acked = i64::try_from(hauler.acked()).expect("small");
        assert_eq!(
            count, most,
            "{}: none is missing, none is twice",
            hauler.of.id
        );
        assert!(most >= acked, "{}: {acked} were acknowledged", hauler.of.id);
    }
}
