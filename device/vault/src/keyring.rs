//! The keys of the log and of every job, sealed under the master key.
//!
//! One small file, replaced whole: `magic | format | vault | generation | length | sealed`.
//! Before a new generation takes the old one's name, the old one's bytes are overwritten, so a
//! key that was erased is in neither file.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    JobId, OpenError, VaultConfig,
    codec::{Malformed, Put, Take, narrow},
    crypto::{SealKey, Secret, TAG, random},
    disk::{Access, Disk, read_full, write_full},
};

const MAGIC: &[u8; 8] = b"LHKEYRNG";
const FORMAT: u32 = 1;
const HEADER: usize = 8 + 4 + 16 + 8 + 32 + 4;
/// 10,000 jobs fit; anything longer was not written by us.
const MAX_SEALED: usize = 2 << 20;

/// The number of a job in records; never used twice. 0 is the vault itself.
pub(crate) type JobNo = u32;

/// The vault's own records: they name no customer's object.
pub(crate) const VAULT: JobNo = 0;

/// A new key for the keyring: what makes copies of the old one, in a flash drive's spare blocks or
/// anywhere else, worthless as soon as the old key is destroyed.
pub struct Rekey {
    /// What the vault is opened with from then on.
    pub key: Zeroizing<[u8; 32]>,
    /// Puts the new key beside the old one, durably, wherever the two are kept. Called when a
    /// keyring under the new key is on the disk beside the one under the old key. After an error
    /// the vault stays with the old one.
    pub keep: KeepKey,
}

/// See [`Rekey::keep`].
pub type KeepKey = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// A new generation that was not stored.
struct StoreFailed {
    source: io::Error,
    /// It may be whole on the disk, and then the next opening carries it on: it counts.
    may_hold: bool,
}

/// The keys of the log and of every job.
pub(crate) struct Keyring {
    path: PathBuf,
    pub(crate) vault: [u8; 16],
    generation: u64,
    segment_bytes: u64,
    frame_bytes: u32,
    kek: Secret,
    pub(crate) log_key: Secret,
    /// The log has been begun: if it is not there any more, it was lost.
    pub(crate) begun: bool,
    next: JobNo,
    jobs: BTreeMap<JobNo, (JobId, Secret)>,
    /// The next generation is whole, and replacing the current one with it has not finished.
    half_replaced: bool,
}

impl Keyring {
    /// Makes the keyring of a new vault; durable when this returns.
    pub(crate) fn create(
        disk: &dyn Disk,
        config: &VaultConfig,
        master: &Secret,
    ) -> io::Result<Self> {
        let mut keyring = Self {
            path: path_in(&config.dir),
            vault: random(),
            generation: 0,
            segment_bytes: config.segment_bytes,
            frame_bytes: config.frame_bytes,
            kek: master.clone(),
            log_key: Zeroizing::new(random()),
            begun: false,
            next: 1,
            jobs: BTreeMap::new(),
            half_replaced: false,
        };
        keyring.add(disk, &JobId::default()).map(drop)?;
        Ok(keyring)
    }

    /// Opens the keyring in `config.dir`; `None` if there is none.
    pub(crate) fn open(
        disk: &dyn Disk,
        config: &VaultConfig,
        master: &Secret,
    ) -> Result<Option<Self>, OpenError> {
        let path = path_in(&config.dir);
        let fail = |what: &str, source| OpenError::Io {
            what: format!("{what} keyring {}", path.display()),
            source,
        };
        let current = read(disk, &path).map_err(|e| fail("read", e))?;
        let next = read(disk, &next_of(&path)).map_err(|e| fail("read", e))?;
        let opened = current
            .as_ref()
            .and_then(|bytes| decode(bytes, &path, master));
        // A whole next generation means that its replacing was interrupted, perhaps in the midst
        // of overwriting the current one: carry it on.
        let newer = next
            .and_then(|bytes| decode(&bytes, &path, master))
            .filter(|next| {
                opened
                    .as_ref()
                    .is_none_or(|o| o.vault == next.vault && o.generation < next.generation)
            });
        let keyring = match (current.is_some(), opened, newer) {
            (_, _, Some(mut newer)) => {
                newer.replace(disk).map_err(|e| fail("replace", e))?;
                newer
            }
            (_, Some(opened), None) => opened,
            (true, None, None) => return Err(OpenError::WrongKey { path }),
            (false, None, None) => return Ok(None),
        };
        if (keyring.segment_bytes, keyring.frame_bytes)
            != (config.segment_bytes, config.frame_bytes)
        {
            let rule = format!(
                "this vault was made with segments of {} and frames of {} bytes",
                keyring.segment_bytes, keyring.frame_bytes
            );
            return Err(OpenError::Config { rule });
        }
        Ok(Some(keyring))
    }

