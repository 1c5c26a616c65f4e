//! The verbs beside `push`, as their users see them.

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;

use serde_json::Value;
use support::faults::Gate;
use support::{TestBox, kill, noise, output, until, write};

const MIB: usize = 1024 * 1024;

/// The command line, with the box's ticket and a state folder of its own.
fn cli(test_box: &TestBox, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    command
        .args(args)
        .env("LONGHAUL_TICKET", test_box.ticket_path())
        .env("LONGHAUL_BOX", test_box.url())
        .env("XDG_STATE_HOME", test_box.dir.path().join("state"))
        .stdin(Stdio::null());
    command
}

/// The same on a computer that has never talked to the box.
fn stranger(test_box: &TestBox, args: &[&str]) -> Command {
    let mut command = cli(test_box, args);
    command.env("XDG_STATE_HOME", test_box.dir.path().join("other-state"));
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn str(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Puts a file where the box keeps its objects, as another client would have.
async fn pushed(test_box: &TestBox, files: &[(&str, &[u8])]) {
    let root = test_box.dir.path().join("pushed");
    for (name, bytes) in files {
        write(&root.join(name), bytes);
    }
    let done = output(cli(test_box, &["push", str(&root)])).await;
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_comes_back_byte_for_byte_with_its_time() {
    let test_box = TestBox::start().await;
    let large = noise(7, 20 * MIB + 1);
    pushed(
        &test_box,
        &[
            ("p/a.txt", b"a"),
            ("p/empty", b""),
            ("p/q/large", &large),
            ("pq", b"no"),
        ],
    )
    .await;
    let to = test_box.dir.path().join("to");

    let got = output(cli(&test_box, &["get", "p", str(&to), "--json"])).await;

    assert_eq!(code(&got), 0, "{}", text(&got.stderr));
    assert_eq!(std::fs::read(to.join("q/large")).expect("there"), large);
    assert_eq!(std::fs::read(to.join("a.txt")).expect("there"), b"a");
    assert_eq!(std::fs::read(to.join("empty")).expect("there"), b"");
    assert!(!to.join("pq").exists());
    assert_eq!(json(&got)["files"][0]["verified_by"], "crc64nvme");
    let time = |path: &Path| {
        std::fs::metadata(path)
            .and_then(|m| m.modified())
            .expect("a time")
    };
    let source = test_box.dir.path().join("pushed/p/a.txt");
    assert_eq!(time(&to.join("a.txt")), time(&source));
    let left = walk(&to);
    assert_eq!(left, ["a.txt", "empty", "q/large"], "nothing else is left");

    // The stand-in knows no checksum of an object that came in parts; a box knows one of each.
    test_box.seen.blake3.store(1, Ordering::SeqCst);
    let again = output(cli(&test_box, &["get", "p/", str(&to), "--json"])).await;
    assert_eq!(json(&again)["bytes_received"], 0);
    assert_eq!(json(&again)["files"][0]["outcome"], "already_there");

    let absent = output(cli(&test_box, &["get", "nothing", str(&to)])).await;
    assert_eq!(code(&absent), 1);
    assert!(
        text(&absent.stderr).contains("\"nothing\""),
        "{}",
        text(&absent.stderr)
    );
}

fn walk(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inner = path.strip_prefix(root).expect("below");
                found.push(str(inner).to_owned());
            }
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_get_continues_without_fetching_finished_ranges_again() {
    let test_box = TestBox::start().await;
    // Ranges of one length: which three of the six come first is anybody's guess.
    let large = noise(8, 48 * MIB);
    pushed(&test_box, &[("large", &large)]).await;
    let to = test_box.dir.path().join("to");
    std::fs::create_dir(&to).expect("made");
    test_box.seen.hold_gets_of("/haul/large", 3);
    let mut child = cli(&test_box, &["get", "large", str(&to)])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    until("three ranges", || {
        let record = std::fs::read_dir(&to).ok().and_then(|mut entries| {
            let is_record = |path: &Path| path.extension().is_some_and(|e| e == "done");
            entries.find_map(|e| e.ok().filter(|e| is_record(&e.path())))
        });
        record.is_some_and(|e| {
            let record = std::fs::read_to_string(e.path()).unwrap_or_default();
            record.lines().count() == 3
        })
    })
    .await;
    kill(&mut child);
    assert!(!to.join("large").exists(), "nobody sees half a file");
    test_box.seen.clear();
    test_box.seen.hold_gets_of("/haul/large", u64::MAX);

    let again = output(cli(&test_box, &["get", "large", str(&to), "--json"])).await;

    assert_eq!(code(&again), 0, "{}", text(&again.stderr));
    assert_eq!(std::fs::read(to.join("large")).expect("there"), large);
    assert_eq!(json(&again)["files"][0]["outcome"], "resumed");
    assert_eq!(json(&again)["bytes_received"], (24 * MIB) as u64);
    let ranges = |r: &str| r.starts_with("GET /haul/large");
    assert_eq!(test_box.seen.count(ranges), 3);
    assert_eq!(walk(&to), ["large"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_what_the_box_says_are_never_put_in_place() {
    let test_box = TestBox::start().await;
    pushed(&test_box, &[("f", b"bytes")]).await;
    let to = test_box.dir.path().join("f");

    test_box.seen.blake3.store(2, Ordering::SeqCst);
    let lied = output(cli(&test_box, &["get", "f", str(&to)])).await;
    assert_eq!(code(&lied), 3, "{}", text(&lied.stdout));
    assert!(
        text(&lied.stderr).contains("not what the box holds"),
        "{}",
        text(&lied.stderr)
    );
    assert!(!to.exists());

    test_box.seen.blake3.store(1, Ordering::SeqCst);
    let told = output(cli(&test_box, &["get", "f", str(&to), "--json"])).await;
    assert_eq!(json(&told)["files"][0]["verified_by"], "blake3");
    let hash = blake3::hash(b"bytes").to_hex().to_string();
    assert_eq!(json(&told)["files"][0]["blake3"], hash);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_sends_what_differs_and_nothing_else_whoever_sent_the_rest() {
    let test_box = TestBox::start().await;
    pushed(
        &test_box,
        &[("same", b"same"), ("other", b"12345"), ("spare", b"x")],
    )
    .await;
    let root = test_box.dir.path().join("here");
    for (name, bytes) in [("same", "same"), ("other", "54321"), ("new", "new")] {
        write(&root.join(name), bytes.as_bytes());
    }
    test_box.seen.clear();

    let dry = stranger(
        &test_box,
        &["sync", str(&root), "--dry-run", "--delete", "--json"],
    );
    let dry = json(&output(dry).await);
    let would: Vec<_> = dry["would_send"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    assert_eq!(would.len(), 2, "{dry}");
    assert_eq!(
        (&would[0]["key"], &would[0]["replaces"]),
        (&"new".into(), &false.into())
    );
    assert_eq!(
        (&would[1]["key"], &would[1]["replaces"]),
        (&"other".into(), &true.into())
    );
    assert_eq!(dry["removed"]["removed"], serde_json::json!(["spare"]));
    assert_eq!(test_box.seen.put_bytes.load(Ordering::SeqCst), 0);
    assert!(test_box.object("spare").is_some());

    let done = output(stranger(&test_box, &["sync", str(&root), "--json"])).await;
    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    assert_eq!(json(&done)["bytes_sent"], 8);
    assert_eq!(test_box.object("other").as_deref(), Some(&b"54321"[..]));
    assert!(
        test_box.object("spare").is_some(),
        "nothing is removed unasked"
    );

    let delete = output(stranger(&test_box, &["sync", str(&root), "--delete"])).await;
    assert_eq!(code(&delete), 0, "{}", text(&delete.stderr));
    assert!(test_box.object("spare").is_none());
    assert!(test_box.object("same").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_could_not_send_everything_removes_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let test_box = TestBox::start().await;
    pushed(&test_box, &[("spare", b"x")]).await;
    let root = test_box.dir.path().join("here");
    write(&root.join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"bad");

    let done = output(cli(&test_box, &["sync", str(&root), "--delete"])).await;

    assert_eq!(code(&done), 3);
    assert!(
        text(&done.stderr).contains("nothing was removed"),
        "{}",
        text(&done.stderr)
    );
    assert!(test_box.object("spare").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_needs_a_yes_and_says_what_was_not_there() {
    let test_box = TestBox::start().await;
    pushed(
        &test_box,
        &[("a", b"1"), ("d/b", b"2"), ("d/c", b"3"), ("dd", b"4")],
    )
    .await;

    let unasked = output(cli(&test_box, &["rm", "a"])).await;
    assert_eq!(code(&unasked), 2);
    assert!(text(&unasked.stderr).contains("--yes"));
    assert!(test_box.object("a").is_some());

    let done = output(cli(
        &test_box,
        &["rm", "--yes", "a", "d/", "gone", "--json"],
    ))
    .await;
    assert_eq!(code(&done), 3, "{}", text(&done.stderr));
    let report = json(&done);
    assert_eq!(report["removed"], serde_json::json!(["a", "d/b", "d/c"]));
    assert_eq!(report["failed"][0]["key"], "gone");
    assert!(test_box.object("d/b").is_none());
    assert!(
        test_box.object("dd").is_some(),
        "a folder ends with its slash"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lint_names_what_would_not_arrive_without_a_box() {
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("good"), b"good");
    let lint = |path: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_longhaul"));
        command.args(["lint", str(path)]).env_clear();
        command
    };

    let clean = output(lint(dir.path())).await;
    write(&dir.path().join("a\\b"), b"bad");
    write(&dir.path().join("caf\u{e9}"), b"x");
    write(&dir.path().join("cafe\u{301}"), b"x");
    let found = output(lint(dir.path())).await;

    assert_eq!(code(&clean), 0, "{}", text(&clean.stderr));
    assert_eq!(text(&clean.stdout), "1 file, 4 B can be sent\n");
    assert_eq!(code(&found), 3);
    let said = text(&found.stdout);
    assert!(
        said.contains("no backslash") && said.contains("NFC and NFD"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sends_what_appears_and_outlives_the_boxs_restart() {
    let test_box = TestBox::start().await;
    let gate = Gate::start(test_box.addr).await;
    let url = format!("https://{}", gate.addr);
    let root = test_box.dir.path().join("inbox");
    write(&root.join("early"), b"early");
    let args = [
        "watch",
        str(&root),
        "--settle",
        "0.1",
        "--patience",
        "1",
        "--json",
        "--box",
        &url,
    ];
    let log = test_box.dir.path().join("log");
    let mut child = cli(&test_box, &args)
        .stdout(std::fs::File::create(&log).expect("created"))
        .spawn()
        .expect("started");
    let object = |key: &str| test_box.object(key);
    until("what was there", || object("early").is_some()).await;

    write(&root.join("new folder/deep/late"), b"late");
    until("what appeared", || object("new folder/deep/late").is_some()).await;
    write(&root.join("early"), b"changed");
    until("what changed", || {
        object("early").as_deref() == Some(b"changed")
    })
    .await;

    gate.set_open(false);
    write(&root.join("meanwhile"), b"meanwhile");
    let said = |word: &str| {
        std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains(word)
    };
    until("that it waits", || said("\"waiting\"")).await;
    gate.set_open(true);
    until("what was written meanwhile", || {
        object("meanwhile").is_some()
    })
    .await;

    let stop = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(stop.expect("sent").success());
    let ended = tokio::task::spawn_blocking(move || child.wait())
        .await
        .expect("not cancelled");
    assert_eq!(
        ended.expect("reaped").code(),
        Some(0),
        "stopping a watch ends it well"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_gets_settings_in_its_own_words() {
    let test_box = TestBox::start().await;
    for (form, word) in [
        ("--rclone", "secret_access_key = secret/+key\n"),
        ("--s3cmd", "secret_key = secret/+key\n"),
        ("--s5cmd", "S3_ENDPOINT_URL='https://"),
        ("--boto3", "aws_secret_access_key=\"secret/+key\",\n"),
    ] {
        let said = text(&output(cli(&test_box, &["s3-env", form])).await.stdout);
        assert!(said.contains(word), "{form}: {said}");
    }
    let both = output(cli(&test_box, &["s3-env", "--rclone", "--boto3"])).await;
    assert_eq!(code(&both), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut man = Command::new(env!("CARGO_BIN_EXE_longhaul"));
    man.args(["man", str(dir.path())]);

    let done = output(man).await;

    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    for page in [
        "longhaul",
        "longhaul-push",
        "longhaul-sync",
        "longhaul-get",
        "longhaul-s3-env",
    ] {
        let page = dir.path().join(format!("{page}.1"));
        let words = std::fs::read_to_string(&page).expect("a page");
        assert!(words.contains(".TH"), "{}", page.display());
    }
    let push = std::fs::read_to_string(dir.path().join("longhaul-push.1")).expect("a page");
    assert!(
        push.contains("some files failed"),
        "the exit codes are there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_has_a_line_for_every_file() {
    let test_box = TestBox::start().await;
    let root = test_box.dir.path().join("source");
    write(&root.join("good"), b"good");
    std::os::unix::fs::symlink("good", root.join("link")).expect("linked");
    let report = test_box.dir.path().join("report.jsonl");

    let done = output(cli(
        &test_box,
        &["push", str(&root), "--report", str(&report)],
    ))
    .await;

    assert_eq!(code(&done), 0, "{}", text(&done.stderr));
    let lines = std::fs::read_to_string(report).expect("written");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["result"], &lines[0]["key"]),
        (&"safe".into(), &"good".into())
    );
    assert_eq!(
        (&lines[1]["result"], &lines[1]["reason"]),
        (&"left_out".into(), &"symlink".into())
    );
}
