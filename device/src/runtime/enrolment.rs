//! Asking the cloud for a certificate, with the TPM's evidence.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use longhaul_protocol::diag::Code;
use longhaul_protocol::enrol::{
    CERTIFICATE_PATH, CHALLENGE_PATH, Challenge, ChallengeRequest, Evidence, Issued,
};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::inventory::{CloudEndpoint, NetworkHints};
use longhaul_protocol::offline::{Grant, JournalClaims, Request};
use longhaul_protocol::receipt::RootClaims;
use longhaul_protocol::value::{Blob, Digest32, Jws, UnixMillis};
use longhaul_provisioning::receipt::RootSigner;
use longhaul_provisioning::trust::Anchors;
use longhaul_provisioning::{makers, offline};
use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use zeroize::Zeroizing;

use crate::agent::{Credential, Event};
use crate::chip::{Chip, ChipError, KeyRole};
use crate::clock;
use crate::cloud::{CloudClient, CloudError, CloudIdentity, chain};
use crate::disk::DiskError;
use crate::identity::{IdentityFile, Ldevid};
use crate::offline::answer::{self, AnswerError, Checked};
use crate::offline::pending::{Pending, Requests};
use crate::papers::Papers;
use crate::proxy::ProxySetting;
use crate::receipts::{Closed, Sealer};

/// Certificates in a chain from the cloud at the most; ours have two.
const MAX_CHAIN: usize = 4;
/// Endpoints that the cloud may name at the most.
const MAX_ENDPOINTS: usize = 16;

/// What the cloud calls PCRs that nobody has accepted.
const STATE_REFUSED: &str = "state-not-accepted";

#[derive(Debug, thiserror::Error)]
pub(super) enum EnrolError {
    #[error(transparent)]
    Cloud(#[from] CloudError),
    #[error(transparent)]
    Chip(#[from] ChipError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("the cloud's answer is unusable: {0}")]
    Answer(&'static str),
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    #[error("the TPM's thread failed")]
    Panicked,
}

impl EnrolError {
    fn code(&self) -> Code {
        match self {
            Self::Cloud(error) if error.problem().is_some_and(|p| p.contains("revoked")) => {
                Code::ENROL_REVOKED
            }
            Self::Cloud(error) if error.problem() == Some(STATE_REFUSED) => Code::STATE_CHANGED,
            Self::Cloud(error @ CloudError::Refused { .. }) if !error.is_retryable() => {
                Code::ENROL_REFUSED
            }
            Self::Chip(_) | Self::Tls(_) | Self::Panicked => Code::NO_IDENTITY,
            Self::Cloud(_) | Self::Disk(_) | Self::Answer(_) => Code::ENROL_UNAVAILABLE,
        }
    }
}

/// Who the box is, and how it becomes so again.
pub(super) struct Enrolment {
    papers: Papers,
    chip: Arc<dyn Chip>,
    file: IdentityFile,
    identity: CloudIdentity,
    /// Asks with the factory's certificate.
    stranger: CloudClient,
    /// Asks with the cloud's.
    member: CloudClient,
    current: Mutex<Option<Ldevid>>,
    /// One at a time makes a key.
    turn: tokio::sync::Mutex<()>,
    requests: Requests,
}

impl Sealer for Enrolment {
    fn seal(&self, closed: &Closed) -> Result<Option<Jws>, String> {
        let now = clock::wall();
        let Some(ldevid) = self.current().filter(|c| c.expires > now) else {
            return Ok(None);
        };
        let key = self.chip.tls_key(KeyRole::Ldevid(ldevid.key_slot));
        let key = key.map_err(|e| chain(&e))?;
        let signer = key
            .choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256])
            .ok_or("the box's key cannot sign with ECDSA P-256")?;
        let claims = RootClaims {
            v: VERSION,
            box_id: self.box_id().clone(),
            epoch: closed.epoch.clone(),
            root: closed.root,
            leaves: closed.leaves,
            sealed: now,
        };
        let signing = RootSigner {
            chain: &ldevid.certificates(),
            sign: &|message| signer.sign(message).map_err(|e| e.to_string()),
        };
        signing.sign(&claims).map(Some).map_err(|e| chain(&e))
    }
}

impl Enrolment {
    /// Takes up the identity that lies on the disk, where it is usable. Blocks for the TPM.
    pub fn new(
        papers: Papers,
        chip: Arc<dyn Chip>,
        file: IdentityFile,
        identity: CloudIdentity,
        member: CloudClient,
        proxy: ProxySetting,
        requests: Requests,
    ) -> Result<Self, super::RunError> {
        let resolver = resolver(papers.idevid.clone(), &*chip, KeyRole::Idevid)?;
        let tls = client_tls(&papers, resolver)?;
        let stranger = CloudClient::fixed(tls, papers.config.endpoints.clone(), proxy)?;
        let enrolment = Self {
            papers,
            chip,
            current: Mutex::new(None),
            file,
            identity,
            stranger,
            member,
            turn: tokio::sync::Mutex::default(),
            requests,
        };
        if let Some(ldevid) = enrolment.file.load()
            && let Err(error) = enrolment.take_up(ldevid)
        {
            tracing::warn!(error = chain(&error), "certificate on disk is unusable");
        }
        Ok(enrolment)
    }

