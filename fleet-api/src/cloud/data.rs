//! The data folder: one process at a time, secrets for their owner only, files whole or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use longhaul_provisioning::files::{self, FileError};
use serde::{Deserialize, Serialize};

use super::Addresses;
use crate::config::Config;

/// Says that every port is open; scripts wait for it.
pub(super) const READY: &str = "ready.json";

/// Why the data folder is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another process has it.
    #[error("another longhaul-cloud runs in {0}: stop it, or choose another folder with --data")]
    InUse(PathBuf),
    /// The lock could not be taken.
    #[error("failed to lock {path}")]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object store's keys are unreadable.
    #[error("{path} does not hold the object store's keys")]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// What all processes share is not there.
    #[error("{0} is missing: copy pki/ and seal.key from the process that made them")]
    NotShared(PathBuf),
    /// There is no randomness.
    #[error("the system has no randomness")]
    Randomness,
}

/// An open data folder; it is locked for as long as this lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The built-in object store's only key pair.
#[derive(Deserialize, Serialize)]
pub(super) struct S3Keys {
    pub access_key: String,
    pub secret_key: String,
}

#[derive(Serialize)]
struct Ready<'a> {
    pid: u32,
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    people_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    people_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boxes_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mqtt_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s3_keys: Option<PathBuf>,
    data: PathBuf,
    pki: PathBuf,
    root_pem: &'a Path,
    tuf: PathBuf,
}

impl DataDir {
    pub(super) fn open(path: &Path) -> Result<Self, DataError> {
        files::make_dir(path)?;
        // The files name absolute paths: their readers may stand elsewhere.
        let path = fs::canonicalize(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        let lock_path = path.join("lock");
        let failed = |source| DataError::Lock {
            path: lock_path.clone(),
            source,
        };
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DataError::InUse(path)),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let dir = Self { path, _lock: lock };
        // Left by a process that was killed.
        dir.remove_ready();
        Ok(dir)
    }

    /// Refuses a folder without what all processes share: one of many must not make its own.
    pub(super) fn expect_shared(&self) -> Result<(), DataError> {
        for name in ["pki", "seal.key"] {
            let path = self.path.join(name);
            if !path.exists() {
                return Err(DataError::NotShared(path));
            }
        }
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the root's certificate where people find it.
    pub(super) fn write_root(&self, pem: &str) -> Result<PathBuf, DataError> {
        let path = self.path.join("root.pem");
        files::write(&path, pem.as_bytes())?;
        Ok(path)
    }

    /// The built-in object store's keys; made at the first start.
    pub(super) fn s3_keys(&self) -> Result<S3Keys, DataError> {
        let path = self.s3_keys_path();
        if let Some(bytes) = files::read_key(&path)? {
            return serde_json::from_slice(&bytes)
                .map_err(|source| DataError::Keys { path, source });
        }
        let mut random = [0; 30];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| DataError::Randomness)?;
        let keys = S3Keys {
            access_key: format!("LHROOT{}", hex::encode_upper(&random[..7])),
            secret_key: hex::encode(&random[7..]),
        };
        let bytes = serde_json::to_vec_pretty(&keys).map_err(|source| DataError::Keys {
            path: path.clone(),
            source,
        })?;
        files::write(&path, &bytes)?;
        Ok(keys)
    }

    fn s3_keys_path(&self) -> PathBuf {
        self.path.join("s3-keys.json")
    }

    /// What the ready file says.
    pub(super) fn ready(
        &self,
        config: &Config,
        addresses: &Addresses,
        root: &Path,
    ) -> Result<Vec<u8>, DataError> {
        let url = |port: u16| format!("https://{}:{port}", config.url_host());
        let port = |address: Option<SocketAddr>| address.map(|a| a.port());
        let s3_port = port(addresses.s3);
        let ready = Ready {
            pid: std::process::id(),
            host: config.host(),
            people_port: port(addresses.people),
            people_url: port(addresses.people).map(url),
            boxes_port: port(addresses.boxes),
            mqtt_port: port(addresses.mqtt),
            s3_port,
            s3_url: s3_port.map(url),
            s3_keys: s3_port.map(|_| self.s3_keys_path()),
            data: self.path.clone(),
            pki: self.path.join("pki"),
            root_pem: root,
            tuf: self.path.join("tuf"),
        };
        serde_json::to_vec_pretty(&ready).map_err(|source| DataError::Keys {
            path: self.path.join(READY),
            source,
        })
    }

    /// Says that every port is open.
    pub(super) fn write_ready(&self, ready: &[u8]) -> Result<(), DataError> {
        Ok(files::write(&self.path.join(READY), ready)?)
    }

    pub(super) fn remove_ready(&self) {
        // Absent is what is wanted.
        let _ = fs::remove_file(self.path.join(READY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_process_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = DataDir::open(dir.path()).expect("opened");

        assert!(matches!(
            DataDir::open(dir.path()),
            Err(DataError::InUse(_))
        ));
        drop(first);
        assert!(DataDir::open(dir.path()).is_ok());
    }

    #[test]
    fn the_object_stores_keys_stay_the_same() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = DataDir::open(dir.path()).expect("opened");

        let (first, second) = (data.s3_keys().expect("made"), data.s3_keys().expect("read"));

        assert_eq!(first.access_key, second.access_key);
        assert_eq!(first.secret_key, second.secret_key);
        assert!(first.secret_key.len() >= 40);
    }
}
