//! What a form asks for, field by field. A field that is not known, or asks for what cannot be done,
//! is refused by its name.

use std::fs::File;
use std::str::FromStr;

use voxtral_pipeline::{ContextBias, Format, Language, SamplingOptions};

use crate::{ServerError, body::Form, error::Dialect};

/// A request for a transcript.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) dialect: Dialect,
    pub(super) model: Option<String>,
    pub(super) language: Option<Language>,
    pub(super) sampling: SamplingOptions,
    pub(super) max_new_tokens: Option<usize>,
    pub(super) stream: bool,
    pub(super) shape: Shape,
    /// Whether times of words have to be found out.
    pub(super) times: bool,
    pub(super) words: bool,
    pub(super) segments: bool,
    pub(super) logprobs: bool,
}

/// Where the sound is.
#[derive(Debug)]
pub(super) enum Source {
    Upload(File),
    Url(String),
    /// An id of `/v1/files`.
    Stored(String),
}

/// What the answer looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Json,
    Verbose,
    /// Text or subtitles.
    Plain(Format),
    Mistral,
}

/// Fields that only Mistral's API has.
const MISTRALS: [&str; 6] = [
    "diarize",
    "context_bias",
    "file_url",
    "file_id",
    "timestamp_granularities",
    "speaker_references",
];

/// Fields of others that are understood to mean nothing at this value.
const WITHOUT_EFFECT: [(&str, &[&str]); 9] = [
    ("diarize", &["false", "null"]),
    ("speaker_references", &["null", "{}"]),
    ("chunking_strategy", &["auto"]),
    ("prompt", &[]),
    ("n", &["1"]),
    ("use_beam_search", &["false"]),
    ("length_penalty", &["1", "1.0"]),
    ("stream_include_usage", &["true", "false"]),
    ("stream_continuous_usage_stats", &["false"]),
];

/// Whose fields a form has.
pub(super) fn dialect(form: &Form, by_headers: Dialect) -> Dialect {
    let mut names = form.values.iter().map(|(name, _)| &name[..]);
    match names.any(|name| MISTRALS.contains(&name)) {
        true => Dialect::Mistral,
        false => by_headers,
    }
}

/// The values of a form, taken out one by one.
struct Fields(Vec<(String, String)>);

impl Fields {
    /// All values of a field.
    fn all(&mut self, name: &str) -> Vec<String> {
        let (found, rest) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(field, _)| field == name);
        self.0 = rest;
        let found: Vec<(String, String)> = found;
        found.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a field, if it has one that says something.
    fn one(&mut self, name: &str) -> Result<Option<String>, ServerError> {
        let mut values = self.all(name).into_iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(ServerError::field(name, "given twice", "one value"));
        }
        Ok(value.filter(|value| !value.is_empty() && value != "null"))
    }

    fn parsed<T: FromStr>(
        &mut self,
        name: &str,
        expected: &'static str,
    ) -> Result<Option<T>, ServerError> {
        let value = self.one(name)?;
        let parse = |value: String| match value.parse() {
            Ok(parsed) => Ok(parsed),
            Err(_) => Err(ServerError::field(name, format!("`{value}`"), expected)),
        };
        value.map(parse).transpose()
    }

    /// Python and JavaScript do not spell truth alike.
    fn flag(&mut self, name: &str) -> Result<bool, ServerError> {
        match self.one(name)?.map(|value| value.to_ascii_lowercase()) {
            None => Ok(false),
            Some(value) if value == "true" || value == "1" => Ok(true),
            Some(value) if value == "false" || value == "0" => Ok(false),
            Some(value) => Err(ServerError::field(name, value, "`true` or `false`")),
        }
    }

    /// Refuses what is left.
    fn finish(self) -> Result<(), ServerError> {
        for (name, value) in self.0 {
            let known = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name);
            match known {
                Some((_, values)) if value.is_empty() || values.contains(&&value[..]) => {}
                Some(_) => {
                    let reason =
                        format!("`{value}` asks for what the model cannot do: leave it out");
                    return Err(ServerError::unable(name, reason));
                }
                None => return Err(ServerError::unable(name, "there is no such field")),
            }
        }
        Ok(())
    }
}

impl Asked {
    /// Reads a form, and where the sound is.
    pub(super) fn read(form: Form, dialect: Dialect) -> Result<(Self, Source), ServerError> {
        let mut fields = Fields(form.values);
        let stream = fields.flag("stream")?;
        let shape = shape(&mut fields, dialect, stream)?;
        let (words, segments) = granularities(&mut fields, shape)?;
        let logprobs = includes(&mut fields, shape)?;
        let asked = Self {
            dialect,
            model: fields.one("model")?,
            language: language(&mut fields)?,
            sampling: sampling(&mut fields)?,
            max_new_tokens: max_tokens(&mut fields)?,
            stream,
            shape,
            times: words
                || segments
                || matches!(shape, Shape::Plain(format) if format.needs_times()),
            words,
            segments,
            logprobs,
        };
        let source = source(&mut fields, form.file)?;
        fields.finish()?;
        Ok((asked, source))
    }
}

