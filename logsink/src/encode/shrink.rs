//! Makes one record small enough for a sink: texts are cut at a character's end and marked, the longest first, and the size
//! that the record had is noted in it. For what leaves the queue whole and is too large for whom it is sent to.
//!
//! All texts longer than some length are cut to that length, so a huge message does not cost the user's name in another
//! attribute. Where even that is not enough, attributes are left out from the end (those of spans and threads stand there)
//! and counted in the record's `dropped_attributes_count`.

use super::{MARKER_BYTES_MAX, Scalar, cut, push_attribute, push_delimited, tag, varint_length, write_marker};
use crate::transport::wire::{self, Value};

/// Under this name a record that was cut tells how many bytes it had.
pub(crate) const ORIGINAL_BYTES: &str = "logsink.truncated.original_bytes";

/// What [`ORIGINAL_BYTES`], the count of dropped attributes and the frame take at most.
const OWN_BYTES_MAX: usize = 64;

/// A record that was made smaller.
#[derive(Debug, PartialEq)]
pub(crate) struct Shrunk {
    /// Framed, as it was.
    pub(crate) record: Vec<u8>,
    /// Values that were cut or left out, beyond those of earlier cuts of the same record.
    pub(crate) values: u32,
}

/// Cuts a framed record to `bytes_max` bytes; `None` when what cannot be cut has more.
pub(crate) fn shrink(framed: &[u8], bytes_max: usize) -> Option<Shrunk> {
    let (_, message) = wire::fields(framed).next()?;
    let mut record = Record::read(message.bytes());
    let room = bytes_max.checked_sub(OWN_BYTES_MAX)?;

    let mut left_out = 0;
    while record.len(0) > room {
        // An attribute that is still there when all texts are gone: names may be long, and there may be many.
        record.attributes.pop()?;
        left_out += 1;
    }
    // The largest length of a text with which it fits, between one that does and one that does not.
    let (mut fits, mut exceeds) = (0, message.bytes().len() + 1);
    while exceeds - fits > 1 {
        let middle = fits + (exceeds - fits) / 2;
        if record.len(middle) <= room { fits = middle } else { exceeds = middle }
    }
    Some(record.write(*framed.first()?, fits, left_out, framed.len()))
}

/// The parts of a `LogRecord`.
#[derive(Default)]
struct Record<'a> {
    /// All fields that stay as they are.
    others: Vec<u8>,
    body: Option<Any<'a>>,
    attributes: Vec<(&'a [u8], Any<'a>)>,
    dropped: u64,
    /// From an earlier cut.
    original_bytes: Option<i64>,
}

/// An encoded `AnyValue`.
#[derive(Clone, Copy)]
enum Any<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Stays as it is.
    Other(&'a [u8]),
}

impl<'a> Any<'a> {
    fn read(any: &'a [u8]) -> Self {
        match wire::fields(any).next() {
            Some((1, Value::Bytes(text))) => std::str::from_utf8(text).map_or(Self::Other(any), Self::Text),
            Some((7, Value::Bytes(bytes))) => Self::Bytes(bytes),
            _ => Self::Other(any),
        }
    }

    /// At most how many bytes it has with texts of `text_max`.
    fn len(self, text_max: usize) -> usize {
        let cut = |length: usize, marker: usize| {
            let length = if length > text_max { (text_max + marker).min(length) } else { length };
            1 + varint_length(length) + length
        };
        match self {
            Self::Text(text) => cut(text.len(), MARKER_BYTES_MAX),
            Self::Bytes(bytes) => cut(bytes.len(), 0),
            Self::Other(any) => any.len(),
        }
    }

    /// The value with texts of `text_max`, and whether it was cut.
    fn write(self, text_max: usize) -> (Vec<u8>, bool) {
        let mut any = Vec::new();
        match self {
            // A text that is hardly longer than its marker is shorter whole.
            Self::Text(text) if text.len() > text_max + MARKER_BYTES_MAX => {
                let start = cut(text, text_max);
                let mut short = start.to_owned();
                // Writing to a string does not fail.
                let _ = write_marker(&mut short, text.len() - start.len());
                push_delimited(&mut any, tag::STRING, short.as_bytes());
                return (any, true);
            }
            Self::Bytes(bytes) if bytes.len() > text_max => {
                push_delimited(&mut any, tag::BYTES, &bytes[..text_max]);
                return (any, true);
            }
            Self::Text(text) => push_delimited(&mut any, tag::STRING, text.as_bytes()),
            Self::Bytes(bytes) => push_delimited(&mut any, tag::BYTES, bytes),
            Self::Other(bytes) => any.extend_from_slice(bytes),
        }
        (any, false)
    }
}

