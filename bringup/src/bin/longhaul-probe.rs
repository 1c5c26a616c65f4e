//! `longhaul-probe`: would a box come online in this network, and if not, why?

use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use longhaul_bringup::probe::{Probe, page};
use longhaul_bringup::proxy::Proxy;
use longhaul_bringup::text::chain;
use longhaul_protocol::probe::{MAX_TICKET_FILE, ProbeReport, SignedReport};
use longhaul_protocol::value::Jws;
use longhaul_provisioning::probe as tickets;

/// A box would come online here.
const WELL: u8 = 0;
/// It would not, or only badly.
const FOUND: u8 = 1;
/// The ticket, or what was asked for, cannot be used.
const UNUSABLE: u8 = 2;
/// The report could not be written.
const UNWRITTEN: u8 = 3;

const AFTER: &str = "\
What is written, into the folder of --out:
  longhaul-probe-ORDER.html    the report to read, in any browser
  longhaul-probe-ORDER.json    the same for programs
  longhaul-probe-ORDER.report  the same, signed: upload it at the order where the probe could not

Exit codes:
  0  a box would come online here
  1  it would not, or only badly: the report says why and what to do
  2  the ticket or an option cannot be used
  3  the report could not be written

The probe sends nothing but to the cloud that the ticket names, to this network's DNS servers, a
multicast question to this LAN, and to the servers that the ticket names to tell whose fault it is.
As root it also asks neighbours on the wire (ARP); without, it makes do with less.";

/// Looks at this network as a box would, and says whether it would come online.
#[derive(Parser)]
#[command(name = "longhaul-probe", version, after_help = AFTER)]
struct Options {
    /// The probe's ticket, downloaded at the order.
    ticket: PathBuf,
    /// Go through this HTTP proxy, `http://[user:password@]host:port`.
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
    /// Where the report is written.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    out: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Do not send the report to the cloud.
    #[arg(long)]
    no_upload: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    longhaul_bringup::text::own_resolver();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => failed(UNUSABLE, &error),
    };
    ExitCode::from(code)
}

async fn run(options: &Options) -> u8 {
    let opened = read(&options.ticket).and_then(|bytes| Ok(tickets::open(&bytes)?));
    let (ticket, claims) = match opened {
        Ok(opened) => opened,
        Err(error) => return failed(UNUSABLE, &*error),
    };
    let Jws(compact) = &ticket.ticket;
    let looked = async {
        let probe = Probe::new(&claims, compact, options.proxy.clone())?;
        let report = probe.run().await?;
        Ok::<_, Box<dyn Error>>((probe, report))
    };
    let (probe, report) = match looked.await {
        Ok(looked) => looked,
        Err(error) => return failed(UNUSABLE, &*error),
    };
    let signed = match tickets::sign(&ticket, &report) {
        Ok(signed) => signed,
        Err(error) => return failed(UNUSABLE, &error),
    };
    let order = claims.order.as_str();
    let written = match write(&options.out, order, &report, &signed) {
        Ok(written) => written,
        Err(error) => return failed(UNWRITTEN, &*error),
    };
    let sent = if options.no_upload {
        "was not sent, as was asked".to_owned()
    } else {
        send(&probe, &signed).await
    };
    let said = if options.json {
        serde_json::to_string_pretty(&report).map(|text| text + "\n")
    } else {
        Ok(words(order, &report, &written, &sent))
    };
    let said = said.unwrap_or_default();
    // Whoever closed the pipe has read enough.
    let _ = std::io::stdout().write_all(said.as_bytes());
    if report.findings.is_empty() {
        WELL
    } else {
        FOUND
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    use std::io::Read as _;
    let unreadable = |e| format!("failed to read ticket {}: {e}", path.display());
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_TICKET_FILE)? + 1;
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

/// Writes the three files; yields the page's path.
fn write(
    out: &Path,
    order: &str,
    report: &ProbeReport,
    signed: &SignedReport,
) -> Result<PathBuf, Box<dyn Error>> {
    let path = |ending: &str| out.join(format!("longhaul-probe-{order}.{ending}"));
    let put = |path: &Path, bytes: &[u8]| {
        std::fs::write(path, bytes).map_err(|e| format!("failed to write {}: {e}", path.display()))
    };
    let html = path("html");
    put(&html, page::page(order, report).as_bytes())?;
    put(&path("json"), &serde_json::to_vec_pretty(report)?)?;
    put(&path("report"), &serde_json::to_vec_pretty(signed)?)?;
    Ok(html)
}

async fn send(probe: &Probe<'_>, signed: &SignedReport) -> String {
    let Ok(body) = serde_json::to_vec(signed) else {
        return "was not sent".to_owned();
    };
    match probe.send(&body).await {
        Ok(Ok(answer)) if (200..300).contains(&answer.status) => "was sent to the order".to_owned(),
        Ok(Ok(answer)) => format!(
            "was refused ({}): {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
                .chars()
                .take(300)
                .collect::<String>()
        ),
        Ok(Err(error)) => {
            format!("could not be sent ({error}): upload the .report file at the order")
        }
        Err(error) => format!("could not be sent ({error})"),
    }
}

fn words(order: &str, report: &ProbeReport, written: &Path, sent: &str) -> String {
    let mut lines = Vec::new();
    if report.findings.is_empty() {
        lines.push("A box would come online here.".to_owned());
    }
    for finding in &report.findings {
        let entry = finding.code.entry();
        lines.push(format!(
            "{} {}: {}",
            finding.code, entry.title, entry.customer
        ));
        lines.push(format!("    seen: {}", finding.evidence));
    }
    lines.push(String::new());
    for (name, text) in page::facts(report) {
        lines.push(format!("{name:<24}  {text}"));
    }
    for way in &report.egress {
        let state = if way.open { "open" } else { "shut" };
        lines.push(format!(
            "{:<24}  {state} ({})",
            format!("{}:{}", way.host, way.port),
            way.what
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "The report for order {order} is in {}; it {sent}.",
        written.display()
    ));
    // A terminal obeys control characters, and some of this comes from the network.
    let text = lines.join("\n") + "\n";
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}

fn failed(code: u8, error: &dyn Error) -> u8 {
    eprintln!("longhaul-probe: {}", chain(error));
    code
}