fn shape(fields: &mut Fields, dialect: Dialect, stream: bool) -> Result<Shape, ServerError> {
    let name = fields.one("response_format")?;
    let shape = match (name.as_deref(), dialect) {
        (None, Dialect::Mistral) => Shape::Mistral,
        (None | Some("json"), _) => Shape::Json,
        (Some("text"), _) => Shape::Plain(Format::Text),
        (Some("srt"), _) => Shape::Plain(Format::Srt),
        (Some("vtt"), _) => Shape::Plain(Format::Vtt),
        (Some("verbose_json"), _) => Shape::Verbose,
        (Some("diarized_json"), _) => {
            let reason = "the model does not tell speakers apart";
            return Err(ServerError::unable("response_format", reason));
        }
        (Some(other), _) => {
            let expected = "`json`, `text`, `srt`, `verbose_json` or `vtt`";
            return Err(ServerError::field(
                "response_format",
                format!("`{other}`"),
                expected,
            ));
        }
    };
    if stream && !matches!(shape, Shape::Json | Shape::Mistral) {
        let reason = "a stream has events of its own: ask for `json`, or not for a stream";
        return Err(ServerError::unable("response_format", reason));
    }
    let named = ["stream_include_usage", "stream_continuous_usage_stats"];
    let set = fields.0.iter().find(|(name, _)| named.contains(&&name[..]));
    if let Some((name, _)) = set.filter(|_| !stream) {
        return Err(ServerError::unable(
            name,
            "it belongs to `stream`, which is not asked for",
        ));
    }
    Ok(shape)
}

/// Whether words and segments are asked for.
fn granularities(fields: &mut Fields, shape: Shape) -> Result<(bool, bool), ServerError> {
    const NAME: &str = "timestamp_granularities";
    let mut values = fields.all("timestamp_granularities[]");
    values.extend(fields.all(NAME));
    let (mut words, mut segments) = (false, false);
    for value in &values {
        match &value[..] {
            "word" => words = true,
            "segment" => segments = true,
            "" | "null" => {}
            other => {
                let found = format!("`{other}`");
                return Err(ServerError::field(NAME, found, "`word` or `segment`"));
            }
        }
    }
    if (words || segments) && !matches!(shape, Shape::Verbose | Shape::Mistral) {
        let reason = "it needs the response format `verbose_json`";
        return Err(ServerError::unable(NAME, reason));
    }
    // As with OpenAI, segments are there unless words alone are asked for.
    Ok((words, segments || (shape == Shape::Verbose && !words)))
}

/// Whether log-probabilities are asked for.
fn includes(fields: &mut Fields, shape: Shape) -> Result<bool, ServerError> {
    let mut values = fields.all("include[]");
    values.extend(fields.all("include"));
    for value in &values {
        if value != "logprobs" {
            return Err(ServerError::field(
                "include",
                format!("`{value}`"),
                "`logprobs`",
            ));
        }
    }
    if !values.is_empty() && shape != Shape::Json {
        let reason = "log-probabilities need the response format `json`";
        return Err(ServerError::unable("include", reason));
    }
    Ok(!values.is_empty())
}

fn language(fields: &mut Fields) -> Result<Option<Language>, ServerError> {
    fields.parsed(
        "language",
        "the two-letter code of a language, such as `en`",
    )
}

fn max_tokens(fields: &mut Fields) -> Result<Option<usize>, ServerError> {
    let count: Option<u32> = fields.parsed("max_completion_tokens", "a whole number")?;
    Ok(count.map(|count| count as usize))
}

fn sampling(fields: &mut Fields) -> Result<SamplingOptions, ServerError> {
    let mut options = SamplingOptions::default();
    if let Some(value) = fields.parsed("temperature", "a number of at least 0")? {
        options.temperature = value;
    }
    options.top_p = fields.parsed("top_p", "a number above 0 and up to 1")?;
    options.top_k = fields.parsed("top_k", "a whole number of at least 1")?;
    options.min_p = fields.parsed("min_p", "a number from 0 to 1")?;
    if let Some(value) = fields.parsed("repetition_penalty", "a number above 0")? {
        options.repetition_penalty = value;
    }
    if let Some(value) = fields.parsed("presence_penalty", "a number from -2 to 2")? {
        options.presence_penalty = value;
    }
    if let Some(value) = fields.parsed("frequency_penalty", "a number from -2 to 2")? {
        options.frequency_penalty = value;
    }
    if let Some(value) = fields.parsed("seed", "a whole number of at least 0")? {
        options.seed = value;
    }
    options.context_bias = bias(fields)?;
    options.check()?;
    Ok(options)
}

/// Phrases, in fields of their own or joined by commas.
fn bias(fields: &mut Fields) -> Result<Option<ContextBias>, ServerError> {
    let mut given = fields.all("context_bias");
    given.extend(fields.all("context_bias[]"));
    given.retain(|phrase| !phrase.is_empty() && phrase != "null");
    if given.is_empty() {
        return Ok(None);
    }
    let phrases = given.iter().flat_map(|list| list.split(','));
    let bias = ContextBias::new(phrases, ContextBias::DEFAULT_STRENGTH);
    bias.map(Some)
        .map_err(|error| ServerError::unable("context_bias", error.to_string()))
}

/// The sound: of one source.
fn source(fields: &mut Fields, upload: Option<crate::body::Upload>) -> Result<Source, ServerError> {
    let (url, id) = (fields.one("file_url")?, fields.one("file_id")?);
    let expected = "one of `file`, `file_url` and `file_id`";
    match (upload, url, id) {
        (Some(upload), None, None) if upload.bytes == 0 => {
            Err(ServerError::field("file", "empty", "an audio file"))
        }
        (Some(upload), None, None) => Ok(Source::Upload(upload.file)),
        (None, Some(url), None) => Ok(Source::Url(url)),
        (None, None, Some(id)) => Ok(Source::Stored(id)),
        (None, None, None) => Err(ServerError::Missing {
            field: "file",
            expected: "an audio file as a part of a form, or `file_url`, or `file_id`",
        }),
        (_, None, _) => Err(ServerError::field("file_id", "beside `file`", expected)),
        _ => Err(ServerError::field("file_url", "beside another", expected)),
    }
}
