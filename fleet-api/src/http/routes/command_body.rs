//! A command as callers send it: read by the table of kinds, from which its description is made,
//! too.

use longhaul_protocol::command::CommandKind;
use longhaul_protocol::forms::{FORMS, Form, Way};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{OneOfBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::endpoint;
use crate::http::api::Api;
use crate::http::endpoint::{Call, Json, NoBody, Nothing, Scope, make_whole};
use crate::http::problem::{Fault, Problem};
use crate::objects::names::check_bucket;
use crate::store::operators::Role;

/// How long a command may be begun, where the caller does not say.
pub(super) const DEFAULT_VALID_SECS: u32 = 3600;
/// Longest time that a command may be begun: what waits longer surprises whoever has forgotten it.
pub(super) const MAX_VALID_SECS: u32 = 30 * 86_400;

pub(super) fn add(api: Api) -> Api {
    api.add::<CommandKindList>()
}

/// A body that the table of kinds reads.
#[derive(Deserialize)]
#[serde(from = "Map<String, Value>")]
pub struct Loose(pub Map<String, Value>);

impl From<Map<String, Value>> for Loose {
    fn from(mut map: Map<String, Value>) -> Self {
        for value in map.values_mut() {
            make_whole(value);
        }
        Self(map)
    }
}

/// An argument beside those of a kind.
struct Beside {
    name: &'static str,
    required: bool,
    schema: Value,
}

fn expires_in() -> Beside {
    Beside {
        name: "expires_in_secs",
        required: false,
        schema: json!({
            "type": ["integer", "null"], "minimum": 1, "maximum": MAX_VALID_SECS,
            "description": "How long it may be begun, in seconds; an hour if absent.",
        }),
    }
}

/// The description of bodies with one of the kinds of `way`.
fn describe(way: Way, beside: &[Beside]) -> RefOr<Schema> {
    let required: Vec<_> = beside
        .iter()
        .filter(|b| b.required)
        .map(|b| b.name)
        .collect();
    let more: Map<String, Value> = beside
        .iter()
        .map(|b| (b.name.to_owned(), b.schema.clone()))
        .collect();
    let mut kinds = OneOfBuilder::new();
    for form in FORMS.iter().filter(|form| form.way == way) {
        for schema in form.alternatives(&more, &required) {
            if let Ok(schema) = serde_json::from_value::<Schema>(schema) {
                kinds = kinds.item(schema);
            }
        }
    }
    RefOr::T(Schema::OneOf(kinds.build()))
}

/// Takes `name` out of a body.
fn take<T: serde::de::DeserializeOwned>(
    body: &mut Map<String, Value>,
    name: &str,
) -> Result<Option<T>, Problem> {
    match body.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value)
            .map(Some)
            .map_err(|e| Problem::faults(vec![Fault::at(name, e.to_string())])),
    }
}

/// Reads the kind and its arguments from what is left of a body.
pub(super) fn kind_of(body: &Map<String, Value>) -> Result<CommandKind, Problem> {
    let misfits = match CommandKind::from_form(body) {
        Ok(kind) => {
            let bucket = body.get("bucket").and_then(Value::as_str);
            let Some(Err(rule)) = bucket.map(check_bucket) else {
                return Ok(kind);
            };
            return Err(Problem::faults(vec![Fault::at("bucket", rule)]));
        }
        Err(misfits) => misfits,
    };
    let faults = misfits.into_iter().map(|m| Fault::at(&m.field, m.text));
    Err(Problem::faults(faults.collect()))
}

fn valid_for(body: &mut Map<String, Value>) -> Result<u32, Problem> {
    let valid = take(body, "expires_in_secs")?.unwrap_or(DEFAULT_VALID_SECS);
    if (1..=MAX_VALID_SECS).contains(&valid) {
        return Ok(valid);
    }
    let text = format!("{valid} is not within 1 to {MAX_VALID_SECS}");
    Err(Problem::faults(vec![Fault::at("expires_in_secs", text)]))
}

/// What to do, and until when it may be begun.
#[derive(Deserialize)]
pub struct NewCommand(Loose);

impl NewCommand {
    /// What to do, and for how many seconds it may be begun.
    pub fn read(self) -> Result<(CommandKind, u32), Problem> {
        let mut body = self.0.0;
        let valid = valid_for(&mut body)?;
        Ok((kind_of(&body)?, valid))
    }
}

impl PartialSchema for NewCommand {
    fn schema() -> RefOr<Schema> {
        describe(Way::Direct, &[expires_in()])
    }
}

impl ToSchema for NewCommand {}

