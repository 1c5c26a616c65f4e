//! A box with everything around it, from the real programs, and what it costs to use it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::load::Server;
use super::peers::{Command, Place, free_port};
use super::{Bench, BenchError, cpu, delay};
use crate::operator::Operator;
use crate::process::Process;
use crate::sign::Signer;
use crate::system::{CloudReady, Stage, SystemError, online};
use crate::wait::until;

/// The bucket that the box delivers to.
pub const BUCKET: &str = "bench";
/// The box has come to rest when it costs less than this in [`LOOK`].
const REST: f64 = 0.02;
const LOOK: Duration = Duration::from_millis(300);
/// It is not waited for longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest time until the box takes a first file.
const GREETING: Duration = Duration::from_mins(1);

/// What a run has cost.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// From the client's start to its end.
    pub seconds: f64,
    /// The client's processor seconds.
    pub client: f64,
    /// The server's processor seconds, until it has come to rest.
    pub server: f64,
}

/// A box, its cloud and its TPM.
pub struct Rig {
    /// The box's process.
    pub device: Process,
    /// Where the box takes files.
    pub address: SocketAddr,
    stage: Stage,
    cloud: Option<Process>,
    tpm: Process,
    ticket: Ticket,
    lines: Option<Lines>,
}

/// The fields of a ticket that are needed here.
#[derive(Debug, Deserialize)]
struct Ticket {
    box_id: String,
    region: String,
    access_key: String,
    secret_key: String,
    root_pem: String,
}

/// A long line to the bucket, and short ones to the rest of the cloud.
///
/// The box must find the bucket behind the line while the cloud finds it beside itself, though
/// both call it `localhost`: the box runs in a mount namespace of its own, where `/etc/hosts` says
/// that this name is [`BEHIND`], and there the lines begin.
struct Lines {
    tasks: JoinSet<()>,
    /// The long line once more, for programs that run outside.
    outside: SocketAddr,
}

/// Where the lines begin; its ports are the cloud's own.
const BEHIND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