impl<'a> Record<'a> {
    fn read(message: &'a [u8]) -> Self {
        let mut record = Self::default();
        for (number, value) in wire::fields(message) {
            match (number, value) {
                (5, Value::Bytes(any)) => record.body = Some(Any::read(any)),
                (6, Value::Bytes(pair)) => {
                    let key = wire::field(pair, 1).map_or(&[][..], Value::bytes);
                    let any = wire::field(pair, 2).map_or(&[][..], Value::bytes);
                    if key == ORIGINAL_BYTES.as_bytes() {
                        record.original_bytes = wire::field(any, 3).map(|value| value.number() as i64);
                    } else {
                        record.attributes.push((key, Any::read(any)));
                    }
                }
                (7, value) => record.dropped = value.number(),
                _ => put(&mut record.others, number, value),
            }
        }
        record
    }

    fn len(&self, text_max: usize) -> usize {
        let field = |length: usize| 1 + varint_length(length) + length;
        let attribute = |(key, any): &(&[u8], Any<'_>)| field(field(key.len()) + field(any.len(text_max)));
        self.others.len()
            + self.body.map_or(0, |any| field(any.len(text_max)))
            + self.attributes.iter().map(attribute).sum::<usize>()
    }

    fn write(self, frame: u8, text_max: usize, left_out: u32, bytes: usize) -> Shrunk {
        let mut message = self.others;
        let mut values = left_out;
        let mut write = |any: Any<'_>| {
            let (any, is_cut) = any.write(text_max);
            values += u32::from(is_cut);
            any
        };
        if let Some(body) = self.body {
            push_delimited(&mut message, tag::BODY, &write(body));
        }
        for (key, any) in self.attributes {
            let mut pair = Vec::new();
            push_delimited(&mut pair, tag::KEY, key);
            push_delimited(&mut pair, tag::VALUE, &write(any));
            push_delimited(&mut message, tag::ATTRIBUTE, &pair);
        }
        let original_bytes = self.original_bytes.unwrap_or(bytes as i64);
        push_attribute(&mut message, ORIGINAL_BYTES, Scalar::int(original_bytes).as_bytes());
        let dropped = self.dropped + u64::from(left_out);
        if dropped > 0 {
            put(&mut message, 7, Value::Varint(dropped));
        }
        let mut record = Vec::new();
        push_delimited(&mut record, frame, &message);
        Shrunk { record, values: if self.original_bytes.is_some() { left_out } else { values } }
    }
}

