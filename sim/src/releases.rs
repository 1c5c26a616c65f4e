//! Signs releases as the factory does, good ones and bad ones, and looks at what boxes make of them.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::operator::Operator;
use crate::system::{Stage, SystemError};
use crate::wait::until;

/// What a release consists of.
#[derive(Clone, Copy, Debug)]
pub enum Contents {
    /// The box's program with something behind its end: it works, and is not the one that runs.
    Good,
    /// A program that says something and fails.
    Bad,
    /// A program for no machine.
    Garbage,
}

impl Stage {
    fn repository(&self) -> PathBuf {
        self.path("cloud").join("tuf")
    }

    fn release_keys(&self) -> PathBuf {
        self.path("tuf-keys")
    }

    /// Makes the keys that sign releases and an empty repository where the cloud offers it.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn make_repository(&self) -> Result<PathBuf, SystemError> {
        let (keys, repository) = (self.release_keys(), self.repository());
        let arguments = [
            "tuf".to_owned(),
            "init".to_owned(),
            format!("--keys={}", keys.display()),
            format!("--repository={}", repository.display()),
        ];
        self.run("tuf-init", "longhaul-factory", arguments).await?;
        Ok(repository)
    }

    /// Signs a release and offers it; yields its length in bytes.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn sign_release(&self, version: &str, what: Contents) -> Result<u64, SystemError> {
        self.sign_release_with(version, what, None).await
    }

    /// The same, with the states that machines are in once they run it.
    ///
    /// # Errors
    ///
    /// [`SystemError`].
    pub async fn sign_release_with(
        &self,
        version: &str,
        what: Contents,
        states: Option<&Path>,
    ) -> Result<u64, SystemError> {
        let path = self.path(&format!("longhaul-box-{version}"));
        self.write_release(&path, version, what)
            .map_err(|source| SystemError::File {
                path: path.clone(),
                source,
            })?;
        let mut arguments = vec![
            "tuf".to_owned(),
            "add".to_owned(),
            format!("--keys={}", self.release_keys().display()),
            format!("--repository={}", self.repository().display()),
            format!("--version={version}"),
            "--json".to_owned(),
            path.display().to_string(),
        ];
        arguments.extend(states.map(|path| format!("--states={}", path.display())));
        let name = format!("tuf-add-{version}");
        let text = self.run(&name, "longhaul-factory", arguments).await?;
        let release: Value = serde_json::from_str(&text).unwrap_or_default();
        release["length"].as_u64().ok_or(SystemError::Unexpected {
            what: "the factory says how long a release is",
            text,
        })
    }

    fn write_release(&self, path: &PathBuf, version: &str, what: Contents) -> io::Result<()> {
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o755)
            .open(path)?;
        match what {
            Contents::Good => {
                let mut program = std::fs::File::open(self.program("longhaul-box"))?;
                io::copy(&mut program, &mut file)?;
                write!(file, "\nlonghaul-box {version}\n")
            }
            Contents::Bad => write!(
                file,
                "#!/bin/sh\necho 'release {version} does not know this machine' >&2\nexit 9\n"
            ),
            Contents::Garbage => write!(file, "\x7fELF release {version}"),
        }
    }
}

/// Waits until the box reports that it runs `version`, and is online; yields its slots.
///
/// # Errors
///
/// [`SystemError::TimedOut`] with what it reported instead.
pub async fn runs(operator: &Operator, box_id: &str, version: &str) -> Result<Value, SystemError> {
    let what = format!("the box to run {version}");
    let slots = until(&what, Duration::from_mins(1), || async {
        let detail = operator.box_detail(box_id).await;
        let detail = detail.map_err(|e| e.to_string())?;
        let reported = &detail["reported"];
        let slots = &reported["slots"];
        let active = slots["active"].as_str().unwrap_or_default();
        if detail["box"]["online"] == true
            && reported["agent_version"] == version
            && slots[active] == version
        {
            Ok(slots.clone())
        } else {
            Err(format!("{}, {reported}", detail["box"]))
        }
    });
    Ok(slots.await?)
}
