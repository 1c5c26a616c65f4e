//! The page of codes says what the code says.

use std::path::Path;

use longhaul_protocol::diag::{CODES, codes_page};

#[test]
fn the_page_of_codes_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/codes.md");
    let page = codes_page();
    if std::env::var_os("LONGHAUL_BLESS").is_some() {
        std::fs::write(&path, &page).expect("written");
    }

    let written = std::fs::read_to_string(&path).expect("docs/codes.md");

    assert!(
        written == page,
        "docs/codes.md is not what the code says: LONGHAUL_BLESS=1 writes it anew"
    );
}

#[test]
fn every_code_says_something_to_everybody() {
    for entry in CODES {
        let texts = [entry.title, entry.customer, entry.operator];
        // A cell of a table, and a line of an 80 column screen.
        assert!(
            texts
                .iter()
                .all(|t| !t.is_empty() && !t.contains(['|', '\n'])),
            "{entry:?}"
        );
        assert!(entry.title.len() <= 40, "{}", entry.title);
        assert!(
            entry.customer.ends_with('.') && entry.operator.ends_with('.'),
            "{entry:?}"
        );
    }
}
