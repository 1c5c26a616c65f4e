//! The demo itself, with a smaller folder: it holds, and leaves nothing behind however it ends.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use longhaul_sim::wait::until;
use tokio::process::{Child, Command};

fn demo(folder: &Path, once: bool) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul-demo"));
    command
        .args([
            "--any-ports",
            "--small-files=40",
            "--large-mib=40",
            "--folder",
        ])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if once {
        command.arg("--once");
    }
    command.spawn().expect("started")
}

/// Processes that name `folder` on their command line.
fn left_in(folder: &Path) -> Vec<String> {
    let name = folder.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("a process table");
    let lines = processes.filter_map(|e| std::fs::read(e.ok()?.path().join("cmdline")).ok());
    let lines = lines.map(|l| String::from_utf8_lossy(&l).replace('\0', " "));
    lines.filter(|l| l.contains(&name)).collect()
}

async fn nothing_left(folder: &Path) {
    until(
        "every process to be gone",
        Duration::from_secs(30),
        || async {
            let left = left_in(folder);
            if left.is_empty() {
                Ok(())
            } else {
                Err(left.join("\n"))
            }
        },
    )
    .await
    .expect("nothing is left behind");
}

#[tokio::test]
async fn the_whole_journey_holds_and_leaves_no_process() {
    let folder = tempfile::tempdir().expect("a folder");

    let output = demo(folder.path(), true)
        .wait_with_output()
        .await
        .expect("ended");

    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    for step in [
        "every object is read back",
        "box updates itself",
        "box goes back by itself",
    ] {
        assert!(text.contains(step), "{step}: {text}");
    }
    nothing_left(folder.path()).await;
}

#[tokio::test]
async fn a_killed_journey_leaves_no_process_and_can_be_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut killed = demo(folder.path(), false);
    let ready = folder.path().join("cloud/ready.json");
    until("the cloud to be up", Duration::from_mins(1), || async {
        if ready.exists() {
            Ok(())
        } else {
            Err("no ready.json")
        }
    })
    .await
    .expect("up");

    killed.kill().await.expect("killed");

    nothing_left(folder.path()).await;
    let again = demo(folder.path(), true)
        .wait_with_output()
        .await
        .expect("ended");
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
}
