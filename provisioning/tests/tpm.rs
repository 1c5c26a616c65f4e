//! The TPM's own words, believed by the verifier that has none.
#![cfg(feature = "tpm")]

use std::collections::BTreeMap;
use std::path::Path;

use longhaul_protocol::enrol::{ChallengeRequest, Evidence};
use longhaul_protocol::envelope::VERSION;
use longhaul_protocol::inventory::InventoryRecord;
use longhaul_protocol::offline::Request;
use longhaul_protocol::value::{Blob, Digest32, UnixMillis};
use longhaul_provisioning::evidence::{self, Policy};
use longhaul_provisioning::makers::{self, Makers};
use longhaul_provisioning::offline;
use longhaul_provisioning::tcg::public::SigningPublic;
use longhaul_provisioning::tpm::soft::SoftTpm;
use longhaul_provisioning::tpm::{Key, Sealed, Tpm, TpmError};

const PCRS: [u8; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 11];
const LDEVID: Key = Key::Ldevid { second: false };

fn make(dir: &Path) -> (SoftTpm, Tpm) {
    SoftTpm::manufacture(&dir.join("tpm"), &dir.join("maker")).expect("a TPM");
    let soft = SoftTpm::start(&dir.join("tpm")).expect("a running TPM");
    let tpm = Tpm::open(&soft.tcti()).expect("an open TPM");
    (soft, tpm)
}

fn record(tpm: &Tpm) -> InventoryRecord {
    let certificate = tpm.ek_certificate().expect("a certificate");
    let ek = makers::endorsement_key(&certificate).expect("a key");
    let iak_public = tpm.create(Key::Iak).expect("a key");
    let values = tpm.pcrs(&PCRS).expect("values");
    InventoryRecord {
        v: VERSION,
        box_id: ek.box_id(),
        ek_sha256: ek.sha256(),
        ek_certificate: Blob(certificate),
        iak_name: Blob(
            SigningPublic::parse(&iak_public)
                .expect("a key")
                .name()
                .to_vec(),
        ),
        iak_public: Blob(iak_public),
        idevid_certificate: Blob::default(),
        expected_pcrs: PCRS
            .into_iter()
            .zip(values.into_iter().map(Digest32))
            .collect(),
        claim_code_sha256: Digest32([0; 32]),
        hardware: String::new(),
        order: None,
        made_at: UnixMillis(0),
    }
}

fn answer(
    tpm: &Tpm,
    challenge: &longhaul_protocol::enrol::Challenge,
) -> Result<Evidence, TpmError> {
    let nonce = &challenge.nonce.0;
    let activated = tpm.activate(&challenge.credential_blob.0, &challenge.encrypted_secret.0)?;
    let ldevid_public = tpm.create(LDEVID)?;
    let certify = tpm.certify(LDEVID, nonce)?;
    let quote = tpm.quote(nonce, &challenge.pcrs)?;
    let values = tpm.pcrs(&challenge.pcrs)?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&tpm.signer(LDEVID)?)
        .expect("a request");
    Ok(Evidence {
        v: VERSION,
        challenge: challenge.id.clone(),
        activated: Blob(activated),
        ldevid_public: Blob(ldevid_public),
        certify_attest: Blob(certify.attest),
        certify_signature: Blob(certify.signature),
        quote_attest: Blob(quote.attest),
        quote_signature: Blob(quote.signature),
        pcr_values: challenge
            .pcrs
            .iter()
            .copied()
            .zip(values.into_iter().map(Digest32))
            .collect(),
        csr: Blob(csr.der().to_vec()),
    })
}

#[test]
fn a_tpm_proves_itself_and_another_one_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, tpm) = make(&dir.path().join("ours"));
    let (_other_soft, other) = make(&dir.path().join("other"));
    let (record, other_record) = (record(&tpm), record(&other));
    assert_ne!(record.box_id, other_record.box_id);
    let policy = Policy::of(&record);
    let request = |record: &InventoryRecord| ChallengeRequest {
        v: VERSION,
        ek_certificate: record.ek_certificate.clone(),
        iak_public: record.iak_public.clone(),
    };
    let (challenge, pending) =
        evidence::challenge(&request(&record), &record, &policy, UnixMillis(10))
            .expect("challenge");

    let evidence = answer(&tpm, &challenge).expect("an answer");

    let verified = evidence::verify_enrolment(&evidence, &record, &policy, &pending, UnixMillis(9))
        .expect("verified");
    assert_eq!(verified.box_id, record.box_id);
    assert_eq!(
        verified.ldevid_spki,
        tpm.signer(LDEVID).expect("a key").spki()
    );
    assert!(
        answer(&other, &challenge).is_err(),
        "another TPM cannot activate it"
    );
    assert!(
        evidence::challenge(&request(&other_record), &record, &policy, UnixMillis(10)).is_err()
    );
}

