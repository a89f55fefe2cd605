//! Compared with prost, which decodes into objects.

use logsink::filter::{EventView, Value};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prop::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::*;

// === What senders send ===

fn any_value() -> impl Strategy<Value = AnyValue> {
    use any_value::Value as V;
    let leaf = prop_oneof![
        Just(None),
        any::<String>().prop_map(|text| Some(V::StringValue(text))),
        any::<bool>().prop_map(|value| Some(V::BoolValue(value))),
        any::<i64>().prop_map(|value| Some(V::IntValue(value))),
        any::<f64>().prop_map(|value| Some(V::DoubleValue(value))),
        vec(any::<u8>(), 0..9).prop_map(|bytes| Some(V::BytesValue(bytes))),
        any::<i32>().prop_map(|index| Some(V::StringValueStrindex(index))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(4, 24, 4, |inner| {
        let list = vec(inner.clone(), 0..4).prop_map(|values| V::ArrayValue(ArrayValue { values }));
        let pairs = vec((key(), prop::option::of(inner)), 0..4)
            .prop_map(|pairs| V::KvlistValue(KeyValueList { values: key_values(pairs) }));
        prop_oneof![list, pairs].prop_map(|value| AnyValue { value: Some(value) })
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[abc](\\.[abc]){0,2}", "service.name", any::<String>()]
}

fn key_values(pairs: Vec<(String, Option<AnyValue>)>) -> Vec<KeyValue> {
    pairs.into_iter().map(|(key, value)| KeyValue { key, value, ..KeyValue::default() }).collect()
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    vec((key(), prop::option::of(any_value())), 0..6).prop_map(key_values)
}

fn record() -> impl Strategy<Value = LogRecord> {
    let id = |len| prop_oneof![vec(any::<u8>(), len), vec(any::<u8>(), 0..20), Just(vec![0; len])];
    (
        (any::<u64>(), any::<u64>(), any::<i32>(), any::<String>()),
        (prop::option::of(any_value()), attributes(), any::<u32>(), any::<u32>()),
        (id(16), id(8), any::<String>()),
    )
        .prop_map(|((time, observed, severity, text), (body, attributes, dropped, flags), (trace, span, name))| {
            LogRecord {
                time_unix_nano: time,
                observed_time_unix_nano: observed,
                severity_number: if severity % 3 == 0 { severity } else { severity % 30 },
                severity_text: text,
                body,
                attributes,
                dropped_attributes_count: dropped,
                flags,
                trace_id: trace,
                span_id: span,
                event_name: name,
            }
        })
}

fn request() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope =
        (any::<String>(), any::<String>(), attributes(), any::<u32>()).prop_map(|(name, version, attributes, n)| {
            InstrumentationScope { name, version, attributes, dropped_attributes_count: n }
        });
    let scope_logs = (prop::option::of(scope), vec(record(), 0..4), any::<String>())
        .prop_map(|(scope, log_records, schema_url)| ScopeLogs { scope, log_records, schema_url });
    let entity = (any::<String>(), vec(any::<String>(), 0..2)).prop_map(|(text, keys)| EntityRef {
        schema_url: text.clone(),
        r#type: text,
        id_keys: keys.clone(),
        description_keys: keys,
    });
    let resource = (attributes(), any::<u32>(), vec(entity, 0..2)).prop_map(|(attributes, n, entity_refs)| Resource {
        attributes,
        dropped_attributes_count: n,
        entity_refs,
    });
    let resource_logs = (prop::option::of(resource), vec(scope_logs, 0..3), any::<String>())
        .prop_map(|(resource, scope_logs, schema_url)| ResourceLogs { resource, scope_logs, schema_url });
    vec(resource_logs, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

// === The same order of everything, from the views and from prost's objects ===

fn seen_value(value: AnyView<'_>) -> String {
    match value {
        AnyView::Empty => "empty".into(),
        AnyView::Str(text) => format!("str {text:?}"),
        AnyView::Bool(value) => format!("bool {value}"),
        AnyView::Int(value) => format!("int {value}"),
        AnyView::Double(value) => format!("double {:x}", value.to_bits()),
        AnyView::Bytes(bytes) => format!("bytes {bytes:?}"),
        AnyView::Array(elements) => format!("{:?}", elements.iter().map(seen_value).collect::<Vec<_>>()),
        AnyView::Map(pairs) => seen_pairs(pairs),
    }
}

fn seen_pairs(pairs: Pairs<'_>) -> String {
    format!("{:?}", pairs.iter().map(|(key, value)| (key.to_owned(), seen_value(value))).collect::<Vec<_>>())
}

fn true_value(value: Option<&AnyValue>) -> String {
    use any_value::Value as V;
    match value.and_then(|value| value.value.as_ref()) {
        None | Some(V::StringValueStrindex(_)) => "empty".into(),
        Some(V::StringValue(text)) => format!("str {text:?}"),
        Some(V::BoolValue(value)) => format!("bool {value}"),
        Some(V::IntValue(value)) => format!("int {value}"),
        Some(V::DoubleValue(value)) => format!("double {:x}", value.to_bits()),
        Some(V::BytesValue(bytes)) => format!("bytes {bytes:?}"),
        Some(V::ArrayValue(list)) => {
            format!("{:?}", list.values.iter().map(|value| true_value(Some(value))).collect::<Vec<_>>())
        }
        Some(V::KvlistValue(list)) => true_pairs(&list.values),
    }
}

fn true_pairs(pairs: &[KeyValue]) -> String {
    format!("{:?}", pairs.iter().map(|pair| (pair.key.clone(), true_value(pair.value.as_ref()))).collect::<Vec<_>>())
}

fn seen_record(record: &RecordView<'_>, attributes: String) -> String {
    let (resource, scope) = (seen_pairs(record.resource.attributes()), seen_pairs(record.scope.attributes()));
    let RecordView { time_unix_nano, observed_time_unix_nano, severity_text, flags, event_name, .. } = record;
    format!(
        "{resource} {:?} {:?} {scope} {time_unix_nano} {observed_time_unix_nano} {} {severity_text:?} {} {attributes} \
         {flags} {:?} {:?} {event_name:?}",
        record.scope_name(),
        record.scope.version,
        record.severity.0,
        seen_value(record.body),
        record.trace_id(),
        record.span_id(),
    )
}

/// Shows records with their attributes and the numbers of those; the vocabulary when these are all that there is to say.
struct Lists<'a, 'f> {
    values: Vec<AnyView<'a>>,
    ids: Vec<KeyId>,
    show: &'f mut Show<'a, 'f>,
}

type Show<'a, 'f> = dyn FnMut(&RecordView<'a>, &[(&'a str, AnyView<'a>)], &[KeyId], Option<&Vocabulary>) + 'f;

impl<'a> Visit<'a> for Lists<'a, '_> {
    fn attribute(&mut self, key: KeyId, value: AnyView<'a>) {
        self.values.push(value);
        self.ids.push(key);
    }

    fn record(&mut self, record: &RecordView<'a>, keys: Option<&Vocabulary>) {
        let names: Vec<&str> = record.attributes().iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), self.values.len());
        let attributes: Vec<_> = names.into_iter().zip(self.values.drain(..)).collect();
        (self.show)(record, &attributes, &self.ids, keys);
        self.ids.clear();
    }
}

fn scan_lists<'a, 'f>(
    payload: &'a [u8],
    vocabulary: Option<&mut Vocabulary>,
    show: &'f mut Show<'a, 'f>,
) -> Result<u32, WireError> {
    scan(payload, vocabulary, &mut Lists { values: Vec::new(), ids: Vec::new(), show })
}

/// What is seen when all is checked first; when it is checked on the way, the same is seen.
fn seen(payload: &[u8]) -> Result<Vec<String>, WireError> {
    let mut seen = Vec::new();
    let checked_first = for_each_record(payload, &mut |record| {
        assert_eq!(record.index as usize, seen.len());
        seen.push(seen_record(&record, seen_pairs(record.attributes())));
    });
    let mut vocabulary = Vocabulary::default();
    // Without keys that are known, with those of the records before, and with all of them.
    for known in [None, Some(()), Some(())] {
        let mut scanned = Vec::new();
        let known = known.map(|()| &mut vocabulary);
        let checked_on_the_way = scan_lists(payload, known, &mut |record, attributes, ids, vocabulary| {
            assert_eq!(record.index as usize, scanned.len());
            if let Some(vocabulary) = vocabulary {
                let texts: Vec<&str> = vocabulary.texts().collect();
                assert!(ids.iter().map(|id| texts[id.index()]).eq(attributes.iter().map(|(key, _)| *key)));
                assert!(attributes.iter().all(|(key, _)| vocabulary.is_in_list(key)));
                assert!(
                    texts[1..]
                        .iter()
                        .all(|text| { vocabulary.is_in_list(text) == attributes.iter().any(|(key, _)| key == text) })
                );
            }
            let attributes = attributes.iter().map(|&(key, value)| (key.to_owned(), seen_value(value)));
            scanned.push(seen_record(record, format!("{:?}", attributes.collect::<Vec<_>>())));
        });
        assert_eq!(checked_first, checked_on_the_way);
        assert!(checked_first.is_err() || seen == scanned);
    }
    assert_eq!(checked_first.err(), check(payload, &Limits::UNLIMITED).err());
    checked_first?;
    Ok(seen)
}

fn truth(request: &ExportLogsServiceRequest) -> Vec<String> {
    let mut all = Vec::new();
    for resource_logs in &request.resource_logs {
        let resource = true_pairs(resource_logs.resource.as_ref().map_or(&[], |resource| &resource.attributes));
        for scope_logs in &resource_logs.scope_logs {
            let scope = scope_logs.scope.clone().unwrap_or_default();
            for record in &scope_logs.log_records {
                let trace_id: Option<[u8; 16]> = record.trace_id.clone().try_into().ok().filter(|id| *id != [0; 16]);
                let span_id: Option<[u8; 8]> = record.span_id.clone().try_into().ok().filter(|id| *id != [0; 8]);
                let severity = if (1..=24).contains(&record.severity_number) { record.severity_number } else { 0 };
                all.push(format!(
                    "{resource} {:?} {:?} {} {} {} {severity} {:?} {} {} {} {trace_id:?} {span_id:?} {:?}",
                    scope.name,
                    scope.version,
                    true_pairs(&scope.attributes),
                    record.time_unix_nano,
                    record.observed_time_unix_nano,
                    record.severity_text,
                    true_value(record.body.as_ref()),
                    true_pairs(&record.attributes),
                    record.flags,
                    record.event_name,
                ));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn views_show_what_prost_decodes(request in request()) {
        let payload = request.encode_to_vec();
        prop_assert_eq!(seen(&payload).unwrap(), truth(&request));
        let summary = check(&payload, &Limits::default()).unwrap();
        prop_assert_eq!(summary.records as usize, truth(&request).len());
        let service = request.resource_logs.first().and_then(|logs| logs.resource.as_ref()).and_then(|resource| {
            resource.attributes.iter().rev().find(|pair| pair.key == "service.name")?.value.clone()?.value
        });
        let service = match service {
            Some(any_value::Value::StringValue(service)) => service,
            _ => String::new(),
        };
        prop_assert_eq!(summary.service, service);
    }

    #[test]
    fn what_is_accepted_after_damage_prost_accepts_and_sees_the_same(
        request in request(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut payload = request.encode_to_vec();
        if payload.is_empty() {
            return Ok(());
        }
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        if let Ok(seen) = seen(&payload) {
            prop_assert_eq!(seen, truth(&ExportLogsServiceRequest::decode(&*payload).unwrap()));
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = seen(&bytes);
        // Views over bytes that nobody checked.
        let pairs = Pairs::new(&bytes, tag::record::ATTRIBUTES);
        seen_pairs(pairs);
        pairs.find("a.b");
        serde_json::to_string(&pairs).unwrap();
    }

    #[test]
    fn bytes_that_look_like_messages_never_panic(
        bytes in vec(prop_oneof![Just(0x0au8), Just(0x12), Just(0x2a), Just(0x32), 0u8..20, any::<u8>()], 0..300),
    ) {
        let _ = seen(&bytes);
    }

    #[test]
    fn base64_is_what_serde_json_users_decode(bytes in vec(any::<u8>(), 0..40)) {
        let text = AnyView::Bytes(&bytes).text().into_owned();
        prop_assert_eq!(text.len(), bytes.len().div_ceil(3) * 4);
        prop_assert_eq!(crate::ingest::json::base64(&text).unwrap(), bytes);
    }
}

// === By hand ===

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn in_record(record: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, record)))
}

fn fault(payload: &[u8]) -> WireFault {
    check(payload, &Limits::default()).unwrap_err().fault
}

#[test]
fn order_and_unknown_fields_do_not_matter() {
    let attribute = |key: &str, value: &str| [field(1, key.as_bytes()), field(2, &field(1, value.as_bytes()))].concat();
    let record = field(2, &[field(5, &field(1, b"hello")), vec![0x78, 1], field(6, &attribute("k", "v"))].concat());
    // The scope after its records, the resource after its scopes, unknown fields of every wire type between.
    let scope_logs = [vec![0x79, 1, 2, 3, 4, 5, 6, 7, 8], record, field(1, &field(1, b"lib"))].concat();
    let resource = field(1, &field(1, &attribute("service.name", "shop")));
    let payload = field(1, &[field(2, &scope_logs), vec![0x7d, 1, 2, 3, 4], field(15, b"?"), resource].concat());
    for_each_record(&payload, &mut |record| {
        assert_eq!((record.resource.service, record.scope_name(), EventView::target(&record)), ("shop", "lib", "lib"));
        assert_eq!(record.message(), "hello");
        assert_eq!(record.attribute("k"), Some(Value::Text("v".into())));
        assert_eq!(record.attribute("service.name"), Some(Value::Text("shop".into())));
    })
    .unwrap();
    assert_eq!(check(&payload, &Limits::default()).unwrap(), Summary { records: 1, service: "shop" });
}

#[test]
fn of_scalars_given_twice_the_last_counts_and_lists_given_twice_are_refused() {
    let record = [field(3, b"first"), field(3, b"last")].concat();
    for_each_record(&in_record(&record), &mut |record| assert_eq!(record.severity_text, "last")).unwrap();

    let value = [field(5, &field(1, &[0x10, 1])), field(1, b"text"), vec![0x18, 7]].concat();
    for_each_record(&in_record(&field(5, &value)), &mut |record| assert_eq!(record.body.text(), "7")).unwrap();

    let empty = field(5, &[]);
    assert_eq!(fault(&in_record(&[empty.clone(), empty.clone()].concat())), WireFault::Repeated("body"));
    let lists = [empty.clone(), vec![0x78, 1], empty].concat();
    assert_eq!(fault(&in_record(&field(5, &lists))), WireFault::Repeated("a list value"));
    assert_eq!(fault(&field(1, &[field(1, &[]), field(1, &[])].concat())), WireFault::Repeated("resource"));
}

#[test]
fn faults_are_named_with_their_byte() {
    let table: &[(&[u8], usize, WireFault)] = &[
        (&[0x0a, 5, 1], 1, WireFault::Truncated),
        (&[0x0a], 1, WireFault::Truncated),
        (&[0x00], 0, WireFault::Key),
        (&[0xff, 0xff, 0xff, 0xff, 0x7f], 0, WireFault::Key),
        (&[0x7b, 0x7c], 1, WireFault::Group),
        (&[0x08, 1], 1, WireFault::WireType { field: 1, wire: 0 }),
        (&[0x7e], 1, WireFault::WireType { field: 15, wire: 6 }),
        (&[0x0a, 3, 0x1a, 1, 0xff], 4, WireFault::Utf8("schema_url")),
        (&[0x78, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], 1, WireFault::Varint),
        (&[0x78, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], 1, WireFault::Varint),
    ];
    for &(payload, at, fault) in table {
        assert_eq!(check(payload, &Limits::default()), Err(WireError { at, fault }), "{payload:?}");
    }
    // The largest varint that there is.
    check(&[0x78, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], &Limits::default()).unwrap();
}

#[test]
fn values_nest_to_the_limit_and_no_deeper() {
    let nested = |depth: usize| {
        let leaf = AnyValue { value: Some(any_value::Value::IntValue(1)) };
        let body = (0..depth).fold(leaf, |inner, _| AnyValue {
            value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![inner] })),
        });
        let log_records = vec![LogRecord { body: Some(body), ..LogRecord::default() }];
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    };
    let deepest = nested(wire::DEPTH_MAX as usize);
    for_each_record(&deepest, &mut |record| assert!(record.body.text().ends_with(']'))).unwrap();
    assert_eq!(fault(&nested(wire::DEPTH_MAX as usize + 1)), WireFault::TooDeep);
    assert_eq!(fault(&nested(1_000)), WireFault::TooDeep);
}

#[test]
fn limits_are_named() {
    let over = |payload: &[u8], limits: Limits| check(payload, &limits).unwrap_err().fault;
    let two = field(1, &field(2, &[field(2, &[]), field(2, &[])].concat()));
    let limits = Limits { records_max: 1, ..Limits::default() };
    assert_eq!(over(&two, limits), WireFault::OverLimit { what: "records in the request", max: 1 });
    let three = in_record(&[field(6, &[]), field(6, &[]), field(6, &[])].concat());
    let limits = Limits { attributes_max: 2, ..Limits::default() };
    assert_eq!(over(&three, limits.clone()), WireFault::OverLimit { what: "attributes", max: 2 });
    // Counted for each record by itself.
    let record = field(2, &[field(6, &[]), field(6, &[])].concat());
    check(&field(1, &field(2, &[record.clone(), record].concat())), &limits).unwrap();
    let limits = Limits { record_bytes_max: 5, ..Limits::default() };
    assert_eq!(over(&three, limits), WireFault::OverLimit { what: "bytes in a record", max: 5 });
}

#[test]
fn dotted_paths_reach_into_maps_and_the_last_of_equal_keys_counts() {
    use any_value::Value as V;
    let int = |value| Some(AnyValue { value: Some(V::IntValue(value)) });
    let map = |pairs: Vec<(&str, Option<AnyValue>)>| {
        let values = key_values(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect());
        Some(AnyValue { value: Some(V::KvlistValue(KeyValueList { values })) })
    };
    let record = LogRecord {
        attributes: key_values(vec![
            ("a.b".into(), int(1)),
            ("a".into(), map(vec![("b", int(2)), ("c", map(vec![("d.e", int(3))]))])),
            ("twice".into(), int(4)),
            ("twice".into(), int(5)),
            ("none".into(), None),
        ]),
        ..LogRecord::default()
    };
    let payload = in_record(&record.encode_to_vec());
    for_each_record(&payload, &mut |record| {
        let table = [("a.b", Some(1)), ("a.c.d.e", Some(3)), ("twice", Some(5)), ("none", None), ("a.c.x", None)];
        for (path, expected) in table {
            assert_eq!(record.attribute(path), expected.map(Value::Int), "{path}");
        }
        assert_eq!(record.attribute("a.c"), Some(Value::Text(r#"{"d.e":3}"#.into())));
        assert_eq!(record.attributes().to_json()["twice"], 5);
    })
    .unwrap();
}

#[test]
fn text_and_json_forms_are_the_same_everywhere() {
    let table = [
        (AnyView::Empty, "", "null"),
        (AnyView::Str("a\"b"), "a\"b", "\"a\\\"b\""),
        (AnyView::Bool(true), "true", "true"),
        (AnyView::Int(i64::MIN), "-9223372036854775808", "-9223372036854775808"),
        (AnyView::Double(1.0), "1.0", "1.0"),
        (AnyView::Double(-0.1), "-0.1", "-0.1"),
        (AnyView::Double(1e300), "1e+300", "1e+300"),
        (AnyView::Double(1e21), "1e+21", "1e+21"),
        (AnyView::Double(f64::NAN), "NaN", "\"NaN\""),
        (AnyView::Double(f64::NEG_INFINITY), "-Infinity", "\"-Infinity\""),
        (AnyView::Bytes(b"\0\xff"), "AP8=", "\"AP8=\""),
    ];
    for (value, text, json) in table {
        assert_eq!(value.text(), text);
        assert_eq!(value.to_json().to_string(), json);
        assert_eq!(serde_json::to_string(&value).unwrap(), json);
    }
}

mod keys;
mod poison;
