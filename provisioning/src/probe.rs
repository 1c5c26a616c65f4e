//! Probe tickets and the reports under them: the cloud signs a key, the key signs the report.

use aws_lc_rs::rand::fill;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::probe::{
    MAX_REPORT, MAX_TICKET_FILE, ProbeClaims, ProbeReport, ProbeTicket, SignedReport, TooMuch,
};
use longhaul_protocol::ticket::Secret;
use longhaul_protocol::value::{Blob, Jws, UnixMillis};

use crate::jws::{self, JwsError, Kind, Signer};
use crate::trust::{Anchors, TrustError};

/// Bytes of an Ed25519 seed and public key (RFC 8032).
const KEY: usize = 32;

/// Why a probe's ticket or report is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The system has no randomness.
    #[error("the system has no randomness")]
    Randomness,
    /// Longer than any of ours.
    #[error("the {0} is longer than any of ours")]
    TooLong(&'static str),
    /// Not the document that it should be.
    #[error("malformed {what}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Of a version that this program does not read.
    #[error("the {what} has version {got}; this program reads version {VERSION}")]
    Version {
        /// Which document.
        what: &'static str,
        /// Its version.
        got: u16,
    },
    /// The ticket's key cannot be used.
    #[error("the ticket's key cannot be used")]
    Key,
    /// Not signed by the cloud, or altered since.
    #[error("the ticket is not this fleet's")]
    Ticket(#[from] JwsError),
    /// The ticket's root cannot be used.
    #[error("the ticket's root cannot be used")]
    Root(#[from] TrustError),
    /// The ticket has ended.
    #[error("the ticket has ended: download a new one")]
    Expired,
    /// Not signed by the ticket's key, or altered since.
    #[error("the report is not signed by the ticket's key")]
    Signature,
    /// Made under another ticket.
    #[error("the report names another ticket")]
    OtherTicket,
    /// Longer than any probe's.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}

fn malformed(what: &'static str) -> impl FnOnce(serde_json::Error) -> ProbeError {
    move |source| ProbeError::Malformed { what, source }
}

/// Makes a key, has the cloud sign `claims` with it, and yields the file for the probe.
pub fn ticket(signer: &Signer, mut claims: ProbeClaims) -> Result<ProbeTicket, ProbeError> {
    let mut seed = [0; KEY];
    fill(&mut seed).map_err(|_| ProbeError::Randomness)?;
    let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| ProbeError::Key)?;
    claims.key = Blob(key.public_key().as_ref().to_vec());
    let claims = serde_json::to_vec(&claims).map_err(malformed("ticket"))?;
    Ok(ProbeTicket {
        ticket: signer.sign(Kind::ProbeTicket, &claims)?,
        seed: Secret(STANDARD.encode(seed)),
    })
}

/// Reads a probe's own ticket: whole, unaltered, and for the key that lies in it. Whoever downloaded
/// it trusts where it came from; the machine's clock may be wrong and is not asked.
pub fn open(bytes: &[u8]) -> Result<(ProbeTicket, ProbeClaims), ProbeError> {
    if bytes.len() > MAX_TICKET_FILE {
        return Err(ProbeError::TooLong("ticket"));
    }
    let ticket: ProbeTicket = serde_json::from_slice(bytes).map_err(malformed("ticket"))?;
    let Jws(compact) = &ticket.ticket;
    let payload = compact.split('.').nth(1).unwrap_or_default();
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(payload)
        .unwrap_or_default();
    let claimed: ProbeClaims = serde_json::from_slice(&payload).map_err(malformed("ticket"))?;
    let anchors = Anchors::from_pem(&claimed.root_pem)?;
    let claims = claims(&ticket.ticket, &anchors, claimed.issued)?;
    let key = key_pair(&ticket)?;
    if key.public_key().as_ref() != claims.key.0 {
        return Err(ProbeError::Key);
    }
    Ok((ticket, claims))
}

/// Signs a report under a ticket.
pub fn sign(ticket: &ProbeTicket, report: &ProbeReport) -> Result<SignedReport, ProbeError> {
    let report = serde_json::to_string(report).map_err(malformed("report"))?;
    let signed = SignedReport::signed(&ticket.ticket, &report);
    let signature = key_pair(ticket)?.sign(&signed);
    Ok(SignedReport {
        ticket: ticket.ticket.clone(),
        report,
        signature: Blob(signature.as_ref().to_vec()),
    })
}

/// Verifies a report and the ticket that it is under, as of `now`.
pub fn verify(
    signed: &SignedReport,
    anchors: &Anchors,
    now: UnixMillis,
) -> Result<(ProbeClaims, ProbeReport), ProbeError> {
    let Jws(ticket) = &signed.ticket;
    if ticket.len() + signed.report.len() > MAX_REPORT {
        return Err(ProbeError::TooLong("report"));
    }
    let claims = verify_ticket(&signed.ticket, anchors, now)?;
    UnparsedPublicKey::new(&ED25519, &claims.key.0)
        .verify(
            &SignedReport::signed(&signed.ticket, &signed.report),
            &signed.signature.0,
        )
        .map_err(|_| ProbeError::Signature)?;
    let report: ProbeReport = serde_json::from_str(&signed.report).map_err(malformed("report"))?;
    version("report", report.v)?;
    if report.ticket != claims.id {
        return Err(ProbeError::OtherTicket);
    }
    report.check()?;
    Ok((claims, report))
}

/// Verifies a ticket as of `now`.
pub fn verify_ticket(
    ticket: &Jws,
    anchors: &Anchors,
    now: UnixMillis,
) -> Result<ProbeClaims, ProbeError> {
    let claims = claims(ticket, anchors, now)?;
    if claims.expires <= now {
        return Err(ProbeError::Expired);
    }
    Ok(claims)
}

fn claims(ticket: &Jws, anchors: &Anchors, now: UnixMillis) -> Result<ProbeClaims, ProbeError> {
    let verified = jws::verify(ticket, Kind::ProbeTicket, anchors, now)?;
    let claims: ProbeClaims =
        serde_json::from_slice(&verified.payload).map_err(malformed("ticket"))?;
    version("ticket", claims.v)?;
    Ok(claims)
}

fn version(what: &'static str, got: u16) -> Result<(), ProbeError> {
    if got == VERSION {
        Ok(())
    } else {
        Err(ProbeError::Version { what, got })
    }
}

fn key_pair(ticket: &ProbeTicket) -> Result<Ed25519KeyPair, ProbeError> {
    let seed = STANDARD
        .decode(&ticket.seed.0)
        .map_err(|_| ProbeError::Key)?;
    Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| ProbeError::Key)
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
