//! Rewriting against the same changes made in what the official types decode.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ScopeLogs},
};
use proptest::prelude::*;
use prost::Message;

use super::{super::view::Scratch, *};
use crate::{
    encode::view::rewrite,
    filter::rules::{Document, RuleSet},
};

const RULES: &str = r##"
    filter = "trace"
    [[rule]]
    name = "names"
    then = { redact = ["secret", "*key"] }
    [[rule]]
    name = "digits"
    then = { redact = { fields = ["message", "a"], pattern = '[0-9]+', with = "#" } }
    [[rule]]
    name = "short"
    when = 'exists(a)'
    then = { cap = { fields = ["*"], bytes_max = 6 } }
    [[rule]]
    name = "level"
    when = 'a=1'
    then = { set_level = "warn" }
    [[rule]]
    name = "repeats"
    when = 'a=1'
    then = { dedup = { window_ms = 1000, by = "level" } }
"##;

fn values() -> impl Strategy<Value = Any> {
    prop_oneof![
        "[0-9a-cž]{0,12}".prop_map(Any::StringValue),
        Just(Any::IntValue(1)),
        any::<f64>().prop_filter("equal to itself", |double| !double.is_nan()).prop_map(Any::DoubleValue),
        any::<bool>().prop_map(Any::BoolValue),
        proptest::collection::vec(any::<u8>(), 0..10).prop_map(Any::BytesValue),
    ]
}

fn encoded(value: &Any) -> Vec<u8> {
    let mut any = Vec::new();
    match value {
        Any::StringValue(text) => push_delimited(&mut any, tag::STRING, text.as_bytes()),
        Any::BytesValue(bytes) => push_delimited(&mut any, tag::BYTES, bytes),
        Any::IntValue(int) => any.extend_from_slice(Scalar::int(*int).as_bytes()),
        Any::DoubleValue(double) => any.extend_from_slice(Scalar::double(*double).as_bytes()),
        Any::BoolValue(yes) => any.extend_from_slice(Scalar::bool(*yes).as_bytes()),
        other => panic!("not written by the library: {other:?}"),
    }
    any
}

/// What the rules make of one value, said plainly.
fn expected(key: &str, value: &Any, capped: bool) -> Any {
    if key.to_lowercase().ends_with("key") || key == "secret" || key.starts_with("secret.") || key.contains("key.") {
        return Any::StringValue("[redacted]".to_owned());
    }
    let capped = capped && key != "target";
    match value {
        Any::StringValue(text) => {
            let text = match key {
                "message" | "a" => regex::Regex::new("[0-9]+").unwrap().replace_all(text, "#").into_owned(),
                _ => text.clone(),
            };
            let start: String = text.char_indices().filter(|(at, c)| at + c.len_utf8() <= 6).map(|(_, c)| c).collect();
            match text.len() - start.len() {
                missing if missing > 0 && capped => Any::StringValue(format!("{start}…[truncated, {missing} bytes]")),
                _ => Any::StringValue(text),
            }
        }
        Any::BytesValue(bytes) if capped => Any::BytesValue(bytes[..bytes.len().min(6)].to_vec()),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn a_rewritten_record_is_what_its_changes_make_of_it(
        body in proptest::option::of(values()),
        attributes in proptest::collection::btree_map(
            prop_oneof!["[a-c]", Just("secret".to_owned()), Just("api_Key".to_owned()), Just("key.id".to_owned()), Just("target".to_owned())],
            values(),
            0..6,
        ),
        repeats in 0_usize..3,
    ) {
        let rules = RuleSet::compile(&[Document::parse(RULES).unwrap()], "app").unwrap();
        let mut record = vec![crate::queue::FRAME_TAG, 0, 0, 0];
        record.extend_from_slice(&[tag::SEVERITY_NUMBER, 9]);
        push_delimited(&mut record, tag::SEVERITY_TEXT, b"INFO");
        if let Some(body) = &body {
            push_delimited(&mut record, tag::BODY, &encoded(body));
        }
        for (key, value) in &attributes {
            push_attribute(&mut record, key, &encoded(value));
        }
        push_delimited(&mut record, tag::TRACE_ID, &[7; 16]);
        let length = padded(record.len() - FRAME_BYTES);
        record[1..FRAME_BYTES].copy_from_slice(&length);
        let decode = |bytes: &[u8]| -> LogRecord {
            let mut records = ScopeLogs::decode(bytes).unwrap().log_records;
            assert_eq!(records.len(), 1);
            records.remove(0)
        };

        let view = RecordView::new(&record, "app", Severity::INFO);
        let dropped = (0..repeats).filter(|_| !matches!(rules.decide(&view, 0).fate, crate::filter::Fate::Keep)).count();
        // A window later. Two records in a row of which the second changes nothing leave nothing of the first behind.
        let verdict = rules.decide(&view, 2_000_000_000);
        let mut scratch = Scratch::default();
        scratch.record.extend_from_slice(b"left over");
        let changed = rewrite(&record, &verdict, &mut scratch);

        let before = decode(&record);
        let mut wanted = before.clone();
        let capped = attributes.contains_key("a");
        let loud = match attributes.get("a") {
            Some(Any::IntValue(1)) => true,
            Some(Any::StringValue(text)) => text == "1",
            _ => false,
        };
        let change = |key: &str, any: &mut Option<AnyValue>| {
            if let Some(AnyValue { value: Some(value) }) = any {
                *value = expected(key, value, capped);
            }
        };
        change("message", &mut wanted.body);
        wanted.attributes.iter_mut().for_each(|attribute| change(&attribute.key, &mut attribute.value));
        if loud {
            (wanted.severity_number, wanted.severity_text) = (13, "WARN".to_owned());
        }
        if loud && repeats > 1 {
            prop_assert_eq!(dropped, repeats - 1);
            let mut count = Vec::new();
            push_attribute(&mut count, "logsink.repeated", Scalar::int(dropped as i64).as_bytes());
            wanted.attributes.extend(LogRecord::decode(&*count).unwrap().attributes);
        }
        prop_assert_eq!(changed, wanted != before);
        prop_assert_eq!(decode(&scratch.record), wanted);
    }
}
