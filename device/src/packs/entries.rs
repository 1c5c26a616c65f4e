//! One pack on its way into the vault: decoded, compared, written; on a blocking thread.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use longhaul_protocol::ids::{InvalidId, ObjectKey};
use longhaul_protocol::names::{Clash, Folded, lookalikes};
use longhaul_protocol::pack::{Decoder, EntryHeader, Event, PackError, PackLine, StopCode};
use longhaul_protocol::value::Digest32;
use longhaul_vault::{
    Checksums, Commit, Condition, Error as VaultError, JobId, Metadata, ObjectInfo, ObjectWriter,
    Vault,
};
use tokio::sync::mpsc;

use super::TOLD_AT_ONCE;
use super::feed::Cut;
use crate::intake::TICKET_HEADER;
use crate::intake::claims::Claim;
use crate::intake::room;
use crate::intake::spellings::{self, Spellings};

/// User metadata in all, in bytes (Amazon S3 user guide, "working with object metadata").
const MAX_METADATA_BYTES: usize = 2048;
/// Longest content type, in bytes.
const MAX_TYPE_BYTES: usize = 256;

/// What became of an entry, or of the pack; in the order of the entries.
pub(super) enum Told {
    /// The entry is written; when the commit resolves it is durable.
    Written(Written),
    /// Known already.
    Line(PackLine),
}

/// An entry on its way to the disk.
pub(super) struct Written {
    entry: u64,
    key: ObjectKey,
    blake3: Digest32,
    notice: Option<String>,
    /// Held until the commit has ended.
    _claim: Claim,
    pub commit: Commit<ObjectInfo>,
}

impl Written {
    /// What is said about it once its commit has ended.
    pub fn line(
        self,
        ended: Result<ObjectInfo, VaultError>,
        vault: &Vault,
        job: &JobId,
    ) -> PackLine {
        let entry = self.entry;
        let info = match ended {
            Ok(info) => info,
            // Somebody else was quicker since the entry began: most likely the same client, whose
            // former pack was cut off and still lay here in part.
            Err(VaultError::PreconditionFailed(_)) => match vault.head(job, self.key.as_str()) {
                Ok(info) if info.blake3 == Some(self.blake3.0) && info.delivery.is_pending() => {
                    info
                }
                _ => return PackLine::Damaged { entry },
            },
            Err(error) => return stop_of(&error),
        };
        PackLine::Stored {
            entry,
            version: info.version.0,
            etag: info.etag,
            notice: self.notice,
        }
    }
}

/// Why no more of the pack is taken.
enum End {
    /// Said as the last line.
    Stop(PackLine),
    /// Nobody listens any more.
    Unheard,
}

/// The entry whose body is arriving.
enum Current {
    /// Its bytes go into the vault.
    New(Box<New>),
    /// The vault has it: its bytes are only compared.
    Held(Box<Held>),
    /// It is refused; its bytes are passed over.
    Refused,
}

struct New {
    writer: ObjectWriter,
    key: ObjectKey,
    wanted: Digest32,
    notice: Option<String>,
    /// What was there when it began.
    before: Condition,
    claim: Claim,
}

struct Held {
    hasher: blake3::Hasher,
    wanted: Digest32,
    version: u64,
    etag: String,
}

/// Where a pack goes.
pub(super) struct Place {
    pub vault: Vault,
    pub job: JobId,
    /// The ticket that it is put under.
    pub ticket: String,
    pub spellings: Spellings,
}

/// Takes the entries of one pack.
pub(super) struct Entries {
    place: Place,
    told: mpsc::Sender<Vec<Told>>,
    /// What is told next.
    telling: Vec<Told>,
    /// Names that this pack has brought, as the first half of their hash.
    names: HashSet<[u8; 16]>,
    /// The same without their case.
    folded: HashSet<[u8; 16]>,
    entry: u64,
    current: Current,
}

impl Entries {
    pub fn new(place: Place, told: mpsc::Sender<Vec<Told>>) -> Self {
        Self {
            place,
            told,
            telling: Vec::new(),
            names: HashSet::new(),
            folded: HashSet::new(),
            entry: 0,
            current: Current::Refused,
        }
    }

    /// Takes a whole pack; blocks for what arrives, for the disk, and while too much is in flight.
    pub fn take(mut self, arriving: mpsc::Receiver<Result<Vec<Bytes>, Cut>>) {
        let last = match self.run(arriving) {
            Ok(()) => PackLine::End {
                entries: self.entry,
            },
            Err(End::Stop(line)) => line,
            Err(End::Unheard) => return,
        };
        if let PackLine::Stopped { code, reason } = &last {
            tracing::debug!(
                ?code,
                reason,
                entries = self.entry,
                "a pack was not taken whole"
            );
        }
        self.telling.push(Told::Line(last));
        let _ = self.told.blocking_send(self.telling);
    }