/// A request that nobody asked for, as a box without a line makes it.
fn unasked(tpm: &Tpm, record: &InventoryRecord, nonce: u8) -> Request {
    let ek = makers::endorsement_key(&record.ek_certificate.0).expect("a key");
    let mut request = Request {
        box_id: record.box_id.clone(),
        nonce: [nonce; 16],
        made: UnixMillis(5),
        ek_public: Blob(ek.spki().to_vec()),
        ldevid_public: Blob(tpm.create(LDEVID).expect("a key")),
        lan_public: Blob(vec![1; 91]),
        addresses: vec!["192.168.1.40".parse().expect("an address")],
        certify_attest: Blob::default(),
        certify_signature: Blob::default(),
        quote_attest: Blob::default(),
        quote_signature: Blob::default(),
        pcr_values: BTreeMap::new(),
    };
    let over = offline::nonce(&request);
    let certify = tpm.certify(LDEVID, &over).expect("certified");
    let quote = tpm.quote(&over, &PCRS).expect("quoted");
    let values = tpm.pcrs(&PCRS).expect("values").into_iter().map(Digest32);
    request.certify_attest = Blob(certify.attest);
    request.certify_signature = Blob(certify.signature);
    request.quote_attest = Blob(quote.attest);
    request.quote_signature = Blob(quote.signature);
    request.pcr_values = PCRS.into_iter().zip(values).collect();
    request
}

#[test]
fn an_answer_without_a_question_opens_in_its_tpm_alone_and_a_later_request_is_later() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, tpm) = make(&dir.path().join("ours"));
    let (_other_soft, other) = make(&dir.path().join("other"));
    let (record, other_record) = (record(&tpm), record(&other));
    let policy = Policy::of(&record);
    let request = unasked(&tpm, &record, 1);

    let verified = offline::verify(&request, &record, &policy).expect("verified");
    let spki = tpm.signer(LDEVID).expect("a key").spki();
    assert_eq!(verified.ldevid_spki, spki);
    assert_eq!(Request::read(&request.text()), Ok(request.clone()));
    assert!(offline::verify(&request, &other_record, &policy).is_err());

    let sealed = offline::seal(b"a grant", &request, &record).expect("sealed");
    let (blob, secret) = (&sealed.credential_blob.0, &sealed.encrypted_secret.0);
    let key = tpm.activate(blob, secret).expect("activated");
    let name = offline::name(&request);
    let opened = offline::open(&sealed.sealed, &key, name).expect("opened");
    assert_eq!(opened.as_slice(), b"a grant");
    assert!(other.activate(blob, secret).is_err(), "another TPM");
    let another = offline::name(&unasked(&tpm, &record, 2));
    assert!(offline::open(&sealed.sealed, &key, another).is_none());
    assert!(offline::open(&sealed.sealed, &[0; 32], name).is_none());
    assert!(offline::open(&sealed.sealed, &key[1..], name).is_none());

    let later = unasked(&tpm, &record, 3);
    let later = offline::verify(&later, &record, &policy).expect("verified");
    assert!(
        (later.tpm.resets, later.tpm.clock_millis)
            >= (verified.tpm.resets, verified.tpm.clock_millis)
    );
}

