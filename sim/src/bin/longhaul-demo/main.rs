//! The demo: the whole journey on this machine, from nothing to verified objects in the bucket.
//!
//! Every step is real: programs, TLS, attestation against a software TPM, S3, object store. It
//! leaves everything running and says what to try; `--once` ends after the table instead.

mod updates;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use longhaul_sim::files::{self, Digests, FolderPlan};
use longhaul_sim::operator::Operator;
use longhaul_sim::process::Process;
use longhaul_sim::system::{CloudReady, Programs, Stage, SystemError, online};
use serde_json::json;

/// The bucket that the demo delivers to.
const BUCKET: &str = "survey-2026";
/// What the demo's box may hold.
const VAULT_BYTES: u64 = 4 << 30;

/// Run the whole of Longhaul on this machine, step by step.
#[derive(Debug, Parser)]
#[command(name = "longhaul-demo", version)]
struct Cli {
    /// End after the steps; exit 0 only if every one held.
    #[arg(long)]
    once: bool,
    /// Where everything is kept; made anew at every start.
    #[arg(long, env = "LONGHAUL_DEMO", default_value = "/tmp/longhaul-demo")]
    folder: PathBuf,
    /// Number of small files to push.
    #[arg(long, default_value_t = 2000)]
    small_files: usize,
    /// Length of the large file, in MiB.
    #[arg(long, default_value_t = 256)]
    large_mib: u64,
    /// Take any free ports instead of 8443, 8444, 8883 and 9000.
    #[arg(long)]
    any_ports: bool,
}

/// One line of the table.
struct Done {
    step: &'static str,
    seconds: f64,
    seen: String,
}

/// Prints each step as it is done and keeps it for the table.
#[derive(Default)]
struct Journey(Vec<Done>);

