//! Registers the box by what somebody carries, and hands out its journal.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use longhaul_protocol::envelope::{self, VERSION};
use longhaul_protocol::ids::BoxId;
use longhaul_protocol::journal::{Fact, JournalEntry};
use longhaul_protocol::offline::{
    Grant, JournalClaims, MAX_ADDRESSES, MAX_ANSWER, MAX_JOURNAL_FILE,
};
use longhaul_protocol::topic::Dn;
use longhaul_protocol::value::{Blob, Digest32};
use longhaul_provisioning::offline::sha256;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::enrolment::Enrolment;
use super::lan_keeper::{LanKeeper, Offer, certifiable};
use super::supervisor::Supervisor;
use super::tickets::Tickets;
use super::{Options, RunError};
use crate::agent::Event;
use crate::clock;
use crate::cloud::{CloudClient, chain};
use crate::console::Status;
use crate::journal::JournalHandle;
use crate::lan::LanIdentity;
use crate::offline::answer::AnswerError;
use crate::offline::stick::{Stick, sticks};
use crate::offline::{Refused, Shown, reset};
use crate::page::{is_claim, is_online};
use crate::rungs;
use crate::sealed::MasterKey;

/// What is plugged in is looked for this often.
const LOOK: Duration = Duration::from_secs(2);
/// A box that has not got through for so long makes its request by itself, to show it.
const BY_ITSELF: Duration = Duration::from_mins(1);
/// A request that is older is made anew: the cloud takes none of more than twice this age.
const STALE_MS: i64 = 7 * 86_400_000;
/// The journal on a stick that stays is brought up to date this often.
const EXPORT: Duration = Duration::from_secs(30);
/// Files with a part of the journal on a stick at the most.
const MAX_FILES: usize = 64;
/// Bytes of entries in one of them; the signature stands before.
const FILE_BYTES: usize = MAX_JOURNAL_FILE - 16 * 1024;
/// Refusals that go into the journal for each start: whoever holds the stick cannot fill it.
const MAX_TOLD: usize = 32;

/// What the box says to whoever opens the stick.
const READ_ME: &str = "\
This folder was written by a Longhaul box.\r\n\
\r\n\
request.txt      asks for the box to be registered. Open our portal on a computer with internet,\r\n\
                 choose \"Box without a line\", and give it this file. Save the answer to this stick.\r\n\
                 Then plug the stick into the box again, and wait until status.txt says that it is done.\r\n\
journal-....txt  says what the box saw when it tried to reach us. Give the portal these, too:\r\n\
                 they help us find out why. They hold names of files, but nothing of what is in them.\r\n\
status.txt       says how far the box is.\r\n";

/// What registration works on.
pub(super) struct Register<'a> {
    pub enrolment: &'a Arc<Enrolment>,
    /// Absent, like the tickets, where the vault stays closed: such a box makes no request.
    pub key: Option<Arc<MasterKey>>,
    pub tickets: Option<Arc<Tickets>>,
    pub journal: &'a JournalHandle,
    pub events: &'a mpsc::Sender<Event>,
    pub status: &'a watch::Receiver<Status>,
}

impl Register<'_> {
    /// Starts what keeps the LAN certificate, and what registers the box without a line; where answers
    /// may be given, and how far it is.
    pub fn spawn(
        self,
        options: &Options,
        (cloud, lan): (CloudClient, LanIdentity),
        supervisor: &mut Supervisor,
    ) -> (mpsc::Sender<Vec<u8>>, watch::Receiver<Shown>) {
        let (offers, offered) = mpsc::channel(1);
        let (give, given) = mpsc::channel(1);
        let (shown, follow) = watch::channel(Shown::default());
        if let Some(key) = self.key.clone() {
            let keeper = LanKeeper::new(&options.state, key, cloud, lan, offered);
            supervisor.spawn("the LAN certificate's keeper", |stop| async move {
                keeper.run(stop).await;
                Ok(())
            });
        }
        let offline = Offline {
            state: options.state.clone(),
            sticks: options.config.stick_dir.clone(),
            enrolment: Arc::clone(self.enrolment),
            key: self.key,
            tickets: self.tickets,
            lan: offers,
            journal: self.journal.clone(),
            events: self.events.clone(),
            status: self.status.clone(),
            shown,
            given,
        };
        supervisor.spawn("registration without a line", |stop| offline.run(stop));
        (give, follow)
    }
}

