//! `longhaul ls`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::ValueEnum;
use longhaul_sdk::Listed;
use longhaul_sdk::protocol::ids::ObjectKey;
use longhaul_sdk::protocol::lan::Delivery;

use crate::args::{Cli, Place};
use crate::exit::{Exit, Failure, connect};
use crate::human::{bytes, count, delivery, printable};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only objects whose key begins with this
    #[arg(default_value = "", value_name = "PREFIX")]
    pub prefix: String,
    /// Also when each was put on the box
    #[arg(long, short)]
    pub long: bool,
    /// One line for each folder below the prefix instead of one for each object in it
    #[arg(long, short = 'd', conflicts_with = "json")]
    pub folders: bool,
    /// Only objects that have come this far
    #[arg(long, value_enum, value_name = "STATE")]
    pub state: Option<State>,
    #[command(flatten)]
    pub place: Place,
}

/// How far an object has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum State {
    /// Not yet on its way
    OnBox,
    /// On its way
    InFlight,
    /// In the bucket, not yet compared
    InCloud,
    /// In the bucket, compared
    Verified,
    /// Needs someone's help
    Failed,
    /// Everything but verified
    Pending,
}

impl State {
    fn holds(self, delivery: Option<&Delivery>) -> bool {
        match self {
            Self::OnBox => delivery == Some(&Delivery::OnBox),
            Self::InFlight => delivery == Some(&Delivery::InFlight),
            Self::InCloud => delivery == Some(&Delivery::InCloud),
            Self::Verified => delivery == Some(&Delivery::Verified),
            Self::Failed => matches!(delivery, Some(Delivery::Failed { .. })),
            Self::Pending => delivery != Some(&Delivery::Verified),
        }
    }
}

/// A person is waiting: shorter than a push.
const PATIENCE: Duration = Duration::from_secs(10);

pub async fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
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
        // Without it nothing can be chosen by it.
        Err(error) if args.state.is_some() => return Err(Failure::failed(&error)),
        // The list is worth having without it.
        Err(error) => eprintln!("longhaul: {error}"),
    }
    if let Some(state) = args.state {
        objects.retain(|object| state.holds(object.delivery.as_ref()));
    }
    if cli.json {
        println!("{}", serde_json::json!({ "objects": objects }));
        return Ok(Exit::Ok);
    }
    if args.folders {
        print_folders(&objects, &args.prefix);
    } else {
        for object in &objects {
            print_object(object, args.long);
        }
    }
    // For people; programs count lines.
    if std::io::stdout().is_terminal() {
        println!("{}", total(&objects));
    }
    Ok(Exit::Ok)
}

fn print_object(object: &Listed, long: bool) {
    let modified = match (&object.modified, long) {
        (Some(modified), true) => format!("{modified}  "),
        (None, true) => format!("{:20}  ", "-"),
        (_, false) => String::new(),
    };
    let state = delivery(object.delivery.as_ref());
    println!(
        "{:>9}  {modified}{state:9}  {}",
        bytes(object.size),
        printable(&object.key)
    );
}

fn print_folders(objects: &[Listed], prefix: &str) {
    let mut folders: BTreeMap<String, Vec<&Listed>> = BTreeMap::new();
    for object in objects {
        folders
            .entry(folder_of(&object.key, prefix))
            .or_default()
            .push(object);
    }
    for (folder, objects) in folders {
        let size = objects.iter().map(|o| o.size).sum();
        let verified = |o: &&&Listed| o.delivery == Some(Delivery::Verified);
        let verified = objects.iter().filter(verified).count() as u64;
        println!(
            "{:>9}  {:>12}, {verified} verified  {}",
            bytes(size),
            count(objects.len() as u64, "object"),
            printable(&folder)
        );
    }
}

/// The first folder of a key after `prefix`, or the key itself where it lies in none.
fn folder_of(key: &str, prefix: &str) -> String {
    let rest = key.strip_prefix(prefix).unwrap_or(key);
    match rest.find('/') {
        Some(end) => format!("{prefix}{}", &rest[..=end]),
        None => key.to_owned(),
    }
}

fn total(objects: &[Listed]) -> String {
    let size = objects.iter().map(|o| o.size).sum();
    let mut states: BTreeMap<&str, u64> = BTreeMap::new();
    for object in objects {
        let word = match &object.delivery {
            Some(Delivery::Failed { .. }) => "failed",
            Some(Delivery::OnBox) => "on box",
            Some(Delivery::InFlight) => "in flight",
            Some(Delivery::InCloud) => "in cloud",
            Some(Delivery::Verified) => "verified",
            None => "unknown",
        };
        *states.entry(word).or_default() += 1;
    }
    let states: Vec<String> = states
        .iter()
        .map(|(word, n)| format!("{n} {word}"))
        .collect();
    let objects = count(objects.len() as u64, "object");
    format!("{objects}, {}: {}", bytes(size), states.join(", "))
        .trim_end_matches(": ")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(key: &str, delivery: Delivery) -> Listed {
        Listed {
            key: key.to_owned(),
            size: 1000,
            etag: "e".to_owned(),
            modified: None,
            delivery: Some(delivery),
        }
    }

    #[test]
    fn totals_and_folders_are_named() {
        let objects = [
            object("p/a/b", Delivery::Verified),
            object("p/c", Delivery::OnBox),
        ];

        assert_eq!(total(&objects), "2 objects, 2.00 kB: 1 on box, 1 verified");
        assert_eq!(total(&[]), "0 objects, 0 B");
        assert_eq!(folder_of("p/a/b", "p/"), "p/a/");
        assert_eq!(folder_of("p/c", "p/"), "p/c");
        assert!(State::Pending.holds(Some(&Delivery::OnBox)));
        assert!(!State::Pending.holds(Some(&Delivery::Verified)));
    }
}
