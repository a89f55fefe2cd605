//! OTLP/JSON to protobuf.
//!
//! protobuf's JSON mapping with OTLP's own choices: lowerCamelCase names, ids in hexadecimal, 64-bit integers as text or
//! numbers, `"NaN"` and its kin, bytes in base64; unknown fields are passed over and null is a field's default. (The serde
//! support of the `opentelemetry-proto` crate refuses several of these.)

use std::{cell::Cell, fmt, marker::PhantomData, str::FromStr};

use opentelemetry_proto::tonic::{
    collector::logs::v1 as collector,
    common::v1::{self as common, any_value},
    logs::v1 as logs,
    resource::v1 as resource,
};
use prost::Message;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// What the elements of a body's lists may take of memory: so much for each byte of its text, which is more than any that says something
/// takes, and so much for many small records. `{},` is three bytes, and a record takes 250.
const ELEMENT_BYTES_PER_BYTE: usize = 4;
const ELEMENT_BYTES_FREE: usize = 32 << 20;

thread_local! {
    /// What is left of it for the body that this thread reads: serde hands nothing down to the types that it makes.
    static ELEMENT_BYTES: Cell<usize> = const { Cell::new(0) };
}

/// The same request in protobuf.
///
/// # Errors
/// What is wrong with the text, with line and column.
pub(crate) fn to_protobuf(text: &[u8]) -> Result<Vec<u8>, String> {
    // serde would take an array for an object's fields in order.
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err("the body is not a JSON object".into());
    }
    ELEMENT_BYTES.set(ELEMENT_BYTES_FREE.saturating_add(text.len().saturating_mul(ELEMENT_BYTES_PER_BYTE)));
    let Request { resource_logs } = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    Ok(collector::ExportLogsServiceRequest { resource_logs }.encode_to_vec())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    #[serde(default, deserialize_with = "list::<_, ResourceLogs, _>")]
    resource_logs: Vec<logs::ResourceLogs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs {
    resource: Option<Resource>,
    #[serde(default, deserialize_with = "list::<_, ScopeLogs, _>")]
    scope_logs: Vec<logs::ScopeLogs>,
    #[serde(default, deserialize_with = "null_is_default")]
    schema_url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    #[serde(default, deserialize_with = "list::<_, KeyValue, _>")]
    attributes: Vec<common::KeyValue>,
    #[serde(default, deserialize_with = "null_is_default")]
    dropped_attributes_count: Number<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs {
    scope: Option<Scope>,
    #[serde(default, deserialize_with = "list::<_, LogRecord, _>")]
    log_records: Vec<logs::LogRecord>,
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
    #[serde(default, deserialize_with = "list::<_, KeyValue, _>")]
    attributes: Vec<common::KeyValue>,
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
    #[serde(default, deserialize_with = "list::<_, KeyValue, _>")]
    attributes: Vec<common::KeyValue>,
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
    array_value: Option<ArrayValue>,
    kvlist_value: Option<KeyValueList>,
    bytes_value: Option<Base64>,
}

#[derive(Deserialize)]
struct ArrayValue {
    #[serde(default, deserialize_with = "list::<_, AnyValue, _>")]
    values: Vec<common::AnyValue>,
}

#[derive(Deserialize)]
struct KeyValueList {
    #[serde(default, deserialize_with = "list::<_, KeyValue, _>")]
    values: Vec<common::KeyValue>,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A list, each element at once as what it is encoded from.
fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>, P: From<T>>(from: D) -> Result<Vec<P>, D::Error> {
    struct Elements<T, P>(PhantomData<(T, P)>);
    impl<'de, T: Deserialize<'de>, P: From<T>> Visitor<'de> for Elements<T, P> {
        type Value = Vec<P>;

        fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
            to.write_str("a list")
        }

        fn visit_unit<E: Error>(self) -> Result<Vec<P>, E> {
            Ok(Vec::new())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<P>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element::<T>()? {
                let left = ELEMENT_BYTES.get().checked_sub(size_of::<P>());
                ELEMENT_BYTES.set(left.ok_or_else(|| A::Error::custom("too many elements that say nothing"))?);
                list.push(element.into());
            }
            Ok(list)
        }
    }
    from.deserialize_any(Elements(PhantomData))
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
                attributes: resource.attributes,
                dropped_attributes_count: resource.dropped_attributes_count.0,
                ..resource::Resource::default()
            }),
            scope_logs: from.scope_logs,
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
                attributes: scope.attributes,
                dropped_attributes_count: scope.dropped_attributes_count.0,
            }),
            log_records: from.log_records,
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
            attributes: from.attributes,
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
        let value = None
            .or(from.string_value.map(Value::StringValue))
            .or(from.bool_value.map(Value::BoolValue))
            .or(from.int_value.map(|value| Value::IntValue(value.0)))
            .or(from.double_value.map(|value| Value::DoubleValue(value.0)))
            .or(from.array_value.map(|ArrayValue { values }| Value::ArrayValue(common::ArrayValue { values })))
            .or(from.kvlist_value.map(|KeyValueList { values }| Value::KvlistValue(common::KeyValueList { values })))
            .or(from.bytes_value.map(|value| Value::BytesValue(value.0)));
        Self { value }
    }
}

impl From<KeyValue> for common::KeyValue {
    fn from(KeyValue { key, value }: KeyValue) -> Self {
        Self { key, value: value.map(Into::into), ..Self::default() }
    }
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
        assert!(to_protobuf(br#"{"resourceLogs":null}"#).unwrap().is_empty());
        let error = to_protobuf(br#"{"resourceLogs":{}}"#).unwrap_err();
        assert!(error.contains("expected a list"), "{error}");
    }

    #[test]
    fn elements_take_no_more_memory_than_what_they_say() {
        let body = |before: &str, element: &str, count: usize, after: &str| {
            format!("{before}{}{element}{after}", format!("{element},").repeat(count - 1))
        };
        let records =
            |element: &str, count| body(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":["#, element, count, "]}]}]}");
        let attributes = |element: &str, count| records(&body(r#"{"attributes":["#, element, count, "]}"), 1);
        let values =
            |element: &str, count| records(&body(r#"{"body":{"arrayValue":{"values":["#, element, count, "]}}}"), 1);
        for text in [records("{}", 1_000_000), attributes("{}", 1_000_000), values("{}", 2_000_000)] {
            let error = to_protobuf(text.as_bytes()).unwrap_err();
            assert!(error.contains("too many elements"), "{error}");
        }
        // What small ones there may be are taken: as many records as one request may have, and lists of numbers.
        for text in [
            records(r#"{"timeUnixNano":"1"}"#, 100_000),
            attributes(r#"{"key":"a","value":{"intValue":1}}"#, 400_000),
            values(r#"{"intValue":1}"#, 1_000_000),
        ] {
            assert!(to_protobuf(text.as_bytes()).is_ok());
        }
    }
}
