//! Measures what thousands of boxes cost, beside mosquitto, and writes it down.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use longhaul_protocol::value::UnixMillis;
use longhaul_sim::bench::files::{write_detail, write_rows};
use longhaul_sim::bench::row::Origin;
use longhaul_sim::bench::{chain, report};
use longhaul_sim::fleet::scenario::{Scenario, Stage, carry_out};
use longhaul_sim::fleet::{Settings, Topic, measure};

/// Measure many simulated boxes; `make bench-fleet` runs this.
#[derive(Debug, Parser)]
#[command(name = "longhaul-bench-fleet", version)]
struct Cli {
    /// Few boxes, one run: to see that everything works. Its numbers mean nothing.
    #[arg(long)]
    quick: bool,
    /// Measure only this; may be repeated.
    #[arg(long, value_name = "TOPIC", value_enum)]
    only: Vec<Topic>,
    /// Boxes that are connected at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 10_000)]
    boxes: usize,
    /// An empty PostgreSQL database, to measure journals on; it is left as it then is.
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
    /// Where the results go; without it they are only shown.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the systems under test live meanwhile.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// The time now, in seconds since 1970, as `date +%s` prints it.
    #[arg(long, value_name = "SECONDS")]
    now: i64,
    /// Play this scenario instead of measuring (see `sim/scenarios`); how it went is shown.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["only", "out"])]
    scenario: Option<PathBuf>,
    /// The command that a reader runs to measure the same.
    #[arg(long, value_name = "TEXT", default_value = "make bench-fleet")]
    command: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("longhaul-bench-fleet: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// False if something could not be measured.
async fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    let cores = std::thread::available_parallelism()?.get();
    let date = jiff::Timestamp::from_second(cli.now)?;
    let size = |full: usize, quick: usize| if cli.quick { quick } else { full };
    let settings = Settings {
        runs: size(3, 1),
        boxes: size(cli.boxes, 400),
        connects: size(5_000, 300),
        seconds: Duration::from_secs(if cli.quick { 1 } else { 10 }),
        minute: Duration::from_secs(if cli.quick { 5 } else { 60 }),
        commands: size(300, 20),
        postgres: cli.postgres.clone(),
        folder: cli.work.clone(),
        now: UnixMillis(cli.now.saturating_mul(1000)),
        origin: Origin {
            command: cli.command.clone(),
            cores,
            date: date.strftime("%Y-%m-%d").to_string(),
        },
    };
    let topics = if cli.only.is_empty() {
        Topic::ALL.to_vec()
    } else {
        cli.only.clone()
    };
    if let Some(file) = &cli.scenario {
        let scenario = Scenario::read(file)?;
        println!("{} ({} boxes)", scenario.title, scenario.boxes);
        let stage = Stage {
            folder: cli.work.join("scenario"),
            database: cli.postgres.clone(),
            now: settings.now,
        };
        carry_out(&scenario, &stage).await?;
        return Ok(true);
    }
    let (mut rows, mut all) = (Vec::new(), true);
    for topic in topics {
        println!("{}", topic.name());
        match measure(topic, &settings).await {
            Ok(found) => {
                rows.extend(found.rows);
                if let Some(out) = &cli.out {
                    write_detail(out, &found.detail, &settings.origin.date)?;
                    // What is measured is not lost if the next topic fails.
                    write_rows(out, "fleet", &report::FLEET, rows.clone(), cores)?;
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
