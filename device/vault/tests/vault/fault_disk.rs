//! A disk in memory that fails when told to, and forgets what was not synced when the power goes.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use longhaul_vault::disk::{Access, Disk, DiskFile};
use parking_lot::{Condvar, Mutex};

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The call fails and does nothing. A failed sync also loses what it should have written,
    /// as Linux does.
    Fail,
    /// A write takes only a part of the bytes, and says so.
    Short,
    /// A write takes only a part of the bytes, and fails.
    Torn,
    /// No space left.
    Full,
    /// From this call on, nothing works until [`FaultDisk::crash`].
    PowerCut,
}

/// A disk in memory; clones are the same disk, for whoever runs when they are made: a crash ends that,
/// and what the power cut through does not go on behind it.
#[derive(Default)]
pub struct FaultDisk(Arc<Mutex<State>>, u64);

impl Clone for FaultDisk {
    fn clone(&self) -> Self {
        let life = self.0.lock().life;
        Self(Arc::clone(&self.0), life)
    }
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    /// Handles of an earlier life do nothing.
    life: u64,
    off: bool,
    /// No file may grow.
    full: bool,
    /// Calls until the fault.
    plan: Option<(u32, Fault)>,
    /// Every 16 bytes of ciphertext ever written to a segment, while somebody watches.
    watched: Option<HashSet<[u8; 16]>>,
    repeated: u64,
    /// Writes to places behind a header, outside segments, that had been written before.
    rewritten: u64,
    /// Syncs wait.
    held: bool,
    waiting: usize,
    /// Syncs of files that are no segments.
    syncs: u64,
    bell: Arc<Condvar>,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    written_to: usize,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
}

impl FaultDisk {
    /// Lets the call after `calls` others fail.
    pub fn plan(&self, calls: u32, fault: Fault) {
        self.0.lock().plan = Some((calls, fault));
    }

    /// Takes all space that is left, or gives it back.
    pub fn fill_up(&self, full: bool) {
        self.0.lock().full = full;
    }

    pub fn heal(&self) {
        self.0.lock().plan = None;
    }

    /// Cuts the power and turns it on again: of what was not synced, some pieces survive and some
    /// do not, in any order. `choose` decides, piece by piece.
    pub fn crash(&self, mut choose: impl FnMut() -> bool) {
        let state = &mut *self.0.lock();
        state.life += 1;
        state.off = false;
        state.plan = None;
        state.locks.clear();
        for change in std::mem::take(&mut state.unsynced_names) {
            // A journal keeps the order of names: a prefix of the changes survives.
            if !choose() {
                break;
            }
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.unsynced) {
                match change {
                    Change::Write(at, bytes) => {
                        for (number, sector) in bytes.chunks(512).enumerate() {
                            if choose() {
                                put(&mut inode.durable, at + number * 512, sector);
                            }
                        }
                    }
                    Change::Len(len) => {
                        if choose() {
                            inode.durable.resize(len, 0);
                        }
                    }
                }
            }
            inode.now.clone_from(&inode.durable);
        }
    }

    /// Flips one bit of a file whose name contains `part`, if it is that long.
    pub fn flip(&self, path: &Path, byte: usize, bit: u8) {
        let state = &mut *self.0.lock();
        let inode = &mut state.inodes[state.names[path]];
        if let Some(byte) = inode.now.get_mut(byte) {
            *byte ^= 1 << bit;
        }
        inode.durable.clone_from(&inode.now);
    }

    pub fn replace(&self, path: &Path, contents: &[u8]) {
        let state = &mut *self.0.lock();
        let inode = &mut state.inodes[state.names[path]];
        inode.now = contents.to_vec();
        inode.durable = contents.to_vec();
    }

    pub fn contents(&self, path: &Path) -> Vec<u8> {
        let state = self.0.lock();
        state.inodes[state.names[path]].now.clone()
    }

    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().names.keys().cloned().collect()
    }

    /// Every byte that is or was in any file, removed ones included: what a thief finds.
    pub fn everything(&self) -> Vec<Vec<u8>> {
        let state = self.0.lock();
        state
            .inodes
            .iter()
            .flat_map(|inode| [inode.now.clone(), inode.durable.clone()])
            .collect()
    }

    /// A copy of the disk as it is durable now.
    pub fn image(&self) -> Self {
        let state = self.0.lock();
        let inodes = state.inodes.iter().map(|inode| Inode {
            now: inode.durable.clone(),
            durable: inode.durable.clone(),
            unsynced: Vec::new(),
            written_to: 0,
        });
        let state = State {
            inodes: inodes.collect(),
            names: state.durable_names.clone(),
            durable_names: state.durable_names.clone(),
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)), 0)
    }

    /// Lets every sync wait until `held` is false again.
    pub fn hold_syncs(&self, held: bool) {
        let state = &mut *self.0.lock();
        state.held = held;
        state.bell.notify_all();
    }

    /// Waits until so many syncs wait.
    pub fn await_syncs(&self, waiting: usize) {
        let mut state = self.0.lock();
        let bell = Arc::clone(&state.bell);
        let deadline = Instant::now() + Duration::from_mins(1);
        while state.waiting < waiting {
            let late = bell.wait_until(&mut state, deadline).timed_out();
            assert!(!late, "{} syncs wait", state.waiting);
        }
    }

    /// Syncs so far of the log and of everything else that is no segment.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Counts blocks of ciphertext that are written a second time from now on.
    pub fn watch(&self) {
        self.0.lock().watched = Some(HashSet::new());
    }

    /// Blocks seen, blocks seen before, and places in the log that were written again.
    pub fn repeated(&self) -> (usize, u64, u64) {
        let state = self.0.lock();
        (
            state.watched.as_ref().map_or(0, HashSet::len),
            state.repeated,
            state.rewritten,
        )
    }
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path, inode);
            }
            Self::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            Self::Unlink(path) => {
                names.remove(&path);
            }
        }
    }
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if file.len() < at + bytes.len() {
        file.resize(at + bytes.len(), 0);
    }
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn broken() -> io::Error {
    io::Error::other("the disk is broken")
}

