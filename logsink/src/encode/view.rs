//! An encoded record as the rules see it, and what they may change in it.
//!
//! The rules look at the bytes that are about to be published, so they see what will be sent (span fields included) and
//! nothing is formatted twice. Only records of callsites that a rule is interested in come here.

use std::borrow::Cow;

use super::{FRAME_BYTES, Scalar, padded, push_attribute, push_delimited, tag};
use crate::{
    Severity,
    filter::{
        EventView, Value,
        rules::{REDACTED, Redactions},
    },
    queue::FRAME_TAG,
};

/// A framed record of our own making.
pub(crate) struct RecordView<'r> {
    record: &'r [u8],
    service: &'r str,
    severity: Severity,
}

impl<'r> RecordView<'r> {
    pub(crate) fn new(record: &'r [u8], service: &'r str, severity: Severity) -> Self {
        Self { record, service, severity }
    }

    /// As [`RecordView::new`], with the severity that the record has.
    pub(crate) fn of(record: &'r [u8], service: &'r str) -> Self {
        let view = Self::new(record, service, Severity::UNSPECIFIED);
        let number = view.find(tag::SEVERITY_NUMBER).and_then(varint).map_or(0, |(number, _)| number);
        Self { severity: Severity(u8::try_from(number).unwrap_or_default()), ..view }
    }

    fn fields(&self) -> Fields<'r> {
        Fields { rest: &self.record[FRAME_BYTES..] }
    }

    fn find(&self, tag: u8) -> Option<&'r [u8]> {
        self.fields().find(|field| field.tag == tag).map(|field| field.payload)
    }

    fn lookup(&self, key: &str) -> Option<Value<'r>> {
        self.fields()
            .filter(|field| field.tag == tag::ATTRIBUTE)
            .map(|field| key_value(field.payload))
            .find(|(name, _)| *name == key.as_bytes())
            .and_then(|(_, any)| value(any))
    }
}

impl EventView for RecordView<'_> {
    fn severity(&self) -> Severity {
        self.severity
    }

    fn service(&self) -> &str {
        self.service
    }

    fn target(&self) -> &str {
        match self.lookup(crate::callsite::name::TARGET) {
            Some(Value::Text(Cow::Borrowed(target))) => target,
            _ => "",
        }
    }

    fn message(&self) -> Cow<'_, str> {
        match self.find(tag::BODY).and_then(value) {
            Some(Value::Text(text)) => text,
            Some(Value::Int(number)) => number.to_string().into(),
            Some(Value::Double(number)) => json_double(number).into(),
            Some(Value::Bool(truth)) => truth.to_string().into(),
            None => "".into(),
        }
    }

    fn trace_id(&self) -> Option<[u8; 16]> {
        self.find(tag::TRACE_ID)?.try_into().ok()
    }

    fn span_id(&self) -> Option<[u8; 8]> {
        self.find(tag::SPAN_ID)?.try_into().ok()
    }

    fn attribute(&self, key: &str) -> Option<Value<'_>> {
        self.lookup(key)
    }
}

/// A double as JSON writes it: `2.0`, not `2`.
fn json_double(number: f64) -> String {
    format!("{number:?}")
}

/// Writes `record` to `out` with another level and without what must not leave in clear.
pub(crate) fn rewrite(record: &[u8], level: Option<Severity>, redact: Redactions<'_>, out: &mut Vec<u8>) {
    let mut redacted = Vec::new();
    push_delimited(&mut redacted, tag::STRING, REDACTED.as_bytes());
    out.clear();
    out.extend_from_slice(&[FRAME_TAG, 0, 0, 0]);
    for field in (Fields { rest: &record[FRAME_BYTES..] }) {
        match (field.tag, level) {
            (tag::SEVERITY_NUMBER, Some(level)) => out.extend_from_slice(&[tag::SEVERITY_NUMBER, level.0]),
            (tag::SEVERITY_TEXT, Some(level)) => {
                push_delimited(out, tag::SEVERITY_TEXT, level.name().to_ascii_uppercase().as_bytes());
            }
            (tag::BODY, _) if redact.covers("message") => push_delimited(out, tag::BODY, &redacted),
            (tag::ATTRIBUTE, _) => match std::str::from_utf8(key_value(field.payload).0) {
                Ok(key) if redact.covers(key) => push_attribute(out, key, &redacted),
                _ => out.extend_from_slice(field.whole),
            },
            _ => out.extend_from_slice(field.whole),
        }
    }
    let length = out.len() - FRAME_BYTES;
    out[1..FRAME_BYTES].copy_from_slice(&padded(length));
}

/// Appends `record` to `out` with the attribute `key`, true, in the place of one that it may have.
pub(crate) fn mark(record: &[u8], key: &str, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[FRAME_TAG, 0, 0, 0]);
    for field in (Fields { rest: &record[FRAME_BYTES..] }) {
        if field.tag != tag::ATTRIBUTE || key_value(field.payload).0 != key.as_bytes() {
            out.extend_from_slice(field.whole);
        }
    }
    push_attribute(out, key, Scalar::bool(true).as_bytes());
    let length = out.len() - start - FRAME_BYTES;
    out[start + 1..start + FRAME_BYTES].copy_from_slice(&padded(length));
}

/// One field of a protobuf message.
struct Field<'r> {
    tag: u8,
    /// What is behind the tag, and behind the length if there is one.
    payload: &'r [u8],
    whole: &'r [u8],
}

/// The fields of a message that this library has written: their numbers are below 16. Ends at anything else.
struct Fields<'r> {
    rest: &'r [u8],
}

impl<'r> Iterator for Fields<'r> {
    type Item = Field<'r>;

    fn next(&mut self) -> Option<Field<'r>> {
        let (&tag, after) = self.rest.split_first()?;
        let (skipped, length) = match tag & 7 {
            0 => (0, varint(after)?.1),
            1 => (0, 8),
            5 => (0, 4),
            2 => {
                let (length, bytes) = varint(after)?;
                (bytes, usize::try_from(length).ok()?)
            }
            _ => return None,
        };
        let payload = after.get(skipped..skipped.checked_add(length)?)?;
        let (whole, rest) = self.rest.split_at(1 + skipped + length);
        self.rest = rest;
        Some(Field { tag, payload, whole })
    }
}

/// A varint's value, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, index + 1));
        }
    }
    None
}

/// The key and the encoded `AnyValue` of a `KeyValue`.
fn key_value(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (mut key, mut any): (&[u8], &[u8]) = (&[], &[]);
    for field in (Fields { rest: bytes }) {
        match field.tag {
            tag::KEY => key = field.payload,
            tag::VALUE => any = field.payload,
            _ => {}
        }
    }
    (key, any)
}

/// An `AnyValue` that this library has written.
fn value(any: &[u8]) -> Option<Value<'_>> {
    let field = Fields { rest: any }.next()?;
    Some(match field.tag {
        tag::STRING => Value::Text(String::from_utf8_lossy(field.payload)),
        tag::BOOL => Value::Bool(varint(field.payload)?.0 != 0),
        tag::INT => Value::Int(varint(field.payload)?.0 as i64),
        tag::DOUBLE => Value::Double(f64::from_le_bytes(field.payload.try_into().ok()?)),
        tag::BYTES => Value::Text(base64(field.payload).into()),
        _ => return None,
    })
}

/// Bytes in their JSON form, standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let shown = digit <= chunk.len();
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(if shown { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}