/// Appends a field as it was read.
fn put(out: &mut Vec<u8>, number: u64, value: Value<'_>) {
    let varint = |out: &mut Vec<u8>, number| out.extend_from_slice(super::Varint::new(number).as_bytes());
    match value {
        Value::Varint(value) => {
            varint(out, number << 3);
            varint(out, value);
        }
        Value::Fixed64(value) => {
            varint(out, number << 3 | 1);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Bytes(bytes) => {
            varint(out, number << 3 | 2);
            varint(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        Value::Fixed32(value) => {
            varint(out, number << 3 | 5);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, any_value::Value as Official},
        logs::v1::LogRecord,
    };
    use prost::Message as _;

    use super::*;
    use crate::queue::FRAME_TAG;

    fn text(value: impl Into<String>) -> Official {
        Official::StringValue(value.into())
    }

    fn pair(key: &str, value: Official) -> KeyValue {
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn record(body: Official, attributes: Vec<KeyValue>) -> LogRecord {
        LogRecord {
            time_unix_nano: 7,
            severity_number: 17,
            body: Some(AnyValue { value: Some(body) }),
            attributes,
            trace_id: vec![1; 16],
            flags: 1,
            ..LogRecord::default()
        }
    }

    fn framed(record: &LogRecord) -> Vec<u8> {
        let mut bytes = Vec::new();
        push_delimited(&mut bytes, FRAME_TAG, &record.encode_to_vec());
        bytes
    }

    fn shrunk(bytes: &[u8], max: usize) -> (LogRecord, u32, Vec<u8>) {
        let shrunk = shrink(bytes, max).unwrap();
        assert!(shrunk.record.len() <= max, "{} of {max}", shrunk.record.len());
        assert_eq!(crate::queue::records(&shrunk.record).count(), 1, "one framed record");
        let (_, message) = wire::fields(&shrunk.record).next().unwrap();
        (LogRecord::decode(message.bytes()).unwrap(), shrunk.values, shrunk.record)
    }

    fn value<'r>(record: &'r LogRecord, key: &str) -> &'r Official {
        let pair = record.attributes.iter().find(|pair| pair.key == key).unwrap();
        pair.value.as_ref().unwrap().value.as_ref().unwrap()
    }

    #[test]
    fn the_longest_texts_are_cut_and_the_rest_stays() {
        let attributes = vec![
            pair("user", text("jo")),
            pair("big", text("ü".repeat(20_000))),
            pair("n", Official::IntValue(-1)),
            pair("raw", Official::BytesValue(vec![7; 10_000])),
        ];
        let original = record(text("m".repeat(300)), attributes);
        let bytes = framed(&original);
        let (small, values, again) = shrunk(&bytes, 8_000);
        assert_eq!(values, 2);
        assert_eq!((small.time_unix_nano, small.severity_number, small.flags), (7, 17, 1));
        assert_eq!((&small.trace_id, &small.body), (&original.trace_id, &original.body));
        assert_eq!((value(&small, "user"), value(&small, "n")), (&text("jo"), &Official::IntValue(-1)));
        let Official::StringValue(big) = value(&small, "big") else { panic!() };
        let (start, marker) = big.split_once('…').unwrap();
        assert!(start.chars().all(|c| c == 'ü') && start.len() > 3_000, "{}", start.len());
        assert_eq!(marker, format!("[truncated, {} bytes]", 40_000 - start.len()));
        assert_eq!(value(&small, ORIGINAL_BYTES), &Official::IntValue(bytes.len() as i64));
        assert!(again.len() > 7_800, "no more is cut than must be: {}", again.len());

        // Cut once more, it still tells its first size, and its values are not counted again.
        let (smaller, values, _) = shrunk(&again, 1_000);
        assert_eq!(value(&smaller, ORIGINAL_BYTES), &Official::IntValue(bytes.len() as i64));
        assert_eq!((values, value(&smaller, "user")), (0, &text("jo")));
    }

    #[test]
    fn what_is_not_text_is_left_out_from_the_end() {
        let attributes = (0..1_000).map(|n| pair(&format!("attribute.{n}"), Official::IntValue(n))).collect();
        let original = LogRecord { dropped_attributes_count: 5, ..record(text("hello"), attributes) };
        let (small, values, _) = shrunk(&framed(&original), 2_000);
        let kept = small.attributes.len() - 1;
        assert!(kept > 50, "{kept}");
        assert_eq!(small.attributes[..kept], original.attributes[..kept]);
        assert_eq!(small.dropped_attributes_count as usize, 5 + 1_000 - kept);
        assert_eq!(values as usize, 1_000 - kept);
        assert_eq!(small.body, original.body);
    }

    #[test]
    fn what_cannot_be_that_small_is_told() {
        assert_eq!(shrink(&framed(&record(text("x"), Vec::new())), 60), None);
        assert_eq!(shrink(b"", 1_000), None);
    }

    #[test]
    fn any_record_fits_and_decodes() {
        proptest::proptest!(|(body: String, pairs: Vec<(String, String)>, raw: Vec<u8>, max in 200_usize..4_000)| {
            let mut attributes: Vec<_> = pairs.iter().map(|(key, value)| pair(key, text(value.repeat(10)))).collect();
            attributes.push(pair("raw", Official::BytesValue(raw.repeat(10))));
            let (small, ..) = shrunk(&framed(&record(text(body.repeat(30)), attributes)), max);
            proptest::prop_assert_eq!(small.trace_id, vec![1; 16]);
        });
        proptest::proptest!(|(bytes: Vec<u8>, max: u16)| { shrink(&bytes, usize::from(max)); });
    }
}
