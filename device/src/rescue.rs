//! Reads a vault without its box: with the key that the depot unwrapped, on another machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use longhaul_vault::{JobId, ObjectInfo, OpenError, Vault, VaultConfig};
use zeroize::Zeroizing;

/// Objects that are listed at a time.
const PAGE: usize = 1000;

/// Why nothing could be rescued, or not everything.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RescueError {
    /// There is no vault.
    #[error("there is no vault in {0}")]
    NoVault(PathBuf),
    /// The vault does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The vault does not answer.
    #[error(transparent)]
    Vault(#[from] longhaul_vault::Error),
    /// A file could not be written.
    #[error("failed to write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What became of the objects.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rescued {
    /// Objects that are whole: their BLAKE3 is what it was when they were stored.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects whose bytes the box had given up after their delivery.
    pub released: u64,
    /// Objects that are not whole: bucket, name, and why.
    pub failed: Vec<(String, String, String)>,
}

/// Writes every object of the vault in `dir` to `to/BUCKET/NAME`. Opening writes to the vault: work on
/// a copy of the disk.
///
/// A name that would leave its folder, or that two objects would share, is written with `%` and
/// hexadecimal digits.
pub fn rescue(dir: &Path, key: &Zeroizing<[u8; 32]>, to: &Path) -> Result<Rescued, RescueError> {
    if !Vault::is_in(dir) {
        return Err(RescueError::NoVault(dir.to_owned()));
    }
    // As large as it needs to be: nothing is put into it.
    let config = VaultConfig::new(dir, u64::MAX);
    let clock: longhaul_vault::Clock = Arc::new(|| crate::clock::wall().0);
    let (vault, report) = Vault::open(config, key, clock)?;
    tracing::info!(?report, "vault is open");
    let mut rescued = Rescued::default();
    for job in vault.jobs() {
        let mut after: Option<String> = None;
        loop {
            let page = vault.list(&job, "", after.as_deref(), PAGE)?;
            for info in &page.items {
                take(&vault, &job, info, to, &mut rescued)?;
            }
            after = page.items.last().map(|info| info.key.clone());
            if !page.more {
                break;
            }
        }
    }
    Ok(rescued)
}

/// Writes one object. A damaged one is noted, and the others are gone on with; a file that cannot
/// be written ends everything.
fn take(
    vault: &Vault,
    job: &JobId,
    info: &ObjectInfo,
    to: &Path,
    rescued: &mut Rescued,
) -> Result<(), RescueError> {
    if !info.resident {
        rescued.released += 1;
        return Ok(());
    }
    let path = place(to, job.as_str(), &info.key);
    let failed = |source| RescueError::Write {
        path: path.clone(),
        source,
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let part = path.with_added_extension("rescuing");
    let mut file = File::create(&part).map_err(failed)?;
    let read = (|| {
        let mut reader = vault.get_version(info.version, None)?;
        let mut hasher = blake3::Hasher::new();
        while let Some(chunk) = reader.next_chunk()? {
            hasher.update(&chunk);
            if let Err(error) = file.write_all(&chunk) {
                return Ok(Err(error));
            }
        }
        Ok::<_, longhaul_vault::Error>(Ok(*hasher.finalize().as_bytes()))
    })();
    let why = match read {
        Ok(Ok(digest)) if info.blake3.is_none_or(|expected| expected == digest) => None,
        Ok(Ok(_)) => Some("its BLAKE3 is another".to_owned()),
        Ok(Err(error)) => return Err(failed(error)),
        Err(error) => Some(error.to_string()),
    };
    if let Some(why) = why {
        fs::remove_file(&part).map_err(failed)?;
        let (bucket, key) = (job.as_str().to_owned(), info.key.clone());
        rescued.failed.push((bucket, key, why));
        return Ok(());
    }
    file.sync_all().map_err(failed)?;
    fs::rename(&part, &path).map_err(failed)?;
    rescued.objects += 1;
    rescued.bytes += info.size;
    Ok(())
}

/// Where an object goes: below `to/bucket`, whatever it is called.
fn place(to: &Path, bucket: &str, key: &str) -> PathBuf {
    let mut path = to.join(escaped(bucket));
    // What ends in a slash would be a folder.
    path.extend(key.split('/').map(escaped));
    path
}

/// One name in a folder. Every name has its own: `%` itself is escaped.
fn escaped(name: &str) -> String {
    match name {
        "" => "%".to_owned(),
        "." | ".." => name.replace('.', "%2E"),
        _ => {
            let plain = |c: char| !c.is_control() && !matches!(c, '%' | '\\' | ':' | '\0');
            let mut out = String::new();
            for c in name.chars() {
                if plain(c) {
                    out.push(c);
                } else {
                    let bytes = c.encode_utf8(&mut [0; 4]).to_owned();
                    out.push('%');
                    out.push_str(&hex::encode_upper(bytes));
                }
            }
            // A file system holds 255 bytes of a name; the rest goes below it.
            if out.len() > 255 { cut(&out) } else { out }
        }
    }
}

/// A long name as its beginning and its hash.
fn cut(name: &str) -> String {
    let mut end = 180;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}%{}", &name[..end], &hash[..32])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_would_leave_their_folder_are_escaped() {
        let to = Path::new("/to");
        assert_eq!(place(to, "b", "a/b.txt"), Path::new("/to/b/a/b.txt"));
        assert_eq!(place(to, "..", "x"), Path::new("/to/%2E%2E/x"));
        assert_eq!(place(to, "b", "../x"), Path::new("/to/b/%2E%2E/x"));
        assert_eq!(place(to, "b", "/x"), Path::new("/to/b/%/x"));
        assert_eq!(place(to, "b", "a/"), Path::new("/to/b/a/%"));
        assert_eq!(place(to, "b", "50%"), Path::new("/to/b/50%25"));
    }

    proptest! {
        #[test]
        fn every_name_stays_below_its_bucket_and_is_its_own(a: String, b: String) {
            let to = Path::new("/to");
            let (one, other) = (place(to, "b", &a), place(to, "b", &b));
            prop_assert!(one.starts_with("/to/b"));
            let odd = |c: std::path::Component<'_>| matches!(c, std::path::Component::ParentDir);
            prop_assert!(!one.components().any(odd));
            prop_assert_eq!(a == b, one == other);
        }
    }
}
