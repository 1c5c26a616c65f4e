//! What would not arrive as it is, said before anything is sent. Needs neither box nor ticket.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use longhaul_protocol::names::{Clash, Seen};
use serde::Serialize;

use crate::plan::{self, Plan, PlanError, SkipReason};

/// What was looked at, and what was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LintReport {
    /// Files that can be sent.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is wrong, in the order of the walk.
    pub findings: Vec<Finding>,
}

impl LintReport {
    /// Whether everything that should arrive can.
    pub fn is_clean(&self) -> bool {
        !self.findings.iter().any(|f| f.problem.is_failure())
    }
}

/// Something that would not arrive as it is.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Where it is; characters that are not UTF-8 are replaced.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
    /// Details, and what to do.
    pub detail: String,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Problem {
    /// A symbolic link; its target is not sent.
    Symlink,
    /// A device, pipe or socket; it is not sent.
    Special,
    /// It may not be read.
    Unreadable,
    /// Its name is not UTF-8.
    NotUtf8,
    /// No bucket can hold its name.
    NameRefused,
    /// Another file becomes the same object.
    SameKey,
    /// What an interrupted `get` has fetched so far; it is not sent.
    Unfinished,
    /// Its name looks the same as another one's and is encoded differently (NFC and NFD).
    Lookalike,
    /// Its name differs from another one's in upper and lower case alone.
    CaseOnly,
}

impl Problem {
    /// The problem in one word, as in the JSON report.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Symlink => "symlink",
            Self::Special => "special",
            Self::Unreadable => "unreadable",
            Self::NotUtf8 => "not_utf8",
            Self::NameRefused => "name_refused",
            Self::SameKey => "same_key",
            Self::Unfinished => "unfinished",
            Self::Lookalike => "lookalike",
            Self::CaseOnly => "case_only",
        }
    }

    /// Whether a file would be missing that should arrive. Links and special files are left out by
    /// design; names that differ in case alone arrive, and make trouble only where they are
    /// fetched to Windows or macOS.
    pub fn is_failure(self) -> bool {
        !matches!(
            self,
            Self::Symlink | Self::Special | Self::Unfinished | Self::CaseOnly
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "symbolic link, not followed",
            Self::Special => "not a regular file",
            Self::Unreadable => "cannot be read",
            Self::NotUtf8 => "name is not UTF-8",
            Self::NameRefused => "name that no bucket can hold",
            Self::SameKey => "same key as another file",
            Self::Unfinished => "unfinished file of an interrupted get",
            Self::Lookalike => "name looks the same as another one",
            Self::CaseOnly => "name differs from another one in case alone",
        })
    }
}

impl From<SkipReason> for Problem {
    fn from(reason: SkipReason) -> Self {
        match reason {
            SkipReason::Symlink => Self::Symlink,
            SkipReason::Special => Self::Special,
            SkipReason::Unreadable => Self::Unreadable,
            SkipReason::NotUtf8 => Self::NotUtf8,
            SkipReason::NameRefused => Self::NameRefused,
            SkipReason::SameKey => Self::SameKey,
            SkipReason::Unfinished => Self::Unfinished,
        }
    }
}

/// Walks `paths` as a push under `prefix` would, and says what would not arrive; blocks.
///
/// # Errors
///
/// [`PlanError`] where one of `paths` itself does not exist or cannot be read.
pub fn lint(paths: &[PathBuf], prefix: &str) -> Result<LintReport, PlanError> {
    let Plan { files, skipped } = plan::plan(paths, prefix)?;
    let mut report = LintReport::default();
    for skipped in skipped {
        report.findings.push(Finding {
            path: skipped.path,
            problem: skipped.reason.into(),
            detail: skipped.detail,
        });
    }
    let mut seen = Seen::default();
    for file in files {
        let mut found = |problem, detail: String| {
            report.findings.push(Finding {
                path: file.path.to_string_lossy().into_owned(),
                problem,
                detail,
            });
        };
        if let Some((clash, other)) = seen.add(&file.key) {
            let (problem, detail) = match clash {
                Clash::Normalization => (
                    Problem::Lookalike,
                    format!("{clash}: {other}; rename one of them"),
                ),
                Clash::Case => (
                    Problem::CaseOnly,
                    format!("{other} is there too; Windows and macOS can hold only one of them"),
                ),
            };
            found(problem, detail);
        }
        match File::open(&file.path) {
            Ok(_) => {
                report.files += 1;
                report.bytes += file.size();
            }
            Err(error) => found(Problem::Unreadable, error.to_string()),
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn each_name_that_would_not_arrive_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for name in ["good", "caf\u{e9}", "cafe\u{301}", "Bild", "bild", "a\\b"] {
            std::fs::write(root.join(name), "12345").expect("written");
        }
        std::fs::write(root.join(OsStr::from_bytes(b"bad\xff")), "x").expect("written");
        std::os::unix::fs::symlink("good", root.join("link")).expect("linked");

        let report = lint(&[root.to_owned()], "").expect("walked");

        let found = |problem| {
            let found = report.findings.iter();
            found.filter(|f| f.problem == problem).count()
        };
        for (problem, count) in [
            (Problem::Lookalike, 1),
            (Problem::CaseOnly, 1),
            (Problem::NameRefused, 1),
            (Problem::NotUtf8, 1),
            (Problem::Symlink, 1),
        ] {
            assert_eq!(found(problem), count, "{problem}");
        }
        assert_eq!((report.files, report.bytes), (5, 25));
        assert!(!report.is_clean());
    }

    #[test]
    fn what_arrives_all_the_same_is_clean() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["a", "A"] {
            std::fs::write(dir.path().join(name), "x").expect("written");
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).expect("linked");

        let report = lint(&[dir.path().to_owned()], "").expect("walked");

        assert!(report.is_clean());
        assert_eq!(report.findings.len(), 2);
    }
}