/// Everything that it needs.
struct Offline {
    state: PathBuf,
    sticks: Option<PathBuf>,
    enrolment: Arc<Enrolment>,
    key: Option<Arc<MasterKey>>,
    tickets: Option<Arc<Tickets>>,
    lan: mpsc::Sender<Offer>,
    journal: JournalHandle,
    events: mpsc::Sender<Event>,
    status: watch::Receiver<Status>,
    shown: watch::Sender<Shown>,
    /// Answers that somebody gave the box's own page.
    given: mpsc::Receiver<Vec<u8>>,
}

/// What it remembers until the agent ends.
#[derive(Default)]
struct Memory {
    /// Files that were judged: they are not judged again while they lie there.
    judged: BTreeSet<Digest32>,
    /// Sticks that have the journal, up to which number, and since when.
    exported: Vec<(Stick, u64, Instant)>,
    failing_since: Option<Instant>,
    told: usize,
    refused: Option<Refused>,
}

impl Offline {
    /// Looks at what is plugged in until told to stop, or to begin anew.
    async fn run(mut self, stop: CancellationToken) -> Result<(), RunError> {
        let mut memory = Memory::default();
        self.show(&memory);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(file) = self.given.recv() => {
                    memory.refused = self.judge(&file, &mut memory).await.err();
                }
                () = tokio::time::sleep(LOOK) => {}
            }
            let there = match self.sticks.clone() {
                Some(folder) => blocking(move || sticks(&folder)).await.unwrap_or_default(),
                None => Vec::new(),
            };
            memory.exported.retain(|(stick, ..)| there.contains(stick));
            if there.is_empty() {
                memory.judged.clear();
            }
            for stick in &there {
                if self.wants_reset(stick).await? {
                    return Err(RunError::Restart);
                }
            }
            self.ask_where_needed(!there.is_empty(), &mut memory).await;
            for stick in &there {
                self.take_answers(stick, &mut memory).await;
                self.serve(stick, &mut memory).await;
            }
            self.show(&memory);
        }
    }

    fn box_id(&self) -> &BoxId {
        self.enrolment.box_id()
    }

    fn online(&self) -> bool {
        is_online(&self.status.borrow().lan.rungs)
    }

    /// Makes a request where the box needs one: it has no certificate for long enough, and no line.
    async fn ask_where_needed(&self, stick: bool, memory: &mut Memory) {
        let failing = self.status.borrow().lan.code().is_some() && !self.online();
        memory.failing_since = failing.then(|| memory.failing_since.unwrap_or_else(Instant::now));
        let waited = memory
            .failing_since
            .is_some_and(|since| since.elapsed() >= BY_ITSELF);
        let now = clock::wall();
        let due = self.enrolment.current().is_none_or(|c| {
            let half = c.expires.millis_since(c.issued) / 2;
            now.millis_since(c.issued) >= half
        });
        let none = self.enrolment.requests().pending().is_none_or(|pending| {
            // One that nobody carried: the state that it tells is of then.
            now.millis_since(pending.made) > STALE_MS
        });
        let Some(key) = self
            .key
            .clone()
            .filter(|_| due && none && failing && (stick || waited))
        else {
            return;
        };
        match self.ask(key).await {
            Ok(()) => tracing::info!("a request to be registered without a line is made"),
            Err(text) => tracing::warn!(text, "no request to be registered without a line"),
        }
    }

    async fn ask(&self, key: Arc<MasterKey>) -> Result<(), String> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| chain(&e))?;
        let public = pair.subject_public_key_info();
        let path = self.lan_key();
        // An answer to the request before would be for a key that is about to go.
        let withdrawn = self.enrolment.requests().withdraw();
        withdrawn.map_err(|e| chain(&e))?;
        let sealed = blocking(move || {
            let clear = zeroize::Zeroizing::new(pair.serialize_der());
            key.write(&path, &clear).map_err(|e| chain(&e))
        });
        sealed.await.ok_or("storing the LAN key failed")??;
        let mut addresses = certifiable(&rungs::lan_addresses());
        addresses.truncate(MAX_ADDRESSES);
        let asked = self.enrolment.ask(public, addresses).await;
        asked.map(drop).map_err(|e| chain(&e))
    }

    fn lan_key(&self) -> PathBuf {
        self.state.join("offline-lan.sealed")
    }

    async fn take_answers(&self, stick: &Stick, memory: &mut Memory) {
        let (on, box_id) = (stick.clone(), self.box_id().clone());
        let answers = blocking(move || on.answers(&box_id, MAX_ANSWER)).await;
        let mut refused = None;
        for file in answers.unwrap_or_default() {
            if !memory.judged.insert(sha256(&file)) {
                continue;
            }
            match self.judge(&file, memory).await {
                // What lies beside it may be old.
                Ok(()) => {
                    memory.refused = None;
                    return;
                }
                Err(why) => refused = Some(why),
            }
        }
        if refused.is_some() {
            memory.refused = refused;
        }
    }

    /// Takes an answer, or says why not.
    async fn judge(&self, file: &[u8], memory: &mut Memory) -> Result<(), Refused> {
        let (code, text) = match self.take(file).await {
            Ok(()) => {
                tracing::info!("registered without a line");
                return Ok(());
            }
            Err(Untaken::Known) => return Ok(()),
            Err(Untaken::Answer(error)) => (Some(error.code()), chain(&error)),
            Err(Untaken::Failed(text)) => (None, text),
        };
        tracing::warn!(
            code = code.map(|c| c.to_string()),
            text,
            "an answer is not taken"
        );
        if memory.told < MAX_TOLD {
            memory.told += 1;
            let named = code.map_or_else(String::new, |code| format!("{code}: "));
            let fact = Fact::Failure {
                part: "registration without a line".to_owned(),
                text: format!("{named}{text}"),
            };
            if let Err(error) = self.journal.append(fact).await {
                tracing::error!(%error, "fact not kept");
            }
        }
        Err(Refused { code, text })
    }

    /// Everything that an answer holds is on the disk before the request counts as answered; a power
    /// cut in between has the same answer taken once more.
    async fn take(&self, file: &[u8]) -> Result<(), Untaken> {
        let (pending, checked) = match self.enrolment.check_answer(file) {
            Ok(checked) => checked,
            Err(AnswerError::AnotherRequest) if self.was_taken(file) => {
                return Err(Untaken::Known);
            }
            Err(error) => return Err(Untaken::Answer(error)),
        };
        let grant = self.enrolment.open_answer(&checked).await;
        let Grant {
            issued,
            lan,
            desired,
            credentials,
        } = grant.map_err(Untaken::Answer)?;
        let failed = Untaken::Failed;
        let until = issued.expires;
        let addresses = longhaul_protocol::offline::Request::read(&pending.text)
            .map(|request| request.addresses)
            .unwrap_or_default();
        self.take_lan(lan, addresses).await.map_err(failed)?;
        let version = match (&self.tickets, credentials) {
            (Some(tickets), Some(set)) => Some(tickets.hold(set).await.map_err(failed)?),
            _ => None,
        };
        let installed = self.enrolment.install_answer(&pending, issued).await;
        let installed = installed.map_err(|e| failed(chain(&e)))?;
        let ldevid = installed.ok_or(Untaken::Answer(AnswerError::AnotherRequest))?;
        let taken = self.enrolment.requests().take(pending.name, until);
        taken.map_err(|e| failed(chain(&e)))?;
        let _ = self.events.send(Event::Enrolled(ldevid.validity())).await;
        let payload = desired.and_then(|desired| envelope::encode(&desired, clock::wall()).ok());
        if let Some(payload) = payload {
            let channel = Dn::Desired;
            let _ = self.events.send(Event::Message { channel, payload }).await;
        }
        if let Some(version) = version {
            let _ = self.events.send(Event::CredentialsHeld { version }).await;
        }
        Ok(())
    }

    /// Whether it is the very answer that registered the box: it may go on lying on the stick.
    fn was_taken(&self, file: &[u8]) -> bool {
        let requests = self.enrolment.requests();
        let claims = serde_json::from_slice::<longhaul_protocol::offline::Answer>(file)
            .ok()
            .and_then(|answer| longhaul_provisioning::jws::peek(&answer.answer));
        let claims: Option<longhaul_protocol::offline::AnswerClaims> = claims;
        claims.is_some_and(|claims| Some(claims.request) == requests.taken())
    }

    async fn take_lan(
        &self,
        certificate: longhaul_protocol::enrol::LanCertificate,
        addresses: Vec<std::net::IpAddr>,
    ) -> Result<(), String> {
        let key = self.key.clone().ok_or("the vault is closed")?;
        let path = self.lan_key();
        let read = blocking(move || key.read(&path).map_err(|e| chain(&e))).await;
        let key = read.ok_or("reading the LAN key failed")??;
        let key = key.ok_or("the key that the request was made for is gone")?;
        let (done, kept) = oneshot::channel();
        let offer = Offer {
            key: Blob(key.to_vec()),
            certificate,
            addresses,
            done,
        };
        let gone = || "nobody keeps the LAN certificate".to_owned();
        self.lan.send(offer).await.map_err(|_| gone())?;
        kept.await.map_err(|_| gone())?
    }

    /// Brings the box's folder on a stick up to date.
    async fn serve(&self, stick: &Stick, memory: &mut Memory) {
        let pending = self.enrolment.requests().pending();
        let mut files = vec![("READ-ME.txt".to_owned(), READ_ME.as_bytes().to_vec())];
        if let Some(pending) = &pending {
            files.push(("request.txt".to_owned(), pending.text.clone().into_bytes()));
        }
        files.push(("status.txt".to_owned(), self.said(memory).into_bytes()));
        let (on, box_id) = (stick.clone(), self.box_id().clone());
        let keep = if pending.is_some() {
            vec!["request.txt".to_owned()]
        } else {
            Vec::new()
        };
        let written = blocking(move || {
            on.tidy(&box_id, "request", &keep);
            files
                .iter()
                .try_for_each(|(name, bytes)| on.write(&box_id, name, bytes))
        });
        if let Some(Err(error)) = written.await {
            // Full, or not to be written: what can be read on it still counts.
            tracing::warn!(%error, "the stick is not written");
            return;
        }
        self.export(stick, memory).await;
    }

    fn said(&self, memory: &Memory) -> String {
        let shown = self.look(memory);
        let said = shown.said();
        let mut text = format!("Box {}\r\n", self.box_id());
        if let Some(until) = shown.until {
            let hours = until.millis_since(clock::wall()) / 3_600_000;
            let _ = write!(text, "Registered, for {hours} hours to come.\r\n");
        }
        if !said.is_empty() {
            let _ = write!(text, "{said}\r\n");
        }
        if self.online() {
            text.push_str("The box reaches us: there is nothing to carry.\r\n");
        }
        text
    }

    /// Writes what the cloud has not committed of the journal, signed, in files of a bounded size.
    async fn export(&self, stick: &Stick, memory: &mut Memory) {
        let position = *self.journal.position().borrow();
        let known = memory
            .exported
            .iter()
            .position(|(there, ..)| there == stick);
        if let Some((_, last, at)) = known.map(|at| &memory.exported[at])
            && (*last == position.last || at.elapsed() < EXPORT)
        {
            return;
        }
        match self.export_files(stick).await {
            Ok(()) => {
                if let Some(at) = known {
                    memory.exported.remove(at);
                }
                let done = (stick.clone(), position.last, Instant::now());
                memory.exported.push(done);
            }
            Err(text) => tracing::warn!(text, "the journal is not on the stick"),
        }
    }

    async fn export_files(&self, stick: &Stick) -> Result<(), String> {
        let mut names = Vec::new();
        let mut after = None;
        let mut body: Vec<(u64, String)> = Vec::new();
        let mut bytes = 0;
        loop {
            let batch = self
                .journal
                .batch_after(after)
                .await
                .map_err(|e| chain(&e))?;
            let entries = batch.map_or_else(Vec::new, |batch| batch.entries);
            let ended = entries.is_empty();
            for entry in entries {
                after = Some(entry.number);
                let line = line(&entry)?;
                if bytes + line.len() > FILE_BYTES && !body.is_empty() {
                    names.push(self.export_file(stick, std::mem::take(&mut body)).await?);
                    bytes = 0;
                }
                bytes += line.len();
                body.push((entry.number, line));
            }
            if ended || names.len() >= MAX_FILES {
                break;
            }
        }
        if !body.is_empty() && names.len() < MAX_FILES {
            names.push(self.export_file(stick, body).await?);
        }
        let (on, box_id) = (stick.clone(), self.box_id().clone());
        blocking(move || on.tidy(&box_id, "journal-", &names)).await;
        Ok(())
    }

    async fn export_file(&self, stick: &Stick, body: Vec<(u64, String)>) -> Result<String, String> {
        let (Some((first, _)), Some((last, _))) = (body.first(), body.last()) else {
            return Err("a part of the journal without entries".to_owned());
        };
        let (first, last) = (*first, *last);
        let text: String = body.into_iter().map(|(_, line)| line).collect();
        let claims = JournalClaims {
            v: VERSION,
            box_id: self.box_id().clone(),
            epoch: self.journal.epoch().clone(),
            first,
            last,
            made: clock::wall(),
            sha256: sha256(text.as_bytes()),
        };
        let signed = self.enrolment.sign_journal(claims).await?;
        let name = format!("journal-{first:09}-{last:09}.txt");
        let (on, box_id, as_name) = (stick.clone(), self.box_id().clone(), name.clone());
        let file = format!("{}\n{text}", signed.0);
        let written = blocking(move || on.write(&box_id, &as_name, file.as_bytes())).await;
        written
            .ok_or("writing to the stick failed")?
            .map_err(|e| e.to_string())?;
        Ok(name)
    }

    /// Whether somebody with the claim code wants the box as the factory prepared it. The wish is gone
    /// from the stick before it is carried out: a stick that stays resets a box once.
    async fn wants_reset(&self, stick: &Stick) -> Result<bool, RunError> {
        const LONGEST: usize = 256;
        let name = format!("longhaul-{}-reset.txt", self.box_id());
        let (on, wish) = (stick.clone(), name.clone());
        let Some(Some(code)) = blocking(move || on.text(&wish, LONGEST)).await else {
            return Ok(false);
        };
        let right = self
            .enrolment
            .claim()
            .is_some_and(|claim| is_claim(&code, &claim));
        let on = stick.clone();
        if let Some(Err(error)) = blocking(move || on.remove(&name)).await {
            tracing::warn!(%error, "the stick is not written, so the box is not reset");
            return Ok(false);
        }
        let text = if right {
            "somebody with the claim code has the box set back, by a stick"
        } else {
            "somebody without the claim code wanted the box set back, by a stick"
        };
        tracing::warn!(text);
        let fact = Fact::Notice {
            part: "reset".to_owned(),
            text: text.to_owned(),
        };
        if let Err(error) = self.journal.append(fact).await {
            tracing::error!(%error, "fact not kept");
        }
        if right {
            reset::ask(&self.state)?;
        }
        Ok(right)
    }

    fn look(&self, memory: &Memory) -> Shown {
        let requests = self.enrolment.requests();
        let lines = requests.pending().map_or_else(Vec::new, |pending| {
            pending.text.lines().map(str::to_owned).collect()
        });
        Shown {
            lines: if self.online() { Vec::new() } else { lines },
            until: requests.until().filter(|until| *until > clock::wall()),
            refused: memory.refused.clone().filter(|_| !self.online()),
        }
    }

    fn show(&self, memory: &Memory) {
        let shown = self.look(memory);
        self.shown.send_if_modified(|before| {
            let changed = *before != shown;
            before.clone_from(&shown);
            changed
        });
    }
}

/// Why an answer was not taken.
enum Untaken {
    /// It was, before.
    Known,
    Answer(AnswerError),
    /// The box could not do its part.
    Failed(String),
}

fn line(entry: &JournalEntry) -> Result<String, String> {
    let mut line = serde_json::to_string(entry).map_err(|e| e.to_string())?;
    line.push('\n');
    Ok(line)
}

/// Runs what waits for a disk, or a stick that was pulled; `None` if it has a defect.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Finishes a reset that was asked for.
pub(super) fn reset_where_asked(state: &Path) -> Result<(), RunError> {
    if reset::finish(state)? {
        tracing::warn!("the box is as the factory prepared it; its files are there");
    }
    Ok(())
}
