//! A document read back: as an event that expressions can be put to, and as a hit.

use std::borrow::Cow;

use logsink::{
    Severity,
    filter::{EventView, Value},
};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use super::{
    fields::{KNOWN, Owner},
    number, time,
};
use crate::query::Hit;

/// What a search needs of a document's source, under whichever names.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "Source")]
pub(super) struct Document {
    severity_number: u8,
    service: String,
    target: String,
    message: String,
    trace_id: String,
    span_id: String,
    attributes: Map<String, Json>,
    resource: Map<String, Json>,
    numbers: Map<String, Json>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source {
    severity_number: u8,
    #[serde(alias = "service.name")]
    service: String,
    #[serde(alias = "log.logger")]
    target: String,
    message: String,
    #[serde(alias = "trace.id")]
    trace_id: String,
    #[serde(alias = "span.id")]
    span_id: String,
    attributes: Map<String, Json>,
    resource: Map<String, Json>,
    /// In place of `attributes`, which is empty then.
    attributes_kept: Map<String, Json>,
    /// In place of `resource`, which is empty then.
    resource_kept: Map<String, Json>,
    numbers: Map<String, Json>,
    /// Among others, attributes that have fields of their own.
    #[serde(flatten)]
    rest: Map<String, Json>,
}

impl From<Source> for Document {
    fn from(mut source: Source) -> Self {
        let mut attributes = either(source.attributes, source.attributes_kept);
        let mut resource = either(source.resource, source.resource_kept);
        for known in KNOWN {
            if let Some(value) = source.rest.remove(known.name).or_else(|| source.rest.remove(known.ecs)) {
                match known.owner {
                    Owner::Record => attributes.insert(known.name.to_owned(), value),
                    Owner::Resource => resource.insert(known.name.to_owned(), value),
                };
            }
        }
        let Source { severity_number, service, target, message, trace_id, span_id, numbers, .. } = source;
        Self { severity_number, service, target, message, trace_id, span_id, attributes, resource, numbers }
    }
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
            attributes: self.attributes,
            resource: self.resource,
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
            Json::String(text) => match self.number(path) {
                Some(number) if !number.is_finite() => Value::Double(number),
                _ => Value::Text(Cow::Borrowed(text)),
            },
            Json::Array(_) | Json::Object(_) => Value::Text(Cow::Owned(value.to_string())),
        })
    }

    /// The number by this path; of several, the first.
    fn number(&self, path: &str) -> Option<f64> {
        let code = self.numbers.get(path)?;
        let code = code.as_array().and_then(|codes| codes.first()).unwrap_or(code);
        number::parse(code.as_str()?)
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
        let value = find(&self.attributes, key).or_else(|| find(&self.resource, key))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_of_every_naming_read_the_same() {
        let read = |text: &str| {
            let document: Document = serde_json::from_str(text).unwrap();
            serde_json::to_value(document.into_hit(1, "t".into())).unwrap()
        };
        let first = r#"{"service":"s","target":"t","trace_id":"ab","message":"m","level":"info","severity_number":9,
            "attributes":{"http.response.status_code":500,"x":1},"resource":{"host.name":"h"},"numbers":{"x":"c"}}"#;
        let otel = r#"{"service.name":"s","target":"t","trace_id":"ab","message":"m","level":"info","severity_number":9,
            "http.response.status_code":500,"host.name":"h","attributes":{"x":1},"resource":{},"numbers":{"x":"c"}}"#;
        let ecs = r#"{"service.name":"s","log.logger":"t","trace.id":"ab","message":"m","log.level":"info",
            "severity_number":9,"http.response.status_code":500,"host.name":"h","attributes":{"x":1},"resource":{}}"#;
        assert_eq!(read(first), read(otel));
        assert_eq!(read(first), read(ecs));
        let renamed = read(r#"{"error.type":"E","attributes_kept":{"long":"l"},"kubernetes.pod.name":"p"}"#);
        assert_eq!(renamed["attributes"], serde_json::json!({"exception.type": "E", "long": "l"}));
        assert_eq!(renamed["resource"], serde_json::json!({"k8s.pod.name": "p"}));
    }
}
