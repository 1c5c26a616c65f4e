//! `longhaul verify`.

use std::path::PathBuf;

use longhaul_sdk::load_ended_ticket;
use longhaul_sdk::protocol::ids::BoxId;
use longhaul_sdk::receipts::{self, Anchors, Finding, Proven, Verdict};

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::human::printable;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A file or folder to compare with its receipts; without --receipt, a file of receipts
    pub path: PathBuf,
    /// The file of receipts, as `longhaul receipt` wrote it
    #[arg(long, value_name = "FILE")]
    pub receipt: Option<PathBuf>,
    /// The fleet's root certificate
    #[arg(long, env = "LONGHAUL_ROOT", value_name = "FILE")]
    pub root: Option<PathBuf>,
    /// Without --root: a ticket, which has the root; receipts must be of its box
    #[arg(long, env = "LONGHAUL_TICKET", value_name = "FILE")]
    pub ticket: Option<PathBuf>,
    /// Accept only receipts of this box
    #[arg(long, value_name = "BOX")]
    pub of_box: Option<BoxId>,
    /// Folder in the bucket that the folder was sent to
    #[arg(long, default_value = "", value_name = "FOLDER")]
    pub prefix: String,
    /// Accept only what the cloud has signed as compared in the bucket
    #[arg(long)]
    pub delivered: bool,
}

pub fn run(cli: &Cli, args: &Args) -> Result<Exit, Failure> {
    let (anchors, of_box) = trusted(args)?;
    let file = args.receipt.as_ref().unwrap_or(&args.path);
    let proven = receipts::read(file, &anchors, of_box.as_ref());
    let proven = proven.map_err(|e| Failure::failed(&e))?;
    let findings = match &args.receipt {
        None => Vec::new(),
        Some(_) if args.path.is_dir() => {
            let found = receipts::compare_folder(&args.path, &args.prefix, &proven);
            found.map_err(|e| Failure::failed(&e))?
        }
        Some(_) => vec![receipts::compare_file(&args.path, &proven)],
    };
    let undelivered: Vec<&Proven> = match &args.receipt {
        None if args.delivered => proven.iter().filter(|p| p.verified.is_none()).collect(),
        _ => Vec::new(),
    };
    let holds = |finding: &Finding| match &finding.verdict {
        Verdict::Same { in_cloud } => *in_cloud || !args.delivered,
        _ => false,
    };
    let failed = findings.iter().filter(|f| !holds(f)).count() + undelivered.len();
    let in_cloud = proven.iter().filter(|p| p.verified.is_some()).count();
    if cli.json {
        let files: Vec<_> = findings.iter().map(json).collect();
        let document = serde_json::json!({
            "receipts": proven.len(), "in_cloud": in_cloud, "files": files, "failed": failed,
        });
        println!("{document}");
    } else {
        for finding in findings.iter().filter(|f| !holds(f)) {
            println!("{:12}  {}", word(&finding.verdict), finding.path.display());
        }
        for one in &undelivered {
            println!("not in cloud  {}", printable(one.leaf.object.key.as_str()));
        }
        println!(
            "{} receipts hold: {in_cloud} signed by the cloud, the others by the box alone",
            proven.len()
        );
        if args.receipt.is_some() {
            println!(
                "{} files are the same, {failed} are not",
                findings.len() - failed
            );
        }
    }
    Ok(if failed == 0 {
        Exit::Ok
    } else {
        Exit::SomeFailed
    })
}

/// The root to trust, and the box that receipts must be of.
fn trusted(args: &Args) -> Result<(Anchors, Option<BoxId>), Failure> {
    match (&args.root, &args.ticket) {
        (Some(root), _) => {
            let anchors = receipts::read_root(root).map_err(|e| Failure::failed(&e))?;
            Ok((anchors, args.of_box.clone()))
        }
        (None, Some(path)) => {
            let ticket = load_ended_ticket(path)?;
            let anchors = receipts::root_of(&ticket, path).map_err(|e| Failure::failed(&e))?;
            Ok((anchors, Some(args.of_box.clone().unwrap_or(ticket.box_id))))
        }
        (None, None) => Err(Failure::usage(
            "say which root to trust: --root FILE, or --ticket FILE",
        )),
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Same { in_cloud: true } => "same",
        Verdict::Same { in_cloud: false } => "not in cloud",
        Verdict::Changed => "changed",
        Verdict::Missing => "missing",
        Verdict::NoReceipt => "no receipt",
        Verdict::Unreadable(_) => "unreadable",
    }
}

fn json(finding: &Finding) -> serde_json::Value {
    let why = match &finding.verdict {
        Verdict::Unreadable(why) => Some(why),
        _ => None,
    };
    serde_json::json!({
        "path": finding.path.to_string_lossy(), "key": finding.key,
        "verdict": word(&finding.verdict), "why": why,
    })
}
