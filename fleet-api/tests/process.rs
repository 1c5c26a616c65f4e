//! The program itself: it starts with nothing configured, stops in good order, and survives a kill.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A child that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul-cloud"));
    command.arg("--data").arg(data);
    for port in ["people", "boxes", "mqtt", "s3"] {
        command.arg(format!("--listen-{port}")).arg("127.0.0.1:0");
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ready(data: &Path) -> serde_json::Value {
    let path = data.join("ready.json");
    let begun = Instant::now();
    loop {
        if let Ok(bytes) = std::fs::read(&path) {
            return serde_json::from_slice(&bytes).expect("whole or not at all");
        }
        assert!(begun.elapsed() < PATIENCE, "not ready in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill")
        .args([name, &pid])
        .status()
        .expect("kill");
    assert!(sent.success());
}

#[test]
fn it_starts_with_nothing_and_comes_back_after_a_kill() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut first = Running(command(&data).spawn().expect("started"));
    let told = ready(&data);
    let mut lines = BufReader::new(first.0.stdout.take().expect("a pipe")).lines();
    let name = lines.next().expect("a line").expect("text");
    let password = lines.next().expect("a line").expect("text");
    assert_eq!(name, "first administrator: admin");
    assert!(password.starts_with("password: ") && password.len() > 20);
    assert_eq!(told["pid"], first.0.id());
    let root = std::fs::read(told["root_pem"].as_str().expect("a path")).expect("a root");

    let mut beside = Running(command(&data).spawn().expect("started"));
    assert!(
        !beside.0.wait().expect("ended").success(),
        "one process per folder"
    );
    let mut text = String::new();
    let mut errors = beside.0.stderr.take().expect("a pipe");
    errors.read_to_string(&mut text).expect("text");
    assert!(text.contains("another longhaul-cloud runs in"), "{text}");

    signal(&first.0, "-KILL");
    first.0.wait().expect("ended");
    let mut second = Running(command(&data).spawn().expect("started"));
    let begun = Instant::now();
    while ready(&data)["pid"] != second.0.id() {
        assert!(begun.elapsed() < PATIENCE, "not ready in time");
        std::thread::sleep(Duration::from_millis(10));
    }
    let kept = std::fs::read(told["root_pem"].as_str().expect("a path")).expect("a root");
    assert_eq!(root, kept, "the same authorities");

    signal(&second.0, "-TERM");
    let status = second.0.wait().expect("ended");
    assert_eq!(status.code(), Some(0), "a good end");
    assert!(!data.join("ready.json").exists());
    let mut text = String::new();
    second
        .0
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut text)
        .expect("text");
    assert_eq!(text, "", "the password is shown once");
}

#[test]
fn wrong_configuration_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("cloud.toml");
    std::fs::write(&file, "listen_poeple = \":1\"").expect("written");

    let output = command(dir.path())
        .arg("--config")
        .arg(&file)
        .output()
        .expect("run");

    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("listen_poeple") && text.contains("cloud.toml"),
        "{text}"
    );
}
