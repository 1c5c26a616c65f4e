//! What earlier pushes to a box achieved, so that the next one does not do it again.
//!
//! One file of JSON lines per box and bucket, only ever appended to; the last line about a key
//! counts, and a line that cannot be read (the last one of a killed program) is passed over. It is a
//! memory, not a proof: what it says is checked against the box before it is believed, so losing the
//! file costs time and nothing else. That is why it is not synced to disk.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::ticket::Ticket;
use longhaul_protocol::value::Digest32;
use serde::{Deserialize, Serialize};

use crate::source::{Crc64, Stamp};

/// Lines that are not needed any more before the file is written anew.
const SPARE_LINES: usize = 10_000;

/// The file that an object came from, as it was then.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Origin {
    /// Its absolute path; characters that are not UTF-8 are replaced.
    pub path: String,
    /// Its stamp.
    pub stamp: Stamp,
}

impl Origin {
    /// Names the file at `path`.
    pub fn new(path: &Path, stamp: Stamp) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self {
            path: path.to_string_lossy().into_owned(),
            stamp,
        }
    }
}

/// An object that the box acknowledged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Done {
    /// Where it came from.
    pub origin: Origin,
    /// The tag that the box gave it.
    pub etag: String,
    /// Hash of its bytes.
    pub blake3: Digest32,
}

/// A multipart upload that is not finished.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OpenUpload {
    /// Where its bytes come from.
    pub origin: Origin,
    /// The box's name for it.
    pub upload_id: String,
    /// Bytes in each part but the last.
    pub part_bytes: u64,
    /// Parts that the box acknowledged, by number.
    #[serde(skip)]
    pub parts: BTreeMap<i32, DonePart>,
}

/// A part that the box acknowledged.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DonePart {
    /// The tag that the box gave it.
    pub etag: String,
    /// Checksum of its bytes.
    pub crc: Crc64,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Done(ObjectKey, Done),
    Begun(ObjectKey, OpenUpload),
    Part(ObjectKey, i32, DonePart),
    Dropped(ObjectKey),
}

#[derive(Default)]
struct State {
    done: HashMap<ObjectKey, Done>,
    uploads: HashMap<ObjectKey, OpenUpload>,
}

impl State {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Done(key, done) => {
                self.uploads.remove(&key);
                self.done.insert(key, done);
            }
            Record::Begun(key, upload) => {
                self.done.remove(&key);
                self.uploads.insert(key, upload);
            }
            Record::Part(key, number, part) => {
                if let Some(upload) = self.uploads.get_mut(&key) {
                    upload.parts.insert(number, part);
                }
            }
            Record::Dropped(key) => {
                self.uploads.remove(&key);
                self.done.remove(&key);
            }
        }
    }

    fn lines(&self) -> usize {
        let parts: usize = self.uploads.values().map(|u| u.parts.len() + 1).sum();
        self.done.len() + parts
    }
}

/// The memory of pushes to one bucket of one box.
pub struct Journal {
    state: Mutex<State>,
    file: Option<Mutex<File>>,
    /// Shared by every push to this bucket; exclusive while the file is written anew.
    _lock: Option<File>,
}

impl Journal {
    /// A memory that ends with the program.
    pub fn forgetful() -> Self {
        Self {
            state: Mutex::default(),
            file: None,
            _lock: None,
        }
    }

    /// Opens the journal of a ticket's box and bucket in `dir`; blocks.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(dir: &Path, ticket: &Ticket) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = Self::path(dir, ticket);
        let lock = File::options()
            .create(true)
            .append(true)
            .open(path.with_extension("lock"))?;
        let alone = lock.try_lock().is_ok();
        let (state, lines) = read(&path)?;
        if alone && lines > state.lines() + SPARE_LINES {
            write_anew(&path, &state)?;
        }
        // Opened under the shared lock: from here on nobody replaces the file.
        lock.lock_shared()?;
        let mut file = File::options().create(true).append(true).open(&path)?;
        if lines > 0 {
            // The last line may lack its end; an empty line is passed over.
            file.write_all(b"\n")?;
        }
        Ok(Self {
            state: Mutex::new(state),
            file: Some(Mutex::new(file)),
            _lock: Some(lock),
        })
    }

    fn path(dir: &Path, ticket: &Ticket) -> PathBuf {
        let bucket: String = ticket
            .bucket
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(64)
            .collect();
        dir.join(format!("{}-{bucket}.journal", ticket.box_id))
    }

    /// What was sent from `origin` to `key`, where the file is still the same.
    pub fn done(&self, key: &ObjectKey, origin: &Origin) -> Option<Done> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .done
            .get(key)
            .filter(|done| done.origin == *origin)
            .cloned()
    }

    /// The unfinished upload of `key`, whatever it came from.
    pub fn upload(&self, key: &ObjectKey) -> Option<OpenUpload> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.uploads.get(key).cloned()
    }

    /// Whether nothing is known of any object.
    pub fn is_empty(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.done.is_empty()
    }

    /// Remembers acknowledged objects, many at the cost of one.
    pub fn remember_all_done(&self, done: Vec<(ObjectKey, Done)>) {
        self.append_all(done.into_iter().map(|(key, done)| Record::Done(key, done)));
    }

    /// Remembers an acknowledged object.
    pub fn remember_done(&self, key: &ObjectKey, done: Done) {
        self.append(Record::Done(key.clone(), done));
    }

    /// Remembers an upload that has begun.
    pub fn remember_upload(&self, key: &ObjectKey, upload: OpenUpload) {
        self.append(Record::Begun(key.clone(), upload));
    }

    /// Remembers an acknowledged part.
    pub fn remember_part(&self, key: &ObjectKey, number: i32, part: DonePart) {
        self.append(Record::Part(key.clone(), number, part));
    }

    /// Forgets an object and its upload.
    pub fn forget(&self, key: &ObjectKey) {
        self.append(Record::Dropped(key.clone()));
    }

    fn append(&self, record: Record) {
        self.append_all(std::iter::once(record));
    }

    fn append_all(&self, records: impl Iterator<Item = Record>) {
        let mut lines = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for record in records {
            if self.file.is_some()
                && let Ok(line) = serde_json::to_vec(&record)
            {
                lines.extend_from_slice(&line);
                lines.push(b'\n');
            }
            state.apply(record);
        }
        drop(state);
        let Some(file) = &self.file else { return };
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that pushes that share the file do not mix their lines.
        if let Err(error) = file.write_all(&lines) {
            tracing::warn!(%error, "journal not written: a restart would send this again");
        }
    }
}

