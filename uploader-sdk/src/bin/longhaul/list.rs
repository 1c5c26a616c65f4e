//! `longhaul ls`.

use std::time::Duration;

use longhaul_sdk::protocol::ids::ObjectKey;

use crate::args::{Cli, Ls};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, delivery, printable};

/// A person is waiting: shorter than a push.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(cli: &Cli, args: &Ls) -> Result<Exit, Failure> {
    let client = connect(&args.place).await?;
    let mut objects = client
        .list(&args.prefix, PATIENCE)
        .await
        .map_err(|e| Failure::failed(&e))?;
    let keys: Vec<ObjectKey> = objects.iter().filter_map(|o| o.key.parse().ok()).collect();
    match client.deliveries(&keys).await {
        Ok(mut states) => {
            for object in &mut objects {
                let key = object.key.parse::<ObjectKey>().ok();
                object.delivery = key.and_then(|key| states.remove(&key));
            }
        }
        // The list is worth having without it.
        Err(error) => eprintln!("longhaul: {error}"),
    }
    if cli.json {
        println!("{}", serde_json::json!({ "objects": objects }));
    } else {
        for object in &objects {
            let state = delivery(object.delivery.as_ref());
            println!(
                "{:>9}  {state:9}  {}",
                bytes(object.size),
                printable(&object.key)
            );
        }
    }
    Ok(Exit::Ok)
}
