//! `longhaul find`, `doctor` and `status`.

use std::time::Duration;

use longhaul_sdk::discover;
use longhaul_sdk::doctor::{CheckResult, examine};
use longhaul_sdk::protocol::diag::RungStatus;
use longhaul_sdk::protocol::lan::LanStatus;

use crate::args::{Cli, Place};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, count, printable};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to listen, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub listen: u64,
}

pub async fn find(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let found = discover::find(Duration::from_secs(args.listen))
        .await
        .map_err(|e| Failure::new(Exit::NoBox, &e))?;
    if cli.json {
        println!("{}", serde_json::json!({ "boxes": found }));
    } else if found.is_empty() {
        eprintln!(
            "no box announces itself on this network; check that it is switched on and on the same network"
        );
    }
    if !cli.json {
        for seen in &found {
            let addrs: Vec<String> = seen.addrs.iter().map(ToString::to_string).collect();
            let state = match &seen.code {
                None => "ready".to_owned(),
                Some(code) => format!("{code}: {}", seen.advice.as_deref().unwrap_or_default()),
            };
            println!("{}  {}  {state}", seen.box_id, addrs.join(", "));
        }
    }
    Ok(if found.is_empty() {
        Exit::NoBox
    } else {
        Exit::Ok
    })
}

pub async fn doctor(cli: &Cli, place: &Place) -> Result<Exit, Failure> {
    let diagnosis = examine(&place.ticket, place.at.as_deref()).await;
    if cli.json {
        let mut document = serde_json::to_value(&diagnosis).map_err(|e| Failure::failed(&e))?;
        document["well"] = diagnosis.is_well().into();
        println!("{document}");
    } else {
        for check in &diagnosis.checks {
            let word = match check.result {
                CheckResult::Ok => "ok",
                CheckResult::Warning => "warning",
                CheckResult::Failed => "failed",
            };
            println!("{word:8} {:10} {}", check.name, printable(&check.detail));
            if !check.advice.is_empty() {
                println!("{:19} -> {}", "", check.advice);
            }
        }
    }
    Ok(if diagnosis.is_well() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

pub async fn status(cli: &Cli, place: &Place) -> Result<Exit, Failure> {
    let client = connect(place).await?;
    let status = client.status().await?;
    if cli.json {
        let document = serde_json::to_value(&status).map_err(|e| Failure::failed(&e))?;
        println!("{document}");
    } else {
        print(&status, &client.endpoint().addr.to_string());
        let ticket = client.ticket();
        println!(
            "ticket: bucket {}, until {}",
            printable(&ticket.bucket),
            longhaul_sdk::expires_text(ticket)
        );
    }
    Ok(Exit::Ok)
}

fn print(status: &LanStatus, addr: &str) {
    println!(
        "box {} at {addr}, agent {}{}",
        status.box_id,
        printable(&status.agent_version),
        if status.identifying {
            ", blinking now"
        } else {
            ""
        }
    );
    let vault = &status.vault;
    println!(
        "store: {} of {} used, {}; {} ({}) not yet verified in the cloud",
        bytes(vault.used_bytes),
        bytes(vault.capacity_bytes),
        count(vault.objects, "object"),
        count(vault.pending_objects, "object"),
        bytes(vault.pending_bytes),
    );
    println!("{}", safety(vault.objects, vault.pending_objects));
    if let Some(code) = status.uplink.and_then(|uplink| uplink.code) {
        let entry = code.entry();
        println!("{code} {}: {}", entry.title, entry.customer);
    }
    for rung in &status.rungs {
        let word = match rung.status {
            RungStatus::Ok => "ok",
            RungStatus::Failed => "failed",
            RungStatus::NotReached => "not tried",
            RungStatus::Trying => "trying",
        };
        let code = rung.code.map_or_else(String::new, |code| {
            format!("{code} {} ", code.entry().title)
        });
        let line = format!(
            "  {word:9} {:10} {code}{}",
            rung.rung.to_string(),
            printable(&rung.evidence)
        );
        println!("{}", line.trim_end());
        if let Some(code) = rung.code {
            println!("  {:9} {:10} -> {}", "", "", code.entry().customer);
        }
    }
}

/// What would be lost with the box.
fn safety(objects: u64, pending: u64) -> String {
    match (objects, pending) {
        (0, _) => "the box holds nothing".to_owned(),
        (_, 0) => "everything is verified in the cloud: the box may be switched off".to_owned(),
        (_, n) => format!(
            "{} not yet safe in the cloud: keep the originals, and the box switched on",
            count(n, "object")
        ),
    }
}
