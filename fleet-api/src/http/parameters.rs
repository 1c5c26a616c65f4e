//! Parameters as the API's description has them: what their types' names leave out.

use longhaul_protocol::forms::{BUCKET, KEY};
use longhaul_protocol::names::MAX_KEY_BYTES;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{RefOr, Required};

use crate::store::alert_channels::DELIVERY_FIELDS;
use crate::store::alerts::ALERT_FIELDS;
use crate::store::audit::AUDIT_FIELDS;
use crate::store::bulk::BOX_FIELDS;
use crate::store::commands::COMMAND_FIELDS;
use crate::store::filter::FilterField;
use crate::store::orders::ORDER_FIELDS;
use crate::store::proposals::PROPOSAL_FIELDS;
use crate::store::tickets::TICKET_FIELDS;
use crate::store::uploads::UPLOAD_FIELDS;

/// Operations that take `If-Match`.
const GUARDED: [&str; 11] = [
    "boxUpdate",
    "boxTenantSet",
    "uplinkSet",
    "uplinkPause",
    "uplinkResume",
    "networkSet",
    "networkReset",
    "operatorUpdate",
    "operatorDelete",
    "alertRuleSet",
    "alertRuleDelete",
];

/// Whether an operation refuses to change what the caller did not see.
pub fn is_guarded(id: &str) -> bool {
    GUARDED.contains(&id)
}

fn is_null(item: &RefOr<Schema>) -> bool {
    matches!(item, RefOr::T(Schema::Object(object)) if object.schema_type == SchemaType::Type(Type::Null))
}

/// Adds the rule that the parameter's type checks.
pub fn precise(mut parameter: Parameter) -> Parameter {
    // There is no null in a path or a query.
    if let Some(RefOr::T(Schema::OneOf(one))) = &mut parameter.schema {
        one.items.retain(|item| !is_null(item));
        if let [only] = one.items.as_slice() {
            parameter.schema = Some(only.clone());
        }
    }
    if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema {
        if let SchemaType::Array(types) = &object.schema_type
            && let Some(first) = types.iter().find(|t| **t != Type::Null)
        {
            object.schema_type = SchemaType::Type(first.clone());
        }
        let rule = match parameter.name.as_str() {
            "box_id" => Some("^[0-9A-HJKMNP-TV-Z]{12}$"),
            "name" => Some(r"^[A-Za-z0-9._@\-]{1,64}$"),
            "bucket" => Some(BUCKET),
            "key" => Some(KEY),
            "cursor" => Some(r"^[A-Za-z0-9_\-]+$"),
            "order" => Some(r"^[A-Za-z0-9_\-]{1,64}$"),
            name if name.ends_with("_id") => Some(r"^[A-Za-z0-9_\-]{1,64}$"),
            _ => None,
        };
        if let Some(rule) = rule {
            object.pattern = Some(rule.to_owned());
        }
        match parameter.name.as_str() {
            "limit" if object.maximum.is_none() => {
                object.minimum = Some(1.into());
                object.maximum = Some(1000.into());
            }
            "bucket" => {
                object.min_length = Some(3);
                object.max_length = Some(63);
            }
            "key" => object.max_length = Some(MAX_KEY_BYTES),
            _ => {}
        }
    }
    parameter
}

/// What the rows of a list can be asked for by: the tables that the checks read, too.
fn fields_of(id: &str) -> Option<&'static [FilterField]> {
    Some(match id {
        "boxList" => &BOX_FIELDS,
        "commandList" => &COMMAND_FIELDS,
        "auditList" => &AUDIT_FIELDS,
        "alertList" => &ALERT_FIELDS,
        "alertDeliveryList" => &DELIVERY_FIELDS,
        "orderList" => &ORDER_FIELDS,
        "proposalList" => &PROPOSAL_FIELDS,
        "ticketListAll" => &TICKET_FIELDS,
        "transferList" => &UPLOAD_FIELDS,
        _ => return None,
    })
}

/// Says of a list's filter what it can ask for.
pub fn filterable(id: &str, mut parameter: Parameter) -> Parameter {
    if parameter.name == "filter"
        && let Some(fields) = fields_of(id)
    {
        let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
        parameter.description = Some(format!(
            "Which rows: `field:value`, joined by `and`, `or`, `not` and parentheses; `~` finds a part \
             of a text, `<`, `<=`, `>` and `>=` compare; a value with other characters than letters, \
             digits and `-_.@/+` stands in quotes. Fields: {}.",
            fields.join(", ")
        ));
    }
    parameter
}

/// `Idempotency-Key` of routes that create.
pub fn idempotency_key() -> Parameter {
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some("^[!-~]{1,255}$"));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "For a day, the same request with the same key gets the first answer; another request with it, 422.",
        ))
        .schema(Some(key))
        .build()
}

/// `If-Match` of routes that change what can be read with a tag.
pub fn if_match() -> Parameter {
    let tag = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(r#"^(\*|(W/)?"[!#-~]*"(, *(W/)?"[!#-~]*")*)$"#));
    ParameterBuilder::new()
        .name("If-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The `ETag` of what you saw: if it is another by now, nothing is changed (412).",
        ))
        .schema(Some(tag))
        .build()
}