impl Journey {
    async fn step<T>(
        &mut self,
        step: &'static str,
        work: impl Future<Output = Result<(T, String), SystemError>>,
    ) -> Result<T, SystemError> {
        let start = Instant::now();
        let result = work.await;
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok((value, seen)) => {
                println!("  ok  {seconds:7.2} s  {step}: {seen}");
                self.0.push(Done {
                    step,
                    seconds,
                    seen,
                });
                Ok(value)
            }
            Err(error) => {
                println!("FAILED {seconds:6.2} s  {step}");
                Err(error)
            }
        }
    }

    fn table(&self) {
        println!("\n{:>9}  {:<34}  what happened", "time", "step");
        for done in &self.0 {
            println!("{:>7.2} s  {:<34}  {}", done.seconds, done.step, done.seen);
        }
        let total: f64 = self.0.iter().map(|d| d.seconds).sum();
        println!("{total:>7.2} s  in all");
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut running = Vec::new();
    let mut journey = Journey::default();
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    let result = tokio::select! {
        result = travel(&cli, &mut journey, &mut running) => result.map(Some),
        _ = &mut stop => Ok(None),
    };
    let code = match result {
        Ok(Some(hints)) => {
            journey.table();
            if !cli.once {
                println!("\n{hints}\nCtrl-C stops everything.");
                let _ = stop.await;
            }
            ExitCode::SUCCESS
        }
        Ok(None) => {
            println!("\nstopped");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!(
                "\n{}\nlogs: {}",
                chain(&error),
                cli.folder.join("log").display()
            );
            ExitCode::FAILURE
        }
    };
    // Last started, first stopped: the box says farewell while the cloud still listens.
    let mut left = code;
    for process in running.into_iter().rev() {
        if let Err(error) = process.stop().await {
            eprintln!("{}", chain(&error));
            left = ExitCode::FAILURE;
        }
    }
    left
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn travel(
    cli: &Cli,
    journey: &mut Journey,
    running: &mut Vec<Process>,
) -> Result<String, SystemError> {
    // What an earlier run left is of no use to this one: its cloud, its TPM and its box are gone.
    if cli.folder.join("log").is_dir() {
        std::fs::remove_dir_all(&cli.folder).map_err(|source| SystemError::File {
            path: cli.folder.clone(),
            source,
        })?;
    }
    let stage = Stage::new(&cli.folder, Programs::find()?)?;
    println!(
        "Longhaul demo; everything is kept in {}\n",
        stage.folder.display()
    );

    let ports = (!cli.any_ports).then_some([8443, 8444, 8883, 9000]);
    let cloud = journey
        .step("cloud starts", async {
            let (process, ready) = stage.cloud(ports).await?;
            running.push(process);
            let seen = format!("{}, MQTT on {}", ready.people_url, ready.mqtt_port);
            Ok((ready, seen))
        })
        .await?;
    let (name, password) = stage.first_admin()?;
    let operator = journey
        .step("operator logs in", async {
            let operator =
                Operator::log_in(&cloud.people_url, &cloud.root_pem, &name, &password).await?;
            Ok((
                operator,
                format!("{name}, password from the cloud's first start"),
            ))
        })
        .await?;
    let tcti = journey
        .step("software TPM is made", async {
            let (process, tcti) = stage.software_tpm().await?;
            running.push(process);
            let seen = format!("{tcti}, with an endorsement certificate");
            Ok((tcti, seen))
        })
        .await?;
    let box_id = journey
        .step("factory makes a box", async {
            let repository = stage.make_repository().await?;
            let id = stage.make_box(&cloud, &tcti, Some(&repository)).await?;
            stage.import(&operator, &id).await?;
            let seen = format!("{id}; record in the inventory, releases 3-of-5 rooted");
            Ok((id, seen))
        })
        .await?;
    let mut process = stage.start_box(&tcti, VAULT_BYTES, 0)?;
    let came = journey
        .step("box enrols and comes online", async {
            let detail = online(&operator, &box_id, &mut process).await?;
            let rungs = detail["box"]["rungs"].as_array().map_or(0, Vec::len);
            Ok((
                (),
                format!("{rungs} rungs, attested, MQTT 5 with its TPM key"),
            ))
        })
        .await;
    running.push(process);
    came?;
    obey(&operator, &box_id, journey).await?;
    let (ticket, folder, digests) = prepare(cli, &stage, &operator, &box_id, journey).await?;
    carry(&stage, &operator, (&ticket, &folder, &digests), journey).await?;
    updates::update(&stage, &operator, (&box_id, &ticket), journey).await?;
    Ok(hints(
        &cloud,
        &stage,
        (&name, &password),
        (&box_id, &ticket),
    ))
}

/// The operator commands, the box obeys.
async fn obey(operator: &Operator, box_id: &str, journey: &mut Journey) -> Result<(), SystemError> {
    let commands = [
        (
            "command: identify",
            json!({"kind": "identify", "seconds": 5}),
        ),
        (
            "command: set telemetry interval",
            json!({"kind": "set_telemetry_interval", "seconds": 2}),
        ),
        ("command: report now", json!({"kind": "report_now"})),
    ];
    for (step, body) in commands {
        journey
            .step(step, async {
                let ended = operator.command(box_id, &body).await?;
                let state = ended["state"].as_str().unwrap_or("nothing").to_owned();
                if state != "done" {
                    return Err(SystemError::Unexpected {
                        what: step,
                        text: ended.to_string(),
                    });
                }
                Ok(((), "signed, accepted, done".to_owned()))
            })
            .await?;
    }
    journey
        .step("telemetry arrives", async {
            let limit = Duration::from_mins(1);
            let load = longhaul_sim::wait::until("telemetry", limit, || async {
                let detail = operator
                    .box_detail(box_id)
                    .await
                    .map_err(|e| e.to_string())?;
                let sample = &detail["telemetry"];
                sample["load_1m"]
                    .as_f64()
                    .ok_or_else(|| detail["telemetry_at"].to_string())
            });
            Ok(((), format!("load {:.2}", load.await?)))
        })
        .await
}

/// A ticket, and a folder to push.
async fn prepare(
    cli: &Cli,
    stage: &Stage,
    operator: &Operator,
    box_id: &str,
    journey: &mut Journey,
) -> Result<(PathBuf, PathBuf, Digests), SystemError> {
    let ticket = journey
        .step("ticket is downloaded", async {
            let path = stage.path("ticket.json");
            let text = operator.ticket(box_id, BUCKET).await?;
            // Without the addresses that the box told the cloud, only mDNS can find it.
            let mut ticket: serde_json::Value =
                serde_json::from_str(&text).map_err(|e| SystemError::Unexpected {
                    what: "the ticket is JSON",
                    text: e.to_string(),
                })?;
            ticket["lan_urls"] = json!([]);
            let text = ticket.to_string();
            std::fs::write(&path, text).map_err(|source| SystemError::File {
                path: path.clone(),
                source,
            })?;
            let seen = path.display().to_string();
            Ok((path, seen))
        })
        .await?;
    let folder = stage.path("customer");
    let plan = FolderPlan {
        small: cli.small_files,
        small_bytes: (1_000, 20_000),
        large_bytes: cli.large_mib << 20,
        seed: 7,
    };
    let digests = journey
        .step("customer's folder is made", async {
            let digests = files::make(&folder, plan).map_err(|source| SystemError::File {
                path: folder.clone(),
                source,
            })?;
            let seen = format!(
                "{} small files and one of {} MiB",
                plan.small, cli.large_mib
            );
            Ok((digests, seen))
        })
        .await?;
    Ok((ticket, folder, digests))
}

/// The customer pushes, the box delivers, every object is read back.
async fn carry(
    stage: &Stage,
    operator: &Operator,
    (ticket, folder, digests): (&Path, &Path, &Digests),
    journey: &mut Journey,
) -> Result<(), SystemError> {
    let push = |name: &'static str, wait: bool| {
        let mut arguments = vec![
            "push".to_owned(),
            format!("--ticket={}", ticket.display()),
            "--prefix=survey".to_owned(),
            "--json".to_owned(),
        ];
        if wait {
            arguments.push("--wait".to_owned());
        }
        arguments.push(folder.display().to_string());
        stage.run(name, "longhaul", arguments)
    };
    journey
        .step("customer pushes; safe on box", async {
            push("push", false).await?;
            Ok((
                (),
                format!("{} files found their box by mDNS", digests.len()),
            ))
        })
        .await?;
    journey
        .step("box delivers; safe in cloud", async {
            push("push-wait", true).await?;
            Ok(((), "presigned multipart, compared in the bucket".to_owned()))
        })
        .await?;
    journey
        .step("every object is read back", async {
            let listed = operator.objects(BUCKET, "survey/").await?;
            if listed.len() != digests.len() {
                let text = format!("{} of {}", listed.len(), digests.len());
                return Err(SystemError::Unexpected {
                    what: "objects in the bucket",
                    text,
                });
            }
            for (name, digest) in digests {
                let key = format!("survey/{name}");
                if operator.object_digest(BUCKET, &key).await? != *digest {
                    return Err(SystemError::Unexpected {
                        what: "an object differs",
                        text: key,
                    });
                }
            }
            Ok(((), format!("{} objects, byte for byte", digests.len())))
        })
        .await
}

fn hints(
    cloud: &CloudReady,
    stage: &Stage,
    (name, password): (&str, &str),
    (box_id, ticket): (&str, &Path),
) -> String {
    let (url, root) = (&cloud.people_url, cloud.root_pem.display());
    let (ticket, longhaul) = (ticket.display(), stage.program("longhaul"));
    let longhaul = longhaul.display();
    format!(
        "Everything is still running. Try:\n\
         \x20 dashboard   {url}/  (log in as {name} with {password})\n\
         \x20 API         curl --cacert {root} {url}/healthz\n\
         \x20 box         {longhaul} doctor --ticket {ticket}\n\
         \x20 any S3      eval \"$({longhaul} s3-env --ticket {ticket})\" && \
         aws s3 cp README.md s3://{BUCKET}/README.md\n\
         \x20 box's name  {box_id}\n\
         \x20 logs        {}",
        stage.path("log").display()
    )
}
