//! Parameters as the API's description has them: what their types' names leave out.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{RefOr, Required};

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

/// Adds the rule that the parameter's type checks.
pub fn precise(mut parameter: Parameter) -> Parameter {
    if let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema {
        // There is no null in a path or a query.
        if let SchemaType::Array(types) = &object.schema_type
            && let Some(first) = types.iter().find(|t| **t != Type::Null)
        {
            object.schema_type = SchemaType::Type(first.clone());
        }
        let rule = match parameter.name.as_str() {
            "box_id" => Some("^[0-9A-HJKMNP-TV-Z]{12}$"),
            "name" => Some(r"^[A-Za-z0-9._@\-]{1,64}$"),
            "order" => Some(r"^[A-Za-z0-9_\-]{1,64}$"),
            name if name.ends_with("_id") => Some(r"^[A-Za-z0-9_\-]{1,64}$"),
            _ => None,
        };
        if let Some(rule) = rule {
            object.pattern = Some(rule.to_owned());
        }
        if parameter.name == "limit" {
            object.minimum = Some(1.into());
            object.maximum = Some(1000.into());
        }
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
        .pattern(Some(r#"^(\*|"[0-9a-f]{32}")$"#));
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
