//! Signed documents: JWS in compact form (RFC 7515), Ed25519 (RFC 8037), certificate chain inside.
//!
//! What is signed, and for which use, is pinned from both ends: the header's `typ` names the kind
//! of document, and the signer's certificate must carry that kind's extended key usage. A ticket
//! signed by the right cloud is still no command.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use longhaul_protocol::value::{Jws, UnixMillis};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::Identity;
use crate::names;
use crate::oid;
use crate::trust::{Anchors, TrustError};

/// The longest signed document, in bytes of its compact form.
pub const MAX_COMPACT: usize = 64 * 1024;
/// Most certificates in a header: the leaf and its issuing authority are all that is needed.
const MAX_CHAIN: usize = 3;
const ALGORITHM: &str = "EdDSA";

/// The kind of a signed document.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A command to one box.
    Command,
    /// The desired state of one box.
    Desired,
    /// The factory's record of one box.
    Inventory,
    /// The configuration that the factory gives a box.
    BoxConfig,
    /// A ticket that lets a customer write to one box.
    Ticket,
    /// The cloud's countersignature under what it holds.
    Receipt,
    /// How the cloud is, for boxes that cannot reach it.
    Beacon,
    /// What lets a probe report to an order.
    ProbeTicket,
    /// An order, for the factory.
    Order,
    /// The answer to a box's request that came without a line.
    Answer,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Command,
        Self::Desired,
        Self::Inventory,
        Self::BoxConfig,
        Self::Ticket,
        Self::Receipt,
        Self::Beacon,
        Self::ProbeTicket,
        Self::Order,
        Self::Answer,
    ];

    /// The kind that a document says that it is. Nothing is verified: this only tells which kind
    /// to [`verify`] it as, where any kind will do.
    pub fn claimed(Jws(compact): &Jws) -> Option<Self> {
        #[derive(Deserialize)]
        struct Typ {
            typ: String,
        }
        if compact.len() > MAX_COMPACT {
            return None;
        }
        let header = URL_SAFE_NO_PAD.decode(compact.split('.').next()?).ok()?;
        let Typ { typ } = serde_json::from_slice(&header).ok()?;
        Self::ALL.into_iter().find(|kind| kind.typ() == typ)
    }

    /// The `typ` header.
    pub const fn typ(self) -> &'static str {
        match self {
            Self::Command => "longhaul-command",
            Self::Desired => "longhaul-desired",
            Self::Inventory => "longhaul-inventory",
            Self::BoxConfig => "longhaul-box-config",
            Self::Ticket => "longhaul-ticket",
            Self::Receipt => "longhaul-receipt",
            Self::Beacon => "longhaul-beacon",
            Self::ProbeTicket => "longhaul-probe-ticket",
            Self::Order => "longhaul-order",
            Self::Answer => "longhaul-answer",
        }
    }

    /// The extended key usage that a signer of this kind must have.
    const fn purpose(self) -> &'static [u8] {
        match self {
            Self::Command | Self::Desired | Self::Answer => oid::EKU_COMMAND,
            Self::Inventory | Self::BoxConfig => oid::EKU_RECORD,
            Self::Ticket | Self::Receipt | Self::Beacon | Self::ProbeTicket | Self::Order => {
                oid::EKU_STATEMENT
            }
        }
    }
}

/// Why a document could not be signed or is not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// The identity's key is not Ed25519.
    #[error("the signer's key is not an Ed25519 key")]
    NotEd25519,
    /// Longer than any document of ours.
    #[error("signed document is longer than 64 KiB")]
    TooLong,
    /// Not `header.payload.signature` in base64url.
    #[error("not a compact JWS: {0}")]
    Malformed(&'static str),
    /// The header asks for something that we do not do.
    #[error("unacceptable JWS header: {0}")]
    Header(String),
    /// The signer's certificate is not trusted for this kind of document.
    #[error("the signer of the {kind} is not trusted")]
    Signer {
        /// What was signed, as the verifier sees it.
        kind: &'static str,
        /// Why.
        source: TrustError,
    },
    /// The bytes were altered, or somebody else signed them.
    #[error("the signature of the {0} is wrong")]
    Signature(&'static str),
}

#[derive(Serialize)]
struct OutHeader<'a> {
    alg: &'a str,
    typ: &'a str,
    x5c: Vec<String>,
}

/// Exactly the header that [`Signer::sign`] writes: a `crit`, or anything else, is refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InHeader {
    alg: String,
    typ: String,
    x5c: Vec<String>,
}

/// Signs documents with an identity from [`crate::ca`].
pub struct Signer {
    key: Ed25519KeyPair,
    x5c: Vec<String>,
    name: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer with this identity's key and chain.
    pub fn new(identity: &Identity) -> Result<Self, JwsError> {
        let key = Ed25519KeyPair::from_pkcs8(identity.pkcs8()).map_err(|_| JwsError::NotEd25519)?;
        let name = signer_name(&identity.chain()[0]).ok_or(JwsError::Malformed(
            "the signer's certificate has no common name",
        ))?;
        let x5c = identity
            .chain()
            .iter()
            .map(|c| STANDARD.encode(c))
            .collect();
        Ok(Self { key, x5c, name })
    }

