//! A PostgreSQL cluster of the test's own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// An empty cluster on a socket in a folder of its own; it ends with this.
pub struct Cluster {
    server: Child,
    folder: TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Cluster {
    /// Makes and starts it; it may take a moment until it answers.
    pub fn start() -> Self {
        let bin = postgres_bin();
        let folder = tempfile::tempdir().expect("temp dir");
        let owner = server_owner();
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("data dir");
        if let Some((uid, gid)) = owner {
            // The server refuses to run as root; its user has to get into the folder.
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).expect("mode");
            chown(&data, Some(uid), Some(gid)).expect("owner");
        }
        let made = as_owner(owner, &bin.join("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=longhaul"])
            .args([
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-instructions",
                "--wal-segsize=1",
            ])
            .arg("--pgdata")
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .expect("initdb runs");
        assert!(made.success(), "initdb failed: {made}");
        let server = as_owner(owner, &bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off"])
            .args(["-c", "shared_buffers=16MB", "-c", "max_wal_size=64MB"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres runs");
        Self { server, folder }
    }

    /// Where it is, as `longhaul-cloud --database` takes it.
    pub fn url(&self) -> String {
        let socket = self.folder.path().join("data");
        let socket = socket.display();
        format!("postgres://longhaul@localhost/postgres?host={socket}")
    }
}

/// Debian keeps each version's programs apart; the newest there is.
fn postgres_bin() -> PathBuf {
    let mut found: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .expect("Debian's postgresql package is installed")
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop().expect("a version of PostgreSQL")
}

/// User and group that the server must run as; absent where this process is not root.
fn server_owner() -> Option<(u32, u32)> {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let is_root = status.lines().any(|line| line.starts_with("Uid:\t0\t"));
    if !is_root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("users");
    let entry = users
        .lines()
        .find(|line| line.starts_with("postgres:"))
        .expect("Debian's postgresql package makes the user");
    let mut ids = entry.split(':').skip(2).map(|n| n.parse().expect("an id"));
    Some((ids.next().expect("uid"), ids.next().expect("gid")))
}

/// `program` as the server's user; it dies with this process, even by `SIGKILL`.
fn as_owner(owner: Option<(u32, u32)>, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = owner {
        command
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={gid}"))
            .arg("--clear-groups");
    }
    command
        .arg("--pdeathsig=KILL")
        .arg(program)
        .current_dir("/");
    command
}
