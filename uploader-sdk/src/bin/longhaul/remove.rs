//! `longhaul rm`.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use longhaul_sdk::protocol::ids::ObjectKey;
use longhaul_sdk::protocol::lan::Delivery;
use longhaul_sdk::{BoxClient, Listed};

use crate::args::{Cli, Place};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, count, printable};

/// A person is waiting: shorter than a push.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keys of objects; with a `/` at its end, everything below that folder
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    #[command(flatten)]
    pub place: Place,
}

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.yes && !can_ask {
        return Err(Failure::usage(
            "nobody can be asked here; add --yes to remove without asking",
        ));
    }
    let client = connect(&args.place).await?;
    let (objects, absent) = client
        .select(&args.keys, PATIENCE)
        .await
        .map_err(|e| Failure::failed(&e))?;
    if !args.yes && !objects.is_empty() && !confirmed(&client, &objects).await? {
        eprintln!("nothing was removed");
        return Ok(Exit::Failed);
    }
    let mut report = client
        .remove(&objects, PATIENCE)
        .await
        .map_err(|e| Failure::failed(&e))?;
    report.absent(absent);
    if cli.json {
        let document = serde_json::to_value(&report).map_err(|e| Failure::failed(&e))?;
        println!("{document}");
    } else {
        println!(
            "{} removed from the box",
            count(report.removed.len() as u64, "object")
        );
        for failed in &report.failed {
            eprintln!(
                "not removed: {}: {}",
                printable(&failed.key),
                printable(&failed.reason)
            );
        }
    }
    Ok(if report.failed.is_empty() {
        Exit::Ok
    } else {
        Exit::SomeFailed
    })
}

/// Says what would be lost, and asks.
async fn confirmed(client: &BoxClient, objects: &[Listed]) -> Result<bool, Failure> {
    let keys: Vec<ObjectKey> = objects.iter().filter_map(|o| o.key.parse().ok()).collect();
    let states = client
        .deliveries(&keys)
        .await
        .map_err(|e| Failure::failed(&e))?;
    let verified = states
        .values()
        .filter(|s| **s == Delivery::Verified)
        .count();
    let only_here = objects.len() - verified.min(objects.len());
    let size = objects.iter().map(|o| o.size).sum();
    let warning = match only_here {
        0 => "all of them are verified in the cloud and stay there".to_owned(),
        n => format!("{} NOT verified in the cloud", count(n as u64, "object")),
    };
    eprint!(
        "remove {} ({}) from box {}? {warning}. [y/N] ",
        count(objects.len() as u64, "object"),
        bytes(size),
        client.ticket().box_id,
    );
    // Without a line on the screen there is no question, so no answer either.
    std::io::stderr().flush().map_err(|e| Failure::failed(&e))?;
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = answer.await.map_err(|e| Failure::failed(&e))?;
    let answer = answer.map_err(|e| Failure::failed(&e))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
