//! The entries of a tar on their way into the vault: one open object, a bounded number of commits.

use std::collections::{BTreeMap, VecDeque};

use crc_fast::{CrcAlgorithm, Digest};
use longhaul_vault::{
    Checksums, Commit, Condition, Error as VaultError, JobId, Metadata, ObjectInfo, ObjectWriter,
    Vault,
};
use s3s::{S3Error, S3Result, s3_error};

use super::super::body::{Fault, Sink};
use super::super::claims::Claim;
use super::super::error::from_vault;
use super::super::names::{self, Fresh};
use super::super::put::begin;
use super::super::room;
use super::super::spellings::Spellings;
use super::flag;
use super::tar::{Decoder, Event, Header, Kind};

/// Entries that may wait for their sync at a time: as many as the vault joins in one.
const MAX_COMMITS: usize = 256;

/// What a client wants of an archive: read from its user metadata.
pub(super) struct Wish {
    /// In front of every entry's name.
    prefix: String,
    /// Go on where an entry cannot be stored.
    ignore_errors: bool,
    /// Make no objects of folders.
    ignore_folders: bool,
    /// What else was said; kept with every entry.
    pub metadata: BTreeMap<String, String>,
}

impl Wish {
    /// Without a prefix of their own, entries go where the archive would lie.
    pub fn read(key: &str, user: &BTreeMap<String, String>) -> S3Result<Self> {
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut wish = Self {
            prefix: folder.to_owned(),
            ignore_errors: false,
            ignore_folders: false,
            metadata: BTreeMap::new(),
        };
        for (name, value) in user {
            // The second spelling is MinIO's.
            match name.strip_prefix("minio-").unwrap_or(name) {
                super::WANTED => {}
                "snowball-prefix" => value.trim_matches('/').clone_into(&mut wish.prefix),
                "snowball-ignore-errors" => wish.ignore_errors = flag(value)?,
                "snowball-ignore-dirs" => wish.ignore_folders = flag(value)?,
                _ => {
                    wish.metadata.insert(name.clone(), value.clone());
                }
            }
        }
        Ok(wish)
    }

    /// The key of an entry; `None` for the archive's own root.
    fn key(&self, header: &Header) -> Result<Option<String>, String> {
        let path =
            std::str::from_utf8(&header.path).map_err(|_| "its name is not UTF-8".to_owned())?;
        let mut path = path;
        while let Some(rest) = path.strip_prefix("./") {
            path = rest;
        }
        if path.is_empty() || path == "." {
            return Ok(None);
        }
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let end = match header.kind {
            Kind::Folder if !path.ends_with('/') => "/",
            _ => "",
        };
        Ok(Some(format!("{}{slash}{path}{end}", self.prefix)))
    }
}

/// What became of an archive.
#[derive(Debug, Default)]
pub(super) struct Extracted {
    pub stored: u64,
    pub skipped: u64,
    pub first_skipped: Option<String>,
    /// Entries that were stored under a name that is odd.
    pub odd: u64,
    pub first_odd: Option<String>,
}

impl Extracted {
    fn noticed(&mut self, notice: Option<String>) {
        if notice.is_some() {
            self.odd += 1;
            self.first_odd = self.first_odd.take().or(notice);
        }
    }

    /// An `ETag` for the archive, not of the shape of an MD5.
    pub fn etag(&self, crc64nvme: u64) -> String {
        format!("{crc64nvme:016x}-{}", self.stored)
    }
}

enum Current {
    Writing(String, Box<ObjectWriter>, Option<Claim>),
    Skipping,
}

/// Takes an archive apart.
pub(super) struct Extract {
    vault: Vault,
    spellings: Spellings,
    job: JobId,
    wish: Wish,
    metadata: Metadata,
    decoder: Decoder,
    crc: Digest,
    current: Current,
    /// What is on its way to the disk, and its name, which is claimed until it is there.
    commits: VecDeque<(String, Commit<ObjectInfo>, Option<Claim>)>,
    done: Extracted,
}

impl Sink for Extract {
    // Every entry may wait for a sync.
    const INLINE: usize = 0;

    fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.take(bytes).map_err(Fault::Refused)
    }
}

impl Extract {
    pub fn new(
        vault: Vault,
        spellings: Spellings,
        job: JobId,
        wish: Wish,
        metadata: Metadata,
    ) -> Self {
        Self {
            vault,
            spellings,
            job,
            wish,
            metadata,
            decoder: Decoder::default(),
            crc: Digest::new(CrcAlgorithm::Crc64Nvme),
            current: Current::Skipping,
            commits: VecDeque::new(),
            done: Extracted::default(),
        }
    }

    /// CRC-64/NVME of the archive so far.
    pub fn crc64nvme(&self) -> u64 {
        self.crc.finalize()
    }

