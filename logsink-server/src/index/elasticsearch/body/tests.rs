//! The documents beside what serde_json makes of the same records decoded by prost.

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource as OtlpResource,
};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Map, Value as Json, json};

use super::{
    super::{
        document::Document,
        fields::{EXACT_MAX, KNOWN, Kind, Owner},
        number,
        server::Flavor,
        time,
    },
    *,
};
use crate::queue::{Headers, Position};

mod bounds;
mod known;

fn wire(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    wire(Any::StringValue(text.into()))
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..KeyValue::default() }
}

fn map(pairs: Vec<KeyValue>) -> AnyValue {
    wire(Any::KvlistValue(KeyValueList { values: pairs }))
}

fn list(values: Vec<AnyValue>) -> AnyValue {
    wire(Any::ArrayValue(ArrayValue { values }))
}

fn request(resource: Vec<KeyValue>, records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope = InstrumentationScope { name: "lib".into(), version: "1.2".into(), ..InstrumentationScope::default() };
    let scope_logs = ScopeLogs { scope: Some(scope), log_records: records, ..ScopeLogs::default() };
    let resource = OtlpResource { attributes: resource, ..OtlpResource::default() };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

fn message(request: &ExportLogsServiceRequest) -> Message {
    Message {
        position: Position { partition: 3, offset: 255 },
        epoch: 1,
        payload: request.encode_to_vec().into(),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

/// The document lines of a body, each preceded by its id.
fn documents(body: &Body<'_>) -> Vec<(String, Json)> {
    let lines: Vec<&[u8]> = body.bytes.split_inclusive(|&byte| byte == b'\n').collect();
    assert!(lines.iter().all(|line| line.ends_with(b"\n")) && lines.len() == 2 * body.items.len());
    lines
        .chunks(2)
        .map(|lines| {
            let action: Json = serde_json::from_slice(lines[0]).unwrap();
            let document: Json = serde_json::from_slice(lines[1]).unwrap();
            let id = action["create"]["_id"].as_str().unwrap().to_owned();
            assert_eq!(document["tie"], json!(id));
            (id, document)
        })
        .collect()
}

fn one(record: LogRecord) -> Json {
    let message = message(&request(vec![], vec![record]));
    let messages = [message];
    let body = Body::write(&messages, 0, Flavor::Elasticsearch);
    documents(&body).remove(0).1
}

fn with(attributes: Vec<KeyValue>) -> Json {
    one(LogRecord { attributes, ..LogRecord::default() })
}

/// What the values of an attribute list are in JSON, by way of prost's types.
fn oracle(pairs: &[KeyValue]) -> Json {
    // Collecting into a map keeps the last of two.
    let members = pairs.iter().map(|pair| (pair.key.replace('\0', "\u{fffd}"), oracle_value(pair.value.as_ref())));
    Json::Object(members.collect::<Map<_, _>>())
}

fn last<'a>(pairs: &'a [KeyValue], key: &str) -> Option<&'a Any> {
    pairs.iter().rfind(|pair| pair.key == key)?.value.as_ref()?.value.as_ref()
}

fn oracle_value(value: Option<&AnyValue>) -> Json {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => json!(text),
        Some(Any::BoolValue(value)) => json!(value),
        Some(Any::IntValue(value)) => json!(value),
        Some(Any::DoubleValue(value)) if value.is_nan() => json!("NaN"),
        Some(Any::DoubleValue(value)) if value.is_infinite() => {
            json!(if *value > 0.0 { "Infinity" } else { "-Infinity" })
        }
        Some(Any::DoubleValue(value)) => json!(value),
        Some(Any::ArrayValue(list)) => list.values.iter().map(|value| oracle_value(Some(value))).collect(),
        Some(Any::KvlistValue(map)) => oracle(&map.values),
        // Bytes have their own test below.
        Some(Any::BytesValue(_)) | Some(Any::StringValueStrindex(_)) | None => Json::Null,
    }
}

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        any_text().prop_map(|text| wire(Any::StringValue(text))),
        any::<bool>().prop_map(|value| wire(Any::BoolValue(value))),
        any::<i64>().prop_map(|value| wire(Any::IntValue(value))),
        any::<f64>().prop_map(|value| wire(Any::DoubleValue(value))),
        Just(AnyValue { value: None }),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(list),
            prop::collection::vec((key_text(), inner), 0..4)
                .prop_map(|pairs| map(pairs.into_iter().map(|(key, value)| pair(&key, value)).collect())),
        ]
    })
}