    fn run(&mut self, mut arriving: mpsc::Receiver<Result<Vec<Bytes>, Cut>>) -> Result<(), End> {
        let mut decoder = Decoder::default();
        while let Some(pieces) = arriving.blocking_recv() {
            let pieces = pieces.map_err(|Cut { code, reason }| stop(code, reason))?;
            for piece in pieces {
                let mut input = &piece[..];
                while let Some(event) = decoder.next(&mut input).map_err(|e| malformed(&e))? {
                    match event {
                        Event::Entry(header) => self.begin(header)?,
                        Event::Body(bytes) => self.body(bytes)?,
                        Event::EntryEnd => self.finish()?,
                        Event::End => {}
                    }
                }
            }
            self.tell_all()?;
        }
        decoder.finish().map_err(|e| malformed(&e))
    }

    fn begin(&mut self, header: EntryHeader) -> Result<(), End> {
        self.entry += 1;
        match self.open(header) {
            Ok(current) => {
                self.current = current;
                Ok(())
            }
            Err(Refusal::Entry(reason)) => {
                self.current = Current::Refused;
                let entry = self.entry;
                self.tell(Told::Line(PackLine::Refused { entry, reason }))
            }
            Err(Refusal::Pack(line)) => Err(End::Stop(line)),
        }
    }

    fn open(&mut self, header: EntryHeader) -> Result<Current, Refusal> {
        let key: ObjectKey = header.key.parse().map_err(|error: InvalidId| {
            Refusal::Entry(format!(
                "no bucket can hold the name {:?} (rule: {}); rename the file and push it again",
                error.text, error.rule
            ))
        })?;
        check(header.content_type.as_deref(), &header.metadata).map_err(Refusal::Entry)?;
        if let Some(why) = room::never_fits(&self.place.vault, header.bytes) {
            return Err(Refusal::Entry(why));
        }
        // Claimed before the vault is asked: of two at once, one sees the other here or there.
        let (claim, written) = self.place.spellings.claim(&self.place.job, &key);
        let Place {
            vault,
            job,
            spellings,
            ..
        } = &self.place;
        let (same, other_case) = match spellings.clash(vault, job, &key, written) {
            Some((Clash::Normalization, other)) => (Some(other), None),
            Some((Clash::Case, other)) => (self.lookalike(&key), Some(other)),
            None => (self.lookalike(&key), None),
        };
        if let Some(other) = same {
            let reason = format!(
                "the name {:?} looks the same as {}, which is here or in this pack; both would be one \
                 file on many systems: rename one and push it again",
                key.as_str(),
                other.as_str().escape_unicode()
            );
            self.place.spellings.tell(&self.place.job, &reason);
            return Err(Refusal::Entry(reason));
        }
        // Which of two would win depends on how long they are; the client has to say what it means.
        if !self.names.insert(half_hash(key.as_str())) {
            return Err(Refusal::Entry(format!(
                "the name {:?} comes twice in one pack; send one of the two",
                key.as_str()
            )));
        }
        let notice = self.notice(&key, other_case);
        let before = match self.place.vault.head(&self.place.job, key.as_str()) {
            Ok(info) if is_same(&info, &header) => {
                return Ok(Current::Held(Box::new(Held {
                    hasher: blake3::Hasher::new(),
                    wanted: header.blake3,
                    version: info.version.0,
                    etag: info.etag,
                })));
            }
            Ok(info) => Condition::Version(info.version),
            Err(_) => Condition::Absent,
        };
        let metadata = Metadata {
            content_type: header.content_type,
            user: header.metadata,
            headers: [(TICKET_HEADER.to_owned(), self.place.ticket.clone())].into(),
        };
        let Place { vault, job, .. } = &self.place;
        let begun = match vault.begin(job, key.as_str(), metadata.clone()) {
            // A bucket exists as soon as a ticket names it.
            Err(VaultError::NoSuchJob(_)) => vault
                .create_job(job)
                .and_then(|()| vault.begin(job, key.as_str(), metadata)),
            begun => begun,
        };
        match begun {
            Ok(writer) => Ok(Current::New(Box::new(New {
                writer,
                key,
                wanted: header.blake3,
                notice,
                before,
                claim,
            }))),
            Err(error @ (VaultError::TooLong { .. } | VaultError::EmptyKey)) => {
                Err(Refusal::Entry(error.to_string()))
            }
            Err(error) => Err(Refusal::Pack(stop_of(&error))),
        }
    }

    /// What would look the same as `key`, earlier in this pack.
    fn lookalike(&self, key: &ObjectKey) -> Option<ObjectKey> {
        let mut others = lookalikes(key).into_iter();
        others.find(|other| self.names.contains(&half_hash(other.as_str())))
    }

