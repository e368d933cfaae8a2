//! Bodies of JSON, taken apart field by field, so that an error names the field that is wrong.

use axum::{
    extract::Request,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Config, ServerError, body};

/// Values in a body, which take far more memory than they take there.
const MOST_VALUES: usize = 1 << 18;

/// Characters of a value that an error shows.
const SHOWN: usize = 60;

/// An object, of which fields are taken out.
#[derive(Debug)]
pub(crate) struct Object {
    /// Where it stands in the body; empty for the body itself.
    path: String,
    entries: Map<String, Value>,
}

/// Reads the body of a request.
pub(crate) async fn read(request: Request, config: &Config) -> Result<Object, ServerError> {
    check_type(request.headers())?;
    let body = body::bytes(request.into_body(), config.max_body, config).await?;
    // A large one takes its time.
    let parsed = tokio::task::spawn_blocking(move || parse(&body)).await;
    Object::new("", parsed.map_err(|_| ServerError::Crashed)??)
}

/// Pages of others can send anything else to this machine without being asked.
fn check_type(headers: &HeaderMap) -> Result<(), ServerError> {
    let found = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let found = found.unwrap_or_default().to_ascii_lowercase();
    if found.starts_with("application/json") {
        return Ok(());
    }
    let shown = match found.is_empty() {
        true => "missing".to_owned(),
        false => format!("`{found}`"),
    };
    Err(ServerError::field(
        "content-type",
        shown,
        "`application/json`",
    ))
}

fn parse(bytes: &[u8]) -> Result<Value, ServerError> {
    if count(bytes) > MOST_VALUES {
        return Err(ServerError::TooLarge {
            subject: "number of values in the body",
            limit: MOST_VALUES.to_string(),
        });
    }
    serde_json::from_slice(bytes).map_err(|error| ServerError::Malformed {
        subject: "body",
        reason: error.to_string(),
    })
}

/// At most so many values are in a text of JSON.
fn count(bytes: &[u8]) -> usize {
    let (mut count, mut quoted, mut escaped) = (1, false, false);
    for byte in bytes {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b',' | b'[' | b'{') => count += 1,
            _ => {}
        }
    }
    count
}

/// A value as an error shows it.
pub(crate) fn shown(value: &Value) -> String {
    let text = match value {
        Value::Array(_) => return "a list".to_owned(),
        Value::Object(_) => return "an object".to_owned(),
        value => value.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

impl Object {
    /// The object that stands at a path.
    pub(crate) fn new(path: impl Into<String>, value: Value) -> Result<Self, ServerError> {
        let path = path.into();
        match value {
            Value::Object(entries) => Ok(Self { path, entries }),
            value if path.is_empty() => {
                Err(ServerError::field("body", shown(&value), "a JSON object"))
            }
            value => Err(ServerError::field(path, shown(&value), "an object")),
        }
    }

    /// The path of a field.
    pub(crate) fn path(&self, name: &str) -> String {
        match self.path.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.path),
        }
    }

    /// Whether it has a field that is not null.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(|value| !value.is_null())
    }

    /// The text of a field that is left where it is.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.as_str()
    }

    /// Takes a field out; null stands for none.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.entries.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field of a type out.
    pub(crate) fn parsed<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, ServerError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let found = shown(&value);
        match serde_json::from_value(value) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(_) => Err(ServerError::field(self.path(name), found, expected)),
        }
    }

    /// Takes out a field that has to be there.
    pub(crate) fn required<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<T, ServerError> {
        let found = self.parsed(name, expected)?;
        found.ok_or_else(|| ServerError::field(self.path(name), "missing", expected))
    }

    /// All that is left.
    pub(crate) fn into_value(self) -> Value {
        Value::Object(self.entries)
    }

    /// Whether a field is true.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool, ServerError> {
        Ok(self.parsed(name, "`true` or `false`")?.unwrap_or(false))
    }

    /// Takes out a field that is an object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, ServerError> {
        let path = self.path(name);
        self.take(name)
            .map(|value| Self::new(path, value))
            .transpose()
    }

    /// Takes out an object that has to be there.
    pub(crate) fn inner(&mut self, name: &str, expected: &str) -> Result<Self, ServerError> {
        let path = self.path(name);
        let found = self.object(name)?;
        found.ok_or_else(|| ServerError::field(path, "missing", expected))
    }

    /// Takes out a list of objects.
    pub(crate) fn objects(&mut self, name: &str) -> Result<Vec<Self>, ServerError> {
        let list: Vec<Value> = self.parsed(name, "a list of objects")?.unwrap_or_default();
        let path = self.path(name);
        let objects = list.into_iter().enumerate();
        objects
            .map(|(at, value)| Self::new(format!("{path}[{at}]"), value))
            .collect()
    }

    /// Refuses what is left, but for fields that mean nothing at these values, written as JSON; at
    /// any, if there are none.
    pub(crate) fn finish(self, without_effect: &[(&str, &[&str])]) -> Result<(), ServerError> {
        for (name, value) in &self.entries {
            let known = without_effect.iter().find(|(known, _)| known == name);
            let reason = match known {
                _ if value.is_null() => continue,
                Some((_, [])) => continue,
                Some((_, values)) if values.contains(&&value.to_string()[..]) => continue,
                Some(_) => format!("{} asks for what the model cannot do", shown(value)),
                None => "there is no such field".to_owned(),
            };
            return Err(ServerError::unable(
                self.path(name),
                format!("{reason}: leave it out"),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_where_they_are_not_text() {
        for (json, values) in [
            ("1", 1),
            (r#"[1,2,"a,b[\"{,"]"#, 4),
            (r#"{"a":{"b":[1]}}"#, 4),
            (r#""\\",["#, 3),
        ] {
            assert_eq!(count(json.as_bytes()), values, "{json}");
        }
        let bomb = format!("[{}0]", "0,".repeat(MOST_VALUES));
        assert!(matches!(
            parse(bomb.as_bytes()),
            Err(ServerError::TooLarge { .. })
        ));
        let deep = "[".repeat(100_000);
        assert!(matches!(
            parse(deep.as_bytes()),
            Err(ServerError::Malformed { .. })
        ));
    }

    #[test]
    fn what_is_left_is_refused_by_its_path() {
        let value = serde_json::json!({"a": 1, "b": null, "c": {"d": true}, "n": 1});
        let mut object = Object::new("", value).unwrap();
        assert_eq!(object.parsed::<u64>("a", "a number").unwrap(), Some(1));
        let inner = object.object("c").unwrap().unwrap();
        let error = inner.finish(&[("d", &["false"])]).unwrap_err();
        assert_eq!(error.param(), Some("c.d"));
        object.finish(&[("n", &["1"])]).unwrap();
    }
}
