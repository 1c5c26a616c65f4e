//! Whether an answer is one to this box's request. Pure: no TPM, no clock, no IO.

use longhaul_protocol::diag::Code;
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::offline::{Answer, AnswerClaims, MAX_ANSWER};
use longhaul_protocol::value::{Blob, Digest32, UnixMillis};
use longhaul_provisioning::jws::{self, JwsError, Kind};
use longhaul_provisioning::offline;
use longhaul_provisioning::trust::Anchors;

/// Why an answer is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// It cannot be read.
    #[error("the answer is damaged or cut short: {0}")]
    Damaged(String),
    /// Nobody of us signed it.
    #[error("the answer is not signed by us: {0}")]
    Untrusted(JwsError),
    /// It is for another box.
    #[error("the answer is for box {0}")]
    AnotherBox(BoxId),
    /// It answers another request: an older one, or one that was answered before.
    #[error("the answer is not to the request that this box made last")]
    AnotherRequest,
    /// It came too late.
    #[error("the answer has ended, or the box's clock is wrong")]
    Ended,
    /// The TPM does not open it.
    #[error("this box's TPM does not open the answer: {0}")]
    Closed(String),
}

impl AnswerError {
    /// Its code.
    pub fn code(&self) -> Code {
        match self {
            Self::Damaged(_) => Code::ANSWER_DAMAGED,
            Self::Untrusted(_) | Self::Closed(_) => Code::ANSWER_UNTRUSTED,
            Self::AnotherBox(_) => Code::ANSWER_FOREIGN,
            Self::AnotherRequest | Self::Ended => Code::ANSWER_STALE,
        }
    }
}

/// An answer that is ours, for this box and to its request; only its TPM opens it.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What was signed.
    pub claims: AnswerClaims,
    /// The grant, sealed.
    pub sealed: Blob,
}

