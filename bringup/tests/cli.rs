//! `longhaul-probe` as people start it.

use std::process::{Command, Output};

fn probe(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_longhaul-probe"))
        .args(arguments)
        .output()
        .expect("the probe starts")
}

#[test]
fn the_help_says_what_is_written_and_how_it_ends() {
    let help = probe(&["--help"]);

    let text = String::from_utf8_lossy(&help.stdout);
    assert!(help.status.success());
    for word in [
        "Exit codes",
        ".report",
        ".html",
        "--proxy",
        "--json",
        "--no-upload",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_ticket_that_is_none_is_refused_whatever_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ticket.json");
    let whole = r#"{"ticket":"e30.e30.e30","seed":"AAAA"}"#;
    for garbage in [
        &b""[..],
        b"\xff\xfe",
        b"{}",
        b"[]",
        whole.as_bytes(),
        &vec![b'{'; 200_000],
    ] {
        std::fs::write(&path, garbage).expect("written");

        let refused = probe(&[path.to_str().expect("a path")]);

        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(
            !refused.stderr.is_empty() && refused.stdout.is_empty(),
            "{refused:?}"
        );
    }
    for arguments in [&["/nowhere/ticket"][..], &[], &["x", "--proxy", "ftp://x"]] {
        assert_eq!(probe(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
