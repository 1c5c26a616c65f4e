//! The plan of a push: which files are sent under which keys, and which are not and why.
//!
//! Folders are walked in the order of their names. Symbolic links inside them are not followed,
//! devices, pipes and sockets are not opened; both are reported. Sparse files are sent as they read.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use longhaul_protocol::ids::ObjectKey;
use longhaul_protocol::names::{Clash, Seen};
use serde::Serialize;
use walkdir::WalkDir;

use crate::get::{PART_PREFIX, PART_SUFFIXES};
use crate::source::Stamp;

/// A file to send.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Where it is.
    pub path: PathBuf,
    /// The object that it becomes.
    pub key: ObjectKey,
    pub(crate) stamp: Stamp,
    /// What is odd about its name among the others.
    pub(crate) notice: Option<String>,
}

impl Planned {
    /// Its size in bytes when it was found.
    pub fn size(&self) -> u64 {
        self.stamp.size
    }
}

/// Something that is not sent.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// Where it is; characters that are not UTF-8 are replaced.
    pub path: String,
    /// Why.
    pub reason: SkipReason,
    /// Details, for people.
    pub detail: String,
}

/// Why something is not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipReason {
    /// A symbolic link; its target is not followed.
    Symlink,
    /// A device, pipe or socket.
    Special,
    /// The system does not let us read it.
    Unreadable,
    /// Its name is not UTF-8, which object keys must be.
    NotUtf8,
    /// No bucket can hold its name.
    NameRefused,
    /// Another file of this push becomes the same object.
    SameKey,
    /// What an interrupted `get` has fetched so far; it is no file of anybody's yet.
    Unfinished,
}

impl SkipReason {
    /// The reason in one word, as in the JSON report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symlink => "symlink",
            Self::Special => "special",
            Self::Unreadable => "unreadable",
            Self::NotUtf8 => "not_utf8",
            Self::NameRefused => "name_refused",
            Self::SameKey => "same_key",
            Self::Unfinished => "unfinished",
        }
    }

    /// Whether leaving it out is a failure; links, special files and halves of fetched files are
    /// left out by design.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Symlink | Self::Special | Self::Unfinished)
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "symbolic link, not followed",
            Self::Special => "not a regular file",
            Self::Unreadable => "cannot be read",
            Self::NotUtf8 => "name is not UTF-8",
            Self::NameRefused => "name that no bucket can hold",
            Self::SameKey => "same key as another file",
            Self::Unfinished => "unfinished file of an interrupted get",
        })
    }
}

/// What a push would do.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files to send, in order.
    pub files: Vec<Planned>,
    /// What is left out.
    pub skipped: Vec<Skipped>,
}

impl Plan {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(Planned::size).sum()
    }

    fn skip(&mut self, path: &Path, reason: SkipReason, detail: impl fmt::Display) {
        self.skipped.push(Skipped {
            path: path.to_string_lossy().into_owned(),
            reason,
            detail: detail.to_string(),
        });
    }
}

/// A path that was asked for and cannot be walked at all.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {path}; check the path")]
pub struct PlanError {
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Walks `paths` and names what is found; blocks.
///
/// A folder's content is sent under `prefix` by its path inside the folder, a file by its name.
/// `prefix` is a folder: a missing `/` at its end is added.
///
/// # Errors
///
/// [`PlanError`] where one of `paths` itself does not exist or cannot be read.
pub fn plan(paths: &[PathBuf], prefix: &str) -> Result<Plan, PlanError> {
    let prefix = folder_prefix(prefix);
    let mut plan = Plan::default();
    for root in paths {
        let unreadable = |source| PlanError {
            path: root.clone(),
            source,
        };
        let metadata = std::fs::metadata(root).map_err(unreadable)?;
        if metadata.is_dir() {
            std::fs::read_dir(root).map_err(unreadable)?;
            walk(&mut plan, root, &prefix);
        } else {
            let inner = root.file_name().map(PathBuf::from).unwrap_or_default();
            add(&mut plan, root, &inner, &prefix, &metadata);
        }
    }
    refuse_clashes(&mut plan);
    Ok(plan)
}

/// A folder in the bucket with the `/` at its end; the bucket's root is empty.
pub(crate) fn folder_prefix(prefix: &str) -> String {
    match prefix {
        "" => String::new(),
        prefix if prefix.ends_with('/') => prefix.to_owned(),
        prefix => format!("{prefix}/"),
    }
}

/// Names those of `paths` that are still there, as [`plan`] would below `root`; blocks.
pub(crate) fn plan_within(root: &Path, paths: &[PathBuf], prefix: &str) -> Plan {
    let prefix = folder_prefix(prefix);
    let mut plan = Plan::default();
    for path in paths {
        let Ok(inner) = path.strip_prefix(root) else {
            continue;
        };
        let mut above = inner.ancestors().skip(1).map(|folder| root.join(folder));
        if above.any(|folder| folder != root && folder.is_symlink()) {
            continue;
        }
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => add(&mut plan, path, inner, &prefix, &metadata),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => plan.skip(path, SkipReason::Unreadable, e),
        }
    }
    plan
}

/// The files at or below a path, without following links; blocks.
pub(crate) fn files_below(path: PathBuf) -> impl Iterator<Item = PathBuf> {
    WalkDir::new(path)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
}