#[test]
fn nothing_of_a_request_can_be_altered() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, tpm) = make(dir.path());
    let record = record(&tpm);
    let policy = Policy::of(&record);
    let good = unasked(&tpm, &record, 1);
    assert!(offline::verify(&good, &record, &policy).is_ok());
    let changes: [fn(&mut Request); 11] = [
        |r| r.nonce[0] ^= 1,
        |r| r.made.0 ^= 1,
        |r| r.ek_public.0[40] ^= 1,
        |r| r.ldevid_public.0[40] ^= 1,
        |r| r.lan_public.0[40] ^= 1,
        |r| r.addresses.clear(),
        |r| r.certify_attest.0[60] ^= 1,
        |r| r.certify_signature.0[20] ^= 1,
        |r| r.quote_attest.0[60] ^= 1,
        |r| r.quote_signature.0[20] ^= 1,
        |r| r.pcr_values.clear(),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut request = good.clone();
        change(&mut request);
        assert!(offline::verify(&request, &record, &policy).is_err(), "{at}");
    }
}

/// Flips one bit of every byte of every piece: whatever is altered, somebody notices.
#[test]
fn no_altered_byte_of_evidence_passes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, tpm) = make(dir.path());
    let record = record(&tpm);
    let policy = Policy::of(&record);
    let request = ChallengeRequest {
        v: VERSION,
        ek_certificate: record.ek_certificate.clone(),
        iak_public: record.iak_public.clone(),
    };
    let expires = UnixMillis(10);
    let (challenge, pending) =
        evidence::challenge(&request, &record, &policy, expires).expect("a challenge");
    let evidence = answer(&tpm, &challenge).expect("an answer");
    let verify = |e: &Evidence| {
        evidence::verify_enrolment(e, &record, &policy, &pending, UnixMillis(9)).map(drop)
    };
    verify(&evidence).expect("whole");

    let pieces: [fn(&mut Evidence) -> &mut Vec<u8>; 7] = [
        |e| &mut e.activated.0,
        |e| &mut e.ldevid_public.0,
        |e| &mut e.certify_attest.0,
        |e| &mut e.certify_signature.0,
        |e| &mut e.quote_attest.0,
        |e| &mut e.quote_signature.0,
        |e| &mut e.csr.0,
    ];
    for (n, piece) in pieces.into_iter().enumerate() {
        let mut altered = evidence.clone();
        for i in 0..piece(&mut altered).len() {
            let bit = 1 << (i % 8);
            piece(&mut altered)[i] ^= bit;
            assert!(verify(&altered).is_err(), "piece {n}, byte {i}");
            piece(&mut altered)[i] ^= bit;
        }
        piece(&mut altered).push(0);
        assert!(verify(&altered).is_err(), "piece {n}, longer");
        piece(&mut altered).truncate(1);
        assert!(verify(&altered).is_err(), "piece {n}, cut short");
    }
    for pcr in PCRS {
        let mut altered = evidence.clone();
        altered.pcr_values.entry(pcr).and_modify(|v| v.0[5] ^= 1);
        assert!(verify(&altered).is_err(), "PCR {pcr} altered");
        altered.pcr_values.remove(&pcr);
        assert!(verify(&altered).is_err(), "PCR {pcr} missing");
    }
    for pcr in [8, 23, 24, 255] {
        let mut altered = evidence.clone();
        altered.pcr_values.insert(pcr, Digest32([0; 32]));
        assert!(verify(&altered).is_err(), "PCR {pcr} made up");
    }

    let code = |e: &Evidence, p: &evidence::Pending, now| {
        evidence::verify_enrolment(e, &record, &policy, p, now)
            .err()
            .map(|refusal| refusal.code())
    };
    let (_, again) = evidence::challenge(&request, &record, &policy, expires).expect("another");
    let mut replayed = evidence.clone();
    replayed.challenge.clone_from(&again.id);
    assert_eq!(
        code(&evidence, &again, UnixMillis(9)),
        Some("another-challenge")
    );
    assert_eq!(
        code(&replayed, &again, UnixMillis(9)),
        Some("not-activated")
    );
    assert_eq!(
        code(&evidence, &pending, expires),
        Some("challenge-expired")
    );
    let mut foreign = evidence.clone();
    foreign.v += 1;
    assert_eq!(
        code(&foreign, &pending, UnixMillis(9)),
        Some("unknown-version")
    );

    // A state that nobody accepts, honestly quoted.
    let mut expected = record.expected_pcrs.clone();
    expected.entry(7).and_modify(|v| v.0[0] ^= 1);
    let mut strict = record.clone();
    strict.expected_pcrs = expected;
    let verify_by = |policy: &Policy| {
        evidence::verify_enrolment(&evidence, &strict, policy, &pending, UnixMillis(9))
            .expect("it is our TPM's word")
    };
    let unknown = verify_by(&Policy::of(&strict));
    let (found, expected) = (record.expected_pcrs[&7], strict.expected_pcrs[&7]);
    let only = evidence::Difference {
        pcr: 7,
        found,
        expected,
    };
    assert_eq!(unknown.differs, [only]);
    assert_eq!(
        unknown.accepted().err().map(|r| r.code()),
        Some("state-not-accepted")
    );
    let either = Policy::of(&strict).or_pcrs(&record.expected_pcrs);
    verify_by(&either).accepted().expect("one of two states");
}

