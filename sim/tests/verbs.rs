//! The command line's verbs against a real intake and a real vault, over a line that counts what
//! customers send and can be held in the middle of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use longhaul_sim::files::{self, FolderPlan};
use longhaul_sim::lan_box::{Customer, LanBox, arg};
use longhaul_sim::relay::Relay;
use longhaul_sim::system::Programs;
use longhaul_sim::wait::until;
use serde_json::Value;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// What the command line sends of a large file in one request.
const PART: u64 = 16 * MIB;
const LIMIT: Duration = Duration::from_mins(1);

/// A box, the line to it, and a customer with a folder.
struct Scene {
    _box: LanBox,
    relay: Relay,
    customer: Customer,
    dir: TempDir,
}

impl Scene {
    async fn set() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let programs = Programs::find().expect("built");
        let lan_box = LanBox::start(&programs, &[]).await.expect("a box");
        let relay = Relay::to(lan_box.address().expect("an address")).await;
        let relay = relay.expect("a line");
        let customer = Customer {
            program: programs.path("longhaul"),
            ticket: lan_box.about.ticket.clone(),
            url: relay.url(),
            state: dir.path().join("state"),
        };
        Self {
            _box: lan_box,
            relay,
            customer,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder of the customer's with a few small files and perhaps a large one.
    fn folder(&self, name: &str, large_bytes: u64) -> PathBuf {
        let plan = FolderPlan {
            small: 20,
            small_bytes: (10, 5_000),
            large_bytes,
            seed: large_bytes,
        };
        files::make(&self.path(name), plan).expect("made");
        self.path(name)
    }

    async fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let done = self.customer.json(code, arguments).await;
        done.unwrap_or_else(|e| panic!("{e}"))
    }

    /// Fetches everything below `prefix`, and says how it differs from `folder`.
    async fn difference(&self, prefix: &str, folder: &Path) -> Vec<String> {
        let back = tempfile::tempdir_in(self.dir.path()).expect("a folder");
        self.json(0, &["get", prefix, arg(back.path())]).await;
        let (here, there) = (tree(folder), tree(back.path()));
        let names = here.keys().chain(there.keys());
        let differ = names.filter(|name| here.get(*name) != there.get(*name));
        differ.cloned().collect()
    }
}

/// Digests of the regular files below a folder.
fn tree(folder: &Path) -> files::Digests {
    let mut found = files::Digests::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a kind");
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let file = std::fs::File::open(entry.path()).expect("a file");
                let path = entry.path();
                let name = arg(path.strip_prefix(folder).expect("below")).to_owned();
                found.insert(name, files::digest(file).expect("read"));
            }
        }
    }
    found
}

