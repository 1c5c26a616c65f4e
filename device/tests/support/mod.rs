//! A box that went through a factory, and a cloud that knows it.

pub mod cloud;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use longhaul_device::config::Config;
use longhaul_device::console::{self, Status};
use longhaul_device::papers::{BOX_CONFIG_FILE, IDEVID_FILE, ROOT_FILE};
use longhaul_device::runtime::{self, Options, RunError};
use longhaul_device::tpm::TpmChip;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::{BoxConfig, CloudEndpoint, InventoryRecord};
use longhaul_protocol::value::{Blob, Digest32, Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{Kind, Signer};
use longhaul_provisioning::makers;
use longhaul_provisioning::tcg::public::SigningPublic;
use longhaul_provisioning::tpm::soft::SoftTpm;
use longhaul_provisioning::tpm::{Key, Tpm};
use longhaul_provisioning::trust::certificates_to_pem;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// PCRs that the factory records.
const PCRS: [u8; 3] = [0, 7, 11];
/// How long anything in a test may take.
const PATIENCE: Duration = Duration::from_mins(1);

pub fn now() -> UnixMillis {
    longhaul_device::clock::wall()
}

/// A fleet's authorities, one box with a software TPM, and its directory.
pub struct Factory {
    pub dir: tempfile::TempDir,
    pub pki: Pki,
    pub record: InventoryRecord,
    /// Taken out and started anew by a test that switches the machine off and on.
    pub tpm: Mutex<Option<SoftTpm>>,
    /// The public part of the recovery key that the box is told, if any.
    pub recovery: Mutex<Option<Vec<u8>>>,
}

impl Factory {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (tpm_dir, maker) = (dir.path().join("tpm"), dir.path().join("maker"));
        SoftTpm::manufacture(&tpm_dir, &maker).unwrap();
        let tpm = SoftTpm::start(&tpm_dir).unwrap();
        let pki = Pki::init(&dir.path().join("pki"), now()).unwrap();
        let chip = Tpm::open(&tpm.tcti()).unwrap();
        let ek_certificate = chip.ek_certificate().unwrap();
        let ek = makers::endorsement_key(&ek_certificate).unwrap();
        let iak_public = chip.create(Key::Iak).unwrap();
        let iak = SigningPublic::parse(&iak_public).unwrap();
        chip.create(Key::Idevid).unwrap();
        let spki = chip.signer(Key::Idevid).unwrap().spki();
        let idevid = pki.issue_idevid(&ek.box_id(), &spki, now()).unwrap();
        let values = chip.pcrs(&PCRS).unwrap().into_iter().map(Digest32);
        let record = InventoryRecord {
            v: VERSION,
            box_id: ek.box_id(),
            ek_sha256: ek.sha256(),
            ek_certificate: Blob(ek_certificate),
            iak_name: Blob(iak.name().to_vec()),
            iak_public: Blob(iak_public),
            idevid_certificate: Blob(idevid[0].to_vec()),
            expected_pcrs: PCRS.into_iter().zip(values).collect::<BTreeMap<_, _>>(),
            claim_code_sha256: Digest32([0; 32]),
            hardware: "software TPM".to_owned(),
            order: None,
            made_at: now(),
        };
        let papers = dir.path().join("state/factory");
        fs::create_dir_all(&papers).unwrap();
        fs::write(papers.join(ROOT_FILE), pki.root_pem()).unwrap();
        fs::write(papers.join(IDEVID_FILE), certificates_to_pem(&idevid)).unwrap();
        Self {
            dir,
            pki,
            record,
            tpm: Mutex::new(Some(tpm)),
            recovery: Mutex::default(),
        }
    }

    /// How to open the TPM.
    pub fn tcti(&self) -> String {
        self.tpm.lock().as_ref().unwrap().tcti()
    }

    pub fn box_id(&self) -> &BoxId {
        &self.record.box_id
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Signs the box's configuration.
    pub fn configure(&self, endpoint: CloudEndpoint) {
        let config = BoxConfig {
            v: VERSION,
            box_id: self.box_id().clone(),
            endpoints: vec![endpoint],
            root_pem: self.pki.root_pem(),
            static_network: None,
            vlan: None,
            dot1x: None,
            egress: Vec::new(),
            order: None,
            pcrs: PCRS.to_vec(),
            recovery_key: self.recovery.lock().clone().map(Blob),
            claim_code_sha256: None,
            hints: longhaul_protocol::inventory::NetworkHints::default(),
            made_at: now(),
        };
        let signer = self.pki.issue_record_signer("factory", now()).unwrap();
        let signer = Signer::new(&signer).unwrap();
        let payload = serde_json::to_vec(&config).unwrap();
        let Jws(compact) = signer.sign(Kind::BoxConfig, &payload).unwrap();
        fs::write(self.state().join("factory").join(BOX_CONFIG_FILE), compact).unwrap();
    }

    /// Runs the box.
    pub fn start(&self) -> Running {
        let options = Options {
            state: self.state(),
            config: Config {
                tpm_tcti: self.tcti(),
                data_listen: "127.0.0.1:0".parse().unwrap(),
                vault_capacity_bytes: std::num::NonZeroU64::new(512 << 20),
                mdns: false,
                ..Config::default()
            },
            agent_version: "1.0.0-test".to_owned(),
            slot: None,
        };
        let chip = Arc::new(TpmChip::open(&self.tcti()).unwrap());
        let stop = CancellationToken::new();
        let state = options.state.clone();
        let task = tokio::spawn(runtime::run(options, chip, stop.clone()));
        Running { state, stop, task }
    }
}

/// A box that runs.
pub struct Running {
    state: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    /// Waits until the box says of itself what `wanted` wants to hear.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        let seen = tokio::time::timeout(PATIENCE, async {
            loop {
                assert!(
                    !self.task.is_finished(),
                    "the box ended while waiting for {what}"
                );
                if let Ok(status) = console::ask(&self.state).await {
                    if wanted(&status) {
                        return status;
                    }
                    last = Some(status);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let seen = seen.await;
        seen.unwrap_or_else(|_| panic!("never saw {what}; last {last:#?}"))
    }

    /// Waits for the box to end by itself.
    pub async fn ended(self) -> Result<(), RunError> {
        self.task.await.unwrap()
    }

    /// Stops the box and waits for its end.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}
