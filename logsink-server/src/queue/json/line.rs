//! One JSON log line → the bytes of a request with one record. Pure.
//!
//! Fields that are known by name go where OTLP has a place for them; all others become attributes under their own names,
//! objects flattened with dots. What a name takes and cannot be read (a time in words, an id of another length) is an
//! attribute too: nothing of a line is lost.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;

use super::{
    level, time,
    tree::{Json, take},
};
use crate::{config::JsonFields, queue::HEADER_PREFIX};

/// Objects become dotted keys as long as the keys' parts that are repeated by that stay within this many times the line's
/// bytes; the rest stays nested. A hostile line of a long key over many short ones would grow without bound.
const GROWTH_MAX: usize = 4;
/// And within this in any case: short lines may have long paths.
const GROWTH_FREE: usize = 16 << 10;

/// Values nest less deeply than a request may have them: readers with prost stop at 100 messages within one another, and an
/// object's member takes three. What is deeper stands as its text.
const DEPTH_MAX: u32 = 24;

/// W3C's trace context among the headers.
const TRACEPARENT: &str = "traceparent";

/// The request. `headers` are the message's own.
///
/// # Errors
/// Why this is no line.
pub(super) fn to_otlp(line: &[u8], fields: &JsonFields, headers: &[(String, Bytes)]) -> Result<Vec<u8>, String> {
    let text = line.trim_ascii();
    if text.is_empty() {
        return Err("the message is empty".into());
    }
    let Json::Object(mut members) = serde_json::from_slice(text).map_err(|error| error.to_string())? else {
        return Err("the message is JSON and not an object".into());
    };
    let mut find = Find { members: &mut members };
    let time_unix_nano = find.one(&fields.time, |_, value| time::nanoseconds(value)).unwrap_or(0);
    let (severity_number, severity_text) = find.one(&fields.level, level::severity).unwrap_or_default();
    let body = find.one(&fields.message, |_, value| scalar(value));
    let service = find.one(&fields.service, |_, value| text_of(value));
    let host = find.one(&fields.host, |_, value| text_of(value));
    let mut trace_id = find.one(&fields.trace_id, |_, value| id::<16>(text_of(value)?.as_str()));
    let mut span_id = find.one(&fields.span_id, |_, value| id::<8>(text_of(value)?.as_str()));
    if trace_id.is_none() {
        // The line's own before the message's header.
        let own = find.one(&fields.traceparent, |_, value| context(&text_of(value)?));
        let header =
            || headers.iter().find(|(key, _)| key == TRACEPARENT).and_then(|(_, value)| context(readable(value)?));
        if let Some((trace, span)) = own.or_else(header) {
            (trace_id, span_id) = (Some(trace), span_id.or(Some(span)));
        }
    }

    let mut flatten = Flatten { budget: GROWTH_FREE + GROWTH_MAX * text.len(), attributes: Vec::new() };
    flatten.members(members, "");
    let header = |(key, value): &(String, Bytes)| {
        let value =
            readable(value).map_or_else(|| Value::BytesValue(value.to_vec()), |text| Value::StringValue(text.into()));
        pair(format!("{HEADER_PREFIX}{key}"), value)
    };
    flatten.attributes.extend(headers.iter().map(header));
    let resource = [("service.name", service), ("host.name", host)]
        .into_iter()
        .filter_map(|(key, value)| Some(pair(key.to_owned(), Value::StringValue(value?))))
        .collect();
    let record = LogRecord {
        time_unix_nano,
        severity_number,
        severity_text,
        body: body.map(|value| AnyValue { value: Some(value) }),
        attributes: flatten.attributes,
        trace_id: trace_id.unwrap_or_default(),
        span_id: span_id.unwrap_or_default(),
        ..LogRecord::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes: resource, ..Resource::default() }),
            scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    };
    Ok(request.encode_to_vec())
}

/// Takes fields out of a line.
struct Find<'m> {
    members: &'m mut Vec<(String, Json)>,
}

