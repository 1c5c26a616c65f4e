//! What is signed: the signatures themselves, and what stands under a good one.

use std::sync::OnceLock;

use longhaul_device::agent::command::Judge;
use longhaul_device::agent::saved::Saved;
use longhaul_device::offline::answer;
use longhaul_protocol::command::SignedCommand;
use longhaul_protocol::envelope;
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::offline::Request;
use longhaul_protocol::twin::SignedDesired;
use longhaul_protocol::value::{Digest32, Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::jws::{self, Kind, Signer};
use longhaul_provisioning::tcg::public::SigningPublic;
use longhaul_provisioning::trust::Anchors;
use longhaul_provisioning::{csr, makers, receipt as receipts};

/// When everything happens.
const NOW: UnixMillis = UnixMillis(1_795_000_000_000);

struct Fleet {
    judge: Judge,
    anchors: Anchors,
    commander: Signer,
    cloud: Signer,
}

/// A fleet of its own for every process: keys are made, not kept.
fn fleet() -> &'static Fleet {
    static FLEET: OnceLock<Fleet> = OnceLock::new();
    FLEET.get_or_init(|| make().unwrap_or_else(|error| panic!("no fleet: {error}")))
}

fn make() -> Result<Fleet, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let pki = Pki::init(&dir.path().join("pki"), NOW)?;
    let anchors = pki.root_anchor()?;
    Ok(Fleet {
        judge: Judge {
            box_id: BoxId::from_ek_sha256(&[1; 32]),
            anchors: anchors.clone(),
        },
        anchors,
        commander: Signer::new(&pki.issue_command_signer("ada", 3_600, NOW)?)?,
        cloud: Signer::new(&pki.issue_statement_signer("cloud", 3_600, NOW)?)?,
    })
}

/// A signed document, as it comes.
pub(crate) fn jws(bytes: &[u8]) {
    let compact = Jws(String::from_utf8_lossy(bytes).into_owned());
    let _ = Kind::claimed(&compact);
    for kind in Kind::ALL {
        let verified = jws::verify(&compact, kind, &fleet().anchors, NOW);
        assert!(verified.is_err(), "nobody of this fleet signed it");
    }
}

/// What a command says under a good signature.
pub(crate) fn command(bytes: &[u8]) {
    let fleet = fleet();
    let _ = fleet.judge.command(bytes, &Saved::default(), NOW);
    let Ok(jws) = fleet.commander.sign(Kind::Command, bytes) else {
        return;
    };
    if let Ok(message) = envelope::encode(
        &SignedCommand {
            jws,
            traceparent: None,
        },
        NOW,
    ) {
        let mut saved = Saved::default();
        let Ok(longhaul_device::agent::command::Verdict::New(claims)) =
            fleet.judge.command(&message, &saved, NOW)
        else {
            return;
        };
        saved.accept(&claims);
        let twice = fleet.judge.command(&message, &saved, NOW);
        let known = matches!(
            twice,
            Ok(longhaul_device::agent::command::Verdict::Known(..))
        );
        assert!(known, "a command is new once");
    }
}

/// What a desired state says under a good signature.
pub(crate) fn desired(bytes: &[u8]) {
    let fleet = fleet();
    let _ = fleet.judge.desired(bytes, NOW);
    if let Ok(jws) = fleet.cloud.sign(Kind::Desired, bytes)
        && let Ok(message) = envelope::encode(&SignedDesired { jws }, NOW)
    {
        let _ = fleet.judge.desired(&message, NOW);
    }
}

/// A receipt, as a customer keeps it.
pub(crate) fn receipt(bytes: &[u8]) {
    let proven = receipts::verify(bytes, &fleet().anchors);
    assert!(proven.is_err(), "no box of this fleet signed it");
}

/// What a box says of its TPM: keys, requests, certificates.
pub(crate) fn evidence(bytes: &[u8]) {
    if let Ok(public) = SigningPublic::parse(bytes) {
        let _ = (public.usage(), public.name(), public.point(), public.spki());
    }
    let _ = csr::public_key(bytes);
    let _ = makers::endorsement_key(bytes);
}

/// What people carry to a box and from it: requests, answers.
pub(crate) fn offline(bytes: &[u8]) {
    let fleet = fleet();
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(request) = Request::read(text)
    {
        let again = Request::read(&request.text());
        assert_eq!(
            again.as_ref(),
            Ok(&request),
            "what was read is told the same"
        );
    }
    let ours = &fleet.judge.box_id;
    let answer = answer::check(bytes, ours, &fleet.anchors, Some(Digest32([0; 32])), NOW);
    assert!(answer.is_err(), "nobody of this fleet signed it");
}
