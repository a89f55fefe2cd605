//! Words of the wire format against prost, and the view against what was written.

mod rewrite;

use opentelemetry_proto::tonic::logs::v1::{LogRecord, ScopeLogs};
use proptest::prelude::*;
use prost::Message;

use super::{view::RecordView, *};
use crate::{
    Severity,
    filter::{EventView, Value},
};

proptest! {
    #[test]
    fn varints_are_those_of_prost(value: u64) {
        let mut expected = Vec::new();
        prost::encoding::encode_varint(value, &mut expected);
        let varint = Varint::new(value);
        prop_assert_eq!(varint.as_bytes(), &expected[..]);
        prop_assert_eq!(varint_length(value as usize), expected.len());
    }

    #[test]
    fn padded_lengths_decode(length in 0usize..1 << 21) {
        prop_assert_eq!(prost::encoding::decode_varint(&mut &padded(length)[..]).unwrap(), length as u64);
    }

    #[test]
    fn attributes_decode(key: String, text: String, int: i64, double: f64, yes: bool) {
        use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
        let mut bytes = Vec::new();
        push_text(&mut bytes, &key, &text);
        for scalar in [Scalar::int(int), Scalar::double(double), Scalar::bool(yes)] {
            push_attribute(&mut bytes, &key, scalar.as_bytes());
        }
        let record = LogRecord::decode(&*bytes).unwrap();
        prop_assert!(record.attributes.iter().all(|attribute| attribute.key == key));
        let values: Vec<_> = record.attributes.into_iter().map(|attribute| attribute.value.unwrap().value.unwrap()).collect();
        prop_assert_eq!(format!("{values:?}"), format!("{:?}", [Any::StringValue(text), Any::IntValue(int), Any::DoubleValue(double), Any::BoolValue(yes)]));
    }

    #[test]
    fn text_is_cut_at_a_characters_end(text: String, bytes_max in 0usize..100) {
        let start = cut(&text, bytes_max);
        prop_assert!(text.starts_with(start) && start.len() <= bytes_max.min(text.len()));
        let next = text[start.len()..].chars().next();
        prop_assert!(next.is_none_or(|next| start.len() + next.len_utf8() > bytes_max));
    }

    #[test]
    fn the_view_reads_what_was_written(text: String, int: i64, double in -1e9f64..1e9, yes: bool, bytes: Vec<u8>) {
        let mut any = Vec::new();
        push_delimited(&mut any, tag::BYTES, &bytes);
        let mut record = vec![crate::queue::FRAME_TAG, 0, 0, 0];
        push_text(&mut record, "text", &text);
        push_attribute(&mut record, "int", Scalar::int(int).as_bytes());
        push_attribute(&mut record, "double", Scalar::double(double).as_bytes());
        push_attribute(&mut record, "yes", Scalar::bool(yes).as_bytes());
        push_attribute(&mut record, "bytes", &any);
        push_delimited(&mut record, tag::TRACE_ID, &[7; 16]);
        let view = RecordView::new(&record, "shop", Severity::WARN);
        prop_assert_eq!(view.attribute("text"), Some(Value::Text(text.into())));
        prop_assert_eq!(view.attribute("int"), Some(Value::Int(int)));
        prop_assert_eq!(view.attribute("double"), Some(Value::Double(double)));
        prop_assert_eq!(view.attribute("yes"), Some(Value::Bool(yes)));
        prop_assert!(matches!(view.attribute("bytes"), Some(Value::Text(text)) if text.len() == bytes.len().div_ceil(3) * 4));
        prop_assert_eq!((view.attribute("none"), view.trace_id(), view.span_id()), (None, Some([7; 16]), None));
        prop_assert_eq!((view.service(), view.severity(), view.target()), ("shop", Severity::WARN, ""));
    }

    #[test]
    fn the_view_survives_any_bytes(bytes: Vec<u8>) {
        let record = [&[crate::queue::FRAME_TAG, 0, 0, 0], &bytes[..]].concat();
        let view = RecordView::new(&record, "", Severity::INFO);
        let _ = (view.message(), view.attribute("a"), view.trace_id(), view.target());
    }
}

#[test]
fn bytes_read_as_base64() {
    for (bytes, text) in
        [(&b""[..], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (&[255, 254, 253, 0], "//79AA==")]
    {
        let mut any = Vec::new();
        push_delimited(&mut any, tag::BYTES, bytes);
        let mut record = vec![crate::queue::FRAME_TAG, 0, 0, 0];
        push_attribute(&mut record, "bytes", &any);
        let view = RecordView::new(&record, "", Severity::INFO);
        assert_eq!(view.attribute("bytes"), Some(Value::Text(text.into())));
    }
}

#[test]
fn the_longest_marker_fits_its_reserve() {
    let mut marker = String::new();
    write_marker(&mut marker, usize::MAX).unwrap();
    assert!(marker.len() <= MARKER_BYTES_MAX, "{} bytes", marker.len());
}

#[test]
fn an_empty_run_is_an_empty_scope() {
    assert_eq!(ScopeLogs::decode(&[][..]).unwrap().log_records.len(), 0);
}