impl State {
    /// Counts a call; the fault it meets, if any.
    fn call(&mut self, life: u64) -> io::Result<Option<Fault>> {
        if self.off || life != self.life {
            return Err(io::Error::other("the power is off"));
        }
        let Some((calls, fault)) = &mut self.plan else {
            return Ok(None);
        };
        if *calls > 0 {
            *calls -= 1;
            return Ok(None);
        }
        let fault = *fault;
        match fault {
            Fault::PowerCut => {
                self.off = true;
                Err(io::Error::other("the power went off"))
            }
            Fault::Full => {
                // A full disk stays full for a while.
                Err(io::ErrorKind::StorageFull.into())
            }
            Fault::Fail | Fault::Short | Fault::Torn => {
                self.plan = None;
                Ok(Some(fault))
            }
        }
    }

    fn check(&mut self, life: u64) -> io::Result<()> {
        match self.call(life)? {
            None | Some(Fault::Short) => Ok(()),
            Some(_) => Err(broken()),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.unsynced_names.push(change);
    }
}

impl Disk for FaultDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .map(|p| p.file_name().expect("named").to_string_lossy().into_owned())
            .collect())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let state = &mut *self.0.lock();
        let life = self.1;
        if access == Access::Create {
            state.check(life)?;
            if let Some(inode) = state.names.get(path).copied() {
                state.inodes[inode].now.clear();
                state.inodes[inode].written_to = 0;
                state.inodes[inode].unsynced.push(Change::Len(0));
            } else {
                state.inodes.push(Inode::default());
                state.change_names(NameChange::Link(path.to_owned(), state.inodes.len() - 1));
            }
        }
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let segment = path.components().any(|part| part.as_os_str() == "segments");
        Ok(Arc::new(FaultFile {
            disk: Self(Arc::clone(&self.0), self.1),
            inode,
            life,
            segment,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let life = self.1;
        state.check(life)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let life = self.1;
        state.check(life)?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change_names(NameChange::Unlink(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let state = &mut *self.0.lock();
        let life = self.1;
        state.check(life)?;
        for change in std::mem::take(&mut state.unsynced_names) {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let state = &mut *self.0.lock();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(
            Self(Arc::clone(&self.0), self.1),
            path.to_owned(),
            state.life,
        )))
    }
}

struct Lock(FaultDisk, PathBuf, u64);

impl Drop for Lock {
    fn drop(&mut self) {
        let state = &mut *self.0.0.lock();
        if state.life == self.2 {
            state.locks.remove(&self.1);
        }
    }
}

struct FaultFile {
    disk: FaultDisk,
    inode: usize,
    life: u64,
    segment: bool,
}

impl DiskFile for FaultFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let file = &state.inodes[self.inode].now;
        let at = usize::try_from(offset).expect("small").min(file.len());
        let len = buf.len().min(file.len() - at);
        buf[..len].copy_from_slice(&file[at..at + len]);
        Ok(len)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        let state = &mut *self.disk.0.lock();
        let fault = state.call(self.life)?;
        if fault == Some(Fault::Fail) {
            return Err(broken());
        }
        let taken = if fault.is_some() {
            &buf[..buf.len().div_ceil(2)]
        } else {
            buf
        };
        if let Some(watched) = state.watched.as_mut().filter(|_| self.segment) {
            for block in taken.as_chunks::<16>().0 {
                if *block != [0; 16] && !watched.insert(*block) {
                    state.repeated += 1;
                }
            }
        }
        let at = usize::try_from(offset).expect("small");
        if state.full && at + taken.len() > state.inodes[self.inode].now.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut state.inodes[self.inode];
        if !self.segment {
            state.rewritten += u64::from(at >= 4096 && at < inode.written_to);
            inode.written_to = inode.written_to.max(at + taken.len());
        }
        put(&mut inode.now, at, taken);
        inode.unsynced.push(Change::Write(at, taken.to_vec()));
        if fault == Some(Fault::Torn) {
            return Err(broken());
        }
        Ok(taken.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let state = &mut *self.disk.0.lock();
        state.check(self.life)?;
        let len = usize::try_from(len)
            .expect("small")
            .max(state.inodes[self.inode].now.len());
        if state.full && len > state.inodes[self.inode].now.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = &mut state.inodes[self.inode];
        inode.now.resize(len, 0);
        inode.unsynced.push(Change::Len(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.0.lock();
        let bell = Arc::clone(&state.bell);
        state.waiting += 1;
        bell.notify_all();
        while state.held {
            bell.wait(&mut state);
        }
        state.waiting -= 1;
        let state = &mut *state;
        state.syncs += u64::from(!self.segment);
        let fault = state.call(self.life)?;
        let inode = &mut state.inodes[self.inode];
        for change in std::mem::take(&mut inode.unsynced) {
            if matches!(fault, Some(Fault::Fail | Fault::Torn)) {
                continue;
            }
            match change {
                Change::Write(at, bytes) => put(&mut inode.durable, at, &bytes),
                Change::Len(len) => inode.durable.resize(len, 0),
            }
        }
        if matches!(fault, Some(Fault::Fail | Fault::Torn)) {
            return Err(broken());
        }
        Ok(())
    }
}
