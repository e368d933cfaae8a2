//! Reading fields of a JSON configuration, with errors that name the file and the field's path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::error::CheckpointError;

/// A value inside a configuration file that knows where it stands.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    file: Cow<'a, str>,
    path: String,
    value: &'a Value,
}

/// What reading a field gives.
type Read<T> = Result<T, CheckpointError>;

/// Parses `bytes`, the contents of `file`.
pub(crate) fn parse(file: &str, bytes: &[u8]) -> Read<Value> {
    serde_json::from_slice(bytes).map_err(|source| CheckpointError::Json {
        file: file.to_owned(),
        source,
    })
}

/// An object in which no key occurs twice; serde_json's own maps keep the last one.
pub(crate) struct Unique<V>(pub(crate) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for UniqueVisitor<V> {
    type Value = Unique<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
        let mut members = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map
                .next_value()
                .map_err(|error| A::Error::custom(format_args!("`{key}`: {error}")))?;
            if members.contains_key(&key) {
                return Err(A::Error::custom(format_args!("`{key}` occurs twice")));
            }
            members.insert(key, value);
        }
        Ok(Unique(members))
    }
}

impl<'a> Field<'a> {
    /// The whole of `file`.
    pub(crate) fn root(file: &'a str, value: &'a Value) -> Self {
        Self {
            file: Cow::Borrowed(file),
            path: String::new(),
            value,
        }
    }

    /// The file's name, as errors give it.
    pub(crate) fn file(&self) -> String {
        self.file.clone().into_owned()
    }

    /// The raw value.
    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    /// The member `key`, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<Field<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Field {
            file: self.file.clone(),
            path: self.path_to(key),
            value,
        })
    }

    /// The member `key`.
    pub(crate) fn need(&self, key: &str) -> Read<Field<'a>> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// The first of several spellings of one member; the error names the first.
    pub(crate) fn need_any(&self, keys: [&str; 2]) -> Read<Field<'a>> {
        keys.iter()
            .find_map(|key| self.get(key))
            .ok_or_else(|| self.missing(keys[0]))
    }

    /// A count or a dimension.
    pub(crate) fn size(&self) -> Read<usize> {
        self.value
            .as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|&n| n > 0 && n <= LARGEST)
            .ok_or_else(|| self.bad("a whole number above 0"))
    }

    /// A count that divides or limits.
    pub(crate) fn nonzero(&self) -> Read<NonZeroUsize> {
        NonZeroUsize::new(self.size()?).ok_or_else(|| self.bad("a whole number above 0"))
    }

    /// A count that may be zero, or a token's id.
    pub(crate) fn id(&self) -> Read<u32> {
        self.value
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| self.bad("a whole number below 2³²"))
    }

    /// An epsilon or a base.
    pub(crate) fn positive(&self) -> Read<f64> {
        self.value
            .as_f64()
            .filter(|&x| x > 0.0 && x.is_finite())
            .ok_or_else(|| self.bad("a number above 0"))
    }

    /// Any number.
    pub(crate) fn number(&self) -> Read<f64> {
        self.value
            .as_f64()
            .filter(|x| x.is_finite())
            .ok_or_else(|| self.bad("a number"))
    }

    pub(crate) fn text(&self) -> Read<&'a str> {
        self.value.as_str().ok_or_else(|| self.bad("a string"))
    }

    pub(crate) fn flag(&self) -> Read<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.bad("true or false"))
    }

    /// A sliding window, which Mistral's files write as a number, as a string of digits, or as a
    /// list with one entry per layer of a repeating pattern (`null` for none). Only patterns of one
    /// window are supported.
    pub(crate) fn window(&self) -> Read<Option<NonZeroUsize>> {
        const EXPECTED: &str = "a window, a string of digits or a list of equal windows";
        match self.value {
            Value::Null => Ok(None),
            Value::String(digits) => match digits.trim().parse() {
                Ok(window) => Ok(Some(window)),
                Err(_) => Err(self.bad(EXPECTED)),
            },
            Value::Array(list) => {
                let windows = list
                    .iter()
                    .map(|value| {
                        Field {
                            value,
                            ..self.clone()
                        }
                        .window()
                    })
                    .collect::<Read<Vec<_>>>()?;
                match windows.split_first() {
                    Some((first, rest)) if rest.iter().all(|window| window == first) => Ok(*first),
                    Some(_) => Err(self.unsupported("one window for every layer")),
                    None => Err(self.bad(EXPECTED)),
                }
            }
            Value::Number(_) => self.nonzero().map(Some).map_err(|_| self.bad(EXPECTED)),
            _ => Err(self.bad(EXPECTED)),
        }
    }

    /// Fails unless the text is `supported`.
    pub(crate) fn only(&self, supported: &str) -> Read<()> {
        if self.text()? == supported {
            Ok(())
        } else {
            Err(self.unsupported(supported))
        }
    }

    /// Fails unless the flag is `supported`.
    pub(crate) fn only_flag(&self, supported: bool) -> Read<()> {
        if self.flag()? == supported {
            Ok(())
        } else {
            Err(self.unsupported(if supported { "true" } else { "false" }))
        }
    }

    /// The value is understood and no Voxtral model uses it.
    pub(crate) fn unsupported(&self, supported: &str) -> CheckpointError {
        CheckpointError::Unsupported {
            file: self.file(),
            field: self.path.clone(),
            found: self.value.to_string(),
            supported: supported.to_owned(),
        }
    }

    /// The value has the wrong type or range.
    pub(crate) fn bad(&self, expected: &str) -> CheckpointError {
        CheckpointError::BadField {
            file: self.file(),
            field: self.path.clone(),
            found: abridged(self.value),
            expected: expected.to_owned(),
        }
    }

    fn missing(&self, key: &str) -> CheckpointError {
        CheckpointError::MissingField {
            file: self.file(),
            field: self.path_to(key),
        }
    }

    fn path_to(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// No dimension of a real model comes near this, and products of three stay within 64 bits.
const LARGEST: usize = 1 << 20;

/// The value as an error shows it.
fn abridged(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn windows_in_every_spelling() {
        let window = |value: Value| Field::root("f", &value).window().map_err(|e| e.to_string());
        assert_eq!(window(json!(750)), Ok(NonZeroUsize::new(750)));
        assert_eq!(window(json!("750")), Ok(NonZeroUsize::new(750)));
        assert_eq!(window(json!([750])), Ok(NonZeroUsize::new(750)));
        assert_eq!(window(json!([null, null])), Ok(None));
        assert!(
            window(json!([750, null]))
                .unwrap_err()
                .contains("one window for every layer")
        );
        assert!(
            window(json!("many"))
                .unwrap_err()
                .contains("string of digits")
        );
        assert!(
            window(json!(0))
                .unwrap_err()
                .contains("is 0, expected a window")
        );
        assert!(window(json!(true)).is_err());
    }

    #[test]
    fn errors_name_file_and_path() {
        let value = json!({"a": {"b": "x", "n": null}});
        let a = Field::root("config.json", &value).need("a").unwrap();
        let error = a.need("b").unwrap().size().unwrap_err().to_string();
        assert_eq!(
            error,
            "field `a.b` of `config.json` is \"x\", expected a whole number above 0"
        );
        let error = a.need("n").err().unwrap().to_string();
        assert_eq!(error, "`config.json` lacks the field `a.n`");
    }
}
