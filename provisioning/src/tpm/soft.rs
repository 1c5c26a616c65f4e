//! A software TPM (swtpm) for machines that have none: demonstrations, tests, simulated fleets.
//! It protects nothing: whoever reads its directory has its keys.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a software TPM may take to answer.
const START: Duration = Duration::from_secs(10);
/// Pause before another try: another process may have taken the port in between, or the TPM that ran
/// here before is still ending and holds the directory's lock.
const PAUSE: Duration = Duration::from_millis(100);
/// What the program says, beside its state.
const SAID: &str = "swtpm.log";

/// What can go wrong with a software TPM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoftTpmError {
    /// A program is missing or could not be started.
    #[error("failed to run {program} (Debian packages: swtpm, swtpm-tools)")]
    Run {
        /// Which program.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// `swtpm_setup` failed.
    #[error("swtpm_setup failed for {dir}: {output}")]
    Setup {
        /// Which directory.
        dir: PathBuf,
        /// What it said.
        output: String,
    },
    /// A file could not be written.
    #[error("failed to write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer.
    #[error("software TPM in {dir} does not answer: {said}")]
    Silent {
        /// Which directory.
        dir: PathBuf,
        /// What it said instead.
        said: String,
    },
}

/// A software TPM that runs; dropping it ends it.
#[derive(Debug)]
pub struct SoftTpm {
    child: Child,
    port: u16,
}

impl SoftTpm {
    /// Makes a TPM in `dir` with endorsement keys and their certificates, issued by a maker whose
    /// authority lies in `maker`, which is made where it is missing.
    pub fn manufacture(dir: &Path, maker: &Path) -> Result<(), SoftTpmError> {
        let make = |path: &Path| {
            std::fs::create_dir_all(path).map_err(|source| SoftTpmError::Write {
                path: path.to_owned(),
                source,
            })
        };
        make(dir)?;
        make(maker)?;
        let write = |name: &str, text: String| {
            let path = maker.join(name);
            match std::fs::write(&path, text) {
                Ok(()) => Ok(path),
                Err(source) => Err(SoftTpmError::Write { path, source }),
            }
        };
        let at = maker.display();
        let localca = write(
            "swtpm-localca.conf",
            format!(
                "statedir = {at}\nsigningkey = {at}/signkey.pem\n\
                 issuercert = {at}/issuercert.pem\ncertserial = {at}/certserial\n"
            ),
        )?;
        let options = write("swtpm-localca.options", String::new())?;
        let setup = write(
            "swtpm_setup.conf",
            format!(
                "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\n\
                 create_certs_tool_options = {}\nactive_pcr_banks = sha256\n",
                localca.display(),
                options.display()
            ),
        )?;
        let program = "swtpm_setup";
        let output = Command::new(program)
            .args(["--tpm2", "--create-ek-cert", "--overwrite", "--tpmstate"])
            .arg(dir)
            .arg("--config")
            .arg(setup)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| SoftTpmError::Run { program, source })?;
        if output.status.success() {
            Ok(())
        } else {
            let text = [output.stdout, output.stderr].concat();
            Err(SoftTpmError::Setup {
                dir: dir.to_owned(),
                output: String::from_utf8_lossy(&text).into_owned(),
            })
        }
    }

    /// The certificates of the maker in `maker`, root first: what trusts its TPMs.
    pub fn maker_certificates(maker: &Path) -> [PathBuf; 2] {
        ["swtpm-localca-rootca-cert.pem", "issuercert.pem"].map(|name| maker.join(name))
    }

    /// Starts the TPM in `dir` on loopback, at any port.
    pub fn start(dir: &Path) -> Result<Self, SoftTpmError> {
        let start = Instant::now();
        while start.elapsed() < START {
            if let Some(port) = free_pair() {
                let mut tpm = Self {
                    child: spawn(dir, port)?,
                    port,
                };
                if tpm.answers() {
                    return Ok(tpm);
                }
            }
            std::thread::sleep(PAUSE);
        }
        let said = std::fs::read_to_string(dir.join(SAID)).unwrap_or_default();
        Err(SoftTpmError::Silent {
            dir: dir.to_owned(),
            said: said.trim().to_owned(),
        })
    }

    /// How to open it; see [`super::Tpm::open`].
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it listens; false if its process ends instead, because a port was taken.
    fn answers(&mut self) -> bool {
        let start = Instant::now();
        while start.elapsed() < START {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            // The control port: a connection to the other one would be taken for the user's.
            if TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + 1)).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, port: u16) -> Result<Child, SoftTpmError> {
    let program = "swtpm";
    let path = dir.join(SAID);
    let said = std::fs::File::create(&path);
    let said = said.map_err(|source| SoftTpmError::Write { path, source })?;
    // Not even a killed parent leaves one behind. The kernel counts the thread that starts it as
    // its parent, so callers start it on a thread that lives as long as they need it.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", program])
        .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
        .arg("--tpmstate")
        .arg(format!("dir={}", dir.display()))
        .arg("--server")
        .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .map_err(|source| SoftTpmError::Run { program, source })
}

/// A port that is free together with the next one, where the client library expects control.
fn free_pair() -> Option<u16> {
    let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    let port = first.local_addr().ok()?.port();
    TcpListener::bind((Ipv4Addr::LOCALHOST, port.checked_add(1)?)).ok()?;
    Some(port)
}
