//! What the authorities issue. Every name is set here, by the issuer; a request only brings a key.

use std::net::IpAddr;
use std::path::Path;

use longhaul_protocol::ids::BoxId;
use longhaul_protocol::value::UnixMillis;
use rcgen::{CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SubjectPublicKeyInfo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::authority::{base, extended_key_usage};
use super::{Authority, CaError, DAY_SECS, Pki};
use crate::files;
use crate::names;
use crate::oid;
use crate::trust::{self, TrustError};

/// Leaves are valid from an hour before they were made: clocks differ.
pub const LEAF_BACKDATE_SECS: u64 = 3_600;
/// The longest validity of a box's identity in service: 72 hours.
pub const MAX_LDEVID_SECS: u64 = 72 * 3_600;
/// The longest validity of a box's certificate on a customer's network.
const MAX_LAN_SECS: u64 = 31 * DAY_SECS;
/// The longest validity of a server or a signer of commands.
const MAX_SIGNER_SECS: u64 = 398 * DAY_SECS;

/// A private key and its certificate chain, leaf first, without the root.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl Identity {
    pub(crate) const fn new(
        chain: Vec<CertificateDer<'static>>,
        pkcs8: Zeroizing<Vec<u8>>,
    ) -> Self {
        Self { chain, pkcs8 }
    }

    /// The chain, leaf first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The key as rustls wants it.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()).into()
    }

    pub(crate) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Key and chain in one PEM text, the key first.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let key = pem::Pem::new("PRIVATE KEY", self.pkcs8.to_vec());
        let mut text = Zeroizing::new(pem::encode_config(&key, config));
        text.push_str(&trust::certificates_to_pem(&self.chain));
        text
    }

    /// Reads what [`Identity::to_pem`] wrote.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        let blocks = pem::parse_many(text).map_err(|e| TrustError::Pem(e.to_string()))?;
        let mut chain = Vec::new();
        let mut pkcs8 = None;
        for block in blocks {
            match block.tag() {
                "CERTIFICATE" => chain.push(CertificateDer::from(block.into_contents())),
                "PRIVATE KEY" if pkcs8.is_none() => {
                    pkcs8 = Some(Zeroizing::new(block.into_contents()));
                }
                other => return Err(TrustError::Pem(format!("it holds an unexpected {other}"))),
            }
        }
        let pkcs8 = pkcs8.ok_or_else(|| TrustError::Pem("it holds no private key".to_owned()))?;
        if chain.is_empty() {
            return Err(TrustError::Pem("it holds no certificate".to_owned()));
        }
        Ok(Self { chain, pkcs8 })
    }

    /// Writes key and chain to one file, mode 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), CaError> {
        Ok(files::write(path, self.to_pem().as_bytes())?)
    }

    /// Opens a file that [`Identity::save`] wrote; `None` if there is none.
    pub fn open(path: &Path) -> Result<Option<Self>, CaError> {
        let Some(bytes) = files::read_key(path)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let unusable = |source| CaError::Certificate {
            path: path.to_owned(),
            source,
        };
        let text =
            std::str::from_utf8(&bytes).map_err(|e| unusable(TrustError::Pem(e.to_string())))?;
        Self::from_pem(text).map(Some).map_err(unusable)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("chain", &self.chain.len())
            .finish_non_exhaustive()
    }
}

/// The names of one of the cloud's servers; at least one.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// Host names, for example `cloud.example.com`.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl ServerNames {
    pub(crate) fn into_sans(self) -> Result<Vec<SanType>, CaError> {
        let mut sans = Vec::new();
        for name in self.dns {
            let refused = |rule| CaError::Name {
                name: name.clone(),
                rule,
            };
            rustls_pki_types::DnsName::try_from(name.as_str())
                .map_err(|_| refused("not a host name"))?;
            let text = name.as_str().try_into().map_err(|_| refused("not ASCII"))?;
            sans.push(SanType::DnsName(text));
        }
        sans.extend(self.ips.into_iter().map(SanType::IpAddress));
        if sans.is_empty() {
            return Err(CaError::Name {
                name: String::new(),
                rule: "a server needs at least one name",
            });
        }
        Ok(sans)
    }
}

