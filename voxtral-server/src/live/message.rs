//! Messages of clients: JSON objects, whose fields are taken out one by one. What is left, and says
//! something, is refused by its name.

use serde_json::{Map, Value};

use crate::ServerError;

/// The longest value that an error repeats, in characters.
const SHOWN: usize = 60;

/// The fields of an object.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    /// Where the object stands in the message, with a point behind it.
    path: String,
    values: Map<String, Value>,
}

impl Fields {
    /// Reads a message.
    pub(super) fn read(text: &str) -> Result<Self, ServerError> {
        let malformed = |reason: String| ServerError::Malformed {
            subject: "message",
            reason,
        };
        match serde_json::from_str(text) {
            Ok(Value::Object(values)) => Ok(Self {
                path: String::new(),
                values,
            }),
            Ok(other) => Err(malformed(format!("{}, expected an object", shown(&other)))),
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// The type of a message, for which there has to be one.
    pub(super) fn kind(&mut self) -> Result<String, ServerError> {
        self.text("type")?.ok_or(ServerError::Missing {
            field: "type",
            expected: "the name of an event",
        })
    }

    /// Whether there is such a field.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| !value.is_null())
    }

    /// Whether null is said for a field.
    pub(super) fn is_null(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(Value::is_null)
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    fn wrong(&self, name: &str, found: &Value, expected: &str) -> ServerError {
        ServerError::field(self.name(name), shown(found), expected)
    }

    /// The value of a field, unless it is null.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    fn read_as<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(Value) -> Result<T, Value>,
    ) -> Result<Option<T>, ServerError> {
        let value = self.take(name).map(read).transpose();
        value.map_err(|found| self.wrong(name, &found, expected))
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ServerError> {
        self.read_as(name, "a text", |value| match value {
            Value::String(text) => Ok(text),
            other => Err(other),
        })
    }

    /// A whole number.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, ServerError> {
        self.read_as(name, "a whole number", |value| value.as_u64().ok_or(value))
    }

    pub(super) fn decimal(&mut self, name: &str) -> Result<Option<f64>, ServerError> {
        self.read_as(name, "a number", |value| value.as_f64().ok_or(value))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ServerError> {
        self.read_as(name, "`true` or `false`", |value| {
            value.as_bool().ok_or(value)
        })
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Option<Vec<String>>, ServerError> {
        self.read_as(name, "a list of texts", |value| {
            let texts = value.as_array().and_then(|list| {
                let texts = list.iter().map(|text| text.as_str().map(str::to_owned));
                texts.collect()
            });
            texts.ok_or(value)
        })
    }

    /// An object within.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, ServerError> {
        let path = format!("{}.", self.name(name));
        self.read_as(name, "an object", |value| match value {
            Value::Object(values) => Ok(Self { path, values }),
            other => Err(other),
        })
    }

    /// Refuses a field that says something.
    pub(super) fn refuse(&mut self, name: &str, reason: &str) -> Result<(), ServerError> {
        let empty = |value: &Value| match value {
            Value::Object(values) => values.is_empty(),
            Value::Array(values) => values.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(flag) => !flag,
            _ => false,
        };
        match self.take(name).filter(|value| !empty(value)) {
            Some(_) => Err(ServerError::unable(self.name(name), reason)),
            None => Ok(()),
        }
    }

    /// A field whose value is not one of those that are possible.
    pub(super) fn unlike(&self, name: &str, found: &str, expected: &str) -> ServerError {
        ServerError::field(self.name(name), format!("`{found}`"), expected)
    }

    /// A field that asks for what cannot be done.
    pub(super) fn unable(&self, name: &str, reason: &str) -> ServerError {
        ServerError::unable(self.name(name), reason)
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), ServerError> {
        let mut left = self.values.iter().filter(|(_, value)| !value.is_null());
        match left.next() {
            Some((name, _)) => Err(self.unable(name, "there is no such field")),
            None => Ok(()),
        }
    }
}

/// A value as an error repeats it.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_or_refused_by_their_names() {
        let read = |text: &str| Fields::read(text);
        assert!(
            read("[1]")
                .unwrap_err()
                .to_string()
                .contains("`[1]`, expected an object")
        );
        assert!(read(&"[".repeat(100_000)).is_err());
        let mut fields = read(r#"{"a":{"b":1,"c":"x","d":[]},"e":null,"f":[1]}"#).unwrap();
        let mut inner = fields.object("a").unwrap().unwrap();
        assert_eq!(inner.number("b").unwrap(), Some(1));
        assert!(inner.refuse("d", "").is_ok(), "empty");
        let error = inner.number("c").unwrap_err().to_string();
        assert_eq!(error, "a.c is `\"x\"`, expected a whole number");
        assert_eq!(fields.text("e").unwrap(), None);
        assert!(fields.clone().texts("f").is_err());
        let error = fields.finish().unwrap_err();
        assert_eq!(error.param(), Some("f"));
        let long = read(&format!("\"{}\"", "é".repeat(500))).unwrap_err();
        assert!(long.to_string().chars().count() < 140);
    }
}
