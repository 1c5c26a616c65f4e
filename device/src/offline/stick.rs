//! What is plugged in: a folder for each stick, below one folder in which they appear.
//!
//! Whoever holds the stick wrote it. Nothing on it is followed, nothing long is read, and the box writes
//! into one folder of its own, never through a link.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use longhaul_protocol::ids::BoxId;

/// Sticks that are looked at.
const MAX_STICKS: usize = 8;
/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 4096;
/// Answers that are looked at.
const MAX_ANSWERS: usize = 16;

/// The sticks that are there now.
pub fn sticks(folder: &Path) -> Vec<Stick> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut sticks: Vec<_> = entries
        .take(MAX_ENTRIES)
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| Stick(entry.path()))
        .collect();
    sticks.sort();
    sticks.truncate(MAX_STICKS);
    sticks
}

/// One stick.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Stick(PathBuf);

impl Stick {
    /// The box's own folder on it.
    pub fn own(&self, box_id: &BoxId) -> PathBuf {
        self.0.join(format!("longhaul-{box_id}"))
    }

    /// Writes a file into the box's own folder, unless it is there with these bytes; it is on the stick
    /// when this returns.
    pub fn write(&self, box_id: &BoxId, name: &str, bytes: &[u8]) -> io::Result<()> {
        let own = self.own(box_id);
        match fs::create_dir(&own) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if !fs::symlink_metadata(&own)?.is_dir() {
            return Err(io::Error::other("the box's folder on the stick is none"));
        }
        let path = own.join(name);
        if read(&path, bytes.len())?.is_some_and(|there| there == bytes) {
            return Ok(());
        }
        let beside = own.join(format!("{name}.new"));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Made anew: a link of that name is never written through.
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        File::open(&own)?.sync_all()
    }

    /// Removes files of the box's own folder that begin with `prefix` and are not among `keep`.
    pub fn tidy(&self, box_id: &BoxId, prefix: &str, keep: &[String]) {
        let own = self.own(box_id);
        // A link in its place would have files of the box itself removed.
        if !fs::symlink_metadata(&own).is_ok_and(|found| found.is_dir()) {
            return;
        }
        let Ok(entries) = fs::read_dir(own) else {
            return;
        };
        for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
            let name = entry.file_name();
            let stale = name
                .to_str()
                .is_some_and(|name| name.starts_with(prefix) && !keep.iter().any(|k| k == name));
            if stale {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The answers for this box, at the top of the stick or in the box's folder: browsers put a number
    /// behind a name that is taken.
    pub fn answers(&self, box_id: &BoxId, limit: usize) -> Vec<Vec<u8>> {
        let prefix = format!("longhaul-{box_id}-answer");
        let mut paths = Vec::new();
        for folder in [self.0.clone(), self.own(box_id)] {
            let Ok(entries) = fs::read_dir(folder) else {
                continue;
            };
            for entry in entries.take(MAX_ENTRIES).filter_map(Result::ok) {
                let name = entry.file_name();
                let answers = name.to_str().is_some_and(|name| name.starts_with(&prefix))
                    && Path::new(&name)
                        .extension()
                        .is_some_and(|ext| ext == "json");
                if answers {
                    paths.push(entry.path());
                }
            }
        }
        paths.sort();
        paths.truncate(MAX_ANSWERS);
        // One byte more than is allowed, so that whoever judges it sees that it is too long.
        let read = paths.iter().filter_map(|path| read(path, limit + 1).ok()?);
        read.collect()
    }

    /// A short text at the top of the stick.
    pub fn text(&self, name: &str, limit: usize) -> Option<String> {
        String::from_utf8(read(&self.0.join(name), limit).ok()??).ok()
    }

    /// Removes a file at the top of the stick; whether it is gone.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))?;
        File::open(&self.0)?.sync_all()
    }
}

/// The first bytes of an ordinary file; nothing of what is none.
fn read(path: &Path, limit: usize) -> io::Result<Option<Vec<u8>>> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    // Whatever it became since: no link is followed, no pipe waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn ours() -> BoxId {
        "0123456789AB".parse().unwrap()
    }

    #[test]
    fn sticks_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(sticks(&dir.path().join("nowhere")), []);
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();

        let there = sticks(dir.path());

        let names: Vec<_> = there.iter().map(|s| s.0.file_name().unwrap()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (stick, elsewhere) = (dir.path().join("stick"), dir.path().join("elsewhere"));
        fs::create_dir_all(&stick).unwrap();
        fs::create_dir_all(&elsewhere).unwrap();
        let victim = elsewhere.join("victim");
        fs::write(&victim, b"precious").unwrap();
        let stick = Stick(stick);

        symlink(&elsewhere, stick.own(&ours())).unwrap();
        assert!(stick.write(&ours(), "request.txt", b"x").is_err());
        stick.tidy(&ours(), "vic", &[]);
        assert!(victim.exists(), "nor removed");
        fs::remove_file(stick.own(&ours())).unwrap();
        fs::create_dir(stick.own(&ours())).unwrap();
        for name in ["request.txt", "request.txt.new"] {
            symlink(&victim, stick.own(&ours()).join(name)).unwrap();
        }
        stick.write(&ours(), "request.txt", b"mine").unwrap();

        assert_eq!(fs::read(&victim).unwrap(), b"precious");
        let written = stick.own(&ours()).join("request.txt");
        assert!(fs::symlink_metadata(&written).unwrap().is_file());
        assert_eq!(fs::read(&written).unwrap(), b"mine");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    #[test]
    fn only_short_ordinary_answers_for_this_box_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let stick = Stick(dir.path().to_owned());
        let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        put("longhaul-0123456789AB-answer.json", b"1");
        put("longhaul-0123456789AB-answer (2).json", b"22");
        put("longhaul-0123456789AC-answer.json", b"other");
        put("longhaul-0123456789AB-answer.json.part", b"part");
        let link = dir.path().join("longhaul-0123456789AB-answer-3.json");
        symlink("/etc/passwd", link).unwrap();
        let pipe = dir.path().join("longhaul-0123456789AB-answer-4.json");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        put("longhaul-0123456789AB-answer-5.json", &[b'x'; 100]);

        let answers = stick.answers(&ours(), 10);

        let lengths: Vec<_> = answers.iter().map(Vec::len).collect();
        assert_eq!(lengths, [2, 11, 1]);
    }
}
