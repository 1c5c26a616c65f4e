//! The factory: gives a machine its identity, and writes down which machine it was.

mod papers;

use std::collections::BTreeMap;

use aws_lc_rs::rand;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::{BoxId, OrderId};
use longhaul_protocol::inventory::{
    BoxConfig, CloudEndpoint, InventoryRecord, NetworkHints, StaticNetwork,
};
use longhaul_protocol::network::Egress;
use longhaul_protocol::value::{Blob, Digest32, Jws, UnixMillis};
use rustls_pki_types::CertificateDer;

use crate::ca::{CaError, Pki};
use crate::jws::{JwsError, Kind, Signer};
use crate::makers::{MakerError, Makers};
use crate::recovery::RecoveryPublic;
use crate::tcg::Malformed;
use crate::tcg::credential::CredentialError;
use crate::tcg::public::SigningPublic;
use crate::tpm::{Key, Tpm, TpmError};

pub use papers::{
    BOX_CONFIG_FILE, IAK_FILE, IDEVID_FILE, INVENTORY_FILE, PapersError, ROOT_FILE, TUF_ROOT_FILE,
    read_document, read_record, read_records,
};

/// PCRs of the SHA-256 bank that are recorded if nobody says otherwise: firmware, boot loader,
/// secure boot state (TCG PC Client Platform Firmware Profile, section 3.3.4).
pub const DEFAULT_PCRS: [u8; 4] = [0, 2, 4, 7];
/// Characters of a claim code: letters and digits that are not mistaken for each other.
const CLAIM_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a claim code; five bits each.
const CLAIM_LEN: usize = 16;

