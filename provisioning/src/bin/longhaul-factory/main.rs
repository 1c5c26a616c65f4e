//! `longhaul-factory`: makes authorities, boxes' identities, and signed releases.

mod beacon;
mod order;
mod recovery;
mod releases;
mod show;

use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use longhaul_protocol::ids::OrderId;
use longhaul_protocol::inventory::{CloudEndpoint, InventoryRecord, NetworkHints, StaticNetwork};
use longhaul_protocol::network::{Addressing, NetworkAnswers};
use longhaul_protocol::release::MachineState;
use longhaul_protocol::value::{Digest32, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::factory::{self, DEFAULT_PCRS, PapersError, Plan, TUF_ROOT_FILE};
use longhaul_provisioning::files;
use longhaul_provisioning::makers::Makers;
use longhaul_provisioning::recovery::RecoveryPublic;
use longhaul_provisioning::tpm::Tpm;
use longhaul_provisioning::tpm::soft::SoftTpm;
use longhaul_provisioning::tuf::{self, TufError};

#[derive(Parser)]
#[command(
    name = "longhaul-factory",
    version,
    about = "Makes a fleet's authorities and its boxes"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the fleet's authorities: the root and those below it.
    Init {
        /// Directory of the authorities; must not exist.
        #[arg(long, env = "LONGHAUL_PKI")]
        pki: PathBuf,
    },
    /// Give the machine with this TPM its identity.
    Make(Box<Make>),
    /// Print the state that the machine with this TPM is in now, as a release can bring it.
    Pcrs {
        /// The TPM, as a TCTI configuration.
        #[arg(long, default_value = "device:/dev/tpmrm0")]
        tpm: String,
        /// PCRs of the SHA-256 bank.
        #[arg(long, value_delimiter = ',', default_values_t = DEFAULT_PCRS)]
        pcrs: Vec<u8>,
        /// The hardware type that the state is for; every type if not given.
        #[arg(long)]
        hardware: Option<String>,
    },
    /// List the boxes that were made.
    Inventory {
        /// Directory of the authorities.
        #[arg(long, env = "LONGHAUL_PKI")]
        pki: PathBuf,
        /// Directory of the records; `inventory` beside the authorities if not given.
        #[arg(long)]
        records: Option<PathBuf>,
        /// Print the records as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what a record, a configuration or a certificate says.
    Show {
        /// Directory of the authorities; signed documents are verified.
        #[arg(long, env = "LONGHAUL_PKI")]
        pki: PathBuf,
        /// A signed document, or certificates (PEM).
        file: PathBuf,
        /// Print certificates as JSON; documents always are.
        #[arg(long)]
        json: bool,
    },
    /// Sign a status beacon, for a web server that has nothing to do with the cloud.
    Beacon(beacon::Sign),
    /// Sign releases.
    Tuf(releases::Tuf),
    /// Open the disks of boxes whose TPM is lost.
    RecoveryKey(recovery::Recovery),
    /// Run a software TPM until this program is ended, and print how to reach it. It protects
    /// nothing: for demonstrations and tests.
    SoftwareTpm {
        /// The TPM's directory; a TPM is made where there is none.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Make {
    /// Directory of the authorities.
    #[arg(long, env = "LONGHAUL_PKI")]
    pki: PathBuf,
    /// Directory of the records; `inventory` beside the authorities if not given.
    #[arg(long)]
    records: Option<PathBuf>,
    /// Where the box's papers go: `factory` in its state directory.
    #[arg(long)]
    out: PathBuf,
    /// The TPM, as a TCTI configuration.
    #[arg(long, default_value = "device:/dev/tpmrm0")]
    tpm: String,
    /// Certificates of trusted TPM makers: a PEM file, or a directory of them.
    #[arg(long)]
    makers: PathBuf,
    /// Where the cloud is, `host:https-port:mqtt-port`; may be repeated, first choice first.
    #[arg(long = "endpoint", required = true)]
    endpoints: Vec<Endpoint>,
    /// The release repository: its root goes into the box's papers, so that it can be updated.
    #[arg(long, env = "LONGHAUL_TUF")]
    repository: Option<PathBuf>,
    /// Public part of the recovery key, to which the box encrypts its vault's key; without one nobody
    /// opens the disk once the TPM is lost.
    #[arg(long, env = "LONGHAUL_RECOVERY")]
    recovery: Option<PathBuf>,
    /// PCRs that the cloud expects unchanged, and over which the box seals its keys.
    #[arg(long, value_delimiter = ',', default_values_t = DEFAULT_PCRS)]
    pcrs: Vec<u8>,
    /// The order that the box is made for: its name, or its file as the cloud signed it, which brings
    /// what is known of the customer's network; options given here win. A file's path has a dot or a
    /// slash.
    #[arg(long, value_name = "ORDER|FILE")]
    order: Option<OrderArg>,
    /// Hardware type, for people.
    #[arg(long, default_value = "")]
    hardware: String,
    /// Static address, as `192.0.2.7/24`; DHCP if not given.
    #[arg(long)]
    address: Option<Cidr>,
    /// Gateway of the static network.
    #[arg(long, requires = "address")]
    gateway: Option<IpAddr>,
    /// DNS server of the static network; may be repeated.
    #[arg(long, requires = "address")]
    dns: Vec<IpAddr>,
    /// Where the status beacon is served, `http://..`; may be repeated.
    #[arg(long = "beacon", value_name = "URL")]
    beacons: Vec<String>,
    /// A server of somebody else, `host:port`, that shows whether the internet is there; may be
    /// repeated.
    #[arg(long, value_name = "HOST:PORT")]
    reach: Vec<String>,
    /// The customer's HTTP proxy, `http://[user:password@]host:port`.
    #[arg(long, value_name = "URL")]
    proxy: Option<String>,
    /// Make new keys and a new claim code also where the box was made before.
    #[arg(long)]
    anew: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// An order's name, or the path of its file.
#[derive(Clone)]
enum OrderArg {
    Name(OrderId),
    File(PathBuf),
}

impl FromStr for OrderArg {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text
            .parse()
            .map_or_else(|_| Self::File(text.into()), Self::Name))
    }
}

/// `host:https-port:mqtt-port`.
#[derive(Clone)]
struct Endpoint(CloudEndpoint);

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected host:https-port:mqtt-port, for example cloud.example:8444:8883";
        let mut parts = text.rsplitn(3, ':');
        let (Some(mqtt), Some(https), Some(host)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(expected);
        };
        if host.is_empty() {
            return Err(expected);
        }
        Ok(Self(CloudEndpoint {
            host: host.to_owned(),
            https_port: https.parse().map_err(|_| expected)?,
            mqtt_port: mqtt.parse().map_err(|_| expected)?,
        }))
    }
}