    pub fn box_id(&self) -> &BoxId {
        &self.papers.config.box_id
    }

    /// What the factory said of the world outside the cloud, and who vouches for it.
    pub fn outside(&self) -> (NetworkHints, Anchors) {
        (
            self.papers.config.hints.clone(),
            self.papers.anchors.clone(),
        )
    }

    /// The certificate in use.
    pub fn current(&self) -> Option<Ldevid> {
        self.current.lock().clone()
    }

    /// Where the cloud is: what it said last, else what the factory said.
    pub fn endpoints(&self) -> Vec<CloudEndpoint> {
        let current = self.current.lock();
        let named = current.as_ref().map(|c| c.endpoints.clone());
        named.unwrap_or_else(|| self.papers.config.endpoints.clone())
    }

    /// TLS for the broker, with the cloud's certificate; says that it is MQTT that is wanted, for
    /// ports that answer HTTPS as well.
    pub fn mqtt_tls(&self) -> Option<Arc<rustls::ClientConfig>> {
        let ldevid = self.current()?;
        let mut tls = self
            .member_tls(&ldevid)
            .inspect_err(|error| tracing::error!(error = chain(error), "no TLS for the broker"))
            .ok()?;
        tls.alpn_protocols = vec![b"mqtt".to_vec()];
        Some(Arc::new(tls))
    }

    /// Shows the factory's certificate: for probes that need some identity.
    pub fn idevid_resolver(&self) -> Result<Arc<dyn ResolvesClientCert>, ChipError> {
        resolver(self.papers.idevid.clone(), &*self.chip, KeyRole::Idevid)
    }

    pub fn roots(&self) -> rustls::RootCertStore {
        self.papers.roots.clone()
    }

    /// Asks for a certificate; it is on the disk and in use when this returns.
    pub async fn enrol(&self, credential: Credential) -> Event {
        match self.try_enrol(credential).await {
            Ok(ldevid) => {
                tracing::info!(expires = ldevid.expires.0, "enrolled");
                Event::Enrolled(ldevid.validity())
            }
            Err(error) => Event::EnrolFailed {
                code: error.code(),
                evidence: chain(&error),
            },
        }
    }

    async fn try_enrol(&self, credential: Credential) -> Result<Ldevid, EnrolError> {
        let cloud = match credential {
            Credential::Idevid => &self.stranger,
            Credential::Ldevid => &self.member,
        };
        let request = self
            .with_chip(|chip| {
                Ok(ChallengeRequest {
                    v: VERSION,
                    ek_certificate: Blob(chip.ek_certificate()?),
                    iak_public: Blob(chip.iak_public()?),
                })
            })
            .await?;
        let challenge: Challenge = cloud.post(CHALLENGE_PATH, &request).await?;
        let _turn = self.turn.lock().await;
        let slot = self.free_slot();
        // Its key is about to be replaced; a line is better than an answer that somebody carries.
        self.requests.withdraw()?;
        let evidence = self
            .with_chip(move |chip| evidence(chip, slot, &challenge))
            .await?;
        let asked = clock::wall();
        let issued: Issued = cloud.post(CERTIFICATE_PATH, &evidence).await?;
        self.install(issued, slot, asked)
    }

