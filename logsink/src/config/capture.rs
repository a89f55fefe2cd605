//! What is sent beside an event's own fields, as settings.

use serde::Deserialize;

use super::{Config, refuse};
use crate::{
    ConfigError, layer,
    layer::{FieldNames, SpanFields},
};

/// What is sent beside an event's own fields, level, message and target. [`layer::Capture`] says what each means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Capture {
    /// Where in the code the event is. Default: true.
    pub location: bool,
    /// The thread's name and number. Default: true.
    pub thread: bool,
    /// The spans around the event, and their fields. Default: true.
    pub spans: bool,
    /// Which fields of the spans: `"all"`, `"none"`, or a list of names, such as `["user", "http.*"]`, each with all below it.
    /// Default: `"all"`.
    pub span_fields: SpanFieldsFrom,
}

/// Which fields of spans, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected \"all\", \"none\" or a list of names such as [\"user\", \"http.*\"]")]
pub enum SpanFieldsFrom {
    /// `all` or `none`.
    Text(String),
    /// The names.
    Names(Vec<String>),
}

impl Default for Capture {
    fn default() -> Self {
        Self { location: true, thread: true, spans: true, span_fields: SpanFieldsFrom::Text("all".to_owned()) }
    }
}

impl SpanFieldsFrom {
    /// As a variable holds it: `all`, `none`, or names between commas.
    pub(super) fn from_list(text: &str) -> Self {
        if matches!(text, "all" | "none") { Self::Text(text.to_owned()) } else { Self::Names(names(text)) }
    }
}

/// Names between commas.
pub(super) fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Config {
    /// What to capture: these settings, or what the program has chosen in their stead. What is to be redacted by either is.
    pub(crate) fn capture(&self, chosen: Option<layer::Capture>) -> Result<layer::Capture, ConfigError> {
        let Capture { location, thread, spans, ref span_fields } = self.capture;
        let span_fields = match span_fields {
            SpanFieldsFrom::Text(text) if text == "all" => SpanFields::All,
            SpanFieldsFrom::Text(text) if text == "none" => SpanFields::None,
            SpanFieldsFrom::Text(text) => {
                let forms = "write \"all\", \"none\" or a list of names";
                return refuse("capture.span_fields", &format!("`{text}` is none of the choices: {forms}"));
            }
            SpanFieldsFrom::Names(names) => match FieldNames::new(names) {
                Ok(names) => SpanFields::Only(names),
                Err(message) => return refuse("capture.span_fields", &message),
            },
        };
        let redact = FieldNames::NONE;
        let capture = chosen.unwrap_or(layer::Capture { location, thread, spans, span_fields, redact });
        let redact = capture.redact.iter().chain(self.redact.iter().map(String::as_str));
        match FieldNames::new(redact) {
            Ok(redact) => Ok(layer::Capture { redact, ..capture }),
            Err(message) => refuse("redact", &message),
        }
    }
}
