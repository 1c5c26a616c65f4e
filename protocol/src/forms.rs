//! What each kind of command takes: one table, from which the API's description, its checks, the
//! box's checks and the dashboard's form are made.

use serde_json::{Map, Value, json};

use crate::command::{CommandKind, RetryScope};
use crate::ids::ObjectKey;
use crate::names::MAX_KEY_BYTES;

/// What a bucket's name looks like, as a regular expression for descriptions; that it is no address and
/// none of the reserved names is beyond it.
pub const BUCKET: &str = r"^[a-z0-9](\.?[a-z0-9\-])*\.?[a-z0-9]$";
/// What an object's name looks like, as a regular expression for descriptions.
pub const KEY: &str = r"^(?!\.{1,2}(\/|$))[^\/\\\x00-\x1f\x7f-\x9f\ufffe\uffff]+(\/(?!\.{1,2}(\/|$))[^\/\\\x00-\x1f\x7f-\x9f\ufffe\uffff]+)*\/?$";

/// How a kind of command comes about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// One person sends it.
    Direct,
    /// It takes something away for good: one person proposes it and another approves it.
    TwoPeople,
    /// It is sent by a rollout.
    Rollout,
}

impl Way {
    /// As it stands in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::TwoPeople => "two_people",
            Self::Rollout => "rollout",
        }
    }
}

/// What an argument can be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// A whole number of seconds from the first to the second.
    Seconds(u16, u16),
    /// A bucket's name.
    Bucket,
    /// An object's name in its bucket.
    Key,
    /// A text of at most so many bytes.
    Text(usize),
    /// A whole number of bytes.
    Bytes,
}

/// One argument of a kind.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it means, in a sentence.
    pub says: &'static str,
    /// Whether it must be there.
    pub required: bool,
    /// What it can be.
    pub takes: Takes,
    /// The argument without which it says nothing.
    pub needs: Option<&'static str>,
}

/// One kind of command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Form {
    /// Its name, as in JSON.
    pub kind: &'static str,
    /// What it is called for people.
    pub title: &'static str,
    /// What it does, in a sentence.
    pub says: &'static str,
    /// How it comes about.
    pub way: Way,
    /// Its arguments.
    pub fields: &'static [Field],
}

/// An argument that does not fit.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{field}: {text}")]
pub struct Misfit {
    /// Which.
    pub field: String,
    /// What is wrong with it.
    pub text: String,
}

const fn field(name: &'static str, says: &'static str, required: bool, takes: Takes) -> Field {
    Field {
        name,
        says,
        required,
        takes,
        needs: None,
    }
}

/// An argument that needs another one.
const fn beside(needs: &'static str, of: Field) -> Field {
    Field {
        needs: Some(needs),
        ..of
    }
}

/// Every kind there is.
pub const FORMS: [Form; 6] = [
    Form {
        kind: "identify",
        title: "Identify",
        says: "Blink and say on every indicator which box this is.",
        way: Way::Direct,
        fields: &[field(
            "seconds",
            "For how long.",
            true,
            Takes::Seconds(1, 600),
        )],
    },
    Form {
        kind: "report_now",
        title: "Report now",
        says: "Send telemetry and reported state now.",
        way: Way::Direct,
        fields: &[],
    },
    Form {
        kind: "set_telemetry_interval",
        title: "Set telemetry interval",
        says: "Send telemetry at this interval from now on.",
        way: Way::Direct,
        fields: &[field(
            "seconds",
            "The interval.",
            true,
            Takes::Seconds(1, 3600),
        )],
    },
    Form {
        kind: "retry",
        title: "Retry",
        says: "Try again to deliver objects that were given up: all of them, those of a bucket, or one.",
        way: Way::Direct,
        fields: &[
            field(
                "bucket",
                "Only those bound for this bucket.",
                false,
                Takes::Bucket,
            ),
            beside(
                "bucket",
                field("key", "Only this object of the bucket.", false, Takes::Key),
            ),
        ],
    },
    Form {
        kind: "erase_bucket",
        title: "Erase a bucket",
        says: "Destroy the key of everything that the box holds for a bucket, delivered or not.",
        way: Way::TwoPeople,
        fields: &[field("bucket", "The bucket.", true, Takes::Bucket)],
    },
    Form {
        kind: "update",
        title: "Update",
        says: "Update to a release; rollouts assign it.",
        way: Way::Rollout,
        fields: &[
            field("rollout", "The rollout.", true, Takes::Text(64)),
            field("version", "The release's version.", true, Takes::Text(64)),
            field(
                "target",
                "The target's name in the repository.",
                true,
                Takes::Text(256),
            ),
            field("sha256", "SHA-256 of the target.", true, Takes::Text(64)),
            field("length", "Length of the target.", true, Takes::Bytes),
        ],
    },
];

