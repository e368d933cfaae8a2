//! Whether a JSON schema is one: the meta-schema of draft 7
//! (<https://json-schema.org/draft-07/schema>), by keyword.
//!
//! Unknown keywords are allowed, as there. Not checked are URIs, as in mistral-common.

use fancy_regex::Regex;
use serde_json::{Map, Value};

use super::json;

/// What is wrong with a schema.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    /// JSON pointer to the value.
    pub(crate) place: String,
    /// The value, or what kind it is of.
    pub(crate) found: String,
    /// What should be there.
    pub(crate) expected: &'static str,
}

/// Checks a schema, down to the last one within it.
pub(crate) fn check(schema: &Map<String, Value>) -> Result<(), Fault> {
    keywords(schema, "")
}

/// The types of JSON, as schemas name them.
const TYPES: [&str; 7] = [
    "array", "boolean", "integer", "null", "number", "object", "string",
];

fn schema(value: &Value, place: &str) -> Result<(), Fault> {
    match value {
        Value::Bool(_) => Ok(()),
        Value::Object(object) => keywords(object, place),
        _ => fault(value, place, "a schema: an object, true or false"),
    }
}

fn keywords(object: &Map<String, Value>, place: &str) -> Result<(), Fault> {
    object
        .iter()
        .try_for_each(|(key, value)| keyword(key, value, &below(place, key)))
}

fn keyword(key: &str, value: &Value, place: &str) -> Result<(), Fault> {
    match key {
        "$id" | "$schema" | "$ref" | "$comment" | "title" | "description" | "format"
        | "contentMediaType" | "contentEncoding" => {
            require(value.is_string(), value, place, "a string")
        }
        "pattern" => match value {
            Value::String(text) => pattern(text, value, place),
            _ => fault(value, place, "a string"),
        },
        "readOnly" | "uniqueItems" => require(value.is_boolean(), value, place, "true or false"),
        "maximum" | "minimum" | "exclusiveMaximum" | "exclusiveMinimum" => {
            require(value.is_number(), value, place, "a number")
        }
        "multipleOf" => {
            let positive = value.as_f64().is_some_and(|number| number > 0.0);
            require(positive, value, place, "a number above 0")
        }
        "maxLength" | "minLength" | "maxItems" | "minItems" | "maxProperties" | "minProperties" => {
            let whole = |number: f64| number >= 0.0 && number.fract() == 0.0;
            let count = value.as_f64().is_some_and(whole);
            require(count, value, place, "a whole number from 0 up")
        }
        "enum" | "examples" => require(value.is_array(), value, place, "an array"),
        "required" => strings(value, place),
        "type" => types(value, place),
        "additionalItems"
        | "contains"
        | "additionalProperties"
        | "propertyNames"
        | "if"
        | "then"
        | "else"
        | "not" => schema(value, place),
        "allOf" | "anyOf" | "oneOf" => schemas(value, place),
        "items" if value.is_array() => schemas(value, place),
        "items" => schema(value, place),
        "definitions" | "properties" => each(value, place, schema),
        "patternProperties" => each(value, place, |property, place| {
            let key = place.rsplit('/').next().unwrap_or_default();
            pattern(&unescaped(key), property, place)?;
            schema(property, place)
        }),
        "dependencies" => each(value, place, |dependency, place| match dependency {
            Value::Array(_) => strings(dependency, place),
            _ => schema(dependency, place),
        }),
        _ => Ok(()),
    }
}

fn pattern(text: &str, value: &Value, place: &str) -> Result<(), Fault> {
    require(
        Regex::new(text).is_ok(),
        value,
        place,
        "a regular expression",
    )
}

fn types(value: &Value, place: &str) -> Result<(), Fault> {
    let known = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let right = match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(known) && distinct(items),
        _ => known(value),
    };
    let expected = "array, boolean, integer, null, number, object, string, or an array of these";
    require(right, value, place, expected)
}

fn strings(value: &Value, place: &str) -> Result<(), Fault> {
    let right = |items: &Vec<Value>| items.iter().all(Value::is_string) && distinct(items);
    let right = value.as_array().is_some_and(right);
    require(right, value, place, "an array of different strings")
}

fn schemas(value: &Value, place: &str) -> Result<(), Fault> {
    let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
        return fault(value, place, "an array of at least one schema");
    };
    let mut items = items.iter().enumerate();
    items.try_for_each(|(index, item)| schema(item, &format!("{place}/{index}")))
}

fn each(
    value: &Value,
    place: &str,
    check: impl Fn(&Value, &str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let Value::Object(object) = value else {
        return fault(value, place, "an object of schemas");
    };
    let mut entries = object.iter();
    entries.try_for_each(|(key, value)| check(value, &below(place, key)))
}

fn distinct(items: &[Value]) -> bool {
    (1..items.len()).all(|end| !items[..end].contains(&items[end]))
}

/// The pointer to a key, with `~` and `/` escaped as RFC 6901 has it.
fn below(place: &str, key: &str) -> String {
    format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn unescaped(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

fn require(right: bool, value: &Value, place: &str, expected: &'static str) -> Result<(), Fault> {
    if right {
        return Ok(());
    }
    fault(value, place, expected)
}

fn fault(value: &Value, place: &str, expected: &'static str) -> Result<(), Fault> {
    let found = match value {
        Value::Array(_) | Value::Object(_) => json::kind(value).to_owned(),
        _ => value.to_string(),
    };
    Err(Fault {
        place: place.to_owned(),
        found,
        expected,
    })
}
