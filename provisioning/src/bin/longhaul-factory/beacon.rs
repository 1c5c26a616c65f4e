//! `longhaul-factory beacon`: says, signed, how the cloud is.

use std::error::Error;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use longhaul_protocol::beacon::{Beacon, BeaconState};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::files;
use longhaul_provisioning::jws::{Kind, Signer};

#[derive(Args)]
pub struct Sign {
    /// Directory of the authorities.
    #[arg(long, env = "LONGHAUL_PKI")]
    pki: PathBuf,
    /// How the cloud is.
    #[arg(long)]
    state: State,
    /// A sentence for people.
    #[arg(long, default_value = "")]
    text: String,
    /// From when on it says nothing any more, in hours from now.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=24 * 30))]
    hours: u16,
    /// The file to be served.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    Well,
    Trouble,
}

pub fn run(order: &Sign, now: UnixMillis) -> Result<(), Box<dyn Error>> {
    let secs = u64::from(order.hours) * 3_600;
    let beacon = Beacon {
        v: VERSION,
        state: match order.state {
            State::Well => BeaconState::Well,
            State::Trouble => BeaconState::Trouble,
        },
        text: order.text.clone(),
        made_at: now,
        expires: now.plus_millis(i64::from(order.hours) * 3_600_000),
    };
    let pki = Pki::open(&order.pki)?;
    let signer = Signer::new(&pki.issue_statement_signer("status", secs + 3_600, now)?)?;
    let Jws(compact) = signer.sign(Kind::Beacon, &serde_json::to_vec(&beacon)?)?;
    files::write(&order.out, compact.as_bytes())?;
    println!("{}", order.out.display());
    Ok(())
}