impl Takes {
    /// Its JSON schema.
    fn schema(self) -> Value {
        match self {
            Self::Seconds(min, max) => json!({
                "type": "integer", "minimum": min, "maximum": max, "x-unit": "seconds",
            }),
            Self::Bucket => json!({
                "type": "string", "minLength": 3, "maxLength": 63,
                "pattern": BUCKET,
            }),
            Self::Key => json!({
                "type": "string", "minLength": 1, "maxLength": MAX_KEY_BYTES, "pattern": KEY,
            }),
            Self::Text(max) => json!({ "type": "string", "minLength": 1, "maxLength": max }),
            Self::Bytes => json!({ "type": "integer", "minimum": 0 }),
        }
    }

    /// What is wrong with `value`, if anything.
    fn misfit(self, value: &Value) -> Option<String> {
        match self {
            Self::Seconds(min, max) => {
                let fits = value
                    .as_u64()
                    .is_some_and(|n| (u64::from(min)..=u64::from(max)).contains(&n));
                (!fits).then(|| format!("it must be a whole number of seconds, {min} to {max}"))
            }
            Self::Bucket => {
                let fits = value.as_str().is_some_and(is_bucket);
                let rule = "a bucket has 3 to 63 lower-case letters, digits, '.' and '-', and \
                            begins and ends with a letter or digit";
                (!fits).then(|| rule.to_owned())
            }
            Self::Key => match value.as_str().map(str::parse::<ObjectKey>) {
                Some(Ok(_)) => None,
                Some(Err(error)) => Some(error.to_string()),
                None => Some("it must be a text".to_owned()),
            },
            Self::Text(max) => {
                let fits = value.as_str().is_some_and(|t| (1..=max).contains(&t.len()));
                (!fits).then(|| format!("it must be a text of 1 to {max} bytes"))
            }
            Self::Bytes => (!value.is_u64()).then(|| "it must be a number of bytes".to_owned()),
        }
    }
}

/// The shape of a bucket's name; stores may refuse more.
fn is_bucket(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && bytes.iter().all(|b| inner(*b))
        && edge(bytes.first())
        && edge(bytes.last())
}

