//! Checks answers against the description: as much of JSON Schema as the description uses.

use serde_json::Value;

/// Checks `value` against `schema` of the description `api`.
///
/// # Errors
///
/// Where it does not fit, and how.
pub fn check(api: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    check_part(api, schema, value, at, false)
}

/// As [`check`]; in a part of several (`open`), fields that the others describe are no mistake.
fn check_part(
    api: &Value,
    schema: &Value,
    value: &Value,
    at: &str,
    open: bool,
) -> Result<(), String> {
    if let Some(to) = schema["$ref"].as_str() {
        let target = api.pointer(&to[1..]).ok_or(format!("{to} is missing"))?;
        return check_part(api, target, value, at, open);
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check_part(api, part, value, at, true)?;
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(parts) = schema[key].as_array()
            && !parts.iter().any(|p| check(api, p, value, at).is_ok())
        {
            return Err(format!("{at}: {value} fits none of {key}"));
        }
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        return Err(format!("{at}: {value} is none of {allowed:?}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|t| is_a(t, value)) {
        return Err(format!("{at}: {value} is not {types:?}"));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            if !object.contains_key(name) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        for (name, inner) in object {
            if let Some(schema) = schema["properties"].get(name) {
                check(api, schema, inner, &format!("{at}/{name}"))?;
            } else if !open && schema["properties"].is_object() {
                return Err(format!("{at}: {name} is not described"));
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        if schema["items"].is_object() {
            check(api, &schema["items"], item, &format!("{at}[]"))?;
        }
    }
    Ok(())
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["a"],
        "properties": { "a": { "type": ["integer", "null"] }, "b": { "enum": ["x"] } },
    });
    let fits = |value| check(&Value::Null, &schema, &value, "").is_ok();
    assert!(fits(serde_json::json!({ "a": 1, "b": "x" })));
    assert!(fits(serde_json::json!({ "a": null })));
    assert!(!fits(serde_json::json!({ "a": "1" })));
    assert!(!fits(serde_json::json!({ "b": "x" })));
    assert!(!fits(serde_json::json!({ "a": 1, "b": "y" })));
    assert!(!fits(serde_json::json!({ "a": 1, "c": 1 })));
    assert!(!fits(serde_json::json!([])));
}
