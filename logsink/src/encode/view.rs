//! An encoded record as the rules see it, and what they may change in it.
//!
//! The rules look at the bytes that are about to be published, so they see what will be sent (span fields included) and
//! nothing is formatted twice. Only records of callsites that a rule is interested in come here.

use std::borrow::Cow;

#[cfg(feature = "log")]
use super::push_text;
use super::{FRAME_BYTES, Scalar, Varint, padded, push_attribute, push_bytes, push_delimited, tag, varint_length};
#[cfg(feature = "log")]
use crate::filter::rules::REDACTED;
use crate::{
    Severity,
    callsite::Callsite,
    filter::{
        EventView, Value,
        rules::{Buffers, Edits, MESSAGE, REPEATED, Verdict},
    },
    queue::{CHUNK_BYTES, FRAME_TAG},
};

/// A framed record of our own making.
///
/// What a rule asks for is looked for each time: passing over an attribute takes a dozen instructions, and taking notes of
/// all of them more than a rule or two ask for.
pub(crate) struct RecordView<'r> {
    record: &'r [u8],
    service: &'r str,
    severity: Severity,
    /// Where the constants of the callsite end. Most rules ask for what stands behind.
    head: usize,
    /// The target, when it is among the constants.
    target: Option<&'r str>,
}

impl<'r> RecordView<'r> {
    pub(crate) fn new(record: &'r [u8], service: &'r str, severity: Severity) -> Self {
        Self { record, service, severity, head: FRAME_BYTES, target: None }
    }

    /// As [`RecordView::new`], of an event of this callsite.
    pub(crate) fn of(record: &'r [u8], service: &'r str, callsite: &Callsite) -> Self {
        let Callsite { severity, target, ref head, .. } = *callsite;
        Self { head: head.len(), target, ..Self::new(record, service, severity) }
    }

    /// As [`RecordView::new`], with the severity that the record has.
    pub(crate) fn read(record: &'r [u8], service: &'r str) -> Self {
        let view = Self::new(record, service, Severity::UNSPECIFIED);
        let number = view.find(tag::SEVERITY_NUMBER).and_then(varint).map_or(0, |(number, _)| number);
        Self { severity: Severity(u8::try_from(number).unwrap_or_default()), ..view }
    }

    fn find(&self, tag: u8) -> Option<&'r [u8]> {
        let mut fields = Fields { rest: self.record.get(self.head..)? };
        fields.find(|field| field.tag == tag).map(|field| field.payload)
    }

    fn lookup(&self, key: &str) -> Option<Value<'r>> {
        let (head, rest) = self.record.split_at_checked(self.head)?;
        let any = find_attribute(rest, key).or_else(|| find_attribute(head.get(FRAME_BYTES..)?, key))?;
        value(any)
    }
}

/// The value of the attribute of this name. Keys are compared by their length first, in which most differ.
fn find_attribute<'r>(fields: &'r [u8], key: &str) -> Option<&'r [u8]> {
    let key = key.as_bytes();
    // A length that takes one byte: the library has no longer keys but by an odd wish.
    let Some(key_length) = u8::try_from(key.len()).ok().filter(|length| *length < 0x80) else {
        let attributes = Fields { rest: fields }.filter(|field| field.tag == tag::ATTRIBUTE);
        return attributes.map(|field| key_value(field.payload)).find(|(name, _)| *name == key).map(|(_, any)| any);
    };
    let mut rest = fields;
    loop {
        let (&tag, after) = rest.split_first()?;
        if tag & 7 != 2 {
            let mut others = Fields { rest };
            others.next()?;
            rest = others.rest;
            continue;
        }
        let (length, content) = length(after)?;
        let (content, others) = content.split_at_checked(length)?;
        if tag == tag::ATTRIBUTE
            && let [tag::KEY, found_length, found @ ..] = content
            && *found_length == key_length
            && let Some([tag::VALUE, any @ ..]) = found.strip_prefix(key)
        {
            // The library writes the value last.
            return self::length(any).map(|(_, any)| any);
        }
        rest = others;
    }
}

/// A length, and what follows it.
#[inline]
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [length, rest @ ..] if *length < 0x80 => Some((usize::from(*length), rest)),
        // Padded, as the library writes lengths that it learns later.
        [low, middle, high, rest @ ..] if low & middle & 0x80 != 0 && *high < 0x80 => {
            let length = usize::from(low & 0x7f) | usize::from(middle & 0x7f) << 7 | usize::from(*high) << 14;
            Some((length, rest))
        }
        _ => {
            let (length, width) = varint(bytes)?;
            Some((usize::try_from(length).ok()?, bytes.get(width..)?))
        }
    }
}

impl<'r> RecordView<'r> {
    /// The severity number as it is written in the record.
    pub(crate) fn number(&self) -> u8 {
        let number = self.find(tag::SEVERITY_NUMBER).and_then(varint).map_or(0, |(number, _)| number);
        u8::try_from(number).unwrap_or_default()
    }

