//! Whatever a caller makes up, every route answers in order: below 500, or 503 from the object store
//! that is not there, and every refusal as a problem document.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::site::{Auth, Site};
use super::walk::{Operation, operations};
use crate::http::routes;
use crate::store::Db;
use crate::store::operators::Role;
use crate::store::testing::{add_box, on_both};

/// Requests to each route.
const ROUNDS: usize = 25;

/// Texts: some that are nearly right, some that nobody should send, some at random.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => prop::sample::select(vec![
            "", "\0", "a\0b", "TESTB0X00001", "testb0x00001", "bucket", "B", "-", "..", "a/../b",
            "ro-1", "cmd-1", "identify", "retry", "active", "viewer", "admin", "true", "-1", "0",
            "9223372036854775807", "9223372036854775808", "NaN", "%", "%_\\", "' OR 1=1 --",
            "\u{202e}", "\u{10ffff}", "\r\nx: y", "null", "[]", "{}",
        ]).prop_map(str::to_owned),
        2 => any::<String>(),
        1 => (0_usize..5000).prop_map(|n| "x".repeat(n)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2_i64..5000).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A cursor: a made-up place in the right clothes, or not even that.
fn cursor() -> impl Strategy<Value = String> {
    let place = prop_oneof![
        value(),
        (any::<i64>(), text()).prop_map(|(at, id)| json!([at, id])),
        (any::<i64>(), any::<i64>(), text(), any::<i64>())
            .prop_map(|(a, b, c, d)| json!([a, b, c, d])),
    ];
    prop_oneof![
        4 => place.prop_map(|place| URL_SAFE_NO_PAD.encode(place.to_string())),
        1 => text(),
    ]
}

struct Dice(TestRunner);

impl Dice {
    fn draw<T: std::fmt::Debug>(&mut self, strategy: &impl Strategy<Value = T>) -> T {
        let drawn = strategy.new_tree(&mut self.0);
        drawn.expect("a strategy without filters").current()
    }

    fn url(&mut self, operation: &Operation) -> String {
        let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut url = operation.template.clone();
        let mut query = Vec::new();
        for parameter in operation.described["parameters"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let name = parameter["name"].as_str().expect("a name");
            if parameter["in"] == "path" {
                let part = escape(&self.draw(&text()));
                url = url.replace(&format!("{{{name}}}"), &part);
            } else if parameter["in"] == "query" && self.draw(&any::<bool>()) {
                let value = if name == "cursor" {
                    self.draw(&cursor())
                } else {
                    self.draw(&text())
                };
                query.push(format!("{name}={}", escape(&value)));
            }
        }
        if query.is_empty() {
            url
        } else {
            format!("{url}?{}", query.join("&"))
        }
    }

    /// A body with the fields that the route knows, each missing, right in kind or not.
    fn body(&mut self, api: &Value, operation: &Operation) -> Bytes {
        let content = &operation.described["requestBody"]["content"]["application/json"]["schema"];
        let mut schema = content;
        if let Some(to) = schema["$ref"].as_str() {
            schema = api.pointer(&to[1..]).expect("a schema");
        }
        let kinds = schema["oneOf"].as_array();
        if let Some(kinds) = kinds {
            schema = &kinds[self.draw(&(0..kinds.len()))];
        }
        let mut body = serde_json::Map::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(only) = field["enum"].as_array().and_then(|all| all.first()) {
                body.insert(name.clone(), only.clone());
            } else if self.draw(&(0..4)) > 0 {
                let right = field["type"] == "string" && self.draw(&any::<bool>());
                let value = if right {
                    Value::from(self.draw(&text()))
                } else {
                    self.draw(&value())
                };
                body.insert(name.clone(), value);
            }
        }
        let whole = if self.draw(&(0..8)) == 0 {
            self.draw(&value())
        } else {
            Value::Object(body)
        };
        let mut bytes = whole.to_string().into_bytes();
        if self.draw(&(0..10)) == 0 {
            bytes.truncate(self.draw(&(0..=bytes.len())));
        }
        Bytes::from(bytes)
    }
}

on_both! {
    async fn whatever_comes_every_route_answers_in_order(db: Db) {
        let site = Site::on(&db).await;
        add_box(&db, 1).await;
        let admin = site.token(Role::Admin).await;
        let api = serde_json::to_value(routes::api().openapi()).expect("encodes");
        // The same in every run: what fails can be looked at again.
        let mut dice = Dice(TestRunner::deterministic());
        for operation in operations() {
            if operation.template == "/v1/events" { continue; }
            let auth = if operation.role.is_some() { &admin } else { &Auth::None };
            for _ in 0..ROUNDS {
                let url = dice.url(&operation);
                let body = dice.body(&api, &operation);
                let what = format!("{} {url} {}", operation.method, String::from_utf8_lossy(&body));
                let answer = site.send_bytes(&operation.method, &url, auth, Some("application/json"), body).await;
                let status = answer.status.as_u16();
                assert!(status < 500 || status == 503, "{what}: {answer:?}");
                if status >= 400 {
                    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
                    let problem = answer.json();
                    assert_eq!(problem["status"], status, "{what}");
                    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{what}: {problem}");
                }
            }
        }
    }
}
