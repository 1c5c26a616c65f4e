//! One fleet of one box on this machine: cloud, software TPM, factory, box, all real programs.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::operator::{ApiError, Operator};
use crate::process::{Process, ProcessError};
use crate::wait::{TimedOut, until};

/// Longest time for a program to be ready.
const START: Duration = Duration::from_mins(1);
/// How long a box's new release may take to prove itself here, in seconds.
const TRIAL_SECS: u32 = 60;

/// Why the system does not stand.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// A program did not run as it should.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The API did not answer as it should.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A condition did not come true.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// A file could not be read or written.
    #[error("failed on {path}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A port could not be had.
    #[error("failed to listen")]
    Listen(#[source] io::Error),
    /// A program said something else than expected.
    #[error("{what}: {text}")]
    Unexpected {
        /// What was being done.
        what: &'static str,
        /// What was there.
        text: String,
    },
}

/// Where the programs are: beside this one.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// Looks beside the running program; a test's program lies one folder below.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] names the program that is missing.
    pub fn find() -> Result<Self, SystemError> {
        let me = std::env::current_exe().map_err(|source| SystemError::File {
            path: PathBuf::from("/proc/self/exe"),
            source,
        })?;
        let candidates = me.ancestors().skip(1).take(2);
        for folder in candidates {
            let all = [
                "longhaul-cloud",
                "longhaul-factory",
                "longhaul-box",
                "longhaul",
            ];
            if all.iter().all(|name| folder.join(name).is_file()) {
                return Ok(Self(folder.to_owned()));
            }
        }
        Err(SystemError::Unexpected {
            what: "longhaul-cloud, longhaul-factory, longhaul-box and longhaul must be built beside",
            text: me.display().to_string(),
        })
    }

    /// The path of `name`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// What the cloud says of itself when it is up.
#[derive(Clone, Debug, Deserialize)]
pub struct CloudReady {
    /// Name of the cloud.
    pub host: String,
    /// Where people connect.
    pub people_url: String,
    /// TCP port of people's HTTPS.
    pub people_port: u16,
    /// TCP port of the boxes' HTTPS.
    pub boxes_port: u16,
    /// TCP port of MQTT.
    pub mqtt_port: u16,
    /// TCP port of the built-in object store; 0 where the store is somebody else's.
    #[serde(default)]
    pub s3_port: u16,
    /// The fleet's authorities.
    pub pki: PathBuf,
    /// The fleet's root certificate.
    pub root_pem: PathBuf,
}

impl CloudReady {
    /// The ports, so that the cloud can be started again where the box looks for it.
    pub fn ports(&self) -> [u16; 4] {
        [
            self.people_port,
            self.boxes_port,
            self.mqtt_port,
            self.s3_port,
        ]
    }
}

/// A folder in which a system lives, and its programs.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Everything is below this folder.
    pub folder: PathBuf,
    /// Address of the cloud's database, if it is not the embedded one.
    pub database: Option<String>,
    programs: Programs,
    /// What stands before every command line, to run it in another namespace.
    entry: Vec<String>,
}