/// `address/prefix`.
#[derive(Clone)]
struct Cidr(IpAddr, u8);

impl FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected an address with its prefix, for example 192.0.2.7/24";
        let (address, prefix) = text.split_once('/').ok_or(expected)?;
        let address: IpAddr = address.parse().map_err(|_| expected)?;
        let prefix: u8 = prefix.parse().map_err(|_| expected)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if prefix > longest {
            return Err(expected);
        }
        Ok(Self(address, prefix))
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("longhaul-factory: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Init { pki } => {
            Pki::init(&pki, now())?;
            println!("authorities in {}", pki.display());
            println!("keep the root's key offline: it is needed for nothing else");
        }
        Command::Make(order) => make(*order)?,
        Command::Pcrs {
            tpm,
            pcrs,
            hardware,
        } => {
            let values = Tpm::open(&tpm)?.pcrs(&pcrs)?;
            let pcrs = pcrs.into_iter().zip(values.into_iter().map(Digest32));
            let state = MachineState {
                hardware,
                pcrs: pcrs.collect(),
            };
            println!("{}", serde_json::to_string_pretty(&[state])?);
        }
        Command::Inventory { pki, records, json } => {
            let dir = records.unwrap_or_else(|| beside(&pki));
            let anchors = Pki::open(&pki)?.root_anchor()?;
            let records = factory::read_records(&dir, &anchors)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&records)?);
            } else {
                for record in &records {
                    println!("{}", line(record));
                }
            }
        }
        Command::Show { pki, file, json } => show::run(&Pki::open(&pki)?, &file, json)?,
        Command::Beacon(order) => beacon::run(&order, now())?,
        Command::Tuf(tuf) => releases::run(tuf, now())?,
        Command::RecoveryKey(recovery) => recovery::run(recovery)?,
        Command::SoftwareTpm { dir } => software_tpm(&dir)?,
    }
    Ok(())
}

