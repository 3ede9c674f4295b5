//! The JSON Schema that the tool prints: every line that a test sees is held against it.

use std::collections::HashMap;
use std::process::Command;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::tool;

/// Of all lines of all views.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let schema = print(&[]);
    let mut fields = HashMap::new();
    collect_fields(&schema, &mut fields);
    Schema {
        validator: compile(&schema),
        fields,
    }
});

struct Schema {
    validator: Validator,
    /// The fields of each event.
    fields: HashMap<String, Map<String, Value>>,
}

/// What `tcp-tools schema ARGS` prints.
///
/// # Panics
/// When that is no JSON.
pub fn print(args: &[&str]) -> Value {
    let output = Command::new(tool()).arg("schema").args(args).output();
    let output = output.unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Makes a validator.
///
/// # Panics
/// When `schema` is no JSON Schema.
pub fn compile(schema: &Value) -> Validator {
    jsonschema::meta::validate(schema).unwrap_or_else(|error| panic!("{error}"));
    jsonschema::validator_for(schema).unwrap()
}

/// Whether the schema lets `line` pass and names each of its fields.
///
/// # Errors
/// What is wrong.
pub(crate) fn check(line: &Value) -> Result<(), String> {
    SCHEMA
        .validator
        .validate(line)
        .map_err(|error| error.to_string())?;
    let event = line["event"].as_str().unwrap_or_default();
    let known = SCHEMA.fields.get(event).ok_or("unknown event")?;
    let mut fields = line.as_object().into_iter().flat_map(Map::keys);
    match fields.find(|field| !known.contains_key(*field)) {
        Some(field) => Err(format!("unknown field {field}")),
        None => Ok(()),
    }
}

fn collect_fields(schema: &Value, to: &mut HashMap<String, Map<String, Value>>) {
    for part in schema["anyOf"].as_array().into_iter().flatten() {
        collect_fields(part, to);
    }
    let properties = &schema["properties"];
    if let (Some(event), Some(fields)) = (
        properties["event"]["const"].as_str(),
        properties.as_object(),
    ) {
        to.insert(event.into(), fields.clone());
    }
}
