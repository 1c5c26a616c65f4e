//! The tools that people use today, as clients and as servers.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;

use super::BenchError;
use crate::process::Process;
use crate::wait::until;

/// The bucket that peers' servers are sent to.
pub const BUCKET: &str = "bench";
/// The key pair of peers' servers.
const ACCESS_KEY: &str = "benchmark";
const SECRET_KEY: &str = "benchmark-secret";
/// Longest time for a server to listen.
const START: Duration = Duration::from_secs(30);

/// Which of the tools are on this machine.
#[derive(Clone, Debug)]
pub struct Peers {
    s5cmd: Option<PathBuf>,
    rclone: Option<PathBuf>,
    aws: Option<PathBuf>,
    s3s_fs: Option<PathBuf>,
}

/// A tool that uploads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Client {
    /// s5cmd, with its own defaults.
    S5cmd,
    /// rclone with as many transfers at once.
    Rclone(u32),
    /// The AWS command line.
    Aws,
}

/// A bucket, and how to get in.
#[derive(Clone, Debug)]
pub struct Place {
    /// URL of the server.
    pub url: String,
    /// Bucket.
    pub bucket: String,
    /// Access key.
    pub access_key: String,
    /// Secret key.
    pub secret_key: String,
    /// Whom to trust; plain HTTP without.
    pub ca: Option<PathBuf>,
}

/// A program with its arguments, ready to run.
#[derive(Clone, Debug)]
pub struct Command {
    /// What it is called here.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment, beside this program's.
    pub environment: Vec<(&'static str, String)>,
}

/// A peer's server, over plain HTTP.
pub struct PeerServer {
    /// What it is.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// How to get in.
    pub place: Place,
    /// The process.
    pub process: Process,
}

impl Peers {
    /// Looks for them where programs are; `s3s-fs` is built beside us.
    pub fn find() -> Self {
        Self {
            s5cmd: on_path("s5cmd"),
            rclone: on_path("rclone"),
            aws: on_path("aws"),
            s3s_fs: beside_us("longhaul-peer-s3s-fs"),
        }
    }

    /// The clients that are here, of those that are asked for.
    pub fn clients(&self, wanted: &[Client]) -> Vec<Client> {
        let here = |client: &Client| self.program(*client).is_some();
        wanted.iter().copied().filter(here).collect()
    }

    fn program(&self, client: Client) -> Option<&PathBuf> {
        match client {
            Client::S5cmd => self.s5cmd.as_ref(),
            Client::Rclone(_) => self.rclone.as_ref(),
            Client::Aws => self.aws.as_ref(),
        }
    }

    /// Uploads everything in `folder` below `prefix`; `None` if the tool is not here.
    pub fn upload(
        &self,
        client: Client,
        folder: &Path,
        place: &Place,
        prefix: &str,
    ) -> Option<Command> {
        let program = self.program(client)?.clone();
        let target = format!("s3://{}/{prefix}/", place.bucket);
        let source = folder.display().to_string();
        let arguments = match client {
            Client::S5cmd => vec![
                "--endpoint-url".to_owned(),
                place.url.clone(),
                "--log".to_owned(),
                "error".to_owned(),
                "cp".to_owned(),
                format!("{source}/"),
                target,
            ],
            Client::Rclone(transfers) => vec![
                "copy".to_owned(),
                source,
                format!(":s3:{}/{prefix}", place.bucket),
                format!("--transfers={transfers}"),
                "--s3-provider=Other".to_owned(),
                "--s3-force-path-style".to_owned(),
                "--s3-no-check-bucket".to_owned(),
                format!("--s3-endpoint={}", place.url),
            ],
            Client::Aws => vec![
                "--endpoint-url".to_owned(),
                place.url.clone(),
                "s3".to_owned(),
                "cp".to_owned(),
                "--recursive".to_owned(),
                "--only-show-errors".to_owned(),
                source,
                target,
            ],
        };
        Some(Command {
            name: client.name(),
            program,
            arguments: arguments.into_iter().map(OsString::from).collect(),
            environment: place.environment(),
        })
    }

    /// `tar` of the folder into one object, by `s5cmd pipe`; `None` if it is not here.
    pub fn tar_pipe(&self, folder: &Path, place: &Place, key: &str) -> Option<Command> {
        let s5cmd = self.s5cmd.as_ref()?;
        let script = r#"tar -cf - -C "$1" . | "$2" --endpoint-url "$3" pipe "$4""#;
        let target = format!("s3://{}/{key}", place.bucket);
        let arguments = [
            OsString::from("-ec"),
            script.into(),
            "sh".into(),
            folder.into(),
            s5cmd.into(),
            place.url.clone().into(),
            target.into(),
        ];
        Some(Command {
            name: "tar | s5cmd pipe, one object".to_owned(),
            program: "sh".into(),
            arguments: arguments.to_vec(),
            environment: place.environment(),
        })
    }