    /// The name in the signer's certificate.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Signs `payload` as a document of `kind`.
    pub fn sign(&self, kind: Kind, payload: &[u8]) -> Result<Jws, JwsError> {
        let header = OutHeader {
            alg: ALGORITHM,
            typ: kind.typ(),
            x5c: self.x5c.clone(),
        };
        let header = serde_json::to_vec(&header).map_err(|e| JwsError::Header(e.to_string()))?;
        let mut compact = URL_SAFE_NO_PAD.encode(header);
        compact.push('.');
        URL_SAFE_NO_PAD.encode_string(payload, &mut compact);
        let signature = self.key.sign(compact.as_bytes());
        compact.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut compact);
        if compact.len() > MAX_COMPACT {
            return Err(JwsError::TooLong);
        }
        Ok(Jws(compact))
    }
}

/// A document whose signature and signer were verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verified {
    /// The bytes that were signed.
    pub payload: Vec<u8>,
    /// The common name of the signer: an operator, a cloud, a factory.
    pub signer: String,
}

/// Verifies that `jws` is a document of `kind`, signed by somebody whom `anchors` allow to
/// sign that kind at `now`.
pub fn verify(
    jws: &Jws,
    kind: Kind,
    anchors: &Anchors,
    now: UnixMillis,
) -> Result<Verified, JwsError> {
    let Jws(compact) = jws;
    if compact.len() > MAX_COMPACT {
        return Err(JwsError::TooLong);
    }
    let (signed, signature) = compact
        .rsplit_once('.')
        .ok_or(JwsError::Malformed("no signature part"))?;
    let (header, payload) = signed
        .split_once('.')
        .ok_or(JwsError::Malformed("no payload part"))?;
    let decode = |part: &str, what| {
        URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| JwsError::Malformed(what))
    };
    let header = decode(header, "the header is not base64url")?;
    let payload = decode(payload, "the payload is not base64url")?;
    let signature = decode(signature, "the signature is not base64url")?;

    let header: InHeader =
        serde_json::from_slice(&header).map_err(|e| JwsError::Header(e.to_string()))?;
    if header.alg != ALGORITHM {
        return Err(JwsError::Header(format!(
            "alg {:?}, want {ALGORITHM:?}",
            cut(&header.alg)
        )));
    }
    if header.typ != kind.typ() {
        let (got, want) = (cut(&header.typ), kind.typ());
        return Err(JwsError::Header(format!("typ {got:?}, want {want:?}")));
    }
    if header.x5c.len() > MAX_CHAIN {
        return Err(JwsError::Header(format!(
            "{} certificates",
            header.x5c.len()
        )));
    }
    let chain: Result<Vec<_>, _> = header
        .x5c
        .iter()
        .map(|c| STANDARD.decode(c).map(CertificateDer::from))
        .collect();
    let chain = chain.map_err(|_| JwsError::Header("x5c is not base64".to_owned()))?;

    let leaf = anchors
        .verify(&chain, kind.purpose(), now)
        .map_err(|source| JwsError::Signer {
            kind: kind.typ(),
            source,
        })?;
    leaf.verify_signature(webpki::aws_lc_rs::ED25519, signed.as_bytes(), &signature)
        .map_err(|_| JwsError::Signature(kind.typ()))?;
    let name = signer_name(&chain[0])
        .ok_or_else(|| JwsError::Header("the signer has no name".to_owned()))?;
    Ok(Verified {
        payload,
        signer: name,
    })
}

