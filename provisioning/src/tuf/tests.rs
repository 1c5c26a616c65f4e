use std::fs;

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let bench = Self { dir };
        init(&bench.keys(), &bench.repository(), NOW)
            .await
            .expect("a repository");
        bench
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn repository(&self) -> PathBuf {
        self.dir.path().join("tuf")
    }

    fn file(&self, contents: &str) -> PathBuf {
        let path = self.dir.path().join("image");
        fs::write(&path, contents).expect("written");
        path
    }

    async fn add(&self, contents: &str, target: &str, version: &str) -> Result<Release, TufError> {
        let file = self.file(contents);
        add(
            &self.keys(),
            &self.repository(),
            &file,
            target,
            version,
            &[],
            NOW,
        )
        .await
    }
}

/// What a box does: it trusts the root that it was given, and the dates.
async fn read_as_a_box(bench: &Bench, root: &[u8], target: &str) -> Result<Vec<u8>, String> {
    let url = |name: &str| {
        Url::from_directory_path(bench.repository().join(name)).expect("an absolute path")
    };
    let repository = RepositoryLoader::new(&root, url("metadata"), url("targets"))
        .transport(FilesystemTransport)
        .expiration_enforcement(ExpirationEnforcement::Unsafe)
        .load()
        .await
        .map_err(|e| e.to_string())?;
    let name = TargetName::new(target).expect("a name");
    let out = tempfile::tempdir().expect("a directory");
    repository
        .save_target(&name, out.path(), tough::Prefix::None)
        .await
        .map_err(|e| e.to_string())?;
    Ok(fs::read(out.path().join(target)).expect("saved"))
}

#[tokio::test]
async fn a_release_reaches_a_box_that_trusts_the_first_root() {
    let bench = Bench::new().await;
    let root = trusted_root(&bench.repository())
        .expect("read")
        .expect("there");

    let one = bench.add("one", "agent-1", "1.0.0").await.expect("added");
    let two = bench.add("two", "agent-2", "1.1.0").await.expect("added");

    assert_eq!(
        show(&bench.repository()).await.expect("shown").releases,
        [one, two]
    );
    assert_eq!(
        read_as_a_box(&bench, &root, "agent-1").await,
        Ok(b"one".to_vec())
    );
    assert_eq!(
        read_as_a_box(&bench, &root, "agent-2").await,
        Ok(b"two".to_vec())
    );
}

#[tokio::test]
async fn a_release_never_changes() {
    let bench = Bench::new().await;
    let first = bench.add("one", "agent", "1.0.0").await.expect("added");

    assert_eq!(
        bench.add("one", "agent", "1.0.0").await.expect("no change"),
        first
    );
    let refused = bench.add("two", "agent", "1.0.1").await;
    assert!(
        matches!(refused, Err(TufError::TargetExists(_))),
        "{refused:?}"
    );
    let refused = bench.add("two", "agent-2", "1.0.0").await;
    assert!(
        matches!(refused, Err(TufError::VersionExists { .. })),
        "{refused:?}"
    );
    for bad in ["", "../x", "a/b", ".hidden", "a b", &"x".repeat(129)] {
        let refused = bench.add("two", bad, "1.0.1").await;
        assert!(
            matches!(refused, Err(TufError::Name(_))),
            "{bad:?}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn one_targets_key_alone_signs_nothing() {
    let bench = Bench::new().await;
    for n in [1, 3] {
        fs::remove_file(bench.keys().join(format!("targets-{n}.pem"))).expect("removed");
    }

    let refused = bench.add("one", "agent", "1.0.0").await;

    assert!(
        matches!(
            refused,
            Err(TufError::TooFewKeys {
                role: "targets",
                held: 1,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn two_targets_keys_are_enough() {
    let bench = Bench::new().await;
    fs::remove_file(bench.keys().join("targets-2.pem")).expect("removed");
    for n in 1..=5 {
        fs::remove_file(bench.keys().join(format!("root-{n}.pem"))).expect("removed");
    }

    bench.add("one", "agent", "1.0.0").await.expect("added");
}

#[tokio::test]
async fn a_refresh_prolongs_what_is_there_without_the_offline_keys() {
    let bench = Bench::new().await;
    bench.add("one", "agent", "1.0.0").await.expect("added");
    let before = show(&bench.repository()).await.expect("shown");
    for entry in fs::read_dir(bench.keys()).expect("listed") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.starts_with("root") || name.starts_with("targets") {
            fs::remove_file(path).expect("removed");
        }
    }

    let later = NOW.plus_secs(20 * 86_400);
    let after = refresh(&bench.keys(), &bench.repository(), later)
        .await
        .expect("refreshed");

    assert_eq!(after.releases, before.releases);
    assert_eq!(after.targets_expires, before.targets_expires);
    assert!(after.timestamp_expires > before.timestamp_expires);
    assert!(after.snapshot_expires > before.snapshot_expires);
}

#[tokio::test]
async fn altered_metadata_and_targets_are_refused() {
    let bench = Bench::new().await;
    bench.add("one", "agent", "1.0.0").await.expect("added");
    let root = trusted_root(&bench.repository())
        .expect("read")
        .expect("there");
    let targets = bench.repository().join("targets");
    let file = fs::read_dir(&targets)
        .expect("listed")
        .next()
        .expect("one")
        .expect("an entry");
    fs::write(file.path(), "eno").expect("altered");
    assert!(
        read_as_a_box(&bench, &root, "agent").await.is_err(),
        "an altered target"
    );

    let metadata = bench.repository().join("metadata");
    for name in ["timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let path = metadata.join(name);
        let whole = fs::read_to_string(&path).expect("read");
        fs::write(&path, whole.replace("20", "21")).expect("altered");
        assert!(show(&bench.repository()).await.is_err(), "altered {name}");
        fs::write(&path, whole).expect("restored");
    }
    show(&bench.repository()).await.expect("whole again");
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_is_made_up() {
    let bench = Bench::new().await;

    let refused = init(&bench.keys(), &bench.repository(), NOW).await;
    assert!(matches!(refused, Err(TufError::Exists(_))), "{refused:?}");
    let refused = show(&bench.dir.path().join("nowhere")).await;
    assert!(matches!(refused, Err(TufError::Missing(_))), "{refused:?}");
}