fn read(path: &Path) -> io::Result<(State, usize)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((State::default(), 0)),
        Err(e) => return Err(e),
    };
    let mut state = State::default();
    let mut lines = 0;
    for line in BufReader::new(file).split(b'\n') {
        lines += 1;
        if let Ok(record) = serde_json::from_slice(&line?) {
            state.apply(record);
        }
    }
    Ok((state, lines))
}

fn write_anew(path: &Path, state: &State) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = BufWriter::new(File::create(&new)?);
    let mut line = |record: Record| -> io::Result<()> {
        serde_json::to_writer(&mut file, &record)?;
        file.write_all(b"\n")
    };
    for (key, done) in &state.done {
        line(Record::Done(key.clone(), done.clone()))?;
    }
    for (key, upload) in &state.uploads {
        line(Record::Begun(key.clone(), upload.clone()))?;
        for (number, part) in &upload.parts {
            line(Record::Part(key.clone(), *number, part.clone()))?;
        }
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use longhaul_protocol::ticket::Secret;
    use longhaul_protocol::value::UnixMillis;
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        Ticket {
            v: 1,
            id: "t".parse().expect("an id"),
            box_id: "ZZZZZZZZZZZZ".parse().expect("an id"),
            order: None,
            bucket: "b/../c".to_owned(),
            region: "r".to_owned(),
            access_key: "a".to_owned(),
            secret_key: Secret("s".to_owned()),
            issued: None,
            expires: UnixMillis(0),
            root_pem: String::new(),
            lan_urls: Vec::new(),
            cloud_url: None,
        }
    }

    fn origin(size: u64) -> Origin {
        Origin::new(Path::new("/f"), Stamp { size, mtime_ns: 1 })
    }

    fn done(size: u64) -> Done {
        Done {
            origin: origin(size),
            etag: "e".to_owned(),
            blake3: Digest32([0; 32]),
        }
    }

    fn key(text: &str) -> ObjectKey {
        text.parse().expect("a key")
    }

    #[test]
    fn what_was_remembered_is_there_after_a_torn_last_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path(), &ticket()).expect("opened");
        journal.remember_done(&key("a"), done(3));
        let upload = OpenUpload {
            origin: origin(9),
            upload_id: "u".to_owned(),
            part_bytes: 5,
            parts: BTreeMap::new(),
        };
        journal.remember_upload(&key("b"), upload);
        let part = DonePart {
            etag: "p".to_owned(),
            crc: Crc64(7),
        };
        journal.remember_part(&key("b"), 2, part.clone());
        drop(journal);
        let path = Journal::path(dir.path(), &ticket());
        let mut file = File::options().append(true).open(&path).expect("opened");
        file.write_all(b"{\"done\":[\"c\",{\"ori").expect("written");
        drop(file);

        let journal = Journal::open(dir.path(), &ticket()).expect("opened");
        journal.remember_done(&key("d"), done(4));
        drop(journal);
        let journal = Journal::open(dir.path(), &ticket()).expect("opened");

        assert_eq!(journal.done(&key("a"), &origin(3)), Some(done(3)));
        assert_eq!(journal.done(&key("a"), &origin(4)), None, "another file");
        assert_eq!(journal.done(&key("d"), &origin(4)), Some(done(4)));
        let upload = journal.upload(&key("b")).expect("open");
        assert_eq!(upload.parts.get(&2), Some(&part));
    }

    #[test]
    fn a_bloated_journal_is_written_anew_and_says_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path(), &ticket()).expect("opened");
        for size in 0..=(SPARE_LINES as u64 + 5) {
            journal.remember_done(&key("a"), done(size));
        }
        drop(journal);

        drop(Journal::open(dir.path(), &ticket()).expect("opened"));

        let (state, lines) = read(&Journal::path(dir.path(), &ticket())).expect("read");
        assert!(lines < 10, "{lines}");
        assert_eq!(state.done[&key("a")], done(SPARE_LINES as u64 + 5));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = Journal::path(dir.path(), &ticket());
            std::fs::write(&path, bytes).expect("written");
            prop_assert!(Journal::open(dir.path(), &ticket()).is_ok());
        }
    }
}