impl Find<'_> {
    /// The value of the first of these names that `read` can use.
    fn one<T>(&mut self, names: &[String], read: impl Fn(&str, &Json) -> Option<T>) -> Option<T> {
        names.iter().find_map(|name| take(self.members, name, &mut |value| read(name, value)))
    }
}

/// A text, number or truth as it is; none of an object, an array or null.
fn scalar(value: &Json) -> Option<Value> {
    match value {
        Json::Text(text) => Some(Value::StringValue(text.clone())),
        Json::Bool(flag) => Some(Value::BoolValue(*flag)),
        Json::Int(number) => Some(Value::IntValue(*number)),
        // OTLP's integers do not hold it, and as a double it would be another number.
        Json::Large(number) => Some(Value::StringValue(number.to_string())),
        Json::Double(number) => Some(Value::DoubleValue(*number)),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn text_of(value: &Json) -> Option<String> {
    match value {
        Json::Text(text) if !text.is_empty() => Some(text.clone()),
        Json::Int(number) => Some(number.to_string()),
        Json::Large(number) => Some(number.to_string()),
        _ => None,
    }
}

fn readable(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().map(str::trim)
}

/// An id of so many bytes in hexadecimal; none when it is all zeros, which means none.
fn id<const BYTES: usize>(text: &str) -> Option<Vec<u8>> {
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let bytes: Option<Vec<u8>> =
        (0..BYTES).map(|index| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()).collect();
    bytes.filter(|bytes| bytes.iter().any(|&byte| byte != 0))
}

/// `00-<trace>-<span>-<flags>`
fn context(text: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut parts = text.split('-');
    let (_version, trace, span, _flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some((id::<16>(trace)?, id::<8>(span)?))
}

/// Makes attributes of what is left of a line.
struct Flatten {
    /// Bytes of key parts that may still be repeated.
    budget: usize,
    attributes: Vec<KeyValue>,
}

impl Flatten {
    fn members(&mut self, members: Vec<(String, Json)>, prefix: &str) {
        for (key, value) in members {
            let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
            match value {
                Json::Object(below) if !below.is_empty() && self.afford(key.len() * below.len()) => {
                    self.members(below, &key);
                }
                value => self.attributes.push(pair_of(key, value, 0)),
            }
        }
    }

    fn afford(&mut self, bytes: usize) -> bool {
        let left = self.budget.checked_sub(bytes);
        self.budget = left.unwrap_or(self.budget);
        left.is_some()
    }
}

fn pair(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn pair_of(key: String, value: Json, depth: u32) -> KeyValue {
    KeyValue { key, value: Some(any(value, depth)), ..KeyValue::default() }
}

fn any(value: Json, depth: u32) -> AnyValue {
    if let Some(value) = scalar(&value) {
        return AnyValue { value: Some(value) };
    }
    if depth >= DEPTH_MAX {
        return AnyValue { value: Some(Value::StringValue(written(&value))) };
    }
    let value = match value {
        Json::Array(values) => Some(Value::ArrayValue(ArrayValue {
            values: values.into_iter().map(|value| any(value, depth + 1)).collect(),
        })),
        Json::Object(members) => Some(Value::KvlistValue(KeyValueList {
            values: members.into_iter().map(|(key, value)| pair_of(key, value, depth + 1)).collect(),
        })),
        _ => None,
    };
    AnyValue { value }
}

/// As JSON again.
fn written(value: &Json) -> String {
    match value {
        Json::Null => "null".into(),
        Json::Bool(flag) => flag.to_string(),
        Json::Int(number) => number.to_string(),
        Json::Large(number) => number.to_string(),
        Json::Double(number) => number.to_string(),
        Json::Text(text) => serde_json::Value::from(text.as_str()).to_string(),
        Json::Array(values) => format!("[{}]", values.iter().map(written).collect::<Vec<_>>().join(",")),
        Json::Object(members) => {
            let member =
                |(key, value): &(String, Json)| format!("{}:{}", serde_json::Value::from(key.as_str()), written(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
        }
    }
}