/// Reads and checks a file that claims to be an answer to `request`, where one is open. Its signature
/// is judged at the time that it names: what ties it to now is the request, which the box drew itself.
///
/// # Errors
///
/// [`AnswerError`] says why it is not taken.
pub fn check(
    file: &[u8],
    box_id: &BoxId,
    anchors: &Anchors,
    request: Option<Digest32>,
    now: UnixMillis,
) -> Result<Checked, AnswerError> {
    let damaged = |what: String| AnswerError::Damaged(what);
    if file.len() > MAX_ANSWER {
        return Err(damaged("it is longer than an answer can be".to_owned()));
    }
    let Answer { answer, sealed } =
        serde_json::from_slice(file).map_err(|e| damaged(e.to_string()))?;
    let unread: AnswerClaims =
        jws::peek(&answer).ok_or_else(|| damaged("it holds no answer".to_owned()))?;
    let verified = jws::verify(&answer, Kind::Answer, anchors, unread.issued);
    let verified = verified.map_err(AnswerError::Untrusted)?;
    let claims: AnswerClaims =
        serde_json::from_slice(&verified.payload).map_err(|e| damaged(e.to_string()))?;
    if claims.v != VERSION {
        let text = format!("it has version {}, this box reads {VERSION}", claims.v);
        return Err(damaged(text));
    }
    if offline::sha256(&sealed.0) != claims.sealed_sha256 {
        return Err(damaged("what it holds was changed".to_owned()));
    }
    if claims.box_id != *box_id {
        return Err(AnswerError::AnotherBox(claims.box_id));
    }
    if request != Some(claims.request) {
        return Err(AnswerError::AnotherRequest);
    }
    if now >= claims.expires {
        return Err(AnswerError::Ended);
    }
    Ok(Checked { claims, sealed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::value::Jws;
    use longhaul_provisioning::ca::Pki;
    use longhaul_provisioning::jws::Signer;
    use proptest::prelude::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const REQUEST: Digest32 = Digest32([5; 32]);

    fn ours() -> BoxId {
        "0123456789AB".parse().unwrap()
    }

    struct Fleet {
        pki: Pki,
        anchors: Anchors,
        _dir: tempfile::TempDir,
    }

    fn fleet() -> Fleet {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::init(&dir.path().join("pki"), NOW).unwrap();
        let anchors = pki.root_anchor().unwrap();
        Fleet {
            pki,
            anchors,
            _dir: dir,
        }
    }

    fn claims() -> AnswerClaims {
        AnswerClaims {
            v: VERSION,
            box_id: ours(),
            request: REQUEST,
            issued: NOW,
            expires: NOW.plus_secs(3_600),
            credential_blob: Blob(vec![1; 70]),
            encrypted_secret: Blob(vec![2; 100]),
            sealed_sha256: offline::sha256(&[3; 200]),
        }
    }

    fn file(fleet: &Fleet, kind: Kind, claims: &AnswerClaims) -> Vec<u8> {
        let identity = fleet.pki.issue_command_signer("cloud", 3_600, NOW).unwrap();
        let payload = serde_json::to_vec(claims).unwrap();
        let answer = Answer {
            answer: Signer::new(&identity)
                .unwrap()
                .sign(kind, &payload)
                .unwrap(),
            sealed: Blob(vec![3; 200]),
        };
        serde_json::to_vec(&answer).unwrap()
    }

    fn code(
        fleet: &Fleet,
        file: &[u8],
        request: Option<Digest32>,
        now: UnixMillis,
    ) -> Option<Code> {
        let checked = check(file, &ours(), &fleet.anchors, request, now);
        checked.err().map(|error| error.code())
    }

    #[test]
    fn only_the_answer_to_this_boxs_open_request_is_taken() {
        let fleet = fleet();
        let good = file(&fleet, Kind::Answer, &claims());
        let other = AnswerClaims {
            box_id: "0123456789AC".parse().unwrap(),
            ..claims()
        };
        let other = file(&fleet, Kind::Answer, &other);

        assert_eq!(code(&fleet, &good, Some(REQUEST), NOW), None);
        // A clock that was never set is no reason to refuse.
        assert_eq!(code(&fleet, &good, Some(REQUEST), UnixMillis(0)), None);
        let stale = Some(Code::ANSWER_STALE);
        assert_eq!(code(&fleet, &good, None, NOW), stale);
        assert_eq!(code(&fleet, &good, Some(Digest32([6; 32])), NOW), stale);
        let ended = NOW.plus_secs(3_600);
        assert_eq!(code(&fleet, &good, Some(REQUEST), ended), stale);
        let foreign = Some(Code::ANSWER_FOREIGN);
        assert_eq!(code(&fleet, &other, Some(REQUEST), NOW), foreign);
    }

    #[test]
    fn what_another_fleet_or_another_document_says_is_no_answer() {
        let others = fleet();
        let fleet = fleet();
        let untrusted = Some(Code::ANSWER_UNTRUSTED);

        let theirs = file(&others, Kind::Answer, &claims());
        assert_eq!(code(&fleet, &theirs, Some(REQUEST), NOW), untrusted);
        let desired = file(&fleet, Kind::Desired, &claims());
        assert_eq!(code(&fleet, &desired, Some(REQUEST), NOW), untrusted);
        let mut swapped: Answer =
            serde_json::from_slice(&file(&fleet, Kind::Answer, &claims())).unwrap();
        swapped.sealed.0[0] ^= 1;
        let swapped = serde_json::to_vec(&swapped).unwrap();
        let damaged = Some(Code::ANSWER_DAMAGED);
        assert_eq!(code(&fleet, &swapped, Some(REQUEST), NOW), damaged);
        let empty = Answer {
            answer: Jws(String::new()),
            sealed: Blob(Vec::new()),
        };
        let empty = serde_json::to_vec(&empty).unwrap();
        assert_eq!(code(&fleet, &empty, Some(REQUEST), NOW), damaged);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused() {
        let fleet = fleet();
        let good = file(&fleet, Kind::Answer, &claims());
        for end in 0..good.len() {
            let found = code(&fleet, &good[..end], Some(REQUEST), NOW);
            assert_eq!(found, Some(Code::ANSWER_DAMAGED), "{end}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let anchors = Anchors::new(&[]).ok();
            if let Some(anchors) = anchors {
                prop_assert!(check(&bytes, &ours(), &anchors, Some(REQUEST), NOW).is_err());
            }
        }
    }
}