fn any_text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

/// Few different keys, so that some stand twice, and odd ones.
fn key_text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["a", "b", "c", "a.b", "b.a", "target", "x\0y"]).prop_map(str::to_owned),
        (0..KNOWN.len()).prop_map(|index| KNOWN[index].name.to_owned()),
        any_text()
    ]
}

proptest! {
    #[test]
    fn documents_are_what_prost_and_serde_make(
        attributes in prop::collection::vec((key_text(), any_value()), 0..40),
        resource in prop::collection::vec((key_text(), any_value()), 0..4),
        body in any_text(),
        time in any::<u64>(),
        names in prop::sample::select(vec![FieldNames::Otel, FieldNames::Ecs]),
    ) {
        let pairs = |pairs: Vec<(String, AnyValue)>| -> Vec<KeyValue> {
            pairs.into_iter().map(|(key, value)| pair(&key, value)).collect()
        };
        let (attributes, resource) = (pairs(attributes), pairs(resource));
        let record = LogRecord {
            attributes: attributes.clone(),
            body: Some(text(&body)),
            time_unix_nano: time,
            ..LogRecord::default()
        };
        // All three alike, though the keys of the first are new, and an odd one with all of them comes in between.
        let mut odd = record.clone();
        odd.attributes.rotate_left(attributes.len() / 2);
        odd.attributes.extend([pair("n", text("1")), pair("n", text("2"))]);
        let messages = [message(&request(resource.clone(), vec![record.clone(), record.clone(), odd, record]))];
        let written = Body::write(&messages, 0, Shape::new(Flavor::Elasticsearch, names));
        let mut all = documents(&written);
        all.iter_mut().for_each(|(_, document)| document["tie"] = Json::Null);
        prop_assert_eq!(&all[0].1, &all[1].1);
        prop_assert_eq!(&all[0].1, &all[3].1);
        let (_, document) = all.remove(0);
        let read: Document = serde_json::from_value(document.clone()).unwrap();
        let read = read.into_hit(0, String::new());
        let mut expected = oracle(&attributes);
        if expected["target"].is_string() && !matches!(last(&attributes, "target"), Some(Any::DoubleValue(_))) {
            expected.as_object_mut().unwrap().remove("target");
        }
        prop_assert_eq!(Json::Object(read.attributes), expected);
        prop_assert_eq!(Json::Object(read.resource), oracle(&resource));
        prop_assert_eq!(&document["message"], &json!(body));
        prop_assert_eq!(document["@timestamp"].as_str(), Some(&*time::text(time::clamp(time))));
    }
}

#[test]
fn a_record_without_a_time_has_that_of_the_queue() {
    let mut message = message(&request(vec![], vec![LogRecord::default()]));
    message.headers.appended_ms = Some(1_767_225_600_001);
    let body = Body::write(std::slice::from_ref(&message), 0, Flavor::Elasticsearch);
    assert_eq!(documents(&body).remove(0).1["@timestamp"], json!("2026-01-01T00:00:00.001000000Z"));
}

#[test]
fn a_record_becomes_a_document() {
    let record = LogRecord {
        time_unix_nano: 1_767_225_600_000_000_001,
        observed_time_unix_nano: 1_767_225_600_000_000_002,
        severity_number: 14,
        severity_text: "WARN2".into(),
        body: Some(text("line\none \"quoted\" \\ \u{1}\u{7f} é 🦀")),
        attributes: vec![
            pair("target", text("shop::pay")),
            pair("url.path", text("/x")),
            pair("latency_ms", wire(Any::IntValue(250))),
            pair("code.line.number", wire(Any::IntValue(12))),
            pair("http", map(vec![pair("status", wire(Any::IntValue(503))), pair("path", text("/api"))])),
            pair("raw", wire(Any::BytesValue(vec![0, 255]))),
            pair("tags", list(vec![text("a"), wire(Any::BoolValue(true))])),
            pair("ratio", wire(Any::DoubleValue(0.1 + 0.2))),
        ],
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        flags: 1,
        event_name: "paid".into(),
        ..LogRecord::default()
    };
    let resource = vec![pair("service.name", text("checkout")), pair("process.pid", wire(Any::IntValue(7)))];
    let messages = [message(&request(resource, vec![record]))];
    let body = Body::write(&messages, origin("otlp_logs"), Flavor::Elasticsearch);
    let (id, mut document) = documents(&body).remove(0);
    document.as_object_mut().unwrap().remove("tie");
    assert_eq!(
        document,
        json!({
            "@timestamp": "2026-01-01T00:00:00.000000001Z",
            "observed_timestamp": "2026-01-01T00:00:00.000000002Z",
            "severity_number": 14, "level": "warn", "severity_text": "WARN2",
            "service.name": "checkout", "target": "shop::pay", "event_name": "paid", "flags": 1,
            "message": "line\none \"quoted\" \\ \u{1}\u{7f} é 🦀",
            "trace_id": "01010101010101010101010101010101", "span_id": "0202020202020202",
            "attributes": {
                "latency_ms": 250, "http": {"status": 503, "path": "/api"}, "raw": "AP8=", "tags": ["a", true],
                "ratio": 0.30000000000000004,
            },
            "resource": {"service.name": "checkout"},
            "process.pid": 7, "code.line.number": 12, "url.path": "/x",
            "scope": {"name": "lib", "version": "1.2", "attributes": {}},
            "numbers": {
                "latency_ms": number::code(250.0), "http.status": number::code(503.0),
                "ratio": number::code(0.1 + 0.2),
            },
            "opaque": ["http", "tags"],
        })
    );
    assert_eq!(id.len(), 32);
}

