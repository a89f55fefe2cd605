//! OTLP/JSON to protobuf.
//!
//! protobuf's JSON mapping with OTLP's own choices: lowerCamelCase names, ids in hexadecimal, 64-bit integers as text or
//! numbers, `"NaN"` and its kin, bytes in base64; unknown fields are passed over and null is a field's default. (The serde
//! support of the `opentelemetry-proto` crate refuses several of these.)

use std::{fmt, marker::PhantomData, str::FromStr};

use opentelemetry_proto::tonic::{
    collector::logs::v1 as collector,
    common::v1::{self as common, any_value},
    logs::v1 as logs,
    resource::v1 as resource,
};
use prost::Message;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// The same request in protobuf.
///
/// # Errors
/// What is wrong with the text, with line and column.
pub(crate) fn to_protobuf(text: &[u8]) -> Result<Vec<u8>, String> {
    // serde would take an array for an object's fields in order.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("the body is not a JSON object".into());
    }
    let request: Request = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let resource_logs = request.resource_logs.into_iter().map(Into::into).collect();
    Ok(collector::ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default, deserialize_with = "null_is_default")]
    resource_logs: Vec<ResourceLogs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs {
    resource: Option<Resource>,
    #[serde(default, deserialize_with = "null_is_default")]
    scope_logs: Vec<ScopeLogs>,
    #[serde(default, deserialize_with = "null_is_default")]
    schema_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default, deserialize_with = "null_is_default")]
    attributes: Vec<KeyValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    dropped_attributes_count: Number<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs {
    scope: Option<Scope>,
    #[serde(default, deserialize_with = "null_is_default")]
    log_records: Vec<LogRecord>,
    #[serde(default, deserialize_with = "null_is_default")]
    schema_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Scope {
    #[serde(default, deserialize_with = "null_is_default")]
    name: String,
    #[serde(default, deserialize_with = "null_is_default")]
    version: String,
    #[serde(default, deserialize_with = "null_is_default")]
    attributes: Vec<KeyValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    dropped_attributes_count: Number<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogRecord {
    #[serde(default, deserialize_with = "null_is_default")]
    time_unix_nano: Number<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    observed_time_unix_nano: Number<u64>,
    #[serde(default, deserialize_with = "null_is_default")]
    severity_number: Number<i32>,
    #[serde(default, deserialize_with = "null_is_default")]
    severity_text: String,
    body: Option<AnyValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    attributes: Vec<KeyValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    dropped_attributes_count: Number<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    flags: Number<u32>,
    #[serde(default, deserialize_with = "null_is_default")]
    trace_id: Hex,
    #[serde(default, deserialize_with = "null_is_default")]
    span_id: Hex,
    #[serde(default, deserialize_with = "null_is_default")]
    event_name: String,
}

#[derive(Deserialize)]
struct KeyValue {
    #[serde(default, deserialize_with = "null_is_default")]
    key: String,
    value: Option<AnyValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Number<i64>>,
    double_value: Option<Number<f64>>,
    array_value: Option<List<AnyValue>>,
    kvlist_value: Option<List<KeyValue>>,
    bytes_value: Option<Base64>,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new", deserialize_with = "null_is_default", bound(deserialize = "T: Deserialize<'de>"))]
    values: Vec<T>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

// === Values that JSON writes in more than one way ===

/// A number, or text that holds one.
#[derive(Default)]
struct Number<T>(T);

impl<'de, T: FromStr> Deserialize<'de> for Number<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text<T>(PhantomData<T>);
        impl<T: FromStr> Visitor<'_> for Text<T> {
            type Value = Number<T>;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("a number in range, or text that holds one")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number<T>, E> {
                text.parse().map(Number).map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number<T>, E> {
                self.visit_str(itoa::Buffer::new().format(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Number<T>, E> {
                self.visit_str(itoa::Buffer::new().format(value))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Number<T>, E> {
                // `Display` writes 1e3 and 1000.0 as `1000`: an integer in another form. It is exact for doubles, too.
                self.visit_str(&value.to_string())
            }
        }
        from.deserialize_any(Text(PhantomData))
    }
}

/// Bytes in hexadecimal.
#[derive(Default)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |at: usize| char::from(text.as_bytes()[at]).to_digit(16).map(|digit| digit as u8);
        let byte = |index: usize| Some(digit(2 * index)? << 4 | digit(2 * index + 1)?);
        let bytes = if text.len() % 2 == 0 { (0..text.len() / 2).map(byte).collect() } else { None };
        bytes.map(Hex).ok_or_else(|| D::Error::custom("an id is written in hexadecimal digits, two a byte"))
    }
}

struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        base64(&text).map(Base64).ok_or_else(|| D::Error::custom("bytes are written in base64"))
    }
}

/// Decodes base64 in either alphabet, padded or not, as protobuf's JSON mapping asks of a reader.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut group = 0u32;
        for &symbol in chunk {
            let value = match symbol {
                b'A'..=b'Z' => symbol - b'A',
                b'a'..=b'z' => symbol - b'a' + 26,
                b'0'..=b'9' => symbol - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            };
            group = group << 6 | u32::from(value);
        }
        let missing = 4 - chunk.len();
        group <<= 6 * missing;
        match missing {
            0..=2 => bytes.extend_from_slice(&group.to_be_bytes()[1..4 - missing]),
            _ => return None,
        }
    }
    Some(bytes)
}

// === To prost's types ===