impl Form {
    /// The form of a kind.
    #[must_use]
    pub fn of(kind: &str) -> Option<&'static Self> {
        FORMS.iter().find(|form| form.kind == kind)
    }

    /// The properties of its JSON schema: the kind itself and its arguments.
    #[must_use]
    pub fn properties(&self) -> Map<String, Value> {
        let mut properties = Map::new();
        let kind = json!({ "type": "string", "enum": [self.kind] });
        properties.insert("kind".to_owned(), kind);
        for field in self.fields {
            let mut schema = field.takes.schema();
            if !field.required {
                schema["type"] = json!([schema["type"], "null"]);
            }
            schema["description"] = field.says.into();
            properties.insert(field.name.to_owned(), schema);
        }
        properties
    }

    /// The names of what must be there.
    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        let needed = self.fields.iter().filter(|f| f.required).map(|f| f.name);
        std::iter::once("kind").chain(needed)
    }

    /// Its JSON schema, beside it whatever `more` has.
    #[must_use]
    pub fn schema(&self, more: &Map<String, Value>, more_required: &[&str]) -> Value {
        let mut properties = self.properties();
        properties.extend(more.clone());
        let mut required: Vec<&str> = self.required().collect();
        required.extend(more_required);
        let mut schema = json!({
            "type": "object",
            "title": self.title,
            "description": self.says,
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        for field in self.fields {
            if let Some(needs) = field.needs {
                schema["dependentRequired"][field.name] = json!([needs]);
            }
        }
        schema
    }

    /// The same for descriptions that know no `dependentRequired`: one schema without what needs
    /// something else, and one for each of those with what it needs.
    #[must_use]
    pub fn alternatives(&self, more: &Map<String, Value>, more_required: &[&str]) -> Vec<Value> {
        let mut whole = self.schema(more, more_required);
        if let Some(schema) = whole.as_object_mut() {
            schema.remove("dependentRequired");
        }
        let needy: Vec<_> = self.fields.iter().filter(|f| f.needs.is_some()).collect();
        let mut found = vec![whole.clone()];
        for field in &needy {
            if let Some(properties) = found[0]["properties"].as_object_mut() {
                // Null is as absent.
                properties.insert(field.name.to_owned(), json!({ "type": "null" }));
            }
            let mut with = whole.clone();
            let both = [Some(field.name), field.needs];
            for name in both.into_iter().flatten() {
                if let Some(required) = with["required"].as_array_mut() {
                    required.push(name.into());
                }
                let kind = with["properties"][name]["type"][0].clone();
                if kind.is_string() {
                    with["properties"][name]["type"] = kind;
                }
            }
            found.push(with);
        }
        found
    }

    /// What in `given` does not fit; empty if all does.
    #[must_use]
    pub fn misfits(&self, given: &Map<String, Value>) -> Vec<Misfit> {
        let misfit = |field: &str, text: String| Misfit {
            field: field.to_owned(),
            text,
        };
        let mut found = Vec::new();
        for (name, value) in given {
            match self.fields.iter().find(|f| f.name == name) {
                None if name == "kind" => {}
                None => found.push(misfit(
                    name,
                    format!("{} takes no such argument", self.kind),
                )),
                Some(field) if !field.required && value.is_null() => {}
                Some(field) => {
                    found.extend(field.takes.misfit(value).map(|text| misfit(name, text)));
                }
            }
        }
        for field in self.fields.iter().filter(|f| f.required) {
            if !given.contains_key(field.name) {
                found.push(misfit(field.name, "it is missing".to_owned()));
            }
        }
        let has = |name| given.get(name).is_some_and(|v: &Value| !v.is_null());
        for field in self.fields {
            if let Some(needs) = field.needs
                && has(field.name)
                && !has(needs)
            {
                found.push(misfit(needs, format!("{} needs it", field.name)));
            }
        }
        found
    }
}

impl CommandKind {
    /// Reads `kind` and its arguments as people send them.
    ///
    /// # Errors
    ///
    /// What does not fit, one for each argument.
    pub fn from_form(given: &Map<String, Value>) -> Result<Self, Vec<Misfit>> {
        let alone = |field: &str, text: String| {
            let field = field.to_owned();
            vec![Misfit { field, text }]
        };
        let kind = given.get("kind").and_then(Value::as_str);
        let Some(form) = kind.and_then(Form::of) else {
            let known: Vec<_> = FORMS.iter().map(|f| f.kind).collect();
            return Err(alone(
                "kind",
                format!("it must be one of {}", known.join(", ")),
            ));
        };
        let misfits = form.misfits(given);
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let text = |name: &str| given.get(name).and_then(Value::as_str).map(str::to_owned);
        if form.kind == "retry" {
            let key = text("key").map(|key| key.parse());
            let key = key.transpose();
            let key = key.map_err(|e: crate::ids::InvalidId| alone("key", e.to_string()))?;
            return Ok(Self::Retry(match (text("bucket"), key) {
                (None, _) => RetryScope::All,
                (Some(bucket), None) => RetryScope::Bucket { bucket },
                (Some(bucket), Some(key)) => RetryScope::Object { bucket, key },
            }));
        }
        let whole = Value::Object(given.clone());
        serde_json::from_value(whole).map_err(|e| alone("kind", e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<CommandKind, Vec<Misfit>> {
        let Value::Object(map) = value else {
            panic!("an object")
        };
        CommandKind::from_form(&map)
    }

    #[test]
    fn every_kind_has_a_form_and_is_read_by_it() {
        let examples = [
            json!({ "kind": "identify", "seconds": 600 }),
            json!({ "kind": "report_now" }),
            json!({ "kind": "set_telemetry_interval", "seconds": 1 }),
            json!({ "kind": "retry", "bucket": "abc", "key": "a/b" }),
            json!({ "kind": "erase_bucket", "bucket": "a.b-c" }),
            json!({ "kind": "update", "rollout": "r", "version": "1", "target": "t",
                "sha256": "00".repeat(32), "length": 5 }),
        ];
        assert_eq!(examples.len(), FORMS.len());
        for (example, form) in examples.into_iter().zip(FORMS) {
            let kind = read(example).expect(form.kind);
            assert_eq!(kind.name(), form.kind);
            assert_eq!(kind.is_destructive(), form.way == Way::TwoPeople);
            assert!(kind.check().is_ok());
        }
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_argument() {
        for (given, at) in [
            (json!({}), "kind"),
            (json!({ "kind": "wipe" }), "kind"),
            (json!({ "kind": 1 }), "kind"),
            (json!({ "kind": "identify" }), "seconds"),
            (json!({ "kind": "identify", "seconds": 0 }), "seconds"),
            (json!({ "kind": "identify", "seconds": 601 }), "seconds"),
            (json!({ "kind": "identify", "seconds": "5" }), "seconds"),
            (json!({ "kind": "identify", "seconds": 5.5 }), "seconds"),
            (json!({ "kind": "report_now", "seconds": 5 }), "seconds"),
            (json!({ "kind": "retry", "key": "a" }), "bucket"),
            (
                json!({ "kind": "retry", "bucket": "abc", "key": "a//b" }),
                "key",
            ),
            (json!({ "kind": "erase_bucket", "bucket": "Abc" }), "bucket"),
            (json!({ "kind": "erase_bucket", "bucket": "ab" }), "bucket"),
            (json!({ "kind": "erase_bucket", "bucket": null }), "bucket"),
        ] {
            let misfits = read(given.clone()).expect_err("it does not fit");
            assert_eq!(misfits[0].field, at, "{given}");
        }
    }

    #[test]
    fn an_optional_argument_may_be_null() {
        let all = read(json!({ "kind": "retry", "bucket": null, "key": null }));
        assert_eq!(all, Ok(CommandKind::Retry(RetryScope::All)));
    }
}