    /// Takes the next bytes of the archive. Blocks for the disk.
    pub fn take(&mut self, bytes: &[u8]) -> S3Result<()> {
        self.crc.update(bytes);
        let mut input = bytes;
        loop {
            let event = match self.decoder.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.not_a_tar(&error)),
            };
            match event {
                Event::Entry(header) => self.begin(&header)?,
                Event::Body(body) => {
                    if let Current::Writing(key, writer, _) = &mut self.current
                        && let Err(error) = writer.write(body)
                    {
                        let key = std::mem::take(key);
                        self.current = Current::Skipping;
                        self.failed(&key, &error)?;
                    }
                }
                Event::EntryEnd => self.end()?,
            }
        }
    }

    /// Waits until every entry is durable.
    pub async fn finish(mut self) -> S3Result<Extracted> {
        if let Err(error) = self.decoder.finish() {
            return Err(self.not_a_tar(&error));
        }
        while let Some((key, commit, _claim)) = self.commits.pop_front() {
            match commit.await {
                Ok(_) => self.done.stored += 1,
                Err(error) => self.failed(&key, &error)?,
            }
        }
        Ok(self.done)
    }

    fn begin(&mut self, header: &Header) -> S3Result<()> {
        self.current = Current::Skipping;
        let shown = String::from_utf8_lossy(&header.path).into_owned();
        let text = match self.wish.key(header) {
            Ok(Some(text)) => text,
            Ok(None) => return Ok(()),
            Err(why) => return self.refused(&shown, &why),
        };
        match header.kind {
            Kind::File => {}
            Kind::Folder if self.wish.ignore_folders => return Ok(()),
            Kind::Folder if header.bytes == 0 => {}
            Kind::Folder => return self.refused(&shown, "a folder with content"),
            Kind::Other(flag) => {
                let why = match flag {
                    b'1' | b'2' => "a link; archive the file itself (tar --dereference)",
                    b'S' => "a sparse file; archive it without --sparse",
                    _ => "neither a file nor a folder",
                };
                return self.refused(&shown, why);
            }
        }
        if let Some(why) = room::never_fits(&self.vault, header.bytes) {
            return self.refused(&shown, &why);
        }
        let (key, claim) = match names::fresh(&self.vault, &self.spellings, &self.job, &text) {
            Ok(Fresh { key, notice, claim }) => {
                self.done.noticed(notice);
                (key, claim)
            }
            Err(error) => {
                let why = error.message().unwrap_or("its name is refused").to_owned();
                return self.refused(&shown, &why);
            }
        };
        match begin(&self.vault, &self.job, key.as_str(), self.metadata.clone()) {
            Ok(writer) => {
                self.current = Current::Writing(text, Box::new(writer), claim);
                Ok(())
            }
            Err(error) => self.failed(&text, &error),
        }
    }

    fn end(&mut self) -> S3Result<()> {
        let current = std::mem::replace(&mut self.current, Current::Skipping);
        let Current::Writing(key, writer, claim) = current else {
            return Ok(());
        };
        self.commits
            .push_back((key, writer.finish(Checksums::new(), Condition::Any), claim));
        if self.commits.len() <= MAX_COMMITS {
            return Ok(());
        }
        let Some((key, oldest, _claim)) = self.commits.pop_front() else {
            return Ok(());
        };
        match oldest.wait() {
            Ok(_) => {
                self.done.stored += 1;
                Ok(())
            }
            Err(error) => self.failed(&key, &error),
        }
    }

    /// An entry that the vault did not take. A full or stopping box is nothing to be ignored.
    fn failed(&mut self, key: &str, error: &VaultError) -> S3Result<()> {
        match error {
            VaultError::TooLong { .. } | VaultError::EmptyKey => {
                self.refused(key, &error.to_string())
            }
            _ => Err(from_vault(error, &format!("entry {key:?} of the archive"))),
        }
    }

    fn refused(&mut self, entry: &str, why: &str) -> S3Result<()> {
        if !self.wish.ignore_errors {
            return Err(s3_error!(
                InvalidArgument,
                "entry {entry:?} of the archive: {why}; {} stored before it (snowball-ignore-errors: true goes on)",
                entries(self.stored_at_least()),
            ));
        }
        self.done.skipped += 1;
        if self.done.first_skipped.is_none() {
            self.done.first_skipped = Some(format!("{entry:?}: {why}"));
        }
        Ok(())
    }

    fn not_a_tar(&self, error: &super::tar::TarError) -> S3Error {
        s3_error!(
            InvalidRequest,
            "the archive cannot be taken apart: {error}; {} stored before",
            entries(self.stored_at_least()),
        )
    }

    /// Entries that are durable or will be: what was finished is not taken back.
    fn stored_at_least(&self) -> u64 {
        self.done.stored + self.commits.len() as u64
    }
}

fn entries(count: u64) -> String {
    match count {
        0 => "nothing was".to_owned(),
        1 => "1 entry was".to_owned(),
        count => format!("{count} entries were"),
    }
}
