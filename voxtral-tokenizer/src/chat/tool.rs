//! Tools that a model may call, and its calls.
//!
//! Both are read and written (`serde`) in the shape of OpenAI's interface:
//!
//! ```text
//! {"type": "function", "function": {"name": …, "description": …, "parameters": {…}}}
//! {"id": …, "type": "function", "function": {"name": …, "arguments": "{…}"}}
//! ```

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{json, validate};
use crate::error::TokenizerError;

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// 1 to 64 letters, digits, `_` and `-`; no two tools share one.
    pub name: String,
    /// What it does and when to call it, for the model to read.
    pub description: String,
    /// JSON schema (draft 7) of the arguments.
    pub parameters: Map<String, Value>,
}

impl ToolDefinition {
    /// Reads a JSON list of tools in OpenAI's shape. Other keys, such as `strict`, are passed over.
    pub fn list_from_json(json: &str) -> Result<Vec<Self>, TokenizerError> {
        serde_json::from_str(json).map_err(|source| TokenizerError::ToolList { source })
    }

    /// Refuses tools that no prompt can be written with, whatever the model: a name that no function
    /// may have or that two share, parameters that are no JSON schema.
    pub fn check_list(tools: &[Self]) -> Result<(), TokenizerError> {
        validate::tools(tools)
    }

    /// The definition as the model reads it.
    pub(crate) fn to_value(&self) -> Value {
        json!({
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": self.parameters,
            },
        })
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// What its result refers to: 9 letters or digits; any but the empty one and `null` from v13 on.
    pub id: String,
    /// The tool's name.
    pub name: String,
    /// The arguments by name.
    pub arguments: Map<String, Value>,
}

/// Letters and digits that ids are made of.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Length of an id that every version takes.
pub(crate) const ID_LENGTH: usize = 9;

impl ToolCall {
    /// A call with arguments given as the text of a JSON object; empty text stands for none.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        arguments: &str,
    ) -> Result<Self, TokenizerError> {
        Self::from_value(id.into(), name.into(), Value::from(arguments))
    }

    /// An id that every version takes, out of random bits.
    pub fn id_from(mut bits: u64) -> String {
        let digit = |_| {
            let digit = ALPHABET[(bits % ALPHABET.len() as u64) as usize];
            bits /= ALPHABET.len() as u64;
            char::from(digit)
        };
        (0..ID_LENGTH).map(digit).collect()
    }

    /// A call with arguments as an object, as its text, or as null for none.
    pub(crate) fn from_value(
        id: String,
        name: String,
        arguments: Value,
    ) -> Result<Self, TokenizerError> {
        let value = match arguments {
            Value::Null => Value::from(Map::new()),
            Value::String(text) if text.is_empty() => Value::from(Map::new()),
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(value) => value,
                Err(source) => return Err(TokenizerError::ArgumentsNotJson { name, source }),
            },
            value => value,
        };
        match value {
            Value::Object(arguments) => Ok(Self {
                id,
                name,
                arguments,
            }),
            value => Err(TokenizerError::ArgumentsNotObject {
                name,
                found: json::kind(&value),
            }),
        }
    }
}

#[derive(Deserialize)]
struct Wire<F> {
    #[serde(default)]
    id: Option<String>,
    #[serde(rename = "type", default)]
    _kind: Kind,
    function: F,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Function,
}

#[derive(Deserialize)]
struct DefinitionWire {
    name: String,
    description: Option<String>,
    parameters: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct CallWire {
    name: String,
    #[serde(default)]
    arguments: Value,
}

impl<'de> Deserialize<'de> for ToolDefinition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let DefinitionWire {
            name,
            description,
            parameters,
        } = Wire::deserialize(deserializer)?.function;
        Ok(Self {
            name,
            description: description.unwrap_or_default(),
            parameters: parameters.unwrap_or_default(),
        })
    }
}

impl Serialize for ToolDefinition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ToolCall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire: Wire<CallWire> = Wire::deserialize(deserializer)?;
        let id = wire.id.ok_or_else(|| D::Error::missing_field("id"))?;
        Self::from_value(id, wire.function.name, wire.function.arguments).map_err(D::Error::custom)
    }
}

impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let arguments = json::dumps_object(&self.arguments);
        json!({
            "id": self.id,
            "type": "function",
            "function": { "name": self.name, "arguments": arguments },
        })
        .serialize(serializer)
    }
}
