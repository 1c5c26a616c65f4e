//! The factory's program, from an empty directory to a box with papers.
#![cfg(feature = "tpm")]

use std::path::Path;
use std::process::{Command, Output};

use longhaul_protocol::inventory::BoxConfig;
use longhaul_protocol::value::{Jws, UnixMillis};
use longhaul_provisioning::ca::Pki;
use longhaul_provisioning::factory::{
    BOX_CONFIG_FILE, IAK_FILE, IDEVID_FILE, ROOT_FILE, TUF_ROOT_FILE,
};
use longhaul_provisioning::jws::{self, Kind};
use longhaul_provisioning::names;
use longhaul_provisioning::tpm::soft::SoftTpm;
use longhaul_provisioning::trust::certificates_from_pem;
use serde_json::Value;

fn factory(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longhaul-factory"))
        .args(args)
        .current_dir(dir)
        .env("TSS2_LOG", "all+none")
        .output()
        .expect("the program runs")
}

/// What a command printed; it must have ended well.
fn printed(dir: &Path, args: &[&str]) -> String {
    let output = factory(dir, args);
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{args:?}: {}: {}",
        output.status,
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// What a command complained about; it must have failed with `code`.
fn complaint(dir: &Path, code: i32, args: &[&str]) -> String {
    let output = factory(dir, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    text
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn a_fleet_and_a_box_are_made_from_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let maker = dir.join("maker");
    SoftTpm::manufacture(&dir.join("tpm"), &maker).expect("a TPM");
    let soft = SoftTpm::start(&dir.join("tpm")).expect("a running TPM");
    let tcti = soft.tcti();
    let certificates = SoftTpm::maker_certificates(&maker)
        .map(|path| std::fs::read_to_string(path).expect("a certificate"));
    std::fs::write(dir.join("makers.pem"), certificates.concat()).expect("written");
    std::fs::write(dir.join("image"), "an agent").expect("written");

    printed(dir, &["init", "--pki", "pki"]);
    let at = ["--keys", "keys", "--repository", "tuf"];
    printed(dir, &[&["tuf", "init"][..], &at].concat());
    let add = [
        &["tuf", "add"][..],
        &at,
        &["--version", "1.0.0", "--json", "image"],
    ]
    .concat();
    let release = json(&printed(dir, &add));
    assert_eq!(release["length"], 8);
    let make = [
        "make",
        "--pki",
        "pki",
        "--makers",
        "makers.pem",
        "--tpm",
        &tcti,
        "--endpoint",
        "cloud.example:8444:8883",
        "--address",
        "192.0.2.7/24",
        "--order",
        "O-1",
        "--repository",
        "tuf",
        "--out",
        "papers",
        "--json",
    ];
    let result = json(&printed(dir, &make));

    // The maker's own directory holds its signing keys, too; nobody looks at them.
    let from = |makers: &'static str| make.map(|a| if a == "makers.pem" { makers } else { a });
    assert!(maker.join("signkey.pem").exists());
    let again = json(&printed(dir, &from("maker")));
    assert_eq!(again["box_id"], result["box_id"]);
    let key = complaint(dir, 1, &from("maker/signkey.pem"));
    assert!(key.contains("signkey.pem holds a private key"), "{key}");
    let none = complaint(dir, 1, &from("tuf"));
    assert!(
        none.contains("tuf holds no self-signed certificate"),
        "{none}"
    );

    let id = result["box_id"].as_str().expect("a name");
    let papers = dir.join("papers");
    let read = |name: &str| std::fs::read_to_string(papers.join(name)).expect("a paper");
    for name in [IDEVID_FILE, IAK_FILE] {
        let chain = certificates_from_pem(&read(name)).expect("a chain");
        assert_eq!(
            names::box_id(&chain[0]).expect("a box").as_str(),
            id,
            "{name}"
        );
    }
    assert!(read(TUF_ROOT_FILE).contains("\"root\""));
    let pki = Pki::open(&dir.join("pki")).expect("authorities");
    assert_eq!(read(ROOT_FILE), pki.root_pem());
    let shown = json(&printed(
        dir,
        &["show", "--pki", "pki", "papers/box-config.jws"],
    ));
    let config: BoxConfig = serde_json::from_value(shown).expect("a configuration");
    assert_eq!(config.endpoints[0].host, "cloud.example");
    assert_eq!(config.static_network.expect("a network").prefix_len, 24);
    let compact = Jws(read(BOX_CONFIG_FILE));
    let anchors = pki.root_anchor().expect("an anchor");
    let years = UnixMillis(config.made_at.0).plus_secs(9 * 365 * 86_400);
    jws::verify(&compact, Kind::BoxConfig, &anchors, years).expect("good after years on a shelf");

    let inventory = json(&printed(dir, &["inventory", "--pki", "pki", "--json"]));
    assert_eq!(inventory[0]["box_id"], id);
    assert_eq!(inventory[0]["order"], "O-1");
    let shown = printed(dir, &["show", "--pki", "pki", "papers/idevid.pem"]);
    assert!(shown.contains(&format!("urn:longhaul:box:{id}")), "{shown}");
    assert_eq!(
        json(&printed(dir, &make))["box_id"],
        id,
        "made again, it keeps its name"
    );
}

#[test]
fn failures_say_what_and_on_what() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    printed(dir, &["init", "--pki", "pki"]);
    let maker = dir.join("maker");
    SoftTpm::manufacture(&dir.join("tpm"), &maker).expect("a TPM");
    let certificate = &SoftTpm::maker_certificates(&maker)[0];
    std::fs::copy(certificate, dir.join("makers.pem")).expect("copied");

    let make = |pki: &'static str, tpm: &'static str| {
        [
            "make",
            "--pki",
            pki,
            "--makers",
            "makers.pem",
            "--endpoint",
            "a:1:2",
            "--out",
            "x",
            "--tpm",
            tpm,
        ]
    };
    let text = complaint(dir, 1, &make("pki", "device:/dev/no-such-tpm"));
    assert!(text.contains("/dev/no-such-tpm"), "{text}");
    let text = complaint(dir, 1, &make("nowhere", "device:/dev/no-such-tpm"));
    assert!(text.contains("nowhere") && text.contains("init"), "{text}");
    let text = complaint(dir, 1, &["init", "--pki", "pki"]);
    assert!(text.contains("pki exists already"), "{text}");
    let text = complaint(dir, 1, &["tuf", "show", "--repository", "none"]);
    assert!(text.contains("no release repository in none"), "{text}");
    std::fs::write(dir.join("junk"), "e30.e30.e30").expect("written");
    let text = complaint(dir, 1, &["show", "--pki", "pki", "junk"]);
    assert!(text.contains("junk is not signed by this fleet"), "{text}");
    for wrong in [
        &["make", "--pki", "pki"][..],
        &["frobnicate"],
        &["make", "--endpoint", "no-ports"],
        &["make", "--address", "192.0.2.7/33"],
    ] {
        complaint(dir, 2, wrong);
    }
}