fn make(order: Make) -> Result<(), Box<dyn Error>> {
    let pki = Pki::open(&order.pki)?;
    // Looked at first: a box is not half made because a path is wrong.
    let tuf_root = match &order.repository {
        Some(at) => Some(tuf::trusted_root(at)?.ok_or_else(|| TufError::Missing(at.to_owned()))?),
        None => None,
    };
    let makers = Makers::load(&order.makers)?;
    let tpm = Tpm::open(&order.tpm)?;
    let (order_id, known) = match &order.order {
        None => (None, NetworkAnswers::default()),
        Some(OrderArg::Name(id)) => (Some(id.clone()), NetworkAnswers::default()),
        Some(OrderArg::File(path)) => {
            let file = order::read(path, &pki.root_anchor()?, now())?;
            (Some(file.order), file.network)
        }
    };
    let network = order
        .address
        .map(|Cidr(address, prefix_len)| StaticNetwork {
            address,
            prefix_len,
            gateway: order.gateway,
            dns: order.dns,
        });
    let plan = Plan {
        endpoints: order.endpoints.into_iter().map(|Endpoint(e)| e).collect(),
        pcrs: order.pcrs,
        static_network: network.or(match known.address {
            Some(Addressing::Static(network)) => Some(network),
            Some(Addressing::Dhcp) | None => None,
        }),
        vlan: known.vlan,
        dot1x: known.dot1x,
        egress: known.egress.unwrap_or_default(),
        order: order_id,
        hardware: order.hardware,
        recovery: order
            .recovery
            .as_deref()
            .map(RecoveryPublic::read)
            .transpose()?,
        hints: NetworkHints {
            beacons: order.beacons,
            reach: order.reach,
            proxy: order
                .proxy
                .or(known.proxy.filter(|proxy| !proxy.is_empty())),
        },
    };
    let records = order.records.unwrap_or_else(|| beside(&order.pki));
    let previous = if order.anew {
        None
    } else {
        previous(&pki, &makers, &tpm, &records)?
    };
    let made = factory::make(&pki, &makers, &tpm, &plan, previous.as_ref(), now())?;
    made.write(&order.out, &records)?;
    if let Some(root) = tuf_root {
        files::write(&order.out.join(TUF_ROOT_FILE), &root)?;
    }
    let inventory = records.join(format!("{}.jws", made.box_id));
    if order.json {
        let result = serde_json::json!({
            "box_id": made.box_id,
            "claim_code": made.claim_code,
            "papers": order.out,
            "inventory": inventory,
        });
        println!("{}", serde_json::to_string_pretty(&result)?);
    } else {
        println!("box        {}", made.box_id);
        match made.claim_code {
            Some(code) => println!("claim code {code}  (print it on the box; it is not kept)"),
            None => println!("claim code unchanged, and so are its keys: this box was made before"),
        }
        println!("papers     {}", order.out.display());
        println!(
            "inventory  {}  (import it into the cloud)",
            inventory.display()
        );
    }
    Ok(())
}

/// The record of an earlier making of this box.
fn previous(
    pki: &Pki,
    makers: &Makers,
    tpm: &Tpm,
    records: &Path,
) -> Result<Option<InventoryRecord>, Box<dyn Error>> {
    let id = factory::identify(makers, tpm, now())?;
    let path = records.join(format!("{id}.jws"));
    match factory::read_record(&path, &pki.root_anchor()?) {
        Ok(record) => Ok(Some(record)),
        Err(PapersError::Missing(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn software_tpm(dir: &Path) -> Result<(), Box<dyn Error>> {
    let (state, maker) = (dir.join("state"), dir.join("maker"));
    if !state.join("tpm2-00.permall").exists() {
        SoftTpm::manufacture(&state, &maker)?;
    }
    let tpm = SoftTpm::start(&state)?;
    let tcti = dir.join("tcti");
    files::write(&tcti, tpm.tcti().as_bytes())?;
    println!("{}", tpm.tcti());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<_, std::io::Error>(())
    })?;
    let _ = std::fs::remove_file(&tcti);
    Ok(())
}

/// Records lie beside the authorities: a backup of one is a backup of both.
fn beside(pki: &Path) -> PathBuf {
    pki.parent().unwrap_or(Path::new(".")).join("inventory")
}

fn line(record: &InventoryRecord) -> String {
    let made = date(record.made_at);
    let order = record.order.as_ref().map_or("-", |o| o.as_str());
    format!("{}  {made}  {order}  {}", record.box_id, record.hardware)
}

fn date(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map_or_else(|_| "?".to_owned(), |t| t.strftime("%F %T UTC").to_string())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program's one reading of the wall clock"
)]
fn now() -> UnixMillis {
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