#[test]
fn a_credential_opens_only_for_the_key_that_it_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, tpm) = make(dir.path());
    let iak = SigningPublic::parse(&tpm.create(Key::Iak).expect("a key")).expect("a key");
    let ek = makers::endorsement_key(&tpm.ek_certificate().expect("a certificate")).expect("a key");

    let ours = ek
        .make_credential(iak.name(), &[7; 32])
        .expect("a credential");
    let mut other_name = *iak.name();
    other_name[9] ^= 1;
    let others = ek
        .make_credential(&other_name, &[7; 32])
        .expect("a credential");

    let opened = tpm
        .activate(&ours.blob, &ours.encrypted_secret)
        .expect("opened");
    assert_eq!(opened, [7; 32]);
    assert!(
        tpm.activate(&others.blob, &others.encrypted_secret)
            .is_err()
    );
}

#[test]
fn keys_and_secrets_outlive_the_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let (soft, tpm) = make(dir.path());
    let sealed = tpm.seal(&[7; 32], &PCRS).expect("sealed");
    let first = tpm.create(Key::Idevid).expect("a key");
    drop(tpm);

    let tpm = Tpm::open(&soft.tcti()).expect("an open TPM");

    assert_eq!(tpm.unseal(&sealed).expect("opened").as_slice(), [7; 32]);
    assert_eq!(tpm.public(Key::Idevid).expect("a key"), first);
    assert!(matches!(tpm.public(LDEVID), Err(TpmError::NoKey(_))));
    assert_ne!(tpm.create(Key::Idevid).expect("a new key"), first);
    let cut = &sealed.blob[..sealed.blob.len() - 1];
    for garbage in [&[][..], &[0, 9], &[0xff; 40], cut] {
        let garbage = Sealed {
            blob: garbage.to_vec(),
            ..sealed.clone()
        };
        assert!(tpm.unseal(&garbage).is_err());
    }
    assert!(tpm.quote(&[0; 32], &[99]).is_err());
    assert!(tpm.activate(&[0; 9999], &[]).is_err());
}

#[test]
fn power_cuts_do_not_lock_the_boxs_keys() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut soft, mut tpm) = make(dir.path());
    for key in [Key::Iak, LDEVID] {
        tpm.create(key).expect("a key");
    }
    // Twice as many as this TPM bears of keys that it defends.
    for cut in 0..6 {
        tpm.quote(&[7; 32], &PCRS).expect("a quote");
        let signer = tpm.signer(LDEVID).expect("a key");
        let request = rcgen::CertificateParams::default().serialize_request(&signer);
        assert!(request.is_ok(), "after {cut} power cuts: {request:?}");
        drop((tpm, soft));
        soft = SoftTpm::start(&dir.path().join("tpm")).expect("a running TPM");
        tpm = Tpm::open(&soft.tcti()).expect("an open TPM");
    }
}