impl Pki {
    /// Makes a key and a certificate for one of the cloud's servers, valid for at most 398 days.
    pub fn issue_server(
        &self,
        names: ServerNames,
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Identity, CaError> {
        let common_name = names
            .dns
            .first()
            .cloned()
            .or_else(|| names.ips.first().map(ToString::to_string))
            .unwrap_or_default();
        let leaf = Leaf {
            authority: Authority::Servers,
            common_name: &common_name,
            sans: names.into_sans()?,
            purpose: oid::EKU_SERVER_AUTH,
            validity_secs: at_most(validity_secs, MAX_SIGNER_SECS)?,
        };
        self.issue_with_new_key(leaf, &PKCS_ECDSA_P256_SHA256, now)
    }

    /// Certifies a box's key for service (LDevID), for at most 72 hours. `spki` is the key that
    /// the evidence proved, never one from elsewhere.
    pub fn issue_ldevid(
        &self,
        id: &BoxId,
        spki: &[u8],
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let validity_secs = at_most(validity_secs, MAX_LDEVID_SECS)?;
        self.issue_for_box(
            Authority::Boxes,
            id,
            spki,
            oid::EKU_CLIENT_AUTH,
            validity_secs,
            now,
        )
    }

    /// Certifies a box's initial identity (IDevID), for as long as the factory authority lives.
    pub fn issue_idevid(
        &self,
        id: &BoxId,
        spki: &[u8],
        now: UnixMillis,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        self.issue_for_box(
            Authority::Factory,
            id,
            spki,
            oid::EKU_CLIENT_AUTH,
            u64::MAX,
            now,
        )
    }

    /// Certifies a box's attestation key (IAK), for as long as the factory authority lives.
    pub fn issue_iak(
        &self,
        id: &BoxId,
        spki: &[u8],
        now: UnixMillis,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        self.issue_for_box(
            Authority::Factory,
            id,
            spki,
            oid::EKU_TCG_AIK,
            u64::MAX,
            now,
        )
    }

    /// Certifies the key of a box's endpoint on the customer's network, for at most 31 days: its
    /// own name below `box.longhaul.internal`, `longhaul-{id}.local`, and private addresses.
    pub fn issue_lan(
        &self,
        id: &BoxId,
        spki: &[u8],
        ips: &[IpAddr],
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let names = ServerNames {
            dns: vec![
                names::lan_name(id),
                format!("longhaul-{}.local", id.as_str().to_ascii_lowercase()),
            ],
            ips: ips.to_vec(),
        };
        let leaf = Leaf {
            authority: Authority::Lan,
            common_name: id.as_str(),
            sans: names.into_sans()?,
            purpose: oid::EKU_SERVER_AUTH,
            validity_secs: at_most(validity_secs, MAX_LAN_SECS)?,
        };
        self.issue(leaf, &p256(spki)?, now)
    }

    /// Makes an Ed25519 key that may command the fleet; `name` is the operator's or the cloud's.
    pub fn issue_command_signer(
        &self,
        name: &str,
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Identity, CaError> {
        let validity_secs = at_most(validity_secs, MAX_SIGNER_SECS)?;
        self.issue_signer(
            Authority::Commands,
            name,
            oid::EKU_COMMAND,
            validity_secs,
            now,
        )
    }

    /// Makes an Ed25519 key for what is stated to customers: tickets, receipts, how the cloud is.
    pub fn issue_statement_signer(
        &self,
        name: &str,
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Identity, CaError> {
        let validity_secs = at_most(validity_secs, MAX_SIGNER_SECS)?;
        self.issue_signer(
            Authority::Commands,
            name,
            oid::EKU_STATEMENT,
            validity_secs,
            now,
        )
    }

    /// Makes an Ed25519 key that signs factory records, for as long as the factory authority
    /// lives: a record is read for as long as its box is in the fleet.
    pub fn issue_record_signer(&self, name: &str, now: UnixMillis) -> Result<Identity, CaError> {
        self.issue_signer(Authority::Factory, name, oid::EKU_RECORD, u64::MAX, now)
    }

    fn issue_signer(
        &self,
        authority: Authority,
        name: &str,
        purpose: &[u8],
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Identity, CaError> {
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(CaError::Name {
                name: name.chars().take(64).collect(),
                rule: "a signer's name has 1 to 64 bytes and no control characters",
            });
        }
        let leaf = Leaf {
            authority,
            common_name: name,
            sans: vec![],
            purpose,
            validity_secs,
        };
        self.issue_with_new_key(leaf, &PKCS_ED25519, now)
    }

    fn issue_for_box(
        &self,
        authority: Authority,
        id: &BoxId,
        spki: &[u8],
        purpose: &[u8],
        validity_secs: u64,
        now: UnixMillis,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let uri = names::box_uri(id);
        let san = uri.as_str().try_into().map_err(|_| CaError::Name {
            name: uri.clone(),
            rule: "not ASCII",
        })?;
        let leaf = Leaf {
            authority,
            common_name: id.as_str(),
            sans: vec![SanType::URI(san)],
            purpose,
            validity_secs,
        };
        self.issue(leaf, &p256(spki)?, now)
    }

    fn issue_with_new_key(
        &self,
        leaf: Leaf<'_>,
        algorithm: &'static rcgen::SignatureAlgorithm,
        now: UnixMillis,
    ) -> Result<Identity, CaError> {
        let key = KeyPair::generate_for(algorithm)?;
        let spki = SubjectPublicKeyInfo::from_der(&key.subject_public_key_info())?;
        let chain = self.issue(leaf, &spki, now)?;
        Ok(Identity {
            chain,
            pkcs8: Zeroizing::new(key.serialize_der()),
        })
    }

    fn issue(
        &self,
        leaf: Leaf<'_>,
        key: &SubjectPublicKeyInfo,
        now: UnixMillis,
    ) -> Result<Vec<CertificateDer<'static>>, CaError> {
        let now = trust::unix_time(now).as_secs();
        // Nothing outlives its issuer: a chain is worth no more than its weakest date.
        let not_after = now
            .saturating_add(leaf.validity_secs)
            .min(self.held(leaf.authority)?.not_after);
        if not_after <= now {
            return Err(CaError::Expired(leaf.authority));
        }
        let not_before = now.saturating_sub(LEAF_BACKDATE_SECS);
        let mut params: CertificateParams = base(leaf.common_name, not_before, not_after)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.custom_extensions = vec![extended_key_usage(&[leaf.purpose])];
        params.subject_alt_names = leaf.sans;
        self.sign(leaf.authority, &params, key)
    }
}

struct Leaf<'a> {
    authority: Authority,
    common_name: &'a str,
    sans: Vec<SanType>,
    purpose: &'a [u8],
    validity_secs: u64,
}

fn at_most(asked_secs: u64, most_secs: u64) -> Result<u64, CaError> {
    if asked_secs > most_secs {
        return Err(CaError::TooLong {
            asked_secs,
            most_secs,
        });
    }
    Ok(asked_secs)
}

fn p256(spki: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| CaError::NotP256)?;
    if *key.algorithm() != PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::NotP256);
    }
    Ok(key)
}
