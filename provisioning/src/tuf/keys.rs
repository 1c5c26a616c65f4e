//! The keys that sign releases, one PEM file each, and the root that says how many must agree.

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::Ed25519KeyPair;
use tough::key_source::KeySource;
use tough::schema::{RoleKeys, RoleType, Root};
use tough::sign::Sign;
use zeroize::Zeroizing;

use super::TufError;
use crate::files;

/// A role of the repository: how many keys it has and how many of them must sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Role {
    pub(super) kind: RoleType,
    name: &'static str,
    keys: u8,
    threshold: NonZeroU64,
}

const fn role(kind: RoleType, name: &'static str, keys: u8, threshold: u64) -> Role {
    let Some(threshold) = NonZeroU64::new(threshold) else {
        panic!("a role that nobody signs");
    };
    Role {
        kind,
        name,
        keys,
        threshold,
    }
}

/// Offline: says who may sign what.
pub(super) const ROOT: Role = role(RoleType::Root, "root", 5, 3);
/// Offline: says what a release is.
pub(super) const TARGETS: Role = role(RoleType::Targets, "targets", 3, 2);
/// Online: says which metadata belong together.
pub(super) const SNAPSHOT: Role = role(RoleType::Snapshot, "snapshot", 1, 1);
/// Online: says that this is still the newest.
pub(super) const TIMESTAMP: Role = role(RoleType::Timestamp, "timestamp", 1, 1);

/// A key in a PEM file that its owner alone can read.
#[derive(Clone, Debug)]
struct PemKey(PathBuf);

impl PemKey {
    fn pair(&self) -> Result<Option<Ed25519KeyPair>, TufError> {
        let Some(bytes) = files::read_key(&self.0)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        let unusable = || TufError::Key(self.0.clone());
        let block = pem::parse(&bytes).map_err(|_| unusable())?;
        let pkcs8 = Zeroizing::new(block.into_contents());
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| unusable())?;
        Ok(Some(pair))
    }
}

#[tough::async_trait]
impl KeySource for PemKey {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, Box<dyn Error + Send + Sync>> {
        let pair = self.pair()?.ok_or_else(|| TufError::Key(self.0.clone()))?;
        Ok(Box::new(pair))
    }

    async fn write(&self, _: &str, _: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err("a signing key is made once and never rewritten".into())
    }
}

impl Role {
    fn paths(self, dir: &Path) -> Vec<PathBuf> {
        (1..=self.keys)
            .map(|n| dir.join(format!("{}-{n}.pem", self.name)))
            .collect()
    }

    /// Makes the role's keys.
    pub(super) fn generate(self, dir: &Path) -> Result<(), TufError> {
        for path in self.paths(dir) {
            let pkcs8 = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8());
            let pkcs8 = pkcs8.map_err(|_| TufError::Randomness)?;
            let block = pem::Pem::new("PRIVATE KEY", pkcs8.as_ref());
            let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
            let text = Zeroizing::new(pem::encode_config(&block, config));
            files::write(&path, text.as_bytes())?;
        }
        Ok(())
    }

    /// The role's keys that this machine holds: enough of them, or the error says how many are
    /// missing.
    pub(super) fn held(self, dir: &Path) -> Result<Vec<Box<dyn KeySource>>, TufError> {
        let mut held: Vec<Box<dyn KeySource>> = Vec::new();
        for path in self.paths(dir) {
            let key = PemKey(path);
            if key.pair()?.is_some() {
                held.push(Box::new(key));
            }
        }
        if (held.len() as u64) < self.threshold.get() {
            return Err(TufError::TooFewKeys {
                role: self.name,
                held: held.len(),
                needed: self.threshold.get(),
                dir: dir.to_owned(),
            });
        }
        Ok(held)
    }

    /// Enters the role and its public keys into `root`.
    pub(super) async fn enter(self, dir: &Path, root: &mut Root) -> Result<(), TufError> {
        let mut keyids = Vec::new();
        for path in self.paths(dir) {
            let key = PemKey(path).as_sign().await.map_err(TufError::Sign)?;
            let key = key.tuf_key();
            let id = key.key_id().map_err(|e| TufError::Sign(Box::new(e)))?;
            keyids.push(id.clone());
            root.keys.insert(id, key);
        }
        let keys = RoleKeys {
            keyids,
            threshold: self.threshold,
            _extra: HashMap::new(),
        };
        root.roles.insert(self.kind, keys);
        Ok(())
    }
}