/// Why a box could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FactoryError {
    /// The TPM did not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The TPM's maker is not trusted.
    #[error("the TPM's endorsement key is not trusted")]
    Maker(#[from] MakerError),
    /// Nothing can be encrypted to the TPM.
    #[error("the TPM's endorsement key is unusable")]
    Credential(#[from] CredentialError),
    /// The TPM shows a key that is not ours.
    #[error("the TPM made an unusable key")]
    Key(#[from] Malformed),
    /// The TPM could not prove that it holds the endorsement key.
    #[error("the TPM does not hold the endorsement key of its certificate")]
    NotActivated,
    /// An authority failed.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// A record could not be signed.
    #[error("a record could not be signed")]
    Sign(#[from] JwsError),
    /// A record has no JSON form.
    #[error("a record could not be encoded")]
    Encode(#[from] serde_json::Error),
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// A box needs to know where the cloud is.
    #[error("at least one cloud endpoint is needed")]
    NoEndpoint,
}

/// What is decided about a box before it is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where the cloud is, first choice first.
    pub endpoints: Vec<CloudEndpoint>,
    /// PCRs that a quote must cover from now on.
    pub pcrs: Vec<u8>,
    /// Network settings where there is no DHCP.
    pub static_network: Option<StaticNetwork>,
    /// The VLAN of its port.
    pub vlan: Option<u16>,
    /// Whether the network asks for 802.1X.
    pub dot1x: Option<bool>,
    /// Where it may connect to.
    pub egress: Vec<Egress>,
    /// The order that it is made for.
    pub order: Option<OrderId>,
    /// Hardware type, for people.
    pub hardware: String,
    /// To whom the box encrypts its vault's key.
    pub recovery: Option<RecoveryPublic>,
    /// What helps to tell whose fault it is where the cloud does not answer.
    pub hints: NetworkHints,
}

/// A box's papers.
#[derive(Clone, Debug)]
pub struct MadeBox {
    /// The box.
    pub box_id: BoxId,
    /// Printed on the box; whoever holds it may claim the box. Only its hash is kept, so there is
    /// none where the box kept the one that it has.
    pub claim_code: Option<String>,
    /// The record for the cloud, signed.
    pub inventory: Jws,
    /// The configuration for the box, signed.
    pub config: Jws,
    /// The IDevID certificate and its issuers.
    pub idevid: Vec<CertificateDer<'static>>,
    /// The IAK certificate and its issuers.
    pub iak: Vec<CertificateDer<'static>>,
    /// The fleet's root, PEM.
    pub root_pem: String,
}

/// Which box this TPM is, if its maker is trusted. Blocks for the TPM.
pub fn identify(makers: &Makers, tpm: &Tpm, now: UnixMillis) -> Result<BoxId, FactoryError> {
    Ok(makers.verify(&tpm.ek_certificate()?, now)?.box_id())
}

/// Gives the machine with this TPM its identity. Blocks for the TPM.
///
/// With the `previous` record of the same box, whose keys are still in its TPM, keys and claim code
/// stay as they are: doing it twice does no harm. Otherwise it gets new ones, and what was
/// issued before is void once the new record replaces the old one.
pub fn make(
    pki: &Pki,
    makers: &Makers,
    tpm: &Tpm,
    plan: &Plan,
    previous: Option<&InventoryRecord>,
    now: UnixMillis,
) -> Result<MadeBox, FactoryError> {
    if plan.endpoints.is_empty() {
        return Err(FactoryError::NoEndpoint);
    }
    let ek_certificate = tpm.ek_certificate()?;
    let ek = makers.verify(&ek_certificate, now)?;
    let box_id = ek.box_id();

    let mut kept = None;
    if let Some(record) = previous.filter(|record| record.box_id == box_id)
        && let Some(keys) = kept_keys(tpm, record)?
    {
        kept = Some((keys, record.claim_code_sha256));
    }
    let (iak_public, idevid_public) = match &kept {
        Some((keys, _)) => keys.clone(),
        None => (tpm.create(Key::Iak)?, tpm.create(Key::Idevid)?),
    };
    let iak = SigningPublic::parse(&iak_public)?;
    let idevid = SigningPublic::parse(&idevid_public)?;
    let mut secret = [0; 32];
    rand::fill(&mut secret).map_err(|_| FactoryError::Randomness)?;
    let credential = ek.make_credential(iak.name(), &secret)?;
    if tpm.activate(&credential.blob, &credential.encrypted_secret)? != secret {
        return Err(FactoryError::NotActivated);
    }
    let idevid_chain = pki.issue_idevid(&box_id, &idevid.spki(), now)?;
    let iak_chain = pki.issue_iak(&box_id, &iak.spki(), now)?;
    let values = tpm.pcrs(&plan.pcrs)?.into_iter().map(Digest32);
    let (claim_code, claim_code_sha256) = if let Some((_, digest)) = kept {
        (None, digest)
    } else {
        let code = claim_code()?;
        let digest = sha256(code.as_bytes());
        (Some(code), digest)
    };

    let record = InventoryRecord {
        v: VERSION,
        box_id: box_id.clone(),
        ek_sha256: ek.sha256(),
        ek_certificate: Blob(ek_certificate),
        iak_name: Blob(iak.name().to_vec()),
        iak_public: Blob(iak_public),
        idevid_certificate: Blob(idevid_chain[0].to_vec()),
        expected_pcrs: plan
            .pcrs
            .iter()
            .copied()
            .zip(values)
            .collect::<BTreeMap<_, _>>(),
        claim_code_sha256,
        hardware: plan.hardware.clone(),
        order: plan.order.clone(),
        made_at: now,
    };
    let config = BoxConfig {
        v: VERSION,
        box_id: box_id.clone(),
        endpoints: plan.endpoints.clone(),
        root_pem: pki.root_pem(),
        static_network: plan.static_network.clone(),
        vlan: plan.vlan,
        dot1x: plan.dot1x,
        egress: plan.egress.clone(),
        order: plan.order.clone(),
        pcrs: plan.pcrs.clone(),
        recovery_key: plan
            .recovery
            .as_ref()
            .map(|key| Blob(key.as_bytes().to_vec())),
        claim_code_sha256: Some(claim_code_sha256),
        hints: plan.hints.clone(),
        made_at: now,
    };
    let signer = Signer::new(&pki.issue_record_signer("factory", now)?)?;
    Ok(MadeBox {
        box_id,
        claim_code,
        inventory: signer.sign(Kind::Inventory, &serde_json::to_vec(&record)?)?,
        config: signer.sign(Kind::BoxConfig, &serde_json::to_vec(&config)?)?,
        idevid: idevid_chain,
        iak: iak_chain,
        root_pem: pki.root_pem(),
    })
}

/// `TPMT_PUBLIC` of the attestation key and of the initial identity.
type Publics = (Vec<u8>, Vec<u8>);

/// The attestation key and the initial identity of `record`, if both are in the TPM.
fn kept_keys(tpm: &Tpm, record: &InventoryRecord) -> Result<Option<Publics>, FactoryError> {
    let public = |key| match tpm.public(key) {
        Ok(public) => Ok(Some(public)),
        Err(TpmError::NoKey(_)) => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(iak), Some(idevid)) = (public(Key::Iak)?, public(Key::Idevid)?) else {
        return Ok(None);
    };
    let certified =
        x509_parser::parse_x509_certificate(&record.idevid_certificate.0).is_ok_and(|(_, c)| {
            SigningPublic::parse(&idevid).is_ok_and(|key| key.spki() == c.public_key().raw)
        });
    Ok((iak == record.iak_public.0 && certified).then_some((iak, idevid)))
}

/// Four groups of four characters, 80 bits.
fn claim_code() -> Result<String, FactoryError> {
    let mut random = [0; CLAIM_LEN];
    rand::fill(&mut random).map_err(|_| FactoryError::Randomness)?;
    let mut code = String::new();
    for (i, byte) in random.iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            code.push('-');
        }
        code.push(char::from(CLAIM_ALPHABET[usize::from(byte % 32)]));
    }
    Ok(code)
}

fn sha256(bytes: &[u8]) -> Digest32 {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    out.copy_from_slice(digest.as_ref());
    Digest32(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claim_codes_are_readable_and_differ() {
        let (a, b) = (claim_code().expect("a code"), claim_code().expect("a code"));

        assert_ne!(a, b);
        assert_eq!(a.len(), CLAIM_LEN + 3);
        assert!(
            a.bytes().all(|c| c == b'-' || CLAIM_ALPHABET.contains(&c)),
            "{a}"
        );
    }
}