impl Stage {
    /// A stage in `folder`, which is made.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn new(folder: &Path, programs: Programs) -> Result<Self, SystemError> {
        make_folder(folder)?;
        make_folder(&folder.join("log"))?;
        Ok(Self {
            folder: folder.to_owned(),
            database: None,
            programs,
            entry: Vec::new(),
        })
    }

    /// A path below the stage.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of a program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// The same stage; what it starts runs behind `entry`.
    #[must_use]
    pub(crate) fn within(self, entry: Vec<String>) -> Self {
        Self { entry, ..self }
    }

    pub(crate) fn start<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process, SystemError> {
        self.start_path(name, &self.program(program), arguments)
    }

    /// The same for any program.
    pub(crate) fn start_path<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process, SystemError> {
        let log = self.path("log").join(format!("{name}.log"));
        // The TPM library logs every expected refusal as an error.
        let environment = [("TSS2_LOG", "all+none")];
        let mut line: Vec<OsString> = self.entry.iter().map(OsString::from).collect();
        line.push(program.into());
        line.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        let program = PathBuf::from(line.remove(0));
        Ok(Process::start(name, &program, line, &environment, &log)?)
    }

    /// Starts the cloud, and waits until all its ports are open. `ports` fixes them, people, boxes,
    /// MQTT and S3; otherwise any free ones are taken.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn cloud(
        &self,
        ports: Option<[u16; 4]>,
    ) -> Result<(Process, CloudReady), SystemError> {
        let [people, boxes, mqtt, s3] = ports.unwrap_or_default();
        let arguments = [
            format!("--listen-people=127.0.0.1:{people}"),
            format!("--listen-boxes=127.0.0.1:{boxes}"),
            format!("--listen-mqtt=127.0.0.1:{mqtt}"),
            format!("--listen-s3=127.0.0.1:{s3}"),
            "--public-host=localhost".to_owned(),
        ];
        self.cloud_with(&arguments).await
    }

    /// The same, with these settings.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub(crate) async fn cloud_with(
        &self,
        settings: &[String],
    ) -> Result<(Process, CloudReady), SystemError> {
        let data = self.path("cloud");
        let ready = data.join("ready.json");
        remove_file(&ready)?;
        let mut arguments = vec!["--data".to_owned(), data.display().to_string()];
        arguments.extend_from_slice(settings);
        let database = self.database.as_ref();
        arguments.extend(database.map(|url| format!("--database={url}")));
        let mut process = self.start("cloud", "longhaul-cloud", arguments)?;
        let ready = self.ready(&mut process, &ready).await?;
        Ok((process, ready))
    }

    /// Name and password of the administrator that the cloud's first start printed.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] if its log has none.
    pub fn first_admin(&self) -> Result<(String, String), SystemError> {
        let path = self.path("log").join("cloud.log");
        let log = std::fs::read_to_string(&path).map_err(|source| SystemError::File {
            path: path.clone(),
            source,
        })?;
        let after = |label: &str| {
            log.lines()
                .find_map(|l| l.strip_prefix(label))
                .map(|v| v.trim().to_owned())
        };
        match (after("first administrator:"), after("password:")) {
            (Some(name), Some(password)) => Ok((name, password)),
            _ => Err(SystemError::Unexpected {
                what: "the cloud's first start prints an administrator",
                text: path.display().to_string(),
            }),
        }
    }

    /// Starts a software TPM with an endorsement certificate, and says how to reach it.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn software_tpm(&self) -> Result<(Process, String), SystemError> {
        let folder = self.path("tpm");
        let tcti = folder.join("tcti");
        remove_file(&tcti)?;
        let arguments = ["software-tpm".as_ref(), folder.as_os_str()];
        let mut process = self.start("tpm", "longhaul-factory", arguments)?;
        let name = until("the software TPM", START, || {
            let read = std::fs::read_to_string(&tcti).map_err(|e| e.to_string());
            let read = process.check().map_err(|e| e.to_string()).and(read);
            async { read }
        });
        let name = name.await?;
        Ok((process, name))
    }

    /// Makes the box's identity at the factory and imports its record; says its name.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn make_box(
        &self,
        cloud: &CloudReady,
        tcti: &str,
        repository: Option<&Path>,
    ) -> Result<String, SystemError> {
        self.make_box_with(cloud, tcti, repository, &[]).await
    }

    /// The same, with more options of the factory.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub(crate) async fn make_box_with(
        &self,
        cloud: &CloudReady,
        tcti: &str,
        repository: Option<&Path>,
        options: &[String],
    ) -> Result<String, SystemError> {
        let makers = self.path("tpm").join("makers.pem");
        let mut pem = String::new();
        for name in ["swtpm-localca-rootca-cert.pem", "issuercert.pem"] {
            let path = self.path("tpm").join("maker").join(name);
            pem += &std::fs::read_to_string(&path)
                .map_err(|source| SystemError::File { path, source })?;
        }
        write(&makers, &pem)?;
        let recovery = self.recovery_key().await?;
        let mut arguments = vec![
            "make".to_owned(),
            format!("--recovery={}", recovery.display()),
            format!("--pki={}", cloud.pki.display()),
            format!("--records={}", self.path("inventory").display()),
            format!("--out={}", self.path("box/factory").display()),
            format!("--tpm={tcti}"),
            format!("--makers={}", makers.display()),
            format!(
                "--endpoint={}:{}:{}",
                cloud.host, cloud.boxes_port, cloud.mqtt_port
            ),
            "--hardware=software TPM".to_owned(),
            "--json".to_owned(),
        ];
        arguments.extend_from_slice(options);
        if let Some(repository) = repository {
            arguments.push(format!("--repository={}", repository.display()));
        }
        self.run("factory-make", "longhaul-factory", arguments)
            .await?;
        let record = self.records()?.pop().ok_or(SystemError::Unexpected {
            what: "the factory writes one record",
            text: self.path("inventory").display().to_string(),
        })?;
        Ok(record)
    }

    /// The public part of the fleet's recovery key; the private one, `recovery/private.pem`, is made
    /// with it.
    async fn recovery_key(&self) -> Result<PathBuf, SystemError> {
        let public = self.path("recovery/public.pem");
        if !public.exists() {
            make_folder(&self.path("recovery"))?;
            let arguments = [
                "recovery-key".to_owned(),
                "create".to_owned(),
                format!("--private={}", self.path("recovery/private.pem").display()),
                format!("--public={}", public.display()),
            ];
            self.run("factory-recovery", "longhaul-factory", arguments)
                .await?;
        }
        Ok(public)
    }

    fn records(&self) -> Result<Vec<String>, SystemError> {
        let path = self.path("inventory");
        let failed = |source| SystemError::File {
            path: path.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(id) = name.to_str().and_then(|n| n.strip_suffix(".jws")) {
                names.push(id.to_owned());
            }
        }
        Ok(names)
    }

    /// Gives the box's signed record to the cloud.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn import(&self, operator: &Operator, box_id: &str) -> Result<(), SystemError> {
        let path = self.path("inventory").join(format!("{box_id}.jws"));
        let jws =
            std::fs::read_to_string(&path).map_err(|source| SystemError::File { path, source })?;
        operator
            .post("/v1/inventory", &json!({"jws": jws.trim()}))
            .await?;
        Ok(())
    }

    /// Starts the box under its supervisor; it is up when the cloud says so. Customers push to
    /// `data_port`, any free one for 0.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn start_box(
        &self,
        tcti: &str,
        vault_bytes: u64,
        data_port: u16,
    ) -> Result<Process, SystemError> {
        self.box_as("supervise", tcti, vault_bytes, data_port)
    }

    /// The same without a supervisor: the process is the agent itself, and takes no updates.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn start_agent(
        &self,
        tcti: &str,
        vault_bytes: u64,
        data_port: u16,
    ) -> Result<Process, SystemError> {
        self.box_as("run", tcti, vault_bytes, data_port)
    }

    fn box_as(
        &self,
        command: &str,
        tcti: &str,
        vault_bytes: u64,
        data_port: u16,
    ) -> Result<Process, SystemError> {
        let settings = self.path("box.toml");
        let text = format!(
            "tpm_tcti = {tcti:?}\ndata_listen = \"0.0.0.0:{data_port}\"\npage_listen = \"127.0.0.1:0\"\nvault_capacity_bytes = {vault_bytes}\n\
             trial_secs = {TRIAL_SECS}\n"
        );
        write(&settings, &text)?;
        let state = self.path("box");
        self.start(
            "box",
            "longhaul-box",
            [
                "--state".as_ref(),
                state.as_os_str(),
                "--config".as_ref(),
                settings.as_os_str(),
                command.as_ref(),
            ],
        )
    }

    /// Runs a program to its end; yields what it printed.
    ///
    /// # Errors
    ///
    /// [`SystemError::Process`] if it failed, with the end of what it printed.
    pub async fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<String, SystemError> {
        let log = self.path("log").join(format!("{name}.log"));
        remove_file(&log)?;
        let mut process = self.start(name, program, arguments)?;
        process.wait().await?;
        std::fs::read_to_string(&log).map_err(|source| SystemError::File { path: log, source })
    }

    async fn ready<T: for<'a> Deserialize<'a>>(
        &self,
        process: &mut Process,
        path: &Path,
    ) -> Result<T, SystemError> {
        let what = format!("{} to be up", process.name());
        let ready = until(&what, START, || {
            let read = std::fs::read(path).map_err(|e| e.to_string());
            let read = process.check().map_err(|e| e.to_string()).and(read);
            async { serde_json::from_slice(&read?).map_err(|e| e.to_string()) }
        });
        Ok(ready.await?)
    }
}

fn write(path: &Path, text: &str) -> Result<(), SystemError> {
    std::fs::write(path, text).map_err(|source| SystemError::File {
        path: path.to_owned(),
        source,
    })
}

fn make_folder(path: &Path) -> Result<(), SystemError> {
    std::fs::create_dir_all(path).map_err(|source| SystemError::File {
        path: path.to_owned(),
        source,
    })
}

fn remove_file(path: &Path) -> Result<(), SystemError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SystemError::File {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Waits until the cloud counts the box as online.
///
/// # Errors
///
/// [`TimedOut`] with what the cloud knew last, or [`ProcessError`] if the box has ended.
pub async fn online(
    operator: &Operator,
    box_id: &str,
    process: &mut Process,
) -> Result<serde_json::Value, SystemError> {
    let limit = Duration::from_secs(90);
    let seen = until("the box to be online", limit, || {
        let alive = process.check().map_err(|e| e.to_string());
        async {
            alive?;
            let detail = operator
                .box_detail(box_id)
                .await
                .map_err(|e| e.to_string())?;
            if detail["box"]["online"] == true {
                Ok(detail)
            } else {
                Err(detail["box"].to_string())
            }
        }
    });
    Ok(seen.await?)
}