/// Any command that people send, for descriptions.
pub struct AnyCommand;

impl PartialSchema for AnyCommand {
    fn schema() -> RefOr<Schema> {
        let mut kinds = OneOfBuilder::new();
        for form in FORMS.iter().filter(|form| form.way != Way::Rollout) {
            for schema in form.alternatives(&Map::new(), &[]) {
                if let Ok(schema) = serde_json::from_value::<Schema>(schema) {
                    kinds = kinds.item(schema);
                }
            }
        }
        RefOr::T(Schema::OneOf(kinds.build()))
    }
}

impl ToSchema for AnyCommand {}

/// What shall be done once a second person has approved it.
#[derive(Deserialize)]
pub struct NewProposal(Loose);

/// What a proposal's body says.
pub struct Proposed {
    /// What to do.
    pub command: CommandKind,
    /// Why.
    pub reason: String,
    /// How long it may be begun once it is approved, in seconds.
    pub valid_for_secs: u32,
    /// How long somebody may decide, in seconds.
    pub decide_within_secs: u32,
}

impl NewProposal {
    /// Reads it.
    pub fn read(self) -> Result<Proposed, Problem> {
        let mut body = self.0.0;
        let valid_for_secs = valid_for(&mut body)?;
        let reason: Option<String> = take(&mut body, "reason")?;
        let reason = reason
            .filter(|text| {
                !text.contains('\0')
                    && !text.trim().is_empty()
                    && text.chars().count() <= MAX_REASON
            })
            .ok_or_else(|| {
                let text = format!("say in 1 to {MAX_REASON} characters why it shall be done");
                Problem::faults(vec![Fault::at("reason", text)])
            })?;
        let within = take(&mut body, "decide_within_secs")?.unwrap_or(DEFAULT_DECIDE_SECS);
        if !(60..=crate::fleet::MAX_DECIDE_SECS).contains(&within) {
            let text = format!(
                "{within} is not within 60 to {}",
                crate::fleet::MAX_DECIDE_SECS
            );
            return Err(Problem::faults(vec![Fault::at("decide_within_secs", text)]));
        }
        Ok(Proposed {
            command: kind_of(&body)?,
            reason,
            valid_for_secs,
            decide_within_secs: within,
        })
    }
}

/// Longest reason, in characters.
pub(super) const MAX_REASON: usize = 1000;
/// How long a proposal waits, where the caller does not say: a day.
pub(super) const DEFAULT_DECIDE_SECS: u32 = 86_400;

impl PartialSchema for NewProposal {
    fn schema() -> RefOr<Schema> {
        let reason = Beside {
            name: "reason",
            required: true,
            schema: json!({
                "type": "string", "minLength": 1, "maxLength": MAX_REASON, "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$",
                "description": "Why it shall be done.",
            }),
        };
        let within = Beside {
            name: "decide_within_secs",
            required: false,
            schema: json!({
                "type": ["integer", "null"], "minimum": 60, "maximum": crate::fleet::MAX_DECIDE_SECS,
                "description": "How long somebody else may decide, in seconds; a day if absent.",
            }),
        };
        describe(Way::TwoPeople, &[reason, within, expires_in()])
    }
}

impl ToSchema for NewProposal {}

endpoint! {
    /// What boxes can be told.
    CommandKindList = GET "/v1/command-kinds" as "commandKindList", Scope::Role(Role::Viewer), OK;
    "Every kind of command, with the JSON schema of its arguments."
    (Nothing, Nothing, NoBody) -> Json<CommandKinds> = list
}

/// Every kind of command.
#[derive(Serialize, ToSchema)]
pub struct CommandKinds {
    /// The kinds.
    items: Vec<KindView>,
}

/// One kind of command.
#[derive(Serialize, ToSchema)]
pub struct KindView {
    /// Its name.
    kind: &'static str,
    /// What it is called for people.
    title: &'static str,
    /// What it does.
    description: &'static str,
    /// How it comes about: `direct`, `two_people` or `rollout`.
    way: &'static str,
    /// JSON schema (2020-12) of the kind and its arguments.
    #[schema(value_type = Object)]
    schema: Value,
}

impl From<&Form> for KindView {
    fn from(form: &Form) -> Self {
        Self {
            kind: form.kind,
            title: form.title,
            description: form.says,
            way: form.way.as_str(),
            schema: form.schema(&Map::new(), &[]),
        }
    }
}

async fn list(_: Call<CommandKindList>) -> Result<Json<CommandKinds>, Problem> {
    let items = FORMS.iter().map(KindView::from).collect();
    Ok(Json(CommandKinds { items }))
}