#[test]
fn in_the_memory_of_another_body_it_is_the_same() {
    let record = |n: i64| LogRecord { attributes: vec![pair("n", wire(Any::IntValue(n)))], ..LogRecord::default() };
    let messages = ["a", "a", "b", ""].map(|service| {
        let resource = match service {
            "" => vec![],
            _ => vec![pair("service.name", text(service)), pair("n", wire(Any::IntValue(7)))],
        };
        message(&request(resource, vec![record(1), LogRecord::default()]))
    });
    let routes = Routes::fixed("logs");
    let shape = |names| Shape::new(Flavor::Elasticsearch, names);
    let mut buffers = Buffers::default();
    for (messages, names) in [
        (&messages[..1], FieldNames::Otel),
        (&messages[1..], FieldNames::Otel),
        (&messages[3..], FieldNames::Ecs),
        (&messages[..], FieldNames::Otel),
        (&messages[..0], FieldNames::Otel),
        (&messages[2..], FieldNames::Otel),
    ] {
        let body = Body::write_into(buffers, messages, 1, shape(names), &routes, Part::first(usize::MAX));
        let fresh = Body::write(messages, 1, shape(names));
        assert_eq!(body.bytes, fresh.bytes);
        assert_eq!(body.items.len(), messages.len() * 2);
        let held = (messages.len() == 4).then(|| body.bytes.clone());
        buffers = body.into_buffers();
        // Nothing is written over what somebody still holds.
        assert!(held.is_none_or(|held| held == fresh.bytes));
    }
}

#[test]
fn what_the_index_cannot_hold_is_noted() {
    let long = "x".repeat(TERM_CHARS_MAX + 1);
    let document = with(vec![
        pair("null", AnyValue { value: None }),
        pair("long", text(&long)),
        pair("fits", text(&long[1..])),
        pair("nan", wire(Any::DoubleValue(f64::NAN))),
        pair("yes", wire(Any::BoolValue(true))),
        pair("empty", list(vec![])),
    ]);
    assert_eq!(document["opaque"], json!(["null", "long", "nan", "empty"]));
    assert_eq!(document["attributes"]["nan"], "NaN");
    for (attributes, why) in [
        (vec![pair("a", map(vec![pair("b", text("1"))])), pair("a.b", text("2"))], "a dotted key reaches into a map"),
        (vec![pair("l", list(vec![map(vec![])]))], "a list holds a map"),
    ] {
        let opaque = with(attributes)["opaque"].clone();
        assert!(opaque.as_array().unwrap().contains(&json!(ANY)), "{why}: {opaque}");
    }
}

#[test]
fn opensearch_gets_long_text_where_it_indexes_nothing() {
    let long = text(&"x".repeat(TERM_CHARS_MAX + 1));
    for attributes in [
        vec![pair("long", long.clone()), pair("n", wire(Any::IntValue(1)))],
        vec![pair("list", list(vec![map(vec![pair("long", long.clone())])]))],
        vec![pair(&"k".repeat(TERM_CHARS_MAX + 1), text("x"))],
    ] {
        let record = LogRecord { attributes: attributes.clone(), ..LogRecord::default() };
        let messages = [message(&request(vec![pair("long", long.clone())], vec![record]))];
        let body = Body::write(&messages, 0, Flavor::OpenSearch);
        let document = documents(&body).remove(0).1;
        assert_eq!((&document["attributes"], &document["resource"]), (&Json::Null, &Json::Null));
        assert_eq!(document["attributes_kept"], oracle(&attributes));
        assert_eq!(document["resource_kept"], oracle(&[pair("long", long.clone())]));
        assert!(document["opaque"].as_array().unwrap().contains(&json!(ANY)));
    }
}

