//! Measures what a transfer costs, beside the tools that people use today, and writes it down.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use longhaul_sim::bench::files::{write_detail, write_rows};
use longhaul_sim::bench::report;
use longhaul_sim::bench::row::Origin;
use longhaul_sim::bench::{Settings, Topic, chain, measure};

/// Measure the transfer beside its peers; `make bench-transfer` runs this.
#[derive(Debug, Parser)]
#[command(name = "longhaul-bench", version)]
struct Cli {
    /// Little data, one run: to see that everything works. Its numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Measure only this; may be repeated.
    #[arg(long, value_name = "TOPIC", value_enum)]
    only: Vec<Topic>,
    /// Where the results go; without it they are only shown.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the systems under test live meanwhile; on the disk that is to be measured.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The time now, UTC, as `date -u +%Y%m%dT%H%M%SZ` prints it.
    #[arg(long, value_name = "TIME", value_parser = time)]
    now: String,
    /// Seed of the files' contents.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The command that a reader runs to measure the same.
    #[arg(long, value_name = "TEXT", default_value = "make bench-transfer")]
    command: String,
}

fn time(text: &str) -> Result<String, String> {
    let digits = |range: std::ops::Range<usize>| {
        text.get(range)
            .is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()))
    };
    let fits = text.len() == 16
        && digits(0..8)
        && text.get(8..9) == Some("T")
        && digits(9..15)
        && text.ends_with('Z');
    fits.then(|| text.to_owned())
        .ok_or_else(|| "it looks like 20260102T030405Z".to_owned())
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("longhaul-bench: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// False if something could not be measured.
async fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let day = (&cli.now[..4], &cli.now[4..6], &cli.now[6..8]);
    let settings = Settings {
        quick: cli.quick,
        folder: cli.work.clone(),
        seed: cli.seed,
        now: cli.now.clone(),
        origin: Origin {
            command: cli.command.clone(),
            cores,
            date: format!("{}-{}-{}", day.0, day.1, day.2),
        },
    };
    let topics = if cli.only.is_empty() {
        Topic::ALL.to_vec()
    } else {
        cli.only.clone()
    };
    let (mut rows, mut all) = (Vec::new(), true);
    for topic in topics {
        println!("{}", topic.name());
        match measure(topic, &settings).await {
            Ok(found) => {
                rows.extend(found.rows);
                if let Some(out) = &cli.out {
                    write_detail(out, &found.detail, &settings.origin.date)?;
                    // What is measured is not lost if the next topic fails.
                    write_rows(out, "transfer", &report::TRANSFER, rows.clone(), cores)?;
                }
            }
            Err(error) => {
                all = false;
                eprintln!("{} was not measured: {}", topic.name(), chain(&error));
            }
        }
    }
    println!("\n{}", report::terminal(&rows));
    Ok(all)
}