    /// What is odd about `key`: the `other` name of the box, or one of this pack, that differs in case
    /// alone.
    fn notice(&mut self, key: &ObjectKey, other: Option<ObjectKey>) -> Option<String> {
        let Place { job, spellings, .. } = &self.place;
        let again = !self.folded.insert(half_hash(Folded::of(key).as_str()));
        let notice = match other {
            Some(other) => Some(spellings::notice(key, &other)),
            None if again => Some(format!(
                "the name {:?} differs from another one of this pack in upper and lower case alone",
                key.as_str()
            )),
            None => None,
        };
        if let Some(notice) = &notice {
            spellings.tell(job, notice);
        }
        notice
    }

    fn body(&mut self, bytes: &[u8]) -> Result<(), End> {
        match &mut self.current {
            Current::New(new) => new
                .writer
                .write(bytes)
                .map_err(|error| End::Stop(stop_of(&error))),
            Current::Held(held) => {
                held.hasher.update(bytes);
                Ok(())
            }
            Current::Refused => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(), End> {
        let entry = self.entry;
        let damaged = Told::Line(PackLine::Damaged { entry });
        let told = match std::mem::replace(&mut self.current, Current::Refused) {
            Current::New(new) => {
                let New {
                    mut writer,
                    key,
                    wanted,
                    notice,
                    before,
                    claim,
                } = *new;
                if writer.digests().blake3 == wanted.0 {
                    Told::Written(Written {
                        entry,
                        key,
                        blake3: wanted,
                        notice,
                        _claim: claim,
                        commit: writer.finish(Checksums::new(), before),
                    })
                } else {
                    damaged
                }
            }
            Current::Held(held) if *held.hasher.finalize().as_bytes() == held.wanted.0 => {
                Told::Line(PackLine::Stored {
                    entry,
                    version: held.version,
                    etag: held.etag,
                    notice: None,
                })
            }
            Current::Held(_) => damaged,
            Current::Refused => return Ok(()),
        };
        self.tell(told)
    }

    fn tell(&mut self, told: Told) -> Result<(), End> {
        self.telling.push(told);
        if self.telling.len() < TOLD_AT_ONCE {
            return Ok(());
        }
        self.tell_all()
    }

    fn tell_all(&mut self) -> Result<(), End> {
        if self.telling.is_empty() {
            return Ok(());
        }
        let telling = std::mem::take(&mut self.telling);
        self.told.blocking_send(telling).map_err(|_| End::Unheard)
    }
}

/// The same content under the same name, still to be delivered: most likely sent again because the
/// answer was lost. One more version of it would only be carried for nothing.
fn is_same(info: &ObjectInfo, header: &EntryHeader) -> bool {
    info.size == header.bytes
        && info.blake3 == Some(header.blake3.0)
        && info.delivery.is_pending()
        && info.metadata.content_type == header.content_type
        && info.metadata.user == header.metadata
        && info
            .metadata
            .headers
            .keys()
            .all(|name| name == TICKET_HEADER)
}

/// The first half of a name's hash: enough to tell apart the names of one pack.
fn half_hash(name: &str) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    half
}

enum Refusal {
    /// This entry is not taken.
    Entry(String),
    /// Nothing more is taken.
    Pack(PackLine),
}

/// What the vault said, as the last line of a pack.
pub(super) fn stop_of(error: &VaultError) -> PackLine {
    let (code, advice) = match error {
        VaultError::SlowDown => (
            StopCode::SlowDown,
            "space returns as objects reach the bucket, so wait and try again",
        ),
        VaultError::DiskFull => (
            StopCode::Full,
            "wait until objects have reached the bucket, or delete some",
        ),
        VaultError::Closed => (
            StopCode::Unavailable,
            "the box is stopping; try again later",
        ),
        error => {
            tracing::error!(%error, "the vault failed during a pack");
            (StopCode::Unavailable, "try again later")
        }
    };
    PackLine::Stopped {
        code,
        reason: format!("{error}; {advice}"),
    }
}

fn stop(code: StopCode, reason: String) -> End {
    End::Stop(PackLine::Stopped { code, reason })
}

fn malformed(error: &PackError) -> End {
    stop(StopCode::Malformed, crate::cloud::chain(error))
}

/// Refuses what could not stand beside an object in the bucket.
fn check(content_type: Option<&str>, user: &BTreeMap<String, String>) -> Result<(), String> {
    let plain = |text: &str| text.bytes().all(|b| (0x20..0x7f).contains(&b));
    if content_type.is_some_and(|text| text.len() > MAX_TYPE_BYTES || !plain(text)) {
        return Err(format!(
            "the content type must be at most {MAX_TYPE_BYTES} printable ASCII characters"
        ));
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let mut bytes = 0;
    for (name, value) in user {
        bytes += name.len() + value.len();
        if name.is_empty() || !name.bytes().all(token) || !plain(value) {
            return Err(format!("metadata {name:?} cannot stand in a header"));
        }
    }
    if bytes > MAX_METADATA_BYTES {
        return Err(format!(
            "{bytes} bytes of metadata; a bucket holds {MAX_METADATA_BYTES}"
        ));
    }
    Ok(())
}