#[test]
fn a_key_that_stands_twice_is_written_once_and_the_last_counts() {
    for others in [0, 100] {
        let mut attributes: Vec<_> = (0..others).map(|n| pair(&format!("k{n}"), text("x"))).collect();
        attributes.insert(0, pair("n", wire(Any::IntValue(1))));
        attributes.push(pair("n", wire(Any::IntValue(2))));
        let messages = [message(&request(vec![], vec![LogRecord { attributes, ..LogRecord::default() }]))];
        let body = Body::write(&messages, 0, Flavor::Elasticsearch);
        let line = String::from_utf8(body.bytes.to_vec()).unwrap();
        // Once among the attributes, once among the numbers.
        assert_eq!(line.matches("\"n\":").count(), 2, "{line}");
        assert_eq!(documents(&body)[0].1["attributes"]["n"], 2);
    }
}

#[test]
fn ids_are_the_senders_when_it_numbers_its_batches() {
    let mut message = message(&request(vec![], vec![LogRecord::default(); 3]));
    message.headers = Headers { instance: Some("i\"1".into()), sequence: Some(10), ..Headers::default() };
    message.dropped = vec![1];
    let read_again = Message { position: Position { partition: 9, offset: 1 }, ..message.clone() };
    let messages = [message, read_again];
    let body = Body::write(&messages, 0, Flavor::Elasticsearch);
    let ids: Vec<String> = documents(&body).into_iter().map(|(id, _)| id).collect();
    // Ten and the index, six bits a sign, from `-` on.
    let expected = ["i\"1:----------c-----", "i\"1:----------c----1"];
    assert_eq!(ids, [expected, expected].concat(), "the place in the queue does not matter, nor what was dropped");
    assert_eq!((body.dropped, body.items[3].message, body.items[3].record), (2, 1, 2));
}

#[test]
fn a_message_that_is_not_otlp_writes_nothing() {
    let good = message(&request(vec![], vec![LogRecord::default()]));
    let mut torn = good.clone();
    torn.payload = Bytes::copy_from_slice(&good.payload[..good.payload.len() - 1]);
    let messages = [torn, good];
    let body = Body::write(&messages, 0, Flavor::Elasticsearch);
    assert_eq!((body.bad.len(), body.bad[0].0), (1, 0));
    assert_eq!((body.items.len(), body.items[0].message), (1, 1));
}

#[test]
fn what_stands_before_the_fault_of_a_bad_message_is_taken_back() {
    let good = message(&request(vec![], vec![LogRecord::default(); 3]));
    // The name of the event in the last of four records is not UTF-8.
    let named = LogRecord { event_name: "§".into(), ..LogRecord::default() };
    let mut bad = message(&request(vec![], [vec![LogRecord::default(); 3], vec![named]].concat()));
    let mut payload = bad.payload.to_vec();
    let at = payload.windows(2).position(|two| two == "§".as_bytes()).unwrap();
    payload[at + 1] = b'x';
    (bad.payload, bad.dropped) = (payload.into(), vec![0]);
    let messages = [good.clone(), bad, good.clone()];
    let body = Body::write(&messages, 0, Flavor::Elasticsearch);
    assert_eq!((body.bad.len(), body.bad[0].0, body.dropped), (1, 1, 0));
    assert_eq!(body.bytes, Body::write(&[good.clone(), good], 0, Flavor::Elasticsearch).bytes);
    assert_eq!(body.items.iter().map(|item| item.message).collect::<Vec<_>>(), [0, 0, 0, 2, 2, 2]);
}

#[test]
fn lines_of_some_items_are_theirs() {
    let messages = [message(&request(vec![], vec![LogRecord::default(); 4]))];
    let body = Body::write(&messages, 0, Flavor::Elasticsearch);
    let line = |item: usize| body.bytes.slice(body.items[item].lines.clone());
    assert_eq!(body.lines(&[0, 1, 2, 3]), body.bytes);
    assert_eq!(body.lines(&[1, 2]), [line(1), line(2)].concat());
    assert_eq!(body.lines(&[0, 3]), [line(0), line(3)].concat());
}