    /// The key of job `no`, or of the log.
    pub(crate) fn secret(&self, no: JobNo) -> Option<&Secret> {
        if no == VAULT {
            return Some(&self.log_key);
        }
        self.jobs.get(&no).map(|(_, secret)| secret)
    }

    pub(crate) fn number(&self, job: &JobId) -> Option<JobNo> {
        self.jobs
            .iter()
            .find(|(_, (id, _))| id == job)
            .map(|(no, _)| *no)
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = (JobNo, &JobId)> {
        self.jobs.iter().map(|(no, (id, _))| (*no, id))
    }

    /// Makes a key for `job`; durable when this returns.
    pub(crate) fn add(&mut self, disk: &dyn Disk, job: &JobId) -> io::Result<JobNo> {
        let no = self.next;
        self.jobs
            .insert(no, (job.clone(), Zeroizing::new(random())));
        self.next += 1;
        self.store(disk, None).map(|()| no).map_err(|failed| {
            if !failed.may_hold {
                self.jobs.remove(&no);
            }
            failed.source
        })
    }

    /// Notes that the log has been begun.
    pub(crate) fn begin(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.begun = true;
        self.store(disk, None).map_err(|failed| failed.source)
    }

    /// Destroys the key of job `no`; gone from the disk when this returns. After an error the key
    /// is either still in use, or gone from memory and goes from the disk at the next writing.
    /// With `rekey`, what is left is sealed under another key.
    pub(crate) fn erase(
        &mut self,
        disk: &dyn Disk,
        no: JobNo,
        rekey: Option<Rekey>,
    ) -> io::Result<()> {
        let Some(entry) = self.jobs.remove(&no) else {
            return if self.half_replaced {
                self.replace(disk)
            } else {
                Ok(())
            };
        };
        let before = self.kek.clone();
        let keep = rekey.map(|rekey| {
            self.kek = rekey.key;
            rekey.keep
        });
        self.store(disk, keep).map_err(|failed| {
            if !failed.may_hold {
                self.jobs.insert(no, entry);
                self.kek = before;
            }
            failed.source
        })
    }

    fn store(&mut self, disk: &dyn Disk, keep: Option<KeepKey>) -> Result<(), StoreFailed> {
        if self.half_replaced {
            // The next generation is the only whole one: it must not be written over.
            self.replace(disk).map_err(|source| StoreFailed {
                source,
                may_hold: false,
            })?;
        }
        self.generation += 1;
        if let Err(source) = self.write_next(disk) {
            // Under a key that nobody keeps, it is nothing.
            let may_hold = disk.remove(&next_of(&self.path)).is_err() && keep.is_none();
            return Err(StoreFailed { source, may_hold });
        }
        if let Some(Err(source)) = keep.map(|keep| keep()) {
            // Whole beside a whole one: the next writing goes over it.
            let _ = disk.remove(&next_of(&self.path));
            return Err(StoreFailed {
                source,
                may_hold: false,
            });
        }
        self.replace(disk).map_err(|source| StoreFailed {
            source,
            may_hold: true,
        })
    }

    fn write_next(&self, disk: &dyn Disk) -> io::Result<()> {
        let file = disk.open(&next_of(&self.path), Access::Create)?;
        write_full(&*file, &self.encode(), 0)?;
        file.sync()?;
        sync_parent(disk, &self.path)
    }

    /// Overwrites the current generation where it lies, then gives the next one its name.
    fn replace(&mut self, disk: &dyn Disk) -> io::Result<()> {
        self.half_replaced = true;
        match disk.open(&self.path, Access::Write) {
            Ok(old) => {
                let zeros = vec![0; narrow(old.size()?.min(MAX_SEALED as u64))];
                write_full(&*old, &zeros, 0)?;
                old.sync()?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        disk.rename(&next_of(&self.path), &self.path)?;
        sync_parent(disk, &self.path)?;
        self.half_replaced = false;
        Ok(())
    }

    /// What is sealed.
    fn plain(&self) -> Zeroizing<Vec<u8>> {
        // With room for all of it: a buffer that grows leaves copies of keys behind.
        let room = 64 + self.jobs.len() * 256;
        let mut plain = Zeroizing::new(Vec::with_capacity(room));
        plain.put_u64(self.segment_bytes);
        plain.put_u32(self.frame_bytes);
        plain.put_raw(&self.log_key[..]);
        plain.put_u8(self.begun.into());
        plain.put_u32(self.next);
        plain.put_count(self.jobs.len());
        for (no, (job, secret)) in &self.jobs {
            plain.put_u32(*no);
            plain.put_text(job.as_str());
            plain.put_raw(&secret[..]);
        }
        plain
    }

    fn encode(&self) -> Vec<u8> {
        let mut plain = self.plain();
        let mut out = Vec::new();
        out.put_raw(MAGIC);
        out.put_u32(FORMAT);
        out.put_raw(&self.vault);
        out.put_u64(self.generation);
        // A salt per writing makes a key per writing: two generations never share key and nonce,
        // not even when a crash makes one number occur twice.
        out.put_raw(&random::<32>());
        out.put_count(plain.len() + TAG);
        let tag = wrapping_key(&self.kek, &out).seal(0, &out, &mut plain);
        out.put_raw(&plain);
        out.put_raw(&tag);
        out
    }
}

/// Reads a file as a keyring, and as what is sealed in one.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzzed(bytes: &[u8], master: &Secret) {
    let path = Path::new("/keyring");
    let sealed = decode(bytes, path, master);
    let open = parse(bytes, path, [0; 16], 1, master).ok();
    for keyring in [sealed, open].into_iter().flatten() {
        let again = decode(&keyring.encode(), path, master);
        assert!(again.is_some_and(|again| again.jobs == keyring.jobs));
    }
}

#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_seeds(keyring: &Keyring) -> Vec<Vec<u8>> {
    vec![keyring.encode(), keyring.plain().to_vec()]
}

#[cfg(feature = "fuzzing")]
impl Keyring {
    /// A keyring of jobs 1 to `jobs`, on no disk.
    pub(crate) fn fuzzed(master: &Secret, jobs: JobNo) -> Self {
        let key = |no: JobNo| Zeroizing::new([no.to_le_bytes()[0]; 32]);
        Self {
            path: PathBuf::new(),
            vault: [2; 16],
            generation: 1,
            segment_bytes: 64 << 10,
            frame_bytes: 8 << 10,
            kek: master.clone(),
            log_key: key(0),
            begun: true,
            next: jobs,
            jobs: (1..jobs)
                .map(|no| (no, (JobId::default(), key(no))))
                .collect(),
            half_replaced: false,
        }
    }
}

fn wrapping_key(master: &Secret, header: &[u8]) -> SealKey {
    SealKey::derive(
        master,
        &header[HEADER - 36..HEADER - 4],
        &[b"longhaul vault keyring v1"],
    )
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// True if a keyring is in `dir`, or one that was to take its place.
pub(crate) fn is_in(dir: &Path) -> bool {
    let path = path_in(dir);
    path.exists() || next_of(&path).exists()
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("keyring")
}

fn next_of(path: &Path) -> PathBuf {
    path.with_extension("next")
}

fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, Access::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; narrow(file.size()?.min((HEADER + MAX_SEALED) as u64))];
    read_full(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

fn decode(bytes: &[u8], path: &Path, master: &Secret) -> Option<Keyring> {
    let header = bytes.get(..HEADER)?;
    let mut take = Take(header);
    let fits = take.array::<8>().ok()? == *MAGIC && take.u32().ok()? == FORMAT;
    let vault = take.array().ok()?;
    let generation = take.u64().ok()?;
    take.raw(32).ok()?;
    let len = narrow(u64::from(take.u32().ok()?));
    if !fits || len != bytes.len() - HEADER {
        return None;
    }
    let mut sealed = Zeroizing::new(bytes[HEADER..].to_vec());
    let plain = wrapping_key(master, header)
        .open(0, header, &mut sealed)
        .ok()?;
    parse(plain, path, vault, generation, master).ok()
}

fn parse(
    plain: &[u8],
    path: &Path,
    vault: [u8; 16],
    generation: u64,
    master: &Secret,
) -> Result<Keyring, Malformed> {
    let mut take = Take(plain);
    let segment_bytes = take.u64()?;
    let frame_bytes = take.u32()?;
    let log_key = Zeroizing::new(take.array()?);
    let begun = take.u8()? != 0;
    let next = take.u32()?;
    let mut jobs = BTreeMap::new();
    for _ in 0..take.count()? {
        let no = take.u32()?;
        let job = take.text()?.parse().map_err(|_| Malformed("job id"))?;
        jobs.insert(no, (job, Zeroizing::new(take.array()?)));
    }
    take.end()?;
    Ok(Keyring {
        path: path.to_owned(),
        vault,
        generation,
        segment_bytes,
        frame_bytes,
        kek: master.clone(),
        log_key,
        begun,
        next,
        jobs,
        half_replaced: false,
    })
}