/// The payload of a document that nobody has verified yet.
pub fn peek<T: serde::de::DeserializeOwned>(Jws(compact): &Jws) -> Option<T> {
    if compact.len() > MAX_COMPACT {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(compact.split('.').nth(1)?);
    serde_json::from_slice(&payload.ok()?).ok()
}

fn signer_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    names::common_name(&certificate).map(str::to_owned)
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ca::Pki;

    fn now() -> UnixMillis {
        UnixMillis(1_800_000_000_000)
    }

    struct Fleet {
        pki: Pki,
        anchors: Anchors,
        _dir: tempfile::TempDir,
    }

    fn fleet() -> Fleet {
        let dir = tempfile::tempdir().expect("a directory");
        let pki = Pki::init(&dir.path().join("pki"), now()).expect("authorities");
        let anchors = pki.root_anchor().expect("an anchor");
        Fleet {
            pki,
            anchors,
            _dir: dir,
        }
    }

    fn commander(fleet: &Fleet) -> Signer {
        let identity = fleet
            .pki
            .issue_command_signer("ada", 3_600, now())
            .expect("issued");
        Signer::new(&identity).expect("a signer")
    }

    #[test]
    fn what_was_signed_is_verified_and_names_its_signer() {
        let fleet = fleet();

        let compact = commander(&fleet)
            .sign(Kind::Command, b"{}")
            .expect("signed");
        let verified = verify(&compact, Kind::Command, &fleet.anchors, now()).expect("verified");

        assert_eq!(Kind::claimed(&compact), Some(Kind::Command));
        assert_eq!(Kind::claimed(&Jws("e30.e30.".to_owned())), None);
        assert_eq!(verified.payload, b"{}");
        assert_eq!(verified.signer, "ada");
    }

    #[test]
    fn a_document_of_one_kind_is_not_one_of_another() {
        let fleet = fleet();
        let compact = commander(&fleet)
            .sign(Kind::Desired, b"{}")
            .expect("signed");

        let refused = verify(&compact, Kind::Command, &fleet.anchors, now());

        assert!(matches!(refused, Err(JwsError::Header(_))), "{refused:?}");
    }

    #[test]
    fn a_signer_without_the_purpose_is_refused() {
        let fleet = fleet();
        let others = [
            fleet
                .pki
                .issue_statement_signer("cloud", 60, now())
                .expect("issued"),
            fleet
                .pki
                .issue_record_signer("factory", now())
                .expect("issued"),
        ];
        for identity in others {
            let compact = Signer::new(&identity)
                .expect("a signer")
                .sign(Kind::Command, b"{}")
                .expect("signed");

            let refused = verify(&compact, Kind::Command, &fleet.anchors, now());

            assert!(
                matches!(refused, Err(JwsError::Signer { .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn a_signer_of_another_fleet_or_past_its_date_is_refused() {
        let (ours, theirs) = (fleet(), fleet());
        let compact = commander(&theirs)
            .sign(Kind::Command, b"{}")
            .expect("signed");

        let refused = verify(&compact, Kind::Command, &ours.anchors, now());
        assert!(
            matches!(refused, Err(JwsError::Signer { .. })),
            "{refused:?}"
        );

        let compact = commander(&ours).sign(Kind::Command, b"{}").expect("signed");
        let late = now().plus_secs(3_601);
        let refused = verify(&compact, Kind::Command, &ours.anchors, late);
        assert!(
            matches!(refused, Err(JwsError::Signer { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        let fleet = fleet();
        let signer = commander(&fleet);
        let x5c = serde_json::to_string(&signer.x5c).expect("json");
        for header in [
            format!(r#"{{"alg":"none","typ":"longhaul-command","x5c":{x5c}}}"#),
            format!(r#"{{"alg":"HS256","typ":"longhaul-command","x5c":{x5c}}}"#),
            format!(r#"{{"alg":"EdDSA","typ":"longhaul-command","crit":["b64"],"x5c":{x5c}}}"#),
            format!(r#"{{"alg":"EdDSA","typ":"longhaul-command","jwk":{{}},"x5c":{x5c}}}"#),
            format!(r#"{{"alg":"EdDSA","x5c":{x5c}}}"#),
            r#"{"alg":"EdDSA","typ":"longhaul-command","x5c":["","","",""]}"#.to_owned(),
        ] {
            let mut compact = format!("{}.e30", URL_SAFE_NO_PAD.encode(&header));
            let signature = signer.key.sign(compact.as_bytes());
            compact = format!("{compact}.{}", URL_SAFE_NO_PAD.encode(signature));

            let refused = verify(&Jws(compact), Kind::Command, &fleet.anchors, now());

            assert!(
                matches!(refused, Err(JwsError::Header(_))),
                "{header}: {refused:?}"
            );
        }
        let empty = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"longhaul-command","x5c":[]}"#);
        let refused = verify(
            &Jws(format!("{empty}.e30.AAAA")),
            Kind::Command,
            &fleet.anchors,
            now(),
        );
        assert!(
            matches!(refused, Err(JwsError::Signer { .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn no_document_is_longer_than_the_limit() {
        let fleet = fleet();

        let signed = commander(&fleet).sign(Kind::Command, &vec![0; MAX_COMPACT]);
        assert!(matches!(signed, Err(JwsError::TooLong)));

        let long = "A".repeat(MAX_COMPACT + 1);
        let refused = verify(&Jws(long), Kind::Command, &fleet.anchors, now());
        assert!(matches!(refused, Err(JwsError::TooLong)));
    }

    #[test]
    fn no_altered_character_passes() {
        let fleet = fleet();
        let compact = commander(&fleet)
            .sign(Kind::Command, br#"{"a":1}"#)
            .expect("signed");

        for i in 0..compact.0.len() {
            let mut altered = compact.0.clone().into_bytes();
            altered[i] = if altered[i] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("ascii");

            assert!(
                verify(&Jws(altered), Kind::Command, &fleet.anchors, now()).is_err(),
                "character {i}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let anchors = Anchors::new([]).expect("no anchors");
            prop_assert!(verify(&Jws(text), Kind::Command, &anchors, now()).is_err());
        }
    }
}
