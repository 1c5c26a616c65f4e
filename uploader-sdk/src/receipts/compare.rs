//! Whether files are what their receipts say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use longhaul_protocol::value::Digest32;
use walkdir::WalkDir;

use super::Proven;

/// What was found out about one file or key.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The file, or where it should be.
    pub path: PathBuf,
    /// The object's key, where there is a receipt.
    pub key: Option<String>,
    /// How it stands.
    pub verdict: Verdict,
}

/// How a file stands to its receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// These are the bytes that the box took; the cloud has them too where `in_cloud`.
    Same {
        /// Whether the cloud signed that it has compared them in the bucket.
        in_cloud: bool,
    },
    /// There is a receipt for other bytes.
    Changed,
    /// There is a receipt and no file.
    Missing,
    /// There is a file and no receipt.
    NoReceipt,
    /// The file cannot be read.
    Unreadable(String),
}

impl Verdict {
    /// Whether the file is what its receipt says.
    pub fn is_same(&self) -> bool {
        matches!(self, Self::Same { .. })
    }
}

/// Compares one file with whatever receipt is about its bytes.
pub fn compare_file(path: &Path, proven: &[Proven]) -> Finding {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let named = proven.iter().find(|p| {
        let key = p.leaf.object.key.as_str();
        key.rsplit('/').next() == name.as_deref()
    });
    let (key, verdict) = match digest(path) {
        Err(error) => (None, Verdict::Unreadable(error.to_string())),
        Ok((bytes, blake3)) => match best(proven.iter().filter(|p| p.is_of(bytes, blake3))) {
            Some(found) => (Some(found), same(found)),
            None if named.is_some() => (named, Verdict::Changed),
            None => (None, Verdict::NoReceipt),
        },
    };
    Finding {
        path: path.to_owned(),
        key: key.map(|p| p.leaf.object.key.to_string()),
        verdict,
    }
}

/// Compares a folder with the receipts whose keys begin with `prefix`: `prefix/a` is `folder/a`.
///
/// # Errors
///
/// What the file system says where the folder cannot be walked.
pub fn compare_folder(folder: &Path, prefix: &str, proven: &[Proven]) -> io::Result<Vec<Finding>> {
    let mut by_path: BTreeMap<PathBuf, Vec<&Proven>> = BTreeMap::new();
    for one in proven {
        let below = one.leaf.object.key.as_str().strip_prefix(prefix);
        let below = below.map(|b| b.trim_start_matches('/')).unwrap_or_default();
        // A key is a text from somebody else: it names a file below the folder or none.
        let inside = !below.is_empty() && below.split('/').all(|p| !matches!(p, "" | "." | ".."));
        if inside {
            by_path.entry(folder.join(below)).or_default().push(one);
        }
    }
    let mut findings = Vec::new();
    for (path, receipts) in &by_path {
        let verdict = match digest(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Verdict::Missing,
            Err(error) => Verdict::Unreadable(error.to_string()),
            Ok((bytes, blake3)) => {
                let fitting = receipts.iter().copied().filter(|p| p.is_of(bytes, blake3));
                best(fitting).map_or(Verdict::Changed, same)
            }
        };
        findings.push(Finding {
            path: path.clone(),
            key: receipts.first().map(|p| p.leaf.object.key.to_string()),
            verdict,
        });
    }
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(io::Error::from)?;
        if entry.file_type().is_file() && !by_path.contains_key(entry.path()) {
            findings.push(Finding {
                path: entry.into_path(),
                key: None,
                verdict: Verdict::NoReceipt,
            });
        }
    }
    Ok(findings)
}

/// The receipt that proves most.
fn best<'a>(proven: impl Iterator<Item = &'a Proven>) -> Option<&'a Proven> {
    proven.max_by_key(|p| p.verified.is_some())
}

fn same(proven: &Proven) -> Verdict {
    Verdict::Same {
        in_cloud: proven.verified.is_some(),
    }
}

fn digest(path: &Path) -> io::Result<(u64, Digest32)> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok((hasher.count(), Digest32(*hasher.finalize().as_bytes())))
}

#[cfg(test)]
mod tests {
    use longhaul_protocol::ids::BoxId;
    use longhaul_protocol::journal::ObjectVersion;
    use longhaul_protocol::receipt::Leaf;
    use longhaul_protocol::value::UnixMillis;

    use super::*;

    fn proven(key: &str, content: &[u8], in_cloud: bool) -> Proven {
        Proven {
            box_id: BoxId::from_ek_sha256(&[1; 32]),
            leaf: Leaf {
                object: ObjectVersion {
                    bucket: "survey".to_owned(),
                    key: key.parse().expect("a key"),
                    version: 1,
                },
                bytes: content.len() as u64,
                blake3: Digest32(*blake3::hash(content).as_bytes()),
                stored: UnixMillis(0),
            },
            sealed: UnixMillis(0),
            verified: in_cloud.then_some(UnixMillis(0)),
        }
    }

    #[test]
    fn a_folder_is_compared_file_by_file_and_everything_wrong_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("sub")).expect("made");
        for (name, text) in [
            ("same", "a"),
            ("sub/cloud", "b"),
            ("changed", "X"),
            ("extra", "e"),
        ] {
            std::fs::write(path(name), text).expect("written");
        }
        let receipts = [
            proven("in/same", b"a", false),
            proven("in/sub/cloud", b"old", true),
            proven("in/sub/cloud", b"b", true),
            proven("in/changed", b"x", true),
            proven("in/gone", b"g", true),
            proven("elsewhere/other", b"o", true),
        ];

        let found = compare_folder(folder.path(), "in", &receipts).expect("walked");

        let verdict = |name: &str| {
            let one = found.iter().find(|f| f.path == path(name));
            one.expect("found").verdict.clone()
        };
        assert_eq!(verdict("same"), Verdict::Same { in_cloud: false });
        assert_eq!(verdict("sub/cloud"), Verdict::Same { in_cloud: true });
        assert_eq!(verdict("changed"), Verdict::Changed);
        assert_eq!(verdict("gone"), Verdict::Missing);
        assert_eq!(verdict("extra"), Verdict::NoReceipt);
        assert_eq!(found.len(), 5);
    }

    #[test]
    fn a_file_finds_its_receipt_by_its_bytes_whatever_it_is_called_now() {
        let folder = tempfile::tempdir().expect("a folder");
        let receipts = [
            proven("in/first", b"a", true),
            proven("in/second", b"b", false),
        ];
        let judge = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            compare_file(&path, &receipts)
        };

        let renamed = judge("renamed", "a");
        assert_eq!(renamed.key.as_deref(), Some("in/first"));
        assert_eq!(renamed.verdict, Verdict::Same { in_cloud: true });
        assert_eq!(judge("second", "B").verdict, Verdict::Changed);
        assert_eq!(judge("third", "c").verdict, Verdict::NoReceipt);
        let missing = compare_file(&folder.path().join("missing"), &receipts);
        assert!(matches!(missing.verdict, Verdict::Unreadable(_)));
    }
}
