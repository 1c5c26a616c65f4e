//! Where a fetched object goes: below the folder that was asked for, and never through a link.

use std::io;
use std::path::{Component, Path, PathBuf};

use longhaul_protocol::ids::ObjectKey;

/// The path below the folder of a key's part after `prefix`; `None` where nothing is left of it.
pub fn below(key: &ObjectKey, prefix: &str) -> Option<PathBuf> {
    let rest = key.as_str().strip_prefix(prefix)?;
    // A key has no empty segment and no `.` or `..`; what is left is looked at all the same.
    let path = PathBuf::from(rest);
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    (plain && !rest.is_empty()).then_some(path)
}

/// Makes the folders above `inner` in `root`, and refuses to go through anything that is not one;
/// blocks.
///
/// # Errors
///
/// What the system says, or that something is in the way.
pub fn make_parents(root: &Path, inner: &Path) -> io::Result<()> {
    std::fs::create_dir_all(root)?;
    let mut path = root.to_owned();
    for name in inner.parent().into_iter().flat_map(Path::components) {
        path.push(name);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(in_the_way(&path, "is not a folder")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => match std::fs::create_dir(&path) {
                // Another object of the same folder was quicker.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                result => result?,
            },
            Err(e) => return Err(e),
        }
    }
    match std::fs::symlink_metadata(root.join(inner)) {
        Ok(metadata) if metadata.is_dir() => Err(in_the_way(&root.join(inner), "is a folder")),
        _ => Ok(()),
    }
}

fn in_the_way(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{} {what}; move it away", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_through_a_link_or_over_a_folder() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        std::fs::create_dir_all(root.join("folder")).expect("made");
        std::fs::create_dir(&outside).expect("made");
        std::os::unix::fs::symlink(&outside, root.join("link")).expect("linked");

        assert!(make_parents(&root, Path::new("link/f")).is_err());
        assert!(make_parents(&root, Path::new("folder")).is_err());
        assert!(make_parents(&root, Path::new("new/deep/f")).is_ok());
        assert!(root.join("new/deep").is_dir());
        assert_eq!(std::fs::read_dir(&outside).expect("read").count(), 0);
    }

    #[test]
    fn keys_keep_the_path_after_their_prefix() {
        let key = |text: &str| text.parse::<ObjectKey>().expect("a key");
        assert_eq!(below(&key("p/a/b"), "p/"), Some(PathBuf::from("a/b")));
        assert_eq!(below(&key("p/"), "p/"), None);
        assert_eq!(below(&key("q/a"), "p/"), None);
    }
}