fn walk(plan: &mut Plan, root: &Path, prefix: &str) {
    for entry in WalkDir::new(root).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                plan.skip(&path, SkipReason::Unreadable, error);
                continue;
            }
        };
        // The root may be a link that the user named; links below it are not followed.
        if entry.file_type().is_dir() || entry.depth() == 0 {
            continue;
        }
        if entry.path_is_symlink() {
            plan.skip(entry.path(), SkipReason::Symlink, "its target is not sent");
            continue;
        }
        let inner = entry.path().strip_prefix(root).unwrap_or(entry.path());
        match entry.metadata() {
            Ok(metadata) => add(plan, entry.path(), inner, prefix, &metadata),
            Err(error) => plan.skip(entry.path(), SkipReason::Unreadable, error),
        }
    }
}

fn add(plan: &mut Plan, path: &Path, inner: &Path, prefix: &str, metadata: &std::fs::Metadata) {
    if !metadata.is_file() {
        return plan.skip(path, SkipReason::Special, "device, pipe or socket");
    }
    if is_unfinished(path) {
        return plan.skip(
            path,
            SkipReason::Unfinished,
            "run the same `longhaul get` again, or remove it",
        );
    }
    let segments: Option<Vec<&str>> = inner.iter().map(|s| s.to_str()).collect();
    let Some(segments) = segments else {
        return plan.skip(
            path,
            SkipReason::NotUtf8,
            "rename it; object keys are UTF-8",
        );
    };
    match format!("{prefix}{}", segments.join("/")).parse() {
        Ok(key) => plan.files.push(Planned {
            path: path.to_owned(),
            key,
            stamp: Stamp::of(metadata),
            notice: None,
        }),
        Err(error) => plan.skip(path, SkipReason::NameRefused, error),
    }
}

/// Whether it is what `longhaul get` keeps beside a file that it has not fetched wholly.
pub(crate) fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.as_encoded_bytes();
        name.starts_with(PART_PREFIX.as_bytes())
            && PART_SUFFIXES.iter().any(|s| name.ends_with(s.as_bytes()))
    })
}

/// Keeps the first file of each key, and says which names differ in case alone.
fn refuse_clashes(plan: &mut Plan) {
    let mut first: HashMap<ObjectKey, PathBuf> = HashMap::new();
    let mut seen = Seen::default();
    let files = std::mem::take(&mut plan.files);
    for mut file in files {
        if let Some(taken) = first.get(&file.key) {
            let detail = format!("{} is sent as {}", taken.display(), file.key);
            plan.skip(&file.path, SkipReason::SameKey, detail);
        } else {
            if let Some((Clash::Case, other)) = seen.add(&file.key) {
                file.notice = Some(format!("its name is {other} but for upper and lower case"));
            }
            first.insert(file.key.clone(), file.path.clone());
            plan.files.push(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    fn keys(plan: &Plan) -> Vec<&str> {
        plan.files.iter().map(|f| f.key.as_str()).collect()
    }

    #[test]
    fn a_folder_is_walked_in_order_and_oddities_are_reported() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        std::fs::create_dir_all(root.join("b/c")).expect("made");
        for name in ["z", "b/c/2", "b/1", "a"] {
            std::fs::write(root.join(name), name).expect("written");
        }
        std::os::unix::fs::symlink(root.join("a"), root.join("link")).expect("linked");
        std::os::unix::fs::symlink(root, root.join("loop")).expect("linked");
        std::fs::write(root.join(OsStr::from_bytes(b"bad\xff")), "x").expect("written");
        std::fs::write(root.join("new\nline"), "x").expect("written");
        for name in [".longhaul-1f.part", "b/.longhaul-1f.done"] {
            std::fs::write(root.join(name), "x").expect("written");
        }
        let _socket = std::os::unix::net::UnixListener::bind(root.join("sock")).expect("bound");

        let plan = plan(&[root.to_owned()], "p").expect("planned");

        assert_eq!(keys(&plan), ["p/a", "p/b/1", "p/b/c/2", "p/z"]);
        let reasons: Vec<_> = plan.skipped.iter().map(|s| s.reason).collect();
        for (reason, count) in [
            (SkipReason::Symlink, 2),
            (SkipReason::NotUtf8, 1),
            (SkipReason::NameRefused, 1),
            (SkipReason::Special, 1),
            (SkipReason::Unfinished, 2),
        ] {
            assert_eq!(
                reasons.iter().filter(|r| **r == reason).count(),
                count,
                "{reason}"
            );
        }
    }

    #[test]
    fn two_files_with_one_key_are_not_both_sent() {
        let dir = tempfile::tempdir().expect("a directory");
        for folder in ["x", "y"] {
            std::fs::create_dir(dir.path().join(folder)).expect("made");
            std::fs::write(dir.path().join(folder).join("same"), folder).expect("written");
        }

        let plan = plan(&[dir.path().join("x"), dir.path().join("y/same")], "").expect("planned");

        assert_eq!(keys(&plan), ["same"]);
        assert_eq!(plan.skipped[0].reason, SkipReason::SameKey);
    }

    #[test]
    fn names_that_differ_in_case_alone_are_both_sent_and_the_second_is_noted() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["IMG_1.JPG", "img_1.jpg", "other"] {
            std::fs::write(dir.path().join(name), name).expect("written");
        }

        let plan = plan(&[dir.path().to_owned()], "").expect("planned");

        assert_eq!(keys(&plan), ["IMG_1.JPG", "img_1.jpg", "other"]);
        let noted: Vec<bool> = plan.files.iter().map(|f| f.notice.is_some()).collect();
        assert_eq!(noted, [false, true, false]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_an_error() {
        let error = plan(&[PathBuf::from("/no/such/folder")], "").expect_err("absent");

        assert!(error.to_string().contains("/no/such/folder"));
    }
}
