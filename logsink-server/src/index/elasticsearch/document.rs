//! A document read back: as an event that expressions can be put to, and as a hit.

use std::borrow::Cow;

use logsink::{
    Severity,
    filter::{EventView, Value},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{number, time};
use crate::query::Hit;

/// What a search needs of a document's source.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Document {
    severity_number: u8,
    service: String,
    target: String,
    message: String,
    trace_id: String,
    span_id: String,
    attributes: Map<String, Json>,
    resource: Map<String, Json>,
    /// In place of `attributes`, which is empty then.
    attributes_kept: Map<String, Json>,
    /// In place of `resource`, which is empty then.
    resource_kept: Map<String, Json>,
    numbers: Map<String, Json>,
}

impl Document {
    /// The hit that stands at this place in the order of a search.
    pub(super) fn into_hit(self, time_ns: i64, tie: String) -> Hit {
        let severity = Severity(self.severity_number);
        Hit {
            id: tie,
            time_ns,
            time: time::text(time_ns),
            severity: severity.0,
            level: severity.name().into(),
            service: self.service,
            message: self.message,
            target: self.target,
            trace_id: self.trace_id,
            span_id: self.span_id,
            attributes: either(self.attributes, self.attributes_kept),
            resource: either(self.resource, self.resource_kept),
        }
    }

    /// A value as it was on the wire: JSON writes bytes and what is not finite as text.
    fn value<'a>(&self, path: &str, value: &'a Json) -> Option<Value<'a>> {
        Some(match value {
            Json::Null => return None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(int) => Value::Int(int),
                None => Value::Double(number.as_f64()?),
            },
            Json::String(text) => match self.numbers.get(path).and_then(Json::as_str).and_then(number::parse) {
                Some(number) if !number.is_finite() => Value::Double(number),
                _ => Value::Text(Cow::Borrowed(text)),
            },
            Json::Array(_) | Json::Object(_) => Value::Text(Cow::Owned(value.to_string())),
        })
    }
}

impl EventView for Document {
    fn severity(&self) -> Severity {
        Severity(self.severity_number)
    }

    fn service(&self) -> &str {
        &self.service
    }

    fn target(&self) -> &str {
        &self.target
    }

    fn message(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.message)
    }

    fn trace_id(&self) -> Option<[u8; 16]> {
        id(&self.trace_id)
    }

    fn span_id(&self) -> Option<[u8; 8]> {
        id(&self.span_id)
    }

    fn attribute(&self, key: &str) -> Option<Value<'_>> {
        let places = [&self.attributes, &self.attributes_kept, &self.resource, &self.resource_kept];
        let value = places.into_iter().find_map(|place| find(place, key))?;
        self.value(key, value)
    }
}

fn either(indexed: Map<String, Json>, kept: Map<String, Json>) -> Map<String, Json> {
    if kept.is_empty() { indexed } else { kept }
}

/// The value of the key that is the whole path, else the leaf of a nested object: what the wire view finds.
fn find<'a>(object: &'a Map<String, Json>, path: &str) -> Option<&'a Json> {
    object.get(path).or_else(|| {
        let mut nested = None;
        for (at, _) in path.match_indices('.') {
            if let Some(Json::Object(inner)) = object.get(&path[..at]) {
                nested = find(inner, &path[at + 1..]).or(nested);
            }
        }
        nested
    })
}

/// An id's bytes; none when there is none.
fn id<const N: usize>(hex: &str) -> Option<[u8; N]> {
    if hex.len() != 2 * N || !hex.is_ascii() {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(bytes)
}
