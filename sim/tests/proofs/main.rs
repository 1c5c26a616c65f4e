//! `longhaul verify` as somebody uses it years later: a folder, a file of receipts, the fleet's root, no
//! network. Everything that is wrong is named.

mod kept;

use std::path::{Path, PathBuf};
use std::process::Output;

use kept::box_id;
use longhaul_protocol::receipt::Receipt;
use longhaul_sim::lan_box::arg;
use longhaul_sim::system::Programs;
use serde_json::Value;
use tempfile::TempDir;

/// A fleet, and a folder that was sent to one of its boxes.
struct Kept {
    dir: TempDir,
}

impl Kept {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        kept::make(dir.path());
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder, compared with the receipts in `file`.
    fn verify(&self, file: &Path, more: &[&str]) -> Output {
        let programs = Programs::find().expect("built");
        let mut command = std::process::Command::new(programs.path("longhaul"));
        command
            .args([
                "verify",
                arg(&self.path("folder")),
                "--json",
                "--prefix=run",
            ])
            .args([
                "--receipt",
                arg(file),
                "--root",
                arg(&self.path("root.pem")),
            ])
            .args(more)
            .env_remove("LONGHAUL_TICKET")
            .output()
            .expect("started")
    }

    /// What it says of the files that are not the same.
    fn wrong(&self) -> Vec<String> {
        let output = self.verify(&self.path("receipts"), &[]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let files = said["files"].as_array().expect("files").iter();
        let wrong =
            files.filter(|f| !matches!(f["verdict"].as_str(), Some("same" | "not in cloud")));
        let text = |f: &Value, field: &str| f[field].as_str().unwrap_or_default().to_owned();
        wrong
            .map(|f| {
                let path = PathBuf::from(text(f, "path"));
                let name = path.strip_prefix(self.path("folder")).expect("below");
                format!("{} {}", text(f, "verdict"), name.display())
            })
            .collect()
    }

    /// Changes the receipts, and yields what verification says then.
    fn forged(&self, change: impl FnOnce(&mut Vec<String>)) -> String {
        let text = std::fs::read_to_string(self.path("receipts")).expect("read");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        let file = self.path("forged");
        std::fs::write(&file, lines.join("\n")).expect("written");
        let output = self.verify(&file, &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        said["error"].as_str().expect("an error").to_owned()
    }
}

#[test]
fn a_folder_as_it_was_taken_holds_and_what_is_not_delivered_is_told_apart() {
    let kept = Kept::new();
    let receipts = kept.path("receipts");

    let whole = kept.verify(&receipts, &[]);
    let delivered = kept.verify(&receipts, &["--delivered"]);

    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    assert_eq!(delivered.status.code(), Some(3), "{delivered:?}");
    let said: Value = serde_json::from_slice(&delivered.stdout).expect("JSON");
    assert_eq!((&said["in_cloud"], &said["failed"]), (&2.into(), &1.into()));
}

#[test]
fn a_changed_byte_a_missing_file_and_one_that_came_later_are_named() {
    let kept = Kept::new();
    let file = |name: &str| kept.path("folder").join(name);
    std::fs::write(file("a.csv"), "onf").expect("written");
    std::fs::remove_file(file("sub/b.csv")).expect("removed");
    std::fs::write(file("sub/d.csv"), "later").expect("written");

    let wrong = kept.wrong();

    assert_eq!(
        wrong,
        ["changed a.csv", "missing sub/b.csv", "no receipt sub/d.csv"]
    );
}

#[test]
fn a_receipt_that_was_touched_is_named_by_its_line() {
    let kept = Kept::new();
    // The last character before the end of a signature, in the box's root and the cloud's statement.
    let flip = |line: &mut String, field: &str| {
        let parsed: Value = serde_json::from_str(line).expect("JSON");
        let jws = parsed[field].as_str().expect("a signature").to_owned();
        let at = jws.len() - 10;
        let other = if &jws[at..=at] == "A" { "B" } else { "A" };
        let altered = format!("{}{other}{}", &jws[..at], &jws[at + 1..]);
        *line = line.replace(&jws, &altered);
    };

    let root = kept.forged(|lines| flip(&mut lines[1], "root"));
    let delivery = kept.forged(|lines| flip(&mut lines[0], "delivery"));
    let content =
        kept.forged(|lines| lines[2] = lines[2].replacen("\"bytes\":0", "\"bytes\":1", 1));
    let cut = kept.forged(|lines| {
        let half = lines[2].len() / 2;
        lines[2].truncate(half);
    });

    for (said, line) in [(root, 2), (delivery, 1), (content, 3), (cut, 3)] {
        assert!(said.contains(&format!("line {line} of ")), "{said}");
        assert!(said.contains("does not hold"), "{said}");
    }
}

#[test]
fn receipts_of_another_box_or_another_fleet_prove_nothing() {
    let kept = Kept::new();
    let other_fleet = Kept::new();
    let (one, two) = (box_id(1).to_string(), box_id(2).to_string());

    let right = kept.verify(&kept.path("receipts"), &["--of-box", &one]);
    let other_box = kept.verify(&kept.path("others"), &["--of-box", &one]);
    let mixed = kept.forged(|lines| {
        // The root of one box under the statement of the cloud about another.
        let others = std::fs::read_to_string(kept.path("others")).expect("read");
        let parse = |line: &str| serde_json::from_str::<Receipt>(line).expect("a receipt");
        let mut receipt = parse(&lines[0]);
        receipt.delivery = parse(others.lines().next().expect("a line")).delivery;
        lines[0] = serde_json::to_string(&receipt).expect("encodes");
    });
    let strange = kept.verify(&other_fleet.path("receipts"), &[]);

    assert_eq!(right.status.code(), Some(0), "{right:?}");
    assert_eq!(other_box.status.code(), Some(1));
    let said = String::from_utf8_lossy(&other_box.stdout).into_owned();
    assert!(
        said.contains("line 1 of") && said.contains(&format!("of box {two}, not of {one}")),
        "{said}"
    );
    assert!(mixed.contains("line 1 of"), "{mixed}");
    assert_eq!(strange.status.code(), Some(1), "{strange:?}");
}
