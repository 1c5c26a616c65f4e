//! A box that has no line at all: registered by a stick in one round trip, its files taken, its failures
//! known to the cloud, and set back without losing anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_sim::lab::{self, DIRECT, Lab, Reading};
use longhaul_sim::system::Programs;
use longhaul_sim::wait::until;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(90);
const BUCKET: &str = "survey";

fn in_a_lab(story: impl AsyncFnOnce(&mut Lab)) {
    if !lab::enter().expect("a namespace") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let folder = tempfile::tempdir().expect("a folder");
        let programs = Programs::find().expect("programs");
        let mut lab = Lab::start(folder.path(), programs).await.expect("a lab");
        story(&mut lab).await;
    });
}

async fn appears(path: &Path) -> String {
    let read = until("a file on the stick", PATIENCE, || async {
        fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
    });
    read.await.expect("it appears")
}

/// What the portal makes of a request: the answer's file.
async fn answer(lab: &Lab, request: &str) -> Result<String, String> {
    let body = json!({ "request": request });
    let made = lab.operator().post("/v1/offline/answers", &body).await;
    made.map(|answer| answer.to_string())
        .map_err(|e| e.to_string())
}

/// Saves an answer on the stick, as a browser does: whole, then under its name.
fn save(lab: &Lab, stick: &Path, text: &str) {
    let beside = stick.join("download.part");
    fs::write(&beside, text).expect("written");
    let name = format!("longhaul-{}-answer.json", lab.box_id());
    fs::rename(beside, stick.join(name)).expect("renamed");
}

async fn refused(lab: &Lab, code: &str) {
    let said = lab
        .says(&format!("the box to refuse by {code}"), |status| {
            status["offline"]["refused"]["code"] == code
        })
        .await
        .expect("refused");
    assert_eq!(said["certificate_expires"], Value::Null, "{said}");
}

async fn registered(lab: &Lab) -> Value {
    lab.says("the box to be registered", |status| {
        status["offline"]["until"].is_i64()
            && status["certificate_expires"].is_i64()
            && status["tickets"] == 1
            && status["offline"]["refused"].is_null()
            && status["offline"]["lines"].is_null()
    })
    .await
    .expect("registered")
}

fn journal_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().contains("/journal-"))
        .collect();
    files.sort();
    files
}

async fn hand_in(lab: &Lab, text: &str) -> Result<Value, String> {
    let body = json!({ "journal": text });
    let taken = lab.operator().post("/v1/offline/journals", &body).await;
    taken.map_err(|e| e.to_string())
}

/// How often the report counts a missing cable.
async fn without_cable(lab: &Lab) -> i64 {
    let report = lab.operator().get("/v1/insights/bring-up").await;
    let report = report.expect("a report");
    let causes = report["items"].as_array().expect("causes");
    let of_code = causes.iter().filter(|cause| cause["code"] == "LH-101");
    of_code.filter_map(|cause| cause["failures"].as_i64()).sum()
}

/// What pushes one file to the box at `host`.
fn pushing(lab: &Lab, host: &str, name: &str, bytes: &[u8]) -> [String; 5] {
    let path = lab.path(name);
    fs::write(&path, bytes).expect("written");
    [
        "push".to_owned(),
        format!("--ticket={}", lab.path("ticket.json").display()),
        format!("--box=https://{host}:8420"),
        "--json".to_owned(),
        path.display().to_string(),
    ]
}

async fn push(lab: &Lab, name: &str, bytes: &[u8]) {
    let arguments = pushing(lab, "127.0.0.1", name, bytes);
    lab.customer("push", &arguments).await.expect("on the box");
}

/// What the box holds under this name.
async fn fetch(lab: &Lab, name: &str) -> Vec<u8> {
    let to = lab.path("fetched").join(name);
    let arguments = [
        "get".to_owned(),
        format!("--ticket={}", lab.path("ticket.json").display()),
        "--box=https://127.0.0.1:8420".to_owned(),
        name.to_owned(),
        to.display().to_string(),
    ];
    fs::create_dir_all(lab.path("fetched")).expect("a folder");
    lab.customer("get", &arguments).await.expect("from the box");
    fs::read(to).expect("fetched")
}

