//! One box at one cloud, all real programs, online and with a ticket: where most stories begin. Each
//! part can be killed and started again, and everything is found where it was.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::files::Digests;
use crate::lan_box::Customer;
use crate::operator::Operator;
use crate::process::Process;
use crate::relay::Relay;
use crate::system::{CloudReady, Programs, Stage, SystemError, online};

/// The bucket that the ticket is for.
pub const BUCKET: &str = "survey";
/// Where the object store is when there is a line before it: the line then is where it is looked for.
const BEHIND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a site is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Size of the vault, in bytes.
    pub vault_bytes: u64,
    /// Whether the box runs under its supervisor, and takes updates.
    pub supervised: bool,
    /// Whether there is a repository of releases.
    pub releases: bool,
    /// Whether everybody reaches the object store over [`Site::line`].
    pub line: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            vault_bytes: 512 << 20,
            supervised: true,
            releases: false,
            line: false,
        }
    }
}

/// A box, its TPM, its cloud, and who uses them.
pub struct Site {
    /// The folder and the programs.
    pub stage: Stage,
    /// An administrator, logged in.
    pub operator: Operator,
    /// The cloud's process.
    pub cloud: Process,
    /// Where the cloud is, also after it was started again.
    pub ready: CloudReady,
    /// The software TPM's process.
    pub tpm: Process,
    /// How the TPM is reached.
    pub tcti: String,
    /// The box's name.
    pub box_id: String,
    /// The box's process.
    pub device: Process,
    /// Where the box takes files, also after it was started again.
    pub data_port: u16,
    /// The line to the object store, where the plan has one.
    pub line: Option<Relay>,
    plan: Plan,
    settings: Vec<String>,
}

impl Site {
    /// Brings everything up below `folder`, and writes the ticket to `ticket.json` there.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn stand(folder: &Path, plan: Plan) -> Result<Self, SystemError> {
        Self::stand_with(folder, plan, Vec::new()).await
    }

    /// The same, with further settings of the cloud.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn stand_with(
        folder: &Path,
        plan: Plan,
        further: Vec<String>,
    ) -> Result<Self, SystemError> {
        let stage = Stage::new(folder, Programs::find()?)?;
        let (line, s3) = if plan.line {
            let (listener, near) = Relay::listen().await.map_err(SystemError::Listen)?;
            let far = SocketAddr::from((BEHIND, near.port()));
            let line = Relay::from(listener, far).map_err(SystemError::Listen)?;
            (Some(line), far)
        } else {
            (None, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        };
        let (cloud, ready) = stage.cloud_with(&settings([0; 3], s3, &further)).await?;
        let s3 = SocketAddr::new(s3.ip(), ready.s3_port);
        let ports = [ready.people_port, ready.boxes_port, ready.mqtt_port];
        let (name, password) = stage.first_admin()?;
        let operator =
            Operator::log_in(&ready.people_url, &ready.root_pem, &name, &password).await?;
        let (tpm, tcti) = stage.software_tpm().await?;
        let repository = if plan.releases {
            Some(stage.make_repository().await?)
        } else {
            None
        };
        let box_id = stage.make_box(&ready, &tcti, repository.as_deref()).await?;
        stage.import(&operator, &box_id).await?;
        let data_port = free_port().map_err(SystemError::Listen)?;
        let device = start(&stage, plan, &tcti, data_port)?;
        let mut site = Self {
            stage,
            operator,
            cloud,
            ready,
            tpm,
            tcti,
            box_id,
            device,
            data_port,
            line,
            plan,
            settings: settings(ports, s3, &further),
        };
        site.online().await?;
        let ticket = site.operator.ticket(&site.box_id, BUCKET).await?;
        let path = site.stage.path("ticket.json");
        std::fs::write(&path, ticket).map_err(|source| SystemError::File { path, source })?;
        Ok(site)
    }

    /// Waits until the cloud counts the box as online; yields what it knows of it.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn online(&mut self) -> Result<Value, SystemError> {
        online(&self.operator, &self.box_id, &mut self.device).await
    }

    /// Starts the box, which must not run.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub fn start_box(&mut self) -> Result<(), SystemError> {
        self.device = start(&self.stage, self.plan, &self.tcti, self.data_port)?;
        Ok(())
    }

    /// Kills the box and starts it again.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn strike_box(&mut self) -> Result<(), SystemError> {
        self.device.kill().await?;
        self.start_box()
    }

    /// Starts the cloud, which must not run.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn start_cloud(&mut self) -> Result<(), SystemError> {
        self.cloud = self.stage.cloud_with(&self.settings).await?.0;
        Ok(())
    }

    /// What the box says at its console, with nobody asked but itself.
    ///
    /// # Errors
    ///
    /// [`SystemError`], also while it is not up yet.
    pub async fn status(&self) -> Result<Value, SystemError> {
        let state = self.stage.path("box").display().to_string();
        let arguments = ["--state", &state, "status", "--json"];
        let said = self.stage.run("status", "longhaul-box", arguments).await?;
        serde_json::from_str(&said).map_err(|error| SystemError::Unexpected {
            what: "the box says its status",
            text: format!("{error}: {said}"),
        })
    }

    /// A customer's computer, at the box's own address.
    pub fn customer(&self) -> Customer {
        Customer {
            program: self.stage.program("longhaul"),
            ticket: self.stage.path("ticket.json"),
            url: format!("https://127.0.0.1:{}", self.data_port),
            state: self.stage.path("state"),
        }
    }

    /// Fails unless the bucket holds exactly these objects, unchanged.
    ///
    /// # Errors
    ///
    /// [`SystemError::Unexpected`] names the object.
    pub async fn holds_exactly(&self, expected: &Digests) -> Result<(), SystemError> {
        let unexpected = |text| SystemError::Unexpected {
            what: "the bucket holds what was pushed",
            text,
        };
        let listed = self.operator.objects(BUCKET, "").await?;
        if listed.len() != expected.len() {
            let counts = format!("{} objects, not {}", listed.len(), expected.len());
            return Err(unexpected(counts));
        }
        for (key, digest) in expected {
            let there = self.operator.object_digest(BUCKET, key).await?;
            if there != *digest {
                return Err(unexpected(format!("{key} has another content")));
            }
        }
        Ok(())
    }

    /// Ends everything as it should end.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn stop(self) -> Result<(), SystemError> {
        self.device.stop().await?;
        Ok(self.cloud.stop().await?)
    }
}

fn start(stage: &Stage, plan: Plan, tcti: &str, port: u16) -> Result<Process, SystemError> {
    if plan.supervised {
        stage.start_box(tcti, plan.vault_bytes, port)
    } else {
        stage.start_agent(tcti, plan.vault_bytes, port)
    }
}

/// The cloud's settings: its ports for people, boxes and MQTT, and where its object store is.
fn settings([people, boxes, mqtt]: [u16; 3], s3: SocketAddr, further: &[String]) -> Vec<String> {
    let mut settings = vec![
        format!("--listen-people=127.0.0.1:{people}"),
        format!("--listen-boxes=127.0.0.1:{boxes}"),
        format!("--listen-mqtt=127.0.0.1:{mqtt}"),
        format!("--listen-s3={s3}"),
        "--public-host=localhost".to_owned(),
    ];
    settings.extend_from_slice(further);
    settings
}

fn free_port() -> std::io::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