    /// Starts every server that is here, each with its data below `folder`.
    ///
    /// # Errors
    ///
    /// [`BenchError`] if one does not listen.
    pub async fn servers(&self, folder: &Path) -> Result<Vec<PeerServer>, BenchError> {
        let mut servers = Vec::new();
        if let Some(program) = &self.rclone {
            let data = data_folder(folder, "rclone")?;
            let arguments = |port: u16| {
                vec![
                    "serve".to_owned(),
                    "s3".to_owned(),
                    format!("--addr=127.0.0.1:{port}"),
                    format!("--auth-key={ACCESS_KEY},{SECRET_KEY}"),
                    data.display().to_string(),
                ]
            };
            servers.push(start("rclone serve s3", program, arguments, folder).await?);
        }
        if let Some(program) = &self.s3s_fs {
            let data = data_folder(folder, "s3s-fs")?;
            let arguments = |port: u16| {
                vec![
                    format!("--port={port}"),
                    format!("--access-key={ACCESS_KEY}"),
                    format!("--secret-key={SECRET_KEY}"),
                    data.display().to_string(),
                ]
            };
            servers.push(start("s3s-fs", program, arguments, folder).await?);
        }
        Ok(servers)
    }
}

impl PeerServer {
    /// Ends it; not every one ends well when asked to.
    ///
    /// # Errors
    ///
    /// [`BenchError::Process`].
    pub async fn stop(mut self) -> Result<(), BenchError> {
        Ok(self.process.kill().await?)
    }
}

impl Client {
    /// What a reader calls it.
    pub fn name(self) -> String {
        match self {
            Self::S5cmd => "s5cmd".to_owned(),
            Self::Rclone(transfers) => format!("rclone --transfers {transfers}"),
            Self::Aws => "aws-cli".to_owned(),
        }
    }
}

impl Place {
    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("AWS_ACCESS_KEY_ID", self.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            // Servers that do not know the newer checksums store their frames as data.
            (
                "AWS_REQUEST_CHECKSUM_CALCULATION",
                "when_required".to_owned(),
            ),
            ("RCLONE_S3_ACCESS_KEY_ID", self.access_key.clone()),
            ("RCLONE_S3_SECRET_ACCESS_KEY", self.secret_key.clone()),
            ("RCLONE_S3_REGION", "us-east-1".to_owned()),
            // Its own settings file would be read, and written.
            ("RCLONE_CONFIG", "/dev/null".to_owned()),
        ];
        if let Some(ca) = &self.ca {
            let ca = ca.display().to_string();
            environment.push(("SSL_CERT_FILE", ca.clone()));
            environment.push(("AWS_CA_BUNDLE", ca.clone()));
            environment.push(("RCLONE_CA_CERT", ca));
        }
        environment
    }
}

impl Command {
    /// Runs it to its end, its output below `logs`.
    ///
    /// # Errors
    ///
    /// [`BenchError::Process`] unless it succeeds.
    pub async fn run(&self, logs: &Path) -> Result<(), BenchError> {
        let environment: Vec<(&str, &str)> = self
            .environment
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let log = logs.join("clients.log");
        let mut process = Process::start(
            &self.name,
            &self.program,
            &self.arguments,
            &environment,
            &log,
        )?;
        Ok(process.wait().await?)
    }
}

fn data_folder(folder: &Path, name: &str) -> Result<PathBuf, BenchError> {
    let data = folder.join(name);
    std::fs::create_dir_all(data.join(BUCKET)).map_err(BenchError::io("make a peer's folder"))?;
    Ok(data)
}

async fn start(
    name: &'static str,
    program: &Path,
    arguments: impl Fn(u16) -> Vec<String>,
    folder: &Path,
) -> Result<PeerServer, BenchError> {
    let port = free_port()?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let log = folder.join("servers.log");
    let environment = [("RCLONE_CONFIG", "/dev/null")];
    let mut process = Process::start(name, program, arguments(port), &environment, &log)?;
    until(name, START, || {
        let alive = process.check().map_err(|e| e.to_string());
        async move {
            alive?;
            TcpStream::connect(address)
                .await
                .map(drop)
                .map_err(|e| e.to_string())
        }
    })
    .await?;
    Ok(PeerServer {
        name,
        address,
        place: Place {
            url: format!("http://{address}"),
            bucket: BUCKET.to_owned(),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            ca: None,
        },
        process,
    })
}

/// A port that nobody listens on.
pub fn free_port() -> Result<u16, BenchError> {
    let bound = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = bound.and_then(|listener| listener.local_addr());
    Ok(address.map_err(BenchError::io("find a free port"))?.port())
}

/// The program called `name` beside this one.
fn beside_us(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?.with_file_name(name);
    program.is_file().then_some(program)
}

/// The program called `name` in `PATH`.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}
