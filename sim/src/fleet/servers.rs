//! What the simulated boxes connect to: our edge alone, and mosquitto, each a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_protocol::value::UnixMillis;
use longhaul_provisioning::ca::{Pki, ServerNames};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::bench::BenchError;
use crate::process::Process;
use crate::system::Programs;
use crate::wait::until;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);
/// Open files beside the connections: a server's logs and databases, half-open peers.
const SPARE_FILES: u64 = 1_000;
/// The server's certificate is for this name.
pub const NAME: &str = "localhost";

/// Where a server is, and its process.
#[derive(Debug)]
pub struct Server {
    /// What it is, for the report.
    pub name: &'static str,
    /// Its process.
    pub process: Process,
    /// Where boxes connect, by TLS.
    pub address: SocketAddr,
    /// Where one who takes everything connects, without TLS; our edge needs none.
    pub tap: Option<SocketAddr>,
}

impl Server {
    /// Its process id.
    ///
    /// # Errors
    ///
    /// That it has ended.
    pub fn id(&self) -> Result<u32, BenchError> {
        let ended = || BenchError::Unexpected(format!("{} has ended", self.name));
        self.process.id().ok_or_else(ended)
    }

    /// Ends it; it has nothing to keep.
    ///
    /// # Errors
    ///
    /// [`BenchError`].
    pub async fn end(mut self) -> Result<(), BenchError> {
        Ok(self.process.kill().await?)
    }
}

/// Authorities and a server's papers, in a folder.
#[derive(Debug)]
pub struct Papers {
    /// The authorities.
    pub pki: Pki,
    folder: PathBuf,
}

impl Papers {
    /// Makes them.
    ///
    /// # Errors
    ///
    /// [`BenchError`].
    pub fn make(folder: &Path, now: UnixMillis) -> Result<Self, BenchError> {
        let failed = |e: longhaul_provisioning::ca::CaError| {
            BenchError::Unexpected(format!("failed to make the authorities: {e}"))
        };
        let pki = Pki::init(&folder.join("pki"), now).map_err(failed)?;
        let names = ServerNames {
            dns: vec![NAME.to_owned()],
            ips: Vec::new(),
        };
        let server = pki.issue_server(names, 24 * 3600, now).map_err(failed)?;
        // Both servers get the same two files; mosquitto takes from each what it needs.
        server.save(&folder.join("server.pem")).map_err(failed)?;
        let root = folder.join("root.pem");
        std::fs::write(root, pki.root_pem()).map_err(BenchError::io("write root.pem"))?;
        Ok(Self {
            pki,
            folder: folder.to_owned(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Lets this process and those that it starts hold `count` connections.
///
/// # Errors
///
/// That the system does not allow so many, and how many it does.
pub fn allow_connections(count: usize) -> Result<(), BenchError> {
    let refused = |e| BenchError::Unexpected(format!("failed to set the limit of open files: {e}"));
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(refused)?;
    let wanted = count as u64 + SPARE_FILES;
    if wanted <= most {
        return setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(refused);
    }
    // Root of a machine of its own may go beyond.
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).map_err(|_| {
        BenchError::Unexpected(format!(
            "{count} connections need {wanted} open files, and this system allows {most}: measure with fewer boxes, or raise its limit (ulimit -Hn)"
        ))
    })
}

/// Starts our edge, with nobody behind it but a counter.
///
/// # Errors
///
/// [`BenchError`].
pub async fn edge(papers: &Papers, programs: &Programs) -> Result<Server, BenchError> {
    edge_with(papers, programs, &[]).await
}

/// The same, with these settings.
///
/// # Errors
///
/// [`BenchError`].
pub async fn edge_with(
    papers: &Papers,
    programs: &Programs,
    settings: &[String],
) -> Result<Server, BenchError> {
    let port = free_port()?;
    let log = papers.path("edge.log");
    let arguments = [
        format!("--listen=127.0.0.1:{port}"),
        format!("--pki={}", papers.path("pki").display()),
        format!("--server={}", papers.path("server.pem").display()),
        format!("--taken={}", papers.path("edge.taken").display()),
    ];
    let program = programs.path("longhaul-bench-edge");
    let arguments = arguments.iter().chain(settings);
    let process = Process::start("edge", &program, arguments, &[], &log)?;
    let server = Server {
        name: "longhaul edge",
        process,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tap: None,
    };
    listening(server).await
}

/// How many messages the edge's counter has taken, as it last wrote down.
///
/// # Errors
///
/// [`BenchError`].
pub fn taken(papers: &Papers) -> Result<u64, BenchError> {
    let text = std::fs::read_to_string(papers.path("edge.taken"))
        .map_err(BenchError::io("read the edge's count"))?;
    let count = text.trim().parse();
    count.map_err(|_| BenchError::Unexpected(format!("the edge's count is {text:?}")))
}

/// Starts mosquitto with client certificates, TLS 1.3 and nothing written to disk.
///
/// # Errors
///
/// [`BenchError`].
pub async fn mosquitto(papers: &Papers) -> Result<Server, BenchError> {
    let (port, tap) = (free_port()?, free_port()?);
    let (server, root) = (papers.path("server.pem"), papers.path("root.pem"));
    let settings = format!(
        "user root\npersistence false\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\nset_tcp_nodelay true\n\
         log_type error\nlistener {port} 127.0.0.1\nmax_connections -1\ncafile {root}\ncertfile {server}\nkeyfile {server}\n\
         require_certificate true\ntls_version tlsv1.3\nlistener {tap} 127.0.0.1\n",
        root = root.display(),
        server = server.display(),
    );
    let path = papers.path("mosquitto.conf");
    std::fs::write(&path, settings).map_err(BenchError::io("write mosquitto.conf"))?;
    let program = Path::new("/usr/sbin/mosquitto");
    let arguments = ["-c".into(), path.into_os_string()];
    let process = Process::start(
        "mosquitto",
        program,
        arguments,
        &[],
        &papers.path("mosquitto.log"),
    )?;
    let server = Server {
        name: "mosquitto",
        process,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        tap: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, tap))),
    };
    listening(server).await
}

async fn listening(mut server: Server) -> Result<Server, BenchError> {
    let ports = [Some(server.address), server.tap];
    for address in ports.into_iter().flatten() {
        until("a server to listen", START, || {
            let alive = server.process.check().map_err(|e| e.to_string());
            async move {
                alive?;
                let connected = tokio::net::TcpStream::connect(address).await;
                connected.map(drop).map_err(|e| e.to_string())
            }
        })
        .await?;
    }
    Ok(server)
}

fn free_port() -> Result<u16, BenchError> {
    let bound = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let address = bound.and_then(|listener| listener.local_addr());
    Ok(address.map_err(BenchError::io("find a free port"))?.port())
}