#[expect(clippy::too_many_lines, reason = "one life, told in order")]
#[test]
fn a_box_without_any_line_is_registered_by_one_round_trip_and_loses_nothing() {
    in_a_lab(async |lab| {
        lab.admit().await.expect("admitted");
        let id = lab.box_id().to_owned();
        let ticket = lab.operator().ticket(&id, BUCKET).await.expect("a ticket");
        fs::write(lab.path("ticket.json"), ticket).expect("written");
        lab.shows(&Reading::Code("LH-101".to_owned()))
            .await
            .expect("no cable");
        let stick = lab.plug_stick("usb").expect("a stick");
        let folder = stick.join(format!("longhaul-{id}"));
        let first = appears(&folder.join("request.txt")).await;

        // What is not the box's own request is refused, in words.
        assert!(
            answer(lab, "")
                .await
                .expect_err("nothing")
                .contains("no request")
        );
        let lines: Vec<_> = first.lines().collect();
        let cut = lines[..lines.len() - 1].join("\n");
        assert!(
            answer(lab, &cut)
                .await
                .expect_err("cut")
                .contains("missing")
        );
        let forged = first.replacen(&lines[1][60..70], "AAAAAAAAAA", 1);
        assert!(
            answer(lab, &forged)
                .await
                .expect_err("forged")
                .contains("refused")
        );
        let first_answer = answer(lab, &first).await.expect("an answer");
        let again = answer(lab, &first).await.expect("the same");
        assert_eq!(first_answer, again, "the same request has the same answer");
        assert!(
            !first_answer.contains("secret_key"),
            "only the TPM opens it"
        );

        // What is not the answer is refused, by code.
        save(lab, &stick, "garbage");
        refused(lab, "LH-907").await;
        save(lab, &stick, &first_answer[..first_answer.len() / 2]);
        refused(lab, "LH-907").await;
        let mut forged: Value = serde_json::from_str(&first_answer).expect("JSON");
        let jws = forged["answer"].as_str().expect("a JWS").to_owned();
        let (signed, _) = jws.rsplit_once('.').expect("signed");
        forged["answer"] = json!(format!("{signed}.{}", "A".repeat(86)));
        save(lab, &stick, &forged.to_string());
        refused(lab, "LH-908").await;

        save(lab, &stick, &first_answer);
        registered(lab).await;
        push(lab, "first.bin", b"taken without any line").await;
        let status = appears(&folder.join("status.txt")).await;
        assert!(status.contains(&id), "{status}");
        // Still on the stick, and on another: it is known, and nothing happens.
        let other = lab.plug_stick("other").expect("a stick");
        save(lab, &other, &first_answer);
        appears(&other.join(format!("longhaul-{id}/status.txt"))).await;
        registered(lab).await;

        // The journal goes by stick, and counts once however it comes.
        let files = journal_files(&folder);
        assert!(!files.is_empty(), "the journal is on the stick");
        for file in &files {
            let text = fs::read_to_string(file).expect("read");
            let forged = text.replacen("LH-101", "LH-102", 1);
            hand_in(lab, &forged).await.expect_err("signed by the box");
            let taken = hand_in(lab, &text).await.expect("taken");
            assert!(taken["taken"].as_i64() > Some(0), "{taken}");
            let known = hand_in(lab, &text).await.expect("taken");
            assert_eq!(known["taken"], 0, "{known}");
        }
        let counted = without_cable(lab).await;
        assert_eq!(counted, 1);
        // A laptop on a cable of its own is enough.
        lab.direct_cable(true).await.expect("a cable");
        lab.shows(&Reading::Code("LH-202".to_owned()))
            .await
            .expect("link-local");
        let arguments = pushing(lab, DIRECT, "direct.bin", b"over a direct cable");
        lab.laptop("laptop", &arguments).await.expect("on the box");
        lab.direct_cable(false).await.expect("pulled");
        lab.plug().await.expect("plugged in");
        lab.shows(&Reading::Well).await.expect("online");
        lab.says("the journal to have arrived", |status| {
            status["journal"]["acked"] == status["journal"]["last"]
        })
        .await
        .expect("arrived");
        assert_eq!(without_cable(lab).await, counted, "each once");
        let starts = lab.operator().timeline(&id, "started").await;
        assert_eq!(starts.expect("a timeline").len(), 1, "each once");

        // Set back as the factory prepared it, by who has the code: what is on the box stays.
        lab.unplug().await.expect("unplugged");
        lab.shows(&Reading::Code("LH-101".to_owned()))
            .await
            .expect("no cable");
        push(lab, "second.bin", b"before the reset").await;
        let wish = stick.join(format!("longhaul-{id}-reset.txt"));
        fs::write(&wish, "0000-0000-0000-0000\n").expect("written");
        let gone = until("a wrong wish to be gone", PATIENCE, || async {
            if wish.exists() {
                Err("it lies there")
            } else {
                Ok(())
            }
        });
        gone.await.expect("gone");
        registered(lab).await;
        fs::write(&wish, lab.claim_code().expect("printed on the box")).expect("written");
        lab.ends().await.expect("it begins anew");
        assert!(!wish.exists(), "a stick resets a box once");
        lab.restart_box().await.expect("up");
        let said = lab
            .says("a box that asks to be registered", |status| {
                status["offline"]["lines"].is_array()
            })
            .await
            .expect("it asks");
        assert_eq!(said["lan"]["vault"]["objects"], 3, "{said}");
        assert_eq!(said["tickets"], 0, "{said}");

        // The answer from before is to another request, here and at the portal.
        refused(lab, "LH-910").await;
        let second = appears(&folder.join("request.txt")).await;
        assert_ne!(first, second);
        let second_answer = answer(lab, &second).await.expect("an answer");
        let old = answer(lab, &first).await.expect_err("an old request");
        assert!(old.contains("newer request"), "{old}");
        save(lab, &stick, &second_answer);
        registered(lab).await;
        push(lab, "third.bin", b"after the reset").await;
        for (name, bytes) in [
            ("first.bin", &b"taken without any line"[..]),
            ("direct.bin", b"over a direct cable"),
            ("second.bin", b"before the reset"),
            ("third.bin", b"after the reset"),
        ] {
            assert_eq!(fetch(lab, name).await, bytes, "{name}");
        }
    });
}