impl From<ResourceLogs> for logs::ResourceLogs {
    fn from(from: ResourceLogs) -> Self {
        Self {
            resource: from.resource.map(|resource| resource::Resource {
                attributes: key_values(resource.attributes),
                dropped_attributes_count: resource.dropped_attributes_count.0,
                ..resource::Resource::default()
            }),
            scope_logs: from.scope_logs.into_iter().map(Into::into).collect(),
            schema_url: from.schema_url,
        }
    }
}

impl From<ScopeLogs> for logs::ScopeLogs {
    fn from(from: ScopeLogs) -> Self {
        Self {
            scope: from.scope.map(|scope| common::InstrumentationScope {
                name: scope.name,
                version: scope.version,
                attributes: key_values(scope.attributes),
                dropped_attributes_count: scope.dropped_attributes_count.0,
            }),
            log_records: from.log_records.into_iter().map(Into::into).collect(),
            schema_url: from.schema_url,
        }
    }
}

impl From<LogRecord> for logs::LogRecord {
    fn from(from: LogRecord) -> Self {
        Self {
            time_unix_nano: from.time_unix_nano.0,
            observed_time_unix_nano: from.observed_time_unix_nano.0,
            severity_number: from.severity_number.0,
            severity_text: from.severity_text,
            body: from.body.map(Into::into),
            attributes: key_values(from.attributes),
            dropped_attributes_count: from.dropped_attributes_count.0,
            flags: from.flags.0,
            trace_id: from.trace_id.0,
            span_id: from.span_id.0,
            event_name: from.event_name,
        }
    }
}

impl From<AnyValue> for common::AnyValue {
    fn from(from: AnyValue) -> Self {
        use any_value::Value;
        let list =
            |list: List<AnyValue>| common::ArrayValue { values: list.values.into_iter().map(Into::into).collect() };
        let pairs = |list: List<KeyValue>| common::KeyValueList { values: key_values(list.values) };
        let value = None
            .or(from.string_value.map(Value::StringValue))
            .or(from.bool_value.map(Value::BoolValue))
            .or(from.int_value.map(|value| Value::IntValue(value.0)))
            .or(from.double_value.map(|value| Value::DoubleValue(value.0)))
            .or(from.array_value.map(|value| Value::ArrayValue(list(value))))
            .or(from.kvlist_value.map(|value| Value::KvlistValue(pairs(value))))
            .or(from.bytes_value.map(|value| Value::BytesValue(value.0)));
        Self { value }
    }
}

fn key_values(pairs: Vec<KeyValue>) -> Vec<common::KeyValue> {
    let pairs = pairs.into_iter();
    pairs
        .map(|KeyValue { key, value }| common::KeyValue { key, value: value.map(Into::into), ..Default::default() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::{AnyView, for_each_record};

    #[test]
    fn every_form_of_the_specification_is_read() {
        let text = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],
            "droppedAttributesCount":1,"unknown":{"a":[1]}},"scopeLogs":[{"scope":{"name":"lib"},"logRecords":[{
            "timeUnixNano":"1544712660300000000","observedTimeUnixNano":1544712660300000001,"severityNumber":10,
            "severityText":"Information","traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
            "body":{"stringValue":"Example log record"},"flags":1,"eventName":null,"attributes":[
            {"key":"i","value":{"intValue":"-10"}},{"key":"j","value":{"intValue":637}},
            {"key":"d","value":{"doubleValue":637.704}},{"key":"n","value":{"doubleValue":"NaN"}},
            {"key":"e","value":{"doubleValue":1}},{"key":"b","value":{"boolValue":true}},
            {"key":"a","value":{"arrayValue":{"values":[{"stringValue":"many"},{"stringValue":"values"}]}}},
            {"key":"x","value":{"arrayValue":{}}},{"key":"none","value":{}},{"key":"null","value":null},
            {"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{"bytesValue":"AP8="}}]},"new":1}}
            ]}]}]}]}"#;
        let payload = to_protobuf(text.as_bytes()).unwrap();
        let records = for_each_record(&payload, &mut |record| {
            assert_eq!((record.resource.service, record.scope_name()), ("shop", "lib"));
            assert_eq!((record.time_unix_nano, record.severity.0), (1_544_712_660_300_000_000, 10));
            assert_eq!(record.observed_time_unix_nano % 10, 1);
            assert_eq!(record.trace_id().unwrap()[..2], [0x5b, 0x8e]);
            assert_eq!(record.span_id().unwrap()[7], 0x74);
            let json = serde_json::Value::Object(record.attributes().to_json()).to_string();
            assert_eq!(
                json,
                r#"{"a":["many","values"],"b":true,"d":637.704,"e":1.0,"i":-10,"j":637,"m":{"k":"AP8="},"n":"NaN","none":null,"null":null,"x":[]}"#
            );
            assert!(matches!(record.attributes().get("e"), Some(AnyView::Double(1.0))));
        });
        assert_eq!(records, Ok(1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let record = |record: &str| format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{record}]}}]}}]}}"#);
        for (text, said) in [
            ("{".to_owned(), "EOF"),
            ("[]".into(), "not a JSON object"),
            (record(r#"{"timeUnixNano":"-1"}"#), "a number in range"),
            (record(r#"{"severityNumber":1.5}"#), "a number in range"),
            (record(r#"{"traceId":"xyz1"}"#), "hexadecimal"),
            (record(r#"{"spanId":"é1"}"#), "hexadecimal"),
            (record(r#"{"body":{"bytesValue":"*"}}"#), "base64"),
            (record(&format!("{{\"body\":{}", r#"{"arrayValue":{"values":["#.repeat(200))), "recursion limit"),
        ] {
            let error = to_protobuf(text.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(to_protobuf(b"{}").unwrap().is_empty());
    }
}