impl Lines {
    async fn lay(ready: &CloudReady, one_way: Duration) -> Result<Self, BenchError> {
        let mut tasks = JoinSet::new();
        for (port, one_way) in [
            (ready.boxes_port, Duration::ZERO),
            (ready.mqtt_port, Duration::ZERO),
            (ready.s3_port, one_way),
        ] {
            let near = listen(SocketAddr::from((BEHIND, port))).await?;
            tasks.spawn(carry(near, local(port), one_way));
        }
        let near = listen(local(0)).await?;
        let outside = near
            .local_addr()
            .map_err(BenchError::io("find a line's port"))?;
        tasks.spawn(carry(near, local(ready.s3_port), one_way));
        Ok(Self { tasks, outside })
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, BenchError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(BenchError::io(format!("listen at {address}")))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Starts the box where the cloud's name means the lines. Needs root, for the mount namespace.
fn start_behind(stage: &Stage, tcti: &str, vault: u64, port: u16) -> Result<Process, BenchError> {
    let write = |name: &str, text: String| {
        let path = stage.path(name);
        std::fs::write(&path, text).map_err(BenchError::io(format!("write {name}")))?;
        Ok::<_, BenchError>(path.into_os_string())
    };
    let hosts = write("hosts", format!("{BEHIND} localhost\n"))?;
    let settings = write(
        "box.toml",
        format!(
            "tpm_tcti = {tcti:?}\ndata_listen = \"0.0.0.0:{port}\"\nvault_capacity_bytes = {vault}\n"
        ),
    )?;
    let arguments = with_hosts(
        hosts,
        stage.program("longhaul-box").into_os_string(),
        [
            "--state".into(),
            stage.path("box").into_os_string(),
            "--config".into(),
            settings,
        ],
    );
    let log = stage.path("log").join("box.log");
    let environment = [("TSS2_LOG", "all+none")];
    let program = Path::new(UNSHARE);
    Ok(Process::start(
        "box",
        program,
        arguments,
        &environment,
        &log,
    )?)
}

/// Runs a program in a mount namespace of its own, by [`with_hosts`].
const UNSHARE: &str = "unshare";

/// What [`UNSHARE`] needs so that `program` finds the file `hosts` in place of `/etc/hosts`.
fn with_hosts(
    hosts: OsString,
    program: OsString,
    arguments: impl IntoIterator<Item = OsString>,
) -> Vec<OsString> {
    let script = r#"mount --bind "$1" /etc/hosts; shift; exec "$@""#;
    ["--mount", "sh", "-ec", script, "sh"]
        .map(OsString::from)
        .into_iter()
        .chain([hosts, program])
        .chain(arguments)
        .collect()
}

impl Rig {
    /// Brings everything up, below `folder/rig`; with `one_way`, the box's bucket is that far away.
    pub async fn stand(
        bench: &Bench<'_>,
        vault_bytes: u64,
        one_way: Option<Duration>,
    ) -> Result<Self, BenchError> {
        let stage = Stage::new(&bench.path("rig"), bench.programs.clone())?;
        let (cloud, ready) = stage.cloud(None).await?;
        let (name, password) = stage.first_admin()?;
        let operator = Operator::log_in(&ready.people_url, &ready.root_pem, &name, &password)
            .await
            .map_err(SystemError::from)?;
        let (tpm, tcti) = stage.software_tpm().await?;
        let id = stage.make_box(&ready, &tcti, None).await?;
        stage.import(&operator, &id).await?;
        let port = free_port()?;
        let (mut device, lines) = match one_way {
            None => (stage.start_agent(&tcti, vault_bytes, port)?, None),
            Some(one_way) => {
                let lines = Lines::lay(&ready, one_way).await?;
                let device = start_behind(&stage, &tcti, vault_bytes, port)?;
                (device, Some(lines))
            }
        };
        online(&operator, &id, &mut device).await?;
        let text = operator
            .ticket(&id, BUCKET)
            .await
            .map_err(SystemError::from)?;
        let ticket: Ticket = serde_json::from_str(&text)
            .map_err(|e| BenchError::Unexpected(format!("the ticket cannot be read: {e}")))?;
        let write = |name: &str, text: &str| {
            std::fs::write(stage.path(name), text).map_err(BenchError::io(format!("write {name}")))
        };
        write("ticket.json", &text)?;
        write("root.pem", &ticket.root_pem)?;
        let rig = Self {
            device,
            address: local(port),
            stage,
            cloud: Some(cloud),
            tpm,
            ticket,
            lines,
        };
        rig.greet(bench).await?;
        Ok(rig)
    }

    /// One small file goes all the way: the box knows the ticket, and everything is warm. It may
    /// hear of the ticket only after we do.
    async fn greet(&self, bench: &Bench<'_>) -> Result<(), BenchError> {
        let folder = bench.path("greeting");
        std::fs::create_dir_all(&folder).map_err(BenchError::io("make a folder"))?;
        std::fs::write(folder.join("greeting"), "hello").map_err(BenchError::io("write a file"))?;
        let push = self.push(&folder, "greeting", true);
        let greeted = until("the box to take the ticket", GREETING, || async {
            push.run(self.logs()).await.map_err(|e| super::chain(&e))
        });
        Ok(greeted.await?)
    }

    /// Stops the cloud: from now on only taking files costs the box anything.
    pub async fn go_offline(&mut self) -> Result<(), BenchError> {
        if let Some(cloud) = self.cloud.take() {
            cloud.stop().await?;
        }
        self.rest().await
    }

    /// Stops everything.
    pub async fn stop(mut self) -> Result<(), BenchError> {
        self.device.stop().await?;
        if let Some(cloud) = self.cloud.take() {
            cloud.stop().await?;
        }
        Ok(self.tpm.stop().await?)
    }

    /// Process id of the box.
    pub fn id(&self) -> Result<u32, BenchError> {
        id(&self.device)
    }

    /// Where output goes.
    pub fn logs(&self) -> &Path {
        &self.stage.folder
    }

    /// `longhaul push` of a folder; each call remembers for itself what it has sent.
    pub fn push(&self, folder: &Path, prefix: &str, wait: bool) -> Command {
        let mut arguments = vec![
            "push".to_owned(),
            format!("--ticket={}", self.stage.path("ticket.json").display()),
            format!("--box=https://{}", self.address),
            format!("--prefix={prefix}"),
            "--progress=none".to_owned(),
        ];
        arguments.extend(wait.then(|| "--wait".to_owned()));
        arguments.push(folder.display().to_string());
        let state = self.stage.path("state").join(prefix);
        Command {
            name: "longhaul push".to_owned(),
            program: self.stage.program("longhaul"),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: vec![("XDG_STATE_HOME", state.display().to_string())],
        }
    }

    /// The box for other S3 clients, by the name that it proves; see [`Rig::knowing`].
    pub fn place(&self) -> Result<Place, BenchError> {
        Ok(Place {
            url: format!("https://{}:{}", self.lan_name()?, self.address.port()),
            bucket: BUCKET.to_owned(),
            access_key: self.ticket.access_key.clone(),
            secret_key: self.ticket.secret_key.clone(),
            ca: Some(self.root()),
        })
    }

    /// The same command where the box's name means the box.
    pub fn knowing(&self, command: Command) -> Result<Command, BenchError> {
        let hosts = self.stage.path("hosts-with-box");
        let text = format!("{} {}\n", self.address.ip(), self.lan_name()?);
        std::fs::write(&hosts, text).map_err(BenchError::io("write the box's name"))?;
        Ok(Command {
            program: UNSHARE.into(),
            arguments: with_hosts(
                hosts.into_os_string(),
                command.program.into_os_string(),
                command.arguments,
            ),
            ..command
        })
    }

    /// The bucket at the end of the long line.
    pub fn far_place(&self) -> Result<Place, BenchError> {
        #[derive(Deserialize)]
        struct Keys {
            access_key: String,
            secret_key: String,
        }
        let line = self
            .lines
            .as_ref()
            .filter(|lines| !lines.tasks.is_empty())
            .ok_or_else(|| BenchError::Unexpected("there is no long line".to_owned()))?;
        let path = self.stage.path("cloud").join("s3-keys.json");
        let bytes = std::fs::read(path).map_err(BenchError::io("read the object store's keys"))?;
        let keys: Keys = serde_json::from_slice(&bytes)
            .map_err(|e| BenchError::Unexpected(format!("the keys cannot be read: {e}")))?;
        Ok(Place {
            url: format!("https://localhost:{}", line.outside.port()),
            bucket: BUCKET.to_owned(),
            access_key: keys.access_key,
            secret_key: keys.secret_key,
            ca: Some(self.root()),
        })
    }

    fn root(&self) -> PathBuf {
        self.stage.path("root.pem")
    }

    /// The box for prepared requests, and who signs them.
    pub fn server(&self, now: &str) -> Result<(Server, Signer), BenchError> {
        let failed = |e: &dyn std::fmt::Display| {
            BenchError::Unexpected(format!("TLS towards the box cannot be set up: {e}"))
        };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ticket.root_pem.as_bytes()) {
            let certificate = certificate.map_err(|e| failed(&e))?;
            roots.add(certificate).map_err(|e| failed(&e))?;
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = rustls::ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| failed(&e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let host = self.lan_name()?;
        let name = ServerName::try_from(host.clone()).map_err(|e| failed(&e))?;
        let server = Server {
            address: self.address,
            tls: Some((Arc::new(config), name)),
        };
        let signer = Signer {
            access_key: self.ticket.access_key.clone(),
            secret_key: self.ticket.secret_key.clone(),
            region: self.ticket.region.clone(),
            host,
            at: now.to_owned(),
        };
        Ok((server, signer))
    }

    fn lan_name(&self) -> Result<String, BenchError> {
        let id = self.ticket.box_id.parse().map_err(|_| {
            BenchError::Unexpected(format!("{} is no box's name", self.ticket.box_id))
        })?;
        Ok(longhaul_protocol::ticket::lan_name(&id))
    }

    /// Runs `command` against the box.
    pub async fn measured(&self, command: &Command) -> Result<Spent, BenchError> {
        measured(self.id()?, command, self.logs()).await
    }

    /// Waits until the box has nothing to do.
    pub async fn rest(&self) -> Result<(), BenchError> {
        rested(self.id()?).await.map(drop)
    }

    /// Processor seconds of the box's threads, the busiest first, since `before`.
    pub fn threads_since(
        &self,
        before: &BTreeMap<String, f64>,
    ) -> Result<Vec<(String, f64)>, BenchError> {
        let after = self.threads()?;
        let mut spent: Vec<(String, f64)> = after
            .into_iter()
            .map(|(name, seconds)| {
                let seconds = seconds - before.get(&name).copied().unwrap_or(0.0);
                (name, seconds)
            })
            .filter(|(_, seconds)| *seconds > 0.005)
            .collect();
        spent.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(spent)
    }

    /// Processor seconds of the box's threads.
    pub fn threads(&self) -> Result<BTreeMap<String, f64>, BenchError> {
        cpu::of_threads(self.id()?).map_err(BenchError::io("read the threads' times"))
    }
}

/// Process id of something that runs.
pub fn id(process: &Process) -> Result<u32, BenchError> {
    process
        .id()
        .ok_or_else(|| BenchError::Unexpected(format!("{} has ended", process.name())))
}

/// Runs `command` against the server `id`, and says what it cost both.
pub async fn measured(id: u32, command: &Command, logs: &Path) -> Result<Spent, BenchError> {
    let children = || cpu::of_children().map_err(BenchError::io("read the client's time"));
    let (server, client) = (time(id)?, children()?);
    let start = Instant::now();
    command.run(logs).await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Spent {
        seconds,
        client: children()? - client,
        server: rested(id).await? - server,
    })
}

/// Processor seconds of the process.
pub fn time(id: u32) -> Result<f64, BenchError> {
    cpu::of_process(id).map_err(BenchError::io("read the server's time"))
}

/// The same, once it costs nothing more.
pub async fn rested(id: u32) -> Result<f64, BenchError> {
    let start = Instant::now();
    let mut before = time(id)?;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = time(id)?;
        if now - before < REST || start.elapsed() > PATIENCE {
            return Ok(now);
        }
        before = now;
    }
}

async fn carry(near: TcpListener, target: SocketAddr, one_way: Duration) {
    // Who uses the line notices that it has ended.
    let _ = delay::serve(near, target, one_way).await;
}
