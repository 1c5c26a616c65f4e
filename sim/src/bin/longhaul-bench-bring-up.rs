//! Measures how long a box takes to name what is wrong with a network, and to come back.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use longhaul_sim::bench::row::{Origin, Row, merged, rounded};
use longhaul_sim::bench::{chain, cpu};
use longhaul_sim::lab::{self, Expect, Fault, Lab, Reading};
use longhaul_sim::system::Programs;

/// What the first failing rung may take to be known, after a change and after power-on.
const TO_DIAGNOSIS_SECS: f64 = 10.0;
const TO_ONLINE_SECS: f64 = 60.0;

/// Measure the bring-up in every bad network; `make bench-bringup` runs this. Needs root.
#[derive(Debug, Parser)]
#[command(name = "longhaul-bench-bring-up", version)]
struct Cli {
    /// Where the results go; without it they are only shown.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where cloud and box live meanwhile; emptied first.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Day of the measurement, UTC, as `date -u +%Y-%m-%d` prints it.
    #[arg(long, value_name = "DATE")]
    date: String,
    /// The command that a reader runs to measure the same.
    #[arg(long, value_name = "TEXT", default_value = "make bench-bringup")]
    command: String,
}

struct Measured {
    online: Duration,
    states: Vec<State>,
}

/// A fault, and how long it took to be named and to be recovered from; or why it was not.
type State = (Fault, Result<(Duration, Duration), String>);

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("longhaul-bench-bring-up: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// False if a state was not named, or not recovered from.
fn run(cli: &Cli) -> Result<bool, Box<dyn Error>> {
    if !lab::enter()? {
        return Ok(true);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let measured = runtime.block_on(measure(&cli.work))?;
    let origin = Origin {
        command: cli.command.clone(),
        cores: std::thread::available_parallelism()?.get(),
        date: cli.date.clone(),
    };
    let rows = rows(&measured, &origin);
    if let Some(out) = &cli.out {
        let path = out.join("bring-up.json");
        let old: Vec<Row> = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => Vec::new(),
        };
        let all = merged(old, rows);
        std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
        std::fs::write(out.join("bring-up.md"), page(&measured, &origin)?)?;
    }
    Ok(measured.states.iter().all(|(_, outcome)| outcome.is_ok()))
}

async fn measure(work: &Path) -> Result<Measured, Box<dyn Error>> {
    if work.exists() {
        std::fs::remove_dir_all(work)?;
    }
    let begun = Instant::now();
    let mut lab = Lab::start(work, Programs::find()?).await?;
    println!(
        "the lab stands after {:.1} s",
        begun.elapsed().as_secs_f32()
    );
    let powered = Instant::now();
    lab.restart_box().await?;
    lab.admit().await?;
    lab.plug().await?;
    lab.shows(&Reading::Well).await?;
    let online = powered.elapsed();
    println!("online {:.1} s after power-on", online.as_secs_f32());
    let mut states = Vec::new();
    for fault in Fault::ALL {
        let outcome = lab.suffer(fault).await;
        let outcome = outcome
            .map(|outcome| (outcome.diagnosed, outcome.recovered))
            .map_err(|error| chain(&error));
        match &outcome {
            Ok((diagnosed, recovered)) => println!(
                "{:<45} {:>5.1} s {:>5.1} s",
                fault.title(),
                diagnosed.as_secs_f32(),
                recovered.as_secs_f32()
            ),
            Err(text) => println!("{}: {text}", fault.title()),
        }
        let failed = outcome.is_err();
        states.push((fault, outcome));
        if failed {
            // What is left of a fault would count against the next one.
            lab = Lab::start_over(lab, work).await?;
        }
    }
    Ok(Measured { online, states })
}

fn rows(measured: &Measured, origin: &Origin) -> Vec<Row> {
    let row = |metric: String, value: Duration, target: Option<f64>| {
        let value = rounded(value.as_secs_f64());
        Row {
            metric,
            value,
            unit: "s".to_owned(),
            target,
            met: target.map(|target| value <= target),
            beside: None,
            beside_value: None,
            ratio: None,
            command: origin.command.clone(),
            cores: origin.cores,
            date: origin.date.clone(),
        }
    };
    let mut rows = vec![row(
        "power-on to online".to_owned(),
        measured.online,
        Some(TO_ONLINE_SECS),
    )];
    for (fault, outcome) in &measured.states {
        if let Ok((diagnosed, recovered)) = outcome {
            // Online by another way is no diagnosis: it has the whole bring-up in it.
            let (what, target) = match fault.expect() {
                Expect::Code(_) => ("to diagnosis", Some(TO_DIAGNOSIS_SECS)),
                Expect::Online => ("to online", Some(TO_ONLINE_SECS)),
            };
            rows.push(row(
                format!("{}: {what}", fault.title()),
                *diagnosed,
                target,
            ));
            rows.push(row(
                format!("{}: to recovery", fault.title()),
                *recovered,
                None,
            ));
        }
    }
    rows
}

fn page(measured: &Measured, origin: &Origin) -> Result<String, Box<dyn Error>> {
    let (processor, _) = cpu::machine()?;
    let mut text = format!(
        "# Bring-up: what is wrong, and how soon it is known\n\n\
         Written by the program; nothing here is typed in. `{}` measures it again (needs root). {}, {processor}, {} cores. A box, a router and an internet in network namespaces; every state is brought about for real. Diagnosis\n\
         counts from the plug, or from the fault where it hits a box that runs; recovery counts from its end, and nobody touches the box.\n\n\
         From power-on to online: {:.1} s.\n\n\
         | state | the box shows | to diagnosis (s) | to recovery (s) |\n|---|---|---|---|\n",
        origin.command,
        origin.date,
        origin.cores,
        measured.online.as_secs_f64()
    );
    for (fault, outcome) in &measured.states {
        let shows = match fault.expect() {
            Expect::Code(code) => code,
            Expect::Online => "online",
        };
        match outcome {
            Ok((diagnosed, recovered)) => writeln!(
                text,
                "| {} | {shows} | {:.1} | {:.1} |",
                fault.title(),
                diagnosed.as_secs_f64(),
                recovered.as_secs_f64()
            )?,
            Err(_) => writeln!(text, "| {} | not {shows} | | |", fault.title())?,
        }
    }
    Ok(text)
}
