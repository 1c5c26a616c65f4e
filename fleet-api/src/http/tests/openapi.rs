//! The description in the repository is the one that the program serves.

use std::path::Path;

use crate::http::routes;

/// `LONGHAUL_WRITE_OPENAPI=1 cargo test -p longhaul-fleet-api openapi` writes it anew.
#[test]
fn the_committed_description_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let mut current = routes::api().openapi().to_pretty_json().expect("encodes");
    current.push('\n');
    if std::env::var_os("LONGHAUL_WRITE_OPENAPI").is_some() {
        std::fs::write(&path, &current).expect("writes");
    }

    let committed = std::fs::read_to_string(&path).expect("is committed");

    assert!(
        committed == current,
        "fleet-api/openapi.json is not current; see this test on how to write it"
    );
}

#[test]
fn every_reference_in_the_description_leads_somewhere() {
    let api = serde_json::to_value(routes::api().openapi()).expect("encodes");
    assert_eq!(api["openapi"], "3.1.0");
    let mut waiting = vec![&api];
    let mut found = 0;
    while let Some(value) = waiting.pop() {
        match value {
            serde_json::Value::Object(map) => {
                if let Some(serde_json::Value::String(to)) = map.get("$ref") {
                    let pointer = to.strip_prefix('#').expect("a local reference");
                    assert!(api.pointer(pointer).is_some(), "{to}");
                    found += 1;
                }
                waiting.extend(map.values());
            }
            serde_json::Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    assert!(found > 50, "{found}");
}