    /// All attributes that hold something.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = (Cow<'r, str>, Value<'r>)> {
        (Fields { rest: self.record.get(FRAME_BYTES..).unwrap_or_default() })
            .filter(|field| field.tag == tag::ATTRIBUTE)
            .map(|field| key_value(field.payload))
            .filter_map(|(key, any)| Some((String::from_utf8_lossy(key), value(any)?)))
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
        match self.target {
            Some(target) => target,
            None => match self.lookup(crate::callsite::name::TARGET) {
                Some(Value::Text(Cow::Borrowed(target))) => target,
                _ => "",
            },
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

/// Room for what the rules change, kept between events.
#[derive(Default)]
pub(crate) struct Scratch {
    /// The record, rewritten.
    pub(crate) record: Vec<u8>,
    buffers: Buffers,
}

/// Writes `record` anew with what the verdict changes in it: its level, what must not leave as it is, and how often it was
/// repeated. `false` when nothing changes.
pub(crate) fn rewrite(record: &[u8], verdict: &Verdict<'_>, scratch: &mut Scratch) -> bool {
    let Scratch { record: out, buffers } = scratch;
    let edits = verdict.edits;
    let mut changed = verdict.level.is_some() || verdict.repeated > 0;
    out.clear();
    out.extend_from_slice(&[FRAME_TAG, 0, 0, 0]);
    for field in (Fields { rest: &record[FRAME_BYTES..] }) {
        let edited = match (field.tag, verdict.level) {
            (tag::SEVERITY_NUMBER, Some(level)) => {
                out.extend_from_slice(&[tag::SEVERITY_NUMBER, level.0]);
                true
            }
            (tag::SEVERITY_TEXT, Some(level)) => {
                push_delimited(out, tag::SEVERITY_TEXT, level.name().to_ascii_uppercase().as_bytes());
                true
            }
            (tag::BODY, _) => edit(MESSAGE, field.payload, edits, buffers, |tag, bytes| {
                let any = 1 + varint_length(bytes.len()) + bytes.len();
                out.push(tag::BODY);
                out.extend_from_slice(Varint::new(any as u64).as_bytes());
                push_delimited(out, tag, bytes);
            }),
            (tag::ATTRIBUTE, _) => {
                let (key, any) = key_value(field.payload);
                let key = std::str::from_utf8(key).unwrap_or_default();
                edit(key, any, edits, buffers, |tag, bytes| push_bytes(out, key, tag, bytes))
            }
            _ => false,
        };
        changed |= edited;
        if !edited {
            out.extend_from_slice(field.whole);
        }
    }
    if verdict.repeated > 0 {
        push_attribute(out, REPEATED, Scalar::int(verdict.repeated as i64).as_bytes());
    }
    let length = out.len() - FRAME_BYTES;
    // A record of a length that the frame cannot tell does not fit a chunk either.
    out[1..FRAME_BYTES].copy_from_slice(&padded(length.min(CHUNK_BYTES)));
    changed
}

/// Hands the new text or bytes of a value to `write`; `false` when they stay.
fn edit(path: &str, any: &[u8], edits: Edits<'_>, buffers: &mut Buffers, write: impl FnOnce(u8, &[u8])) -> bool {
    if edits.is_empty() {
        return false;
    }
    if let Some(with) = edits.replacement(path) {
        write(tag::STRING, with.as_bytes());
        return true;
    }
    let Some(value) = (Fields { rest: any }).next() else { return false };
    match value.tag {
        tag::STRING => {
            let Ok(text) = std::str::from_utf8(value.payload) else { return false };
            let Some(text) = edits.text(path, text, buffers) else { return false };
            write(tag::STRING, text.as_bytes());
            true
        }
        tag::BYTES => {
            let stay = edits.bytes(path, value.payload.len());
            if stay < value.payload.len() {
                write(tag::BYTES, &value.payload[..stay]);
            }
            stay < value.payload.len()
        }
        _ => false,
    }
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

/// Writes `record` to `out` with further encoded attributes, which stand for those of the same name that it has. Where
/// `is_redacted` says so of a name, without the value.
#[cfg(feature = "log")]
pub(crate) fn add_attributes(record: &[u8], attributes: &[u8], is_redacted: impl Fn(&str) -> bool, out: &mut Vec<u8>) {
    let is_among_them =
        |key: &[u8]| (Fields { rest: attributes }).any(|attribute| key_value(attribute.payload).0 == key);
    out.clear();
    out.extend_from_slice(&[FRAME_TAG, 0, 0, 0]);
    for field in (Fields { rest: &record[FRAME_BYTES..] }) {
        if field.tag != tag::ATTRIBUTE || !is_among_them(key_value(field.payload).0) {
            out.extend_from_slice(field.whole);
        }
    }
    for field in (Fields { rest: attributes }) {
        match std::str::from_utf8(key_value(field.payload).0) {
            Ok(key) if is_redacted(key) => push_text(out, key, REDACTED),
            _ => out.extend_from_slice(field.whole),
        }
    }
    let length = out.len() - FRAME_BYTES;
    out[1..FRAME_BYTES].copy_from_slice(&padded(length));
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
#[inline]
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
    let Field { tag, payload, .. } = Fields { rest: any }.next()?;
    Some(match tag {
        tag::STRING => Value::Text(match std::str::from_utf8(payload) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(payload),
        }),
        tag::BOOL => Value::Bool(varint(payload)?.0 != 0),
        tag::INT => Value::Int(varint(payload)?.0 as i64),
        tag::DOUBLE => Value::Double(f64::from_le_bytes(payload.try_into().ok()?)),
        tag::BYTES => Value::Text(base64(payload).into()),
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
