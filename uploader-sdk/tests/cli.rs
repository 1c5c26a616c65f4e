//! The command line as its users see it: output, exit codes, and what a killed push leaves.

mod support;

use std::process::{Command, Output, Stdio};
use std::sync::atomic::Ordering;

use longhaul_protocol::lan::Announcement;
use longhaul_protocol::ticket::MDNS_SERVICE;
use mdns_sd::{ServiceDaemon, ServiceInfo};
use serde_json::Value;
use support::{TestBox, box_id, kill, noise, output, until, write};

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

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_push_continues_without_sending_finished_parts_again() {
    let test_box = TestBox::start().await;
    let root = test_box.dir.path().join("source");
    let large = noise(5, 100 * MIB + 3);
    write(&root.join("large"), &large);
    let large_bytes = large.len() as u64;
    for n in 0..30 {
        write(&root.join(format!("small{n}")), &noise(n, 2000));
    }
    let source = root.to_str().expect("UTF-8").to_owned();
    // Four parts are answered, then the box falls silent while more are on their way.
    let seen = &test_box.seen;
    seen.hold_puts_with("partNumber", 4);

    let mut child = cli(&test_box, &["push", &source])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    until("four parts and all small files", || {
        seen.answered("partNumber") >= 4 && seen.answered("small") >= 30
    })
    .await;
    // The journal is written right after the answer arrives.
    let journal = test_box
        .state_dir()
        .join(format!("{}-haul.journal", box_id(1)));
    until("the journal", || {
        let text = std::fs::read_to_string(&journal).unwrap_or_default();
        text.matches("\"part\"").count() >= 4 && text.matches("\"done\"").count() >= 30
    })
    .await;
    kill(&mut child);
    seen.clear();
    seen.hold_puts_with("partNumber", u64::MAX);

    let again = output(cli(&test_box, &["push", &source, "--json"])).await;

    assert_eq!(code(&again), 0, "{}", text(&again.stderr));
    assert_eq!(test_box.object("large"), Some(large));
    let report = json(&again);
    assert_eq!(
        report["files"][0]["outcome"], "resumed",
        "{}",
        report["files"][0]
    );
    let kept = report["files"][0]["parts_kept"].as_u64().expect("a number");
    assert!(kept >= 4, "{kept}");
    assert_eq!(seen.count(|r| r.contains("partNumber=")) as u64, 7 - kept);
    // What was sent the second time, byte by byte: the parts that the box did not have.
    let part = 16 * MIB as u64;
    let sent = seen.put_bytes.load(Ordering::SeqCst);
    assert_eq!(sent, large_bytes - kept * part);
    assert_eq!(report["bytes_sent"], sent);
    assert_eq!(
        seen.count(|r| r.starts_with("PUT") && r.contains("small")),
        0
    );
    assert_eq!(
        seen.count(|r| r.starts_with("POST") && r.contains("uploads")),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_interrupted_says_so_and_ends_with_six() {
    let test_box = TestBox::start().await;
    let path = test_box.dir.path().join("f");
    write(&path, b"x");
    test_box.seen.hold_puts_with("f", 0);
    let child = cli(&test_box, &["push", path.to_str().expect("UTF-8")])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    until("the PUT", || {
        test_box.seen.count(|r| r.starts_with("PUT")) > 0
    })
    .await;
    let pid = child.id().to_string();

    let killed = Command::new("kill")
        .args(["-INT", &pid])
        .status()
        .expect("sent");
    assert!(killed.success());
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output())
        .await
        .expect("not cancelled")
        .expect("reaped");

    assert_eq!(code(&ended), 6);
    assert!(
        text(&ended.stderr).contains("interrupted"),
        "{}",
        text(&ended.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_failure_has_its_exit_code_and_says_what_to_do() {
    let test_box = TestBox::start().await;
    let dir = test_box.dir.path();
    let path = dir.join("f");
    write(&path, b"x");
    let path = path.to_str().expect("UTF-8");
    let mut expired = test_box.ticket.clone();
    expired.expires.0 = 86_400_000;
    write(
        &dir.join("old.json"),
        &serde_json::to_vec(&expired).expect("JSON"),
    );
    let old = dir.join("old.json");
    let old = old.to_str().expect("UTF-8");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["push", "/no/such/path"], 1, "/no/such/path"),
        (&["push"], 2, "PATH"),
        (
            &["push", path, "--box", "https://127.0.0.1:1"],
            4,
            "127.0.0.1:1",
        ),
        (
            &["push", path, "--box", "http://[::"],
            2,
            "https://ADDRESS:PORT",
        ),
        (&["push", path, "--ticket", old], 5, "1970-01-02"),
        (&["push", path, "--ticket", path], 5, "not a ticket"),
    ];

    for (args, expected, word) in cases {
        let plain = output(cli(&test_box, args)).await;
        assert_eq!(code(&plain), expected, "{args:?}: {}", text(&plain.stderr));
        assert!(
            text(&plain.stderr).contains(word),
            "{args:?}: {}",
            text(&plain.stderr)
        );
        assert!(plain.stdout.is_empty());
    }
    let as_json = output(cli(&test_box, &["push", path, "--ticket", old, "--json"])).await;
    assert_eq!(json(&as_json)["exit"], 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_sent_are_named_and_the_others_arrive() {
    use std::os::unix::ffi::OsStrExt as _;
    let test_box = TestBox::start().await;
    let root = test_box.dir.path().join("source");
    write(&root.join("good"), b"good");
    write(&root.join(std::ffi::OsStr::from_bytes(b"bad\xff")), b"bad");
    std::os::unix::fs::symlink("good", root.join("link")).expect("linked");
    let source = root.to_str().expect("UTF-8");

    let result = output(cli(&test_box, &["push", source])).await;

    assert_eq!(code(&result), 3);
    assert_eq!(test_box.object("good").as_deref(), Some(&b"good"[..]));
    let said = text(&result.stderr);
    assert!(
        said.contains("not UTF-8") && said.contains("symbolic link"),
        "{said}"
    );
    assert!(!said.contains('\u{1b}'), "no bars without a terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_pushed_is_listed_with_how_far_it_has_come() {
    let test_box = TestBox::start().await;
    let path = test_box.dir.path().join("a b.txt");
    write(&path, b"hello");
    let pushed = output(cli(
        &test_box,
        &[
            "push",
            path.to_str().expect("UTF-8"),
            "--wait",
            "--prefix",
            "p",
        ],
    ))
    .await;
    assert_eq!(code(&pushed), 0, "{}", text(&pushed.stderr));
    assert!(
        text(&pushed.stdout).contains("1 file verified in the cloud"),
        "{}",
        text(&pushed.stdout)
    );

    let list = output(cli(&test_box, &["ls", "p/", "--json"])).await;

    let objects = &json(&list)["objects"];
    assert_eq!(objects[0]["key"], "p/a b.txt");
    assert_eq!(objects[0]["size"], 5);
    assert_eq!(objects[0]["delivery"]["state"], "verified");
    let plain = output(cli(&test_box, &["ls"])).await;
    assert_eq!(text(&plain.stdout), "      5 B  verified   p/a b.txt\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_walks_to_the_cloud_and_gives_the_sentence_of_the_broken_rung() {
    let test_box = TestBox::start().await;
    *test_box.seen.rungs.lock().expect("not poisoned") = support::no_gateway();

    let well = output(cli(&test_box, &["doctor", "--json"])).await;
    let status = output(cli(&test_box, &["status"])).await;
    let astray = output(cli(&test_box, &["doctor", "--box", "https://127.0.0.1:1"])).await;

    assert_eq!(code(&well), 0, "{}", text(&well.stdout));
    let checks = json(&well)["checks"].as_array().cloned().expect("a list");
    let names: Vec<_> = checks.iter().filter_map(|c| c["name"].as_str()).collect();
    assert_eq!(names, ["ticket", "TCP", "TLS", "key", "box"]);
    assert_eq!(checks[4]["result"], "warning");
    assert!(
        checks[4]["detail"]
            .as_str()
            .expect("text")
            .contains("LH-301")
    );
    assert!(
        checks[4]["advice"]
            .as_str()
            .expect("text")
            .contains("network administrator")
    );
    assert!(
        text(&status.stdout).contains("LH-301"),
        "{}",
        text(&status.stdout)
    );
    assert_eq!(code(&astray), 1);
    assert!(
        text(&astray.stdout).contains("failed   TCP"),
        "{}",
        text(&astray.stdout)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_for_other_clients_name_the_endpoint_and_the_root() {
    let test_box = TestBox::start().await;

    let shell = output(cli(&test_box, &["s3-env"])).await;
    let rclone = output(cli(&test_box, &["s3-env", "--rclone"])).await;

    let shell = text(&shell.stdout);
    assert!(
        shell.contains("export AWS_SECRET_ACCESS_KEY='secret/+key'\n"),
        "{shell}"
    );
    let name = longhaul_protocol::ticket::lan_name(&box_id(1));
    assert!(
        shell.contains(&format!("AWS_ENDPOINT_URL_S3='https://{name}:")),
        "{shell}"
    );
    assert!(shell.contains(&format!("127.0.0.1 {name}")), "{shell}");
    let ca = test_box.state_dir().join(format!("{}-ca.pem", box_id(1)));
    assert_eq!(
        std::fs::read_to_string(ca).expect("written"),
        test_box.ticket.root_pem
    );
    assert!(text(&rclone.stdout).contains("[longhaul]\ntype = s3\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_announces_itself_is_found_and_pushed_to() {
    let test_box = TestBox::start().await;
    let said = Announcement {
        box_id: box_id(1),
        agent_version: "0.1.0".to_owned(),
        code: None,
    };
    let daemon = ServiceDaemon::new().expect("mDNS");
    let txt: Vec<(String, String)> = said.to_txt();
    let name = box_id(1).to_string();
    let host = format!("{}.local.", name.to_lowercase());
    let info = ServiceInfo::new(
        MDNS_SERVICE,
        &name,
        &host,
        "127.0.0.1",
        test_box.addr.port(),
        &txt[..],
    )
    .expect("a service");
    daemon.register(info).expect("announced");
    let path = test_box.dir.path().join("f");
    write(&path, b"found");
    let mut find = cli(&test_box, &["find", "--json"]);
    find.env_remove("LONGHAUL_BOX");
    let mut push = cli(
        &test_box,
        &["push", path.to_str().expect("UTF-8"), "--json", "-v"],
    );
    push.env_remove("LONGHAUL_BOX");
    let mut alone = test_box.ticket.clone();
    alone.lan_urls.clear();
    write(
        &test_box.ticket_path(),
        &serde_json::to_vec(&alone).expect("JSON"),
    );

    let found = output(find).await;
    let pushed = output(push).await;

    assert_eq!(code(&found), 0, "{}", text(&found.stderr));
    let boxes = json(&found)["boxes"].as_array().cloned().expect("a list");
    let ours = boxes
        .iter()
        .find(|b| b["box_id"] == name.as_str())
        .expect("found");
    assert_eq!(ours["addrs"][0], test_box.addr.to_string());
    assert_eq!(code(&pushed), 0, "{}", text(&pushed.stderr));
    assert_eq!(test_box.object("f").as_deref(), Some(&b"found"[..]));
    assert!(
        text(&pushed.stderr).contains("via=mDNS"),
        "{}",
        text(&pushed.stderr)
    );
    let _ = daemon.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_can_follow_a_push_line_by_line() {
    let test_box = TestBox::start().await;
    let path = test_box.dir.path().join("f");
    write(&path, &noise(3, 3000));

    let pushed = output(cli(
        &test_box,
        &["push", path.to_str().expect("UTF-8"), "--progress", "json"],
    ))
    .await;

    let said = text(&pushed.stderr);
    let last: Value = serde_json::from_str(said.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["bytes_on_box"], 3000);
    assert_eq!(test_box.seen.put_bytes.load(Ordering::SeqCst), 3000);
}

#[test]
fn each_shell_gets_completions_for_every_command() {
    let longhaul = |args: &[&str]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_longhaul"))
            .args(args)
            .output()
            .expect("started");
        assert_eq!(code(&ran), 0, "{args:?}: {}", text(&ran.stderr));
        text(&ran.stdout)
    };
    let commands = [
        "push", "sync", "watch", "get", "rm", "ls", "status", "verify", "receipt", "lint", "doctor",
    ];
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = longhaul(&["completions", shell]);
        for command in commands {
            assert!(script.contains(command), "{shell} lacks {command}");
        }
    }
    // What bash makes of it: the words that begin with what was typed.
    let script = format!(
        "{}\nCOMP_WORDS=(longhaul rec) COMP_CWORD=1\n_longhaul longhaul rec longhaul\necho \"${{COMPREPLY[*]}}\"",
        longhaul(&["completions", "bash"])
    );
    let ran = Command::new("bash").args(["-c", &script]).output();
    let ran = ran.expect("started");
    assert_eq!(text(&ran.stdout).trim(), "receipt", "{}", text(&ran.stderr));
}
