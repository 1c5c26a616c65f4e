//! What somebody learns who listens between this program and its TPM.
#![cfg(feature = "tpm")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use longhaul_provisioning::makers;
use longhaul_provisioning::tcg::public::SigningPublic;
use longhaul_provisioning::tpm::soft::SoftTpm;
use longhaul_provisioning::tpm::{Key, Tpm};

const CREATE: u32 = 0x153;
const ACTIVATE_CREDENTIAL: u32 = 0x147;
const UNSEAL: u32 = 0x15e;
const START_AUTH_SESSION: u32 = 0x176;
const SRK: u32 = 0x8100_0001;
/// Bits of a session's attributes (TPM 2.0 Library, Part 2, section 8.4).
const DECRYPT: u8 = 0x20;
const ENCRYPT: u8 = 0x40;

/// Everything that passed, in order.
type Tape = Arc<Mutex<Vec<u8>>>;

/// Listens between a client and a software TPM.
struct Bus {
    tcti: String,
    commands: Tape,
    answers: Tape,
}

impl Bus {
    fn tap(tpm: &SoftTpm) -> Self {
        let tcti = tpm.tcti();
        let (_, port) = tcti.rsplit_once('=').expect("a port");
        let port: u16 = port.parse().expect("a port");
        // The library looks for the control port right behind the other one.
        let (data, control, at) = (0..50)
            .find_map(|_| {
                let data = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                let at = data.local_addr().ok()?.port();
                let next = at.checked_add(1)?;
                let control = TcpListener::bind((Ipv4Addr::LOCALHOST, next)).ok()?;
                Some((data, control, at))
            })
            .expect("two ports");
        let (commands, answers) = (Tape::default(), Tape::default());
        forward(data, port, commands.clone(), answers.clone());
        forward(control, port + 1, Tape::default(), Tape::default());
        Self {
            tcti: format!("swtpm:host=127.0.0.1,port={at}"),
            commands,
            answers,
        }
    }

    fn carried(&self, bytes: &[u8]) -> bool {
        [&self.commands, &self.answers].into_iter().any(|tape| {
            let tape = tape.lock().expect("a tape");
            tape.windows(bytes.len()).any(|window| window == bytes)
        })
    }

    /// Commands, each with its answer.
    fn exchanges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let commands = messages(&self.commands.lock().expect("a tape"));
        let answers = messages(&self.answers.lock().expect("a tape"));
        assert_eq!(commands.len(), answers.len());
        commands.into_iter().zip(answers).collect()
    }
}

fn forward(listener: TcpListener, port: u16, up: Tape, down: Tape) {
    thread::spawn(move || {
        while let Ok((near, _)) = listener.accept() {
            let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the TPM");
            let ends = [&near, &far].map(|s| s.try_clone().expect("a socket"));
            let [near_too, far_too] = ends;
            let (up, down) = (up.clone(), down.clone());
            thread::spawn(move || copy(near, far, &up));
            thread::spawn(move || copy(far_too, near_too, &down));
        }
    });
}

fn copy(mut from: TcpStream, mut to: TcpStream, tape: &Tape) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        tape.lock().expect("a tape").extend(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side learns that this one has gone.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Messages begin with a tag of two bytes and their length in four.
fn messages(mut tape: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while !tape.is_empty() {
        let len = usize::try_from(word(tape, 2)).expect("a length");
        let (message, rest) = tape.split_at(len);
        messages.push(message.to_vec());
        tape = rest;
    }
    messages
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Skips what begins with its length in two bytes; where the next field begins.
fn skip(bytes: &[u8], at: usize) -> usize {
    at + 2 + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// Handle and attributes of a command's first session; its handles come before.
fn first_session(command: &[u8], handles: usize) -> (u32, u8) {
    let at = 10 + 4 * handles + 4;
    (word(command, at), command[skip(command, at + 4)])
}

fn make(dir: &Path) -> (SoftTpm, Bus, Tpm) {
    SoftTpm::manufacture(&dir.join("tpm"), &dir.join("maker")).expect("a TPM");
    let soft = SoftTpm::start(&dir.join("tpm")).expect("a running TPM");
    let bus = Bus::tap(&soft);
    let tpm = Tpm::open(&bus.tcti).expect("an open TPM");
    (soft, bus, tpm)
}

#[test]
fn a_listener_on_the_bus_sees_no_secret_and_no_key_to_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_soft, bus, tpm) = make(dir.path());
    let iak = SigningPublic::parse(&tpm.create(Key::Iak).expect("a key")).expect("a key");
    let ek = makers::endorsement_key(&tpm.ek_certificate().expect("a certificate")).expect("a key");
    let (secret, credential, nonce) =
        (*b"the master key of a box, 32 byte", [0xc5; 32], [0x3a; 32]);
    let before = bus.exchanges().len();

    let sealed = tpm.seal(&secret, &[0, 2, 4, 7]).expect("sealed");
    assert_eq!(tpm.unseal(&sealed).expect("opened").as_slice(), secret);
    let made = ek.make_credential(iak.name(), &credential).expect("made");
    let activated = tpm.activate(&made.blob, &made.encrypted_secret);
    assert_eq!(activated.expect("activated"), credential);
    tpm.quote(&nonce, &[0]).expect("a quote");

    assert!(
        bus.carried(&nonce),
        "the tape shows what travels in the clear"
    );
    assert!(!bus.carried(&secret));
    assert!(!bus.carried(&credential));
    // What encrypts them is salted to the chip: a session salted with nothing would hide them from
    // this tape, and not from who works out its key.
    let mut salted = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (command, answer) in bus.exchanges().into_iter().skip(before) {
        let code = word(&command, 6);
        let (handles, needed) = match code {
            START_AUTH_SESSION => {
                let session = word(&answer, 10);
                let salt = skip(&command, 18);
                if word(&command, 10) == SRK && skip(&command, salt) > salt + 2 {
                    salted.insert(session);
                } else {
                    salted.remove(&session);
                }
                continue;
            }
            CREATE => (1, DECRYPT),
            UNSEAL => (1, ENCRYPT),
            ACTIVATE_CREDENTIAL => (2, ENCRYPT),
            _ => continue,
        };
        let (session, attributes) = first_session(&command, handles);
        assert_eq!(attributes & needed, needed, "command {code:#x}");
        assert!(salted.contains(&session), "command {code:#x}");
        seen.insert(code);
    }
    assert_eq!(seen, BTreeSet::from([CREATE, UNSEAL, ACTIVATE_CREDENTIAL]));
}
