//! Back to how the factory prepared the box, without losing what it has acknowledged.
//!
//! What somebody set, and what the cloud issued, goes: network settings, proxy, certificates, tickets,
//! the desired state. What the box has promised stays: files, journal, receipts, and the keys to them;
//! also the counter of commands, so that none is carried out twice. A marker is on the disk before
//! anything goes, so that a power cut repeats the reset rather than leaving half of it.

use std::io;
use std::path::Path;

use crate::agent::saved::Saved;
use crate::disk::{self, DiskError};

/// There while a reset is not finished.
const MARKER: &str = "reset.json";
/// What goes. Everything else below the state directory stays.
const GOES: [&str; 7] = [
    "network.json",
    "proxy.json",
    "ldevid.json",
    "offline.json",
    "offline-lan.sealed",
    "lan.sealed",
    "tickets.sealed",
];

/// Has the next start reset the box; on the disk when this returns.
pub fn ask(state: &Path) -> Result<(), DiskError> {
    disk::write_json(&state.join(MARKER), &serde_json::json!({ "v": 1 }))
}

/// Resets the box where that was asked for, before anything is opened; whether it was.
pub fn finish(state: &Path) -> Result<bool, DiskError> {
    let marker = state.join(MARKER);
    if !marker.exists() {
        return Ok(false);
    }
    let agent = state.join("agent.json");
    let saved: Option<Saved> = disk::read_json(&agent)?;
    if let Some(saved) = saved {
        let kept = Saved {
            counter: saved.counter,
            commands: saved.commands,
            ..Saved::default()
        };
        disk::write_json(&agent, &kept)?;
    }
    for name in GOES {
        remove(&state.join(name))?;
    }
    sync(state)?;
    remove(&marker)?;
    sync(state)?;
    Ok(true)
}

fn remove(path: &Path) -> Result<(), DiskError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DiskError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), DiskError> {
    disk::sync_dir(dir).map_err(|source| DiskError::Write {
        path: dir.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_takes_settings_and_leaves_what_was_promised() {
        let dir = tempfile::tempdir().unwrap();
        let stays = [
            "vault/log",
            "journal/journal.log",
            "receipts/x",
            "master.sealed",
        ];
        for name in GOES.iter().chain(&stays) {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let saved = Saved {
            counter: 7,
            telemetry_interval_secs: 99,
            ..Saved::default()
        };
        disk::write_json(&dir.path().join("agent.json"), &saved).unwrap();

        assert!(!finish(dir.path()).unwrap(), "nobody asked");
        assert!(dir.path().join("network.json").exists());
        ask(dir.path()).unwrap();
        assert!(finish(dir.path()).unwrap());
        assert!(!finish(dir.path()).unwrap(), "once");

        assert!(GOES.iter().all(|name| !dir.path().join(name).exists()));
        assert!(stays.iter().all(|name| dir.path().join(name).exists()));
        let kept: Saved = disk::read_json(&dir.path().join("agent.json"))
            .unwrap()
            .unwrap();
        assert_eq!(kept.counter, 7, "no command is carried out twice");
        assert_eq!(
            kept.telemetry_interval_secs,
            Saved::default().telemetry_interval_secs
        );
    }
}
