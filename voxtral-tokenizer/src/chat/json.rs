//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, on which models are trained.
//!
//! It has a space after each comma and colon, characters as they are, and numbers of its own:
//! `1e16` is `1e+16`, `100000.0` keeps its fraction. Integers beyond 64 bits were read as floats, and
//! are written as such.

use serde_json::{Map, Value};

/// The text of a value.
pub(crate) fn dumps(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

/// The text of an object.
pub(crate) fn dumps_object(object: &Map<String, Value>) -> String {
    let mut out = String::new();
    write_object(object, &mut out);
    out
}

/// What kind of value this is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(object) => write_object(object, out),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.push_str(&repr(float)),
            None => out.push_str(&number.to_string()),
        },
        // Escapes are the same.
        Value::Null | Value::Bool(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

fn write_object(object: &Map<String, Value>, out: &mut String) {
    out.push('{');
    for (index, (key, value)) in object.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        out.push_str(&Value::from(key.as_str()).to_string());
        out.push_str(": ");
        write(value, out);
    }
    out.push('}');
}

/// Python's `repr` of a finite number: the fewest digits that say which one it is, with an exponent
/// below 1e-4 and from 1e16 on.
fn repr(float: f64) -> String {
    let scientific = format!("{float:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = float.to_string();
        let fraction = if plain.contains('.') { "" } else { ".0" };
        return plain + fraction;
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_python() {
        for (json, python) in [
            ("0", "0"),
            ("-7", "-7"),
            ("18446744073709551615", "18446744073709551615"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e5", "100000.0"),
            ("1E+15", "1000000000000000.0"),
            ("1e16", "1e+16"),
            ("1.25e-5", "1.25e-05"),
            ("0.0001", "0.0001"),
            ("123456789012345.6", "123456789012345.6"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("0.30000000000000004", "0.30000000000000004"),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(dumps(&value), python, "{json}");
        }
    }

    #[test]
    fn order_spaces_and_escapes_are_those_of_python() {
        let json = r#"{"b":[1,"x"],"a":{"é\u00e9\u0001\u007f\/\"\\\n":null},"c":[],"d":{}}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        let python = "{\"b\": [1, \"x\"], \"a\": {\"éé\\u0001\u{7f}/\\\"\\\\\\n\": null}, \"c\": [], \"d\": {}}";
        assert_eq!(dumps(&value), python);
    }
}