#[test]
fn a_secret_opens_only_in_the_state_in_which_it_was_sealed() {
    let dir = tempfile::tempdir().expect("a directory");
    let (soft, tpm) = make(dir.path());
    let sealed = tpm.seal(&[7; 32], &[0, 2, 4, 7]).expect("sealed");
    assert_eq!(
        sealed.pcrs.keys().copied().collect::<Vec<_>>(),
        [0, 2, 4, 7]
    );

    // What is not in the policy may change.
    tpm.extend(11, [1; 32]).expect("extended");
    assert_eq!(tpm.unseal(&sealed).expect("opened").as_slice(), [7; 32]);
    tpm.extend(4, [1; 32]).expect("extended");
    tpm.extend(7, [1; 32]).expect("extended");

    let refused = tpm.unseal(&sealed).expect_err("another state");
    assert!(
        matches!(&refused, TpmError::StateChanged(changed) if *changed == [4, 7]),
        "{refused:?}"
    );
    assert!(
        refused.to_string().contains("PCRs 4, 7 are not"),
        "{refused}"
    );
    // Neither a shorter list nor none, nor one that claims the values of now, talks the TPM into it.
    let now = tpm.pcrs(&[0, 2, 4, 7]).expect("values");
    let lists = [
        sealed
            .pcrs
            .clone()
            .into_iter()
            .filter(|(n, _)| *n < 4)
            .collect(),
        BTreeMap::new(),
        sealed.pcrs.keys().copied().zip(now).collect(),
    ];
    for pcrs in lists {
        let blob = sealed.blob.clone();
        let forged = tpm.unseal(&Sealed { blob, pcrs });
        assert!(matches!(forged, Err(TpmError::Tss { .. })), "{forged:?}");
    }
    assert!(matches!(tpm.seal(&[7; 32], &[]), Err(TpmError::NoPolicy)));
    assert!(matches!(tpm.extend(32, [1; 32]), Err(TpmError::NoPcr(32))));
    // Another state can have a secret of its own.
    let other = tpm.seal(&[8; 32], &[0, 2, 4, 7]).expect("sealed");
    assert_eq!(tpm.unseal(&other).expect("opened").as_slice(), [8; 32]);

    // The machine is booted again, as it was.
    drop((tpm, soft));
    let soft = SoftTpm::start(&dir.path().join("tpm")).expect("a running TPM");
    let tpm = Tpm::open(&soft.tcti()).expect("an open TPM");
    assert_eq!(tpm.unseal(&sealed).expect("opened").as_slice(), [7; 32]);
    assert!(tpm.unseal(&other).is_err());
}

/// Threads of this process with this name.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let names = tasks.map(|task| std::fs::read_to_string(task.expect("one").path().join("comm")));
    // One may end between the two looks.
    names
        .filter(|n| n.as_ref().is_ok_and(|n| n.trim() == name))
        .count()
}

/// It would be inside the TPM's library when the process takes that down, and crash with it.
#[test]
fn the_thread_of_a_tpm_ends_with_its_last_clone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (soft, first) = make(dir.path());
    drop(first);
    for _ in 0..20 {
        let tpm = Tpm::open(&soft.tcti()).expect("opened");
        let other = tpm.clone();
        drop(tpm);
        other.pcrs(&[7]).expect("read");
        assert_eq!(threads("tpm"), 1);
        drop(other);
        assert_eq!(threads("tpm"), 0);
    }
}

#[test]
fn a_missing_tpm_is_named() {
    for tcti in ["device:/dev/no-such-tpm", "swtpm:host=127.0.0.1,port=1"] {
        let error = Tpm::open(tcti).expect_err("no TPM");

        assert!(matches!(error, TpmError::Open { .. }), "{error:?}");
        assert!(error.to_string().contains(tcti), "{error}");
    }
    assert!(matches!(Tpm::open("nonsense"), Err(TpmError::Tcti(_))));
}

#[test]
fn the_makers_certificate_is_trusted_only_under_its_maker() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, tpm) = make(&dir.path().join("ours"));
    SoftTpm::manufacture(&dir.path().join("x/tpm"), &dir.path().join("x/maker")).expect("a TPM");
    let makers = |maker: &Path| {
        let texts = SoftTpm::maker_certificates(maker)
            .map(|path| std::fs::read_to_string(path).expect("a certificate"));
        Makers::from_pem(&texts.concat()).expect("makers")
    };
    let certificate = tpm.ek_certificate().expect("a certificate");
    let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).expect("a certificate");
    let now = UnixMillis((parsed.validity().not_before.timestamp() + 60) * 1000);

    let ours = makers(&dir.path().join("ours/maker")).verify(&certificate, now);
    let other = makers(&dir.path().join("x/maker")).verify(&certificate, now);

    assert_eq!(ours.err().map(|e| e.to_string()), None);
    assert!(other.is_err());
}