    /// The key in use stays until the new one is certified and on the disk.
    fn free_slot(&self) -> u8 {
        self.current().map_or(0, |c| 1 - c.key_slot.min(1))
    }

    /// Takes a certificate for the key in `slot` into service; it is on the disk when this returns.
    fn install(&self, issued: Issued, slot: u8, asked: UnixMillis) -> Result<Ldevid, EnrolError> {
        let skew = asked.millis_since(issued.server_time);
        if skew.abs() > 60_000 {
            tracing::warn!(skew_ms = skew, "the box's clock and the cloud's differ");
        }
        if issued.certificate_chain.is_empty() || issued.certificate_chain.len() > MAX_CHAIN {
            return Err(EnrolError::Answer("it has no chain of certificates"));
        }
        let mut endpoints = issued.endpoints;
        endpoints.truncate(MAX_ENDPOINTS);
        if endpoints.is_empty() {
            endpoints = self.endpoints();
        }
        let ldevid = Ldevid {
            chain: issued.certificate_chain,
            key_slot: slot,
            issued: asked,
            expires: issued.expires,
            endpoints,
        };
        self.file.store(&ldevid)?;
        tokio::task::block_in_place(|| self.take_up(ldevid.clone()))?;
        Ok(ldevid)
    }

    fn take_up(&self, ldevid: Ldevid) -> Result<(), EnrolError> {
        let tls = self.member_tls(&ldevid)?;
        self.identity.install(tls, ldevid.endpoints.clone())?;
        *self.current.lock() = Some(ldevid);
        Ok(())
    }

    fn member_tls(&self, ldevid: &Ldevid) -> Result<rustls::ClientConfig, EnrolError> {
        let key = KeyRole::Ldevid(ldevid.key_slot);
        let resolver = resolver(ldevid.certificates(), &*self.chip, key)?;
        Ok(client_tls(&self.papers, resolver)?)
    }

    /// Requests that wait for an answer that somebody carries.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Makes a request that somebody can carry: a new key, certified with everything that the box states
    /// about itself. It is on the disk when this returns.
    pub async fn ask(
        &self,
        lan_public: Vec<u8>,
        addresses: Vec<IpAddr>,
    ) -> Result<Pending, EnrolError> {
        let _turn = self.turn.lock().await;
        let slot = self.free_slot();
        self.requests.withdraw()?;
        let box_id = self.box_id().clone();
        let pcrs = self.papers.sealing_pcrs().to_vec();
        let made = self.with_chip(move |chip| {
            let certificate = chip.ek_certificate()?;
            let ek = makers::endorsement_key(&certificate).map_err(|source| ChipError {
                what: "show its endorsement key",
                source: Box::new(source),
            })?;
            let mut request = Request {
                box_id,
                nonce: rand::random(),
                made: clock::wall(),
                ek_public: Blob(ek.spki().to_vec()),
                ldevid_public: Blob(chip.create_ldevid(slot)?),
                lan_public: Blob(lan_public),
                addresses,
                certify_attest: Blob::default(),
                certify_signature: Blob::default(),
                quote_attest: Blob::default(),
                quote_signature: Blob::default(),
                pcr_values: BTreeMap::new(),
            };
            let nonce = offline::nonce(&request);
            let certify = chip.certify_ldevid(slot, &nonce)?;
            let (quote, values) = chip.quote(&nonce, &pcrs)?;
            request.certify_attest = Blob(certify.attest);
            request.certify_signature = Blob(certify.signature);
            request.quote_attest = Blob(quote.attest);
            request.quote_signature = Blob(quote.signature);
            request.pcr_values = values;
            Ok(Pending::of(&request, slot))
        });
        let pending = made.await?;
        self.requests.ask(pending.clone())?;
        Ok(pending)
    }

    /// Judges a file that claims to answer the request that waits.
    pub fn check_answer(&self, file: &[u8]) -> Result<(Pending, Checked), AnswerError> {
        let pending = self.requests.pending();
        let name = pending.as_ref().map(|pending| pending.name);
        let checked = answer::check(
            file,
            self.box_id(),
            &self.papers.anchors,
            name,
            clock::wall(),
        );
        let checked = checked?;
        let pending = pending.ok_or(AnswerError::AnotherRequest)?;
        Ok((pending, checked))
    }

