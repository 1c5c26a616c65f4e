//! Releases: what the signed repository offers. The cloud believes it no more than its files; boxes
//! verify its signatures themselves.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use longhaul_protocol::value::Digest32;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Fleet, FleetError, Release};
use crate::store::releases::release_set;

/// The largest metadata file that is read, in bytes.
const MAX_METADATA: u64 = 4 << 20;

#[derive(Deserialize)]
struct Signed<T> {
    signed: T,
}

/// `timestamp.json` and `snapshot.json`: which version of which file is in force.
#[derive(Deserialize)]
struct Versions {
    meta: BTreeMap<String, Version>,
}

#[derive(Deserialize)]
struct Version {
    version: u64,
}

#[derive(Deserialize)]
struct Targets {
    targets: BTreeMap<String, Target>,
}

#[derive(Deserialize)]
struct Target {
    length: u64,
    hashes: BTreeMap<String, String>,
    #[serde(default)]
    custom: BTreeMap<String, serde_json::Value>,
}

impl Fleet {
    /// The releases that the signed repository offers, by target.
    pub async fn releases_list(&self) -> Result<Vec<Release>, FleetError> {
        let releases = read(self.tuf_dir()).await?;
        let now = self.now();
        let mut tx = self.db().write().await?;
        for release in &releases {
            release_set(
                &mut tx,
                &release.target,
                &release.version,
                &release.sha256,
                release.length,
                now.0,
            )
            .await?;
        }
        tx.commit().await?;
        Ok(releases)
    }

    /// The release of this version.
    pub(super) async fn release_find(&self, version: &str) -> Result<Release, FleetError> {
        let releases = self.releases_list().await?;
        let mut found = releases.into_iter().filter(|r| r.version == version);
        match (found.next(), found.next()) {
            (Some(release), None) => Ok(release),
            (None, _) => Err(FleetError::not_found(format!(
                "no release {version:?} in {}: sign one with `longhaul-factory tuf`",
                self.tuf_dir().display()
            ))),
            (Some(_), Some(_)) => Err(FleetError::conflict(format!(
                "more than one target has the version {version:?}"
            ))),
        }
    }
}

async fn read(dir: &Path) -> Result<Vec<Release>, FleetError> {
    let metadata = dir.join("metadata");
    let Some(timestamp) = read_json::<Versions>(&metadata.join("timestamp.json")).await? else {
        return Ok(vec![]);
    };
    let missing = |what: &str| {
        FleetError::internal(
            format!("the release repository in {} is incomplete", dir.display()),
            format!("{what} is missing"),
        )
    };
    let version = |of: &Versions, name: &str| of.meta.get(name).map(|v| v.version);
    let at = version(&timestamp, "snapshot.json").ok_or_else(|| missing("snapshot.json"))?;
    let snapshot: Versions = read_versioned(&metadata, at, "snapshot.json")
        .await?
        .ok_or_else(|| missing("snapshot.json"))?;
    let at = version(&snapshot, "targets.json").ok_or_else(|| missing("targets.json"))?;
    let targets: Targets = read_versioned(&metadata, at, "targets.json")
        .await?
        .ok_or_else(|| missing("targets.json"))?;
    let mut releases = Vec::new();
    for (name, target) in targets.targets {
        let version = target.custom.get("version").and_then(|v| v.as_str());
        let sha256 = target.hashes.get("sha256");
        let sha256 = sha256.and_then(|text| text.parse::<Digest32>().ok());
        // Targets without a version are not releases.
        let (Some(version), Some(sha256)) = (version, sha256) else {
            continue;
        };
        releases.push(Release {
            version: version.to_owned(),
            target: name,
            sha256,
            length: target.length,
        });
    }
    Ok(releases)
}

/// With or without the version in its name: repositories come in both forms.
async fn read_versioned<T: DeserializeOwned>(
    dir: &Path,
    version: u64,
    name: &str,
) -> Result<Option<T>, FleetError> {
    let versioned = read_json(&dir.join(format!("{version}.{name}"))).await?;
    match versioned {
        Some(found) => Ok(Some(found)),
        None => read_json(&dir.join(name)).await,
    }
}

async fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FleetError> {
    let failed = |source: io::Error| {
        FleetError::internal(format!("failed to read {}", path.display()), source)
    };
    let length = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if length > MAX_METADATA {
        return Err(failed(io::Error::other("longer than 4 MiB")));
    }
    let bytes = tokio::fs::read(path).await.map_err(failed)?;
    let parsed: Signed<T> = serde_json::from_slice(&bytes)
        .map_err(|e| FleetError::internal(format!("malformed {}", path.display()), e))?;
    Ok(Some(parsed.signed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(dir.join("metadata")).expect("made");
        std::fs::write(dir.join("metadata").join(name), text).expect("written");
    }

    #[tokio::test]
    async fn no_repository_offers_no_release() {
        let dir = tempfile::tempdir().expect("a directory");

        assert!(read(dir.path()).await.expect("read").is_empty());
    }

    #[tokio::test]
    async fn releases_are_the_targets_in_force_that_have_a_version() {
        let dir = tempfile::tempdir().expect("a directory");
        let sha = "ab".repeat(32);
        write(
            dir.path(),
            "timestamp.json",
            r#"{"signed":{"meta":{"snapshot.json":{"version":2}}}}"#,
        );
        write(
            dir.path(),
            "2.snapshot.json",
            r#"{"signed":{"meta":{"targets.json":{"version":3}}}}"#,
        );
        write(dir.path(), "2.targets.json", r#"{"signed":{"targets":{}}}"#);
        write(
            dir.path(),
            "3.targets.json",
            &format!(
                r#"{{"signed":{{"targets":{{
                    "agent-1":{{"length":7,"hashes":{{"sha256":"{sha}"}},"custom":{{"version":"1.2"}}}},
                    "notes":{{"length":1,"hashes":{{"sha256":"{sha}"}}}}
                }}}}}}"#
            ),
        );

        let releases = read(dir.path()).await.expect("read");

        assert_eq!(releases.len(), 1);
        assert_eq!(
            (releases[0].version.as_str(), releases[0].length),
            ("1.2", 7)
        );
        assert_eq!(releases[0].target, "agent-1");
    }

    #[tokio::test]
    async fn a_damaged_repository_is_an_error_and_no_panic() {
        let dir = tempfile::tempdir().expect("a directory");
        for text in [
            "",
            "{}",
            "[",
            r#"{"signed":{"meta":{}}}"#,
            r#"{"signed":{"meta":{"snapshot.json":{"version":9}}}}"#,
        ] {
            write(dir.path(), "timestamp.json", text);
            assert!(read(dir.path()).await.is_err(), "{text}");
        }
    }
}