fn keys<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    let entries = list.as_array().expect("a list").iter();
    entries
        .map(|e| e[field].as_str().expect("a text"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_killed_sends_only_what_the_box_does_not_have() {
    let scene = Scene::set().await;
    let large = 8 * PART + 5;
    let folder = scene.folder("source", large);
    scene.relay.hold_after(6 * PART);
    let push = ["push", arg(&folder)];
    let mut child = scene.customer.command(push).spawn().expect("started");
    scene.relay.held().await;
    // What the box has answered by now is remembered before anything else happens.
    until("a part to be remembered", LIMIT, || async {
        match scene.customer.remembered("\"part\"") {
            0 => Err("none"),
            _ => Ok(()),
        }
    })
    .await
    .expect("the box has some");
    child.kill().await.expect("killed");
    scene.relay.cut().await;
    scene.relay.release();
    let before = scene.relay.sent();

    let report = scene.json(0, &["push", arg(&folder)]).await;

    let sent = scene.relay.sent() - before;
    let resumed = &report["files"].as_array().expect("files");
    let resumed = resumed.iter().find(|f| f["outcome"] == "resumed");
    let resumed = resumed.expect("the large one went on");
    let kept = resumed["parts_kept"].as_u64().expect("a number");
    assert!(kept >= 1, "{resumed}");
    let missing = large - kept * PART;
    assert!(sent >= missing, "{sent} of {missing}");
    // Small files, headers and TLS come on top.
    assert!(sent < missing + missing / 50 + MIB, "{sent} of {missing}");
    assert!(scene.difference("", &folder).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_while_it_is_sent_arrives_as_it_is_in_the_end() {
    let scene = Scene::set().await;
    let folder = scene.folder("source", 6 * PART);
    scene.relay.hold_after(PART);
    let push = ["push", arg(&folder), "--json"];
    let child = scene.customer.command(push).spawn().expect("started");
    scene.relay.held().await;
    let file = std::fs::File::options()
        .write(true)
        .open(folder.join("volume.raw"));
    file.expect("there")
        .write_all_at(b"changed", 3)
        .expect("written");
    scene.relay.release();

    let output = child.wait_with_output().await.expect("ended");

    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["failed"], serde_json::json!([]));
    assert!(scene.difference("", &folder).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_named_at_the_end_and_the_rest_arrives_as_it_reads() {
    let scene = Scene::set().await;
    let root = scene.path("odd");
    let write = |name: &OsStr, bytes: &[u8]| {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, bytes).expect("written");
    };
    for name in ["good", "secret", "closed/inside", ".longhaul-0f.part"] {
        write(name.as_ref(), b"x");
    }
    write(OsStr::from_bytes(b"bad\xff"), b"x");
    write("new\nline".as_ref(), b"x");
    write("back\\slash".as_ref(), b"x");
    std::os::unix::fs::symlink("good", root.join("link")).expect("linked");
    let sparse = std::fs::File::create(root.join("sparse")).expect("made");
    sparse.set_len(3 * PART + 1).expect("a hole");
    sparse
        .write_all_at(b"end", 2 * PART + 7)
        .expect("something in it");
    let close = |name: &str, mode| {
        let path = root.join(name);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    close("secret", 0);
    close("closed", 0);
    // An administrator reads everything, unless he gives his capabilities away.
    let own = std::fs::metadata(scene.dir.path()).expect("there").uid();
    let under: &[&str] = match own {
        0 => &["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--"],
        _ => &[],
    };

    let push = ["push", arg(&root), "--json"];
    let output = scene.customer.command_under(under, push).output().await;

    close("secret", 0o600);
    close("closed", 0o700);
    let output = output.expect("ended");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(
        output.stderr, b"",
        "no progress where nobody watches: {output:?}"
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(keys(&report["files"], "key"), ["good", "sparse"]);
    assert_eq!(keys(&report["failed"], "key"), ["secret"]);
    let skipped = report["skipped"].as_array().expect("a list");
    let because = |reason: &str| skipped.iter().filter(|s| s["reason"] == reason).count();
    for (reason, count) in [
        ("unreadable", 1),
        ("not_utf8", 1),
        ("name_refused", 2),
        ("symlink", 1),
        ("unfinished", 1),
    ] {
        assert_eq!(because(reason), count, "{reason}: {skipped:?}");
    }
    let back = scene.path("back");
    scene.json(0, &["get", "sparse", arg(&back)]).await;
    let digest = |path: &Path| files::digest(std::fs::File::open(path).expect("there"));
    assert_eq!(
        digest(&back).expect("read"),
        digest(&root.join("sparse")).expect("read")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_synced_listed_fetched_and_removed() {
    let scene = Scene::set().await;
    let folder = scene.folder("source", 2 * PART);
    let sync = ["sync", arg(&folder), "--prefix", "run", "--delete"];
    let first = scene.json(0, &sync).await;
    assert_eq!(first["files"].as_array().expect("files").len(), 21);
    let before = scene.relay.sent();

    let second = scene.json(0, &sync).await;

    assert_eq!(second["bytes_sent"], 0, "{second}");
    assert!(scene.relay.sent() - before < MIB, "only questions");
    // A stranger to it, who remembers nothing, compares and sends nothing either.
    let mut stranger = scene.customer.clone();
    stranger.state = scene.path("other-state");
    let third = stranger.json(0, &sync).await.expect("synced");
    assert_eq!(third["bytes_sent"], 0, "{third}");

    let gone = "line-000/shot-000003.seg";
    std::fs::remove_file(folder.join(gone)).expect("removed");
    std::fs::write(folder.join("line-000/shot-000004.seg"), "new").expect("written");
    let fourth = scene.json(0, &sync).await;
    assert_eq!(fourth["bytes_sent"], 3);
    assert_eq!(
        fourth["removed"]["removed"],
        serde_json::json!([format!("run/{gone}")])
    );
    assert!(scene.difference("run/", &folder).await.is_empty());

    let listed = scene.json(0, &["ls", "run/"]).await;
    let here = tree(&folder);
    let names: Vec<String> = here.keys().map(|name| format!("run/{name}")).collect();
    assert_eq!(keys(&listed["objects"], "key"), names);
    assert_eq!(listed["objects"][0]["delivery"]["state"], "on_box");
    let status = scene.json(0, &["status"]).await;
    assert_eq!(status["vault"]["objects"], here.len() as u64, "{status}");
    assert_eq!(status["vault"]["pending_objects"], here.len() as u64);
    scene.json(0, &["doctor"]).await;

    // A file that was changed here is fetched again, the others are compared and left alone.
    std::fs::write(folder.join("volume.raw"), "scribbled over").expect("written");
    let got = scene.json(0, &["get", "run", arg(&folder)]).await;
    assert_eq!(got["bytes_received"], 2 * PART, "{got}");
    assert!(scene.difference("run/", &folder).await.is_empty());

    let removed = scene
        .json(3, &["rm", "--yes", "run/line-000/", "gone"])
        .await;
    assert!(removed.to_string().contains("gone"), "{removed}");
    let left = scene.json(0, &["ls"]).await;
    assert_eq!(keys(&left["objects"], "key"), ["run/volume.raw"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sends_what_appears_and_leaves_halves_alone() {
    let scene = Scene::set().await;
    let folder = scene.folder("inbox", 0);
    let mut watching = scene
        .customer
        .command(["watch", arg(&folder), "--settle=0.1", "--json"])
        .spawn()
        .expect("started");
    wait_for_objects(&scene, 20).await;
    std::fs::write(folder.join(".longhaul-1.part"), "half").expect("written");
    std::fs::write(folder.join(".notes.swp"), "an ordinary file").expect("written");
    std::fs::create_dir(folder.join("later")).expect("made");
    std::fs::write(folder.join("later/deep"), "deep").expect("written");

    wait_for_objects(&scene, 22).await;

    watching.kill().await.expect("killed");
    std::fs::remove_file(folder.join(".longhaul-1.part")).expect("there");
    assert!(scene.difference("", &folder).await.is_empty());
}

async fn wait_for_objects(scene: &Scene, count: usize) {
    let listed = until("the box to hold them", LIMIT, || async {
        let listed = scene.json(0, &["ls"]).await;
        let names = keys(&listed["objects"], "key").join(" ");
        match listed["objects"].as_array().map(Vec::len) {
            Some(n) if n == count => Ok(()),
            _ => Err(names),
        }
    });
    listed.await.expect("all of them");
}