    /// Opens an answer, which only this TPM does.
    pub async fn open_answer(&self, checked: &Checked) -> Result<Grant, AnswerError> {
        let closed = |text: String| AnswerError::Closed(text);
        let (blob, secret) = (
            checked.claims.credential_blob.0.clone(),
            checked.claims.encrypted_secret.0.clone(),
        );
        let key = self.with_chip(move |chip| chip.activate(&blob, &secret).map(Zeroizing::new));
        let key = key.await.map_err(|e| closed(chain(&e)))?;
        let grant = offline::open(&checked.sealed, &key, checked.claims.request)
            .ok_or_else(|| closed("the key is another one".to_owned()))?;
        serde_json::from_slice(&grant).map_err(|e| AnswerError::Damaged(e.to_string()))
    }

    /// Takes the certificate of an answer into service; it is on the disk when this returns. `None` if
    /// the request was withdrawn meanwhile: the box has enrolled by wire.
    pub async fn install_answer(
        &self,
        pending: &Pending,
        issued: Issued,
    ) -> Result<Option<Ldevid>, EnrolError> {
        let _turn = self.turn.lock().await;
        if self.requests.pending().as_ref() != Some(pending) {
            return Ok(None);
        }
        self.install(issued, pending.slot, clock::wall()).map(Some)
    }

    /// The factory's certificate, and what signs with its key: also where nothing else is there yet.
    pub async fn sign_journal(&self, claims: JournalClaims) -> Result<Jws, String> {
        let idevid = self.papers.idevid.clone();
        let key = self.with_chip(|chip| chip.tls_key(KeyRole::Idevid));
        let key = key.await.map_err(|e| chain(&e))?;
        let signed = tokio::task::spawn_blocking(move || {
            let signer = key
                .choose_scheme(&[rustls::SignatureScheme::ECDSA_NISTP256_SHA256])
                .ok_or("the box's key cannot sign with ECDSA P-256")?;
            let signing = RootSigner {
                chain: &idevid,
                sign: &|message| signer.sign(message).map_err(|e| e.to_string()),
            };
            signing.sign_journal(&claims).map_err(|e| chain(&e))
        });
        signed.await.map_err(|e| e.to_string())?
    }

    /// SHA-256 of the claim code, where the papers have one.
    pub fn claim(&self) -> Option<Digest32> {
        self.papers.config.claim_code_sha256
    }

    async fn with_chip<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Chip) -> Result<T, ChipError> + Send + 'static,
    ) -> Result<T, EnrolError> {
        let chip = Arc::clone(&self.chip);
        tokio::task::spawn_blocking(move || work(&*chip))
            .await
            .map_err(|_| EnrolError::Panicked)?
            .map_err(EnrolError::from)
    }
}

fn evidence(chip: &dyn Chip, slot: u8, challenge: &Challenge) -> Result<Evidence, ChipError> {
    let nonce = &challenge.nonce.0;
    let activated = chip.activate(&challenge.credential_blob.0, &challenge.encrypted_secret.0)?;
    let ldevid_public = chip.create_ldevid(slot)?;
    let certify = chip.certify_ldevid(slot, nonce)?;
    let (quote, pcr_values) = chip.quote(nonce, &challenge.pcrs)?;
    Ok(Evidence {
        v: VERSION,
        challenge: challenge.id.clone(),
        activated: Blob(activated),
        ldevid_public: Blob(ldevid_public),
        certify_attest: Blob(certify.attest),
        certify_signature: Blob(certify.signature),
        quote_attest: Blob(quote.attest),
        quote_signature: Blob(quote.signature),
        pcr_values,
        csr: Blob(chip.request(KeyRole::Ldevid(slot))?),
    })
}

fn resolver(
    chain: Vec<CertificateDer<'static>>,
    chip: &dyn Chip,
    key: KeyRole,
) -> Result<Arc<dyn ResolvesClientCert>, ChipError> {
    let key = CertifiedKey::new(chain, chip.tls_key(key)?);
    Ok(Arc::new(SingleCertAndKey::from(key)))
}

fn client_tls(
    papers: &Papers,
    resolver: Arc<dyn ResolvesClientCert>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(papers.roots.clone())
        .with_client_cert_resolver(resolver))
}
