//! Messages → the body of a `_bulk` request, in one pass over their wire bytes.
//!
//! A record becomes two lines: `create` with its id, and its document. The document holds what the sender sent, and beside
//! it what makes the index answer as the expression language does:
//! - `numbers`: each number among the attributes, by dotted path, as text that sorts as the numbers do;
//! - `opaque`: the paths whose value the index does not hold as the expression language sees it (a list, a map as a whole,
//!   null, text too long for a term). A search takes events with such a path along and looks at them itself. [`ANY`] stands
//!   for every path.

use std::{borrow::Cow, collections::HashMap, io::Write, ops::Range};

use bytes::Bytes;

use super::{number, time};
use crate::{
    otlp::{self, AnyView, Elements, Pairs, RecordView, ResourceView, WireError},
    queue::Message,
};

/// Longer text is in the document but not in the index: a term has 32,766 bytes at most, and a character three.
pub(super) const TERM_CHARS_MAX: usize = 8_191;
/// In `opaque`: no path of this event can be trusted to the index.
pub(super) const ANY: &str = "*";
/// A longer instance id does not fit into a document's id (512 bytes) with what follows it; no sender of ours has one.
const INSTANCE_BYTES_MAX: usize = 256;

/// Paths in `opaque`; with more, [`ANY`] takes their place, so that a hostile event costs no quadratic time.
const OPAQUE_MAX: usize = 64;
/// Members of a map that are compared with one another, for the same reason.
const MEMBERS_MAX: usize = 1_024;

/// The documents of some messages.
pub(super) struct Body<'a> {
    /// All lines.
    pub(super) bytes: Bytes,
    /// One for each document, in order; their ranges follow one another.
    pub(super) items: Vec<Item<'a>>,
    /// Messages that are not OTLP, by index.
    pub(super) bad: Vec<(usize, WireError)>,
    /// Records that the rules dropped.
    pub(super) dropped: u64,
}

/// One document.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// The message's index.
    pub(super) message: usize,
    /// The record's index in the message.
    pub(super) record: u32,
    /// The record's wire bytes.
    pub(super) raw: &'a [u8],
    /// Its two lines in [`Body::bytes`].
    pub(super) lines: Range<usize>,
}

/// A 64-bit hash of the queue's name (FNV-1a), for ids: it must be the same for ever and everywhere.
pub(super) fn origin(queue: &str) -> u64 {
    queue.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<'a> Body<'a> {
    /// Writes the documents of `messages`, which come from the queue that `origin` stands for.
    pub(super) fn write(messages: &'a [Message], origin: u64) -> Self {
        // JSON with its two copies of the keys is two to three times the protobuf.
        let payload: usize = messages.iter().map(|message| message.payload.len()).sum();
        let mut out = Vec::with_capacity(payload * 5 / 2);
        let (mut items, mut bad, mut dropped) = (Vec::new(), Vec::new(), 0);
        for (index, message) in messages.iter().enumerate() {
            let mut resource = Resource::default();
            let id = Id::new(message, origin);
            let scanned = otlp::for_each_record(&message.payload, &mut |record| {
                if message.dropped.binary_search(&record.index).is_ok() {
                    dropped += 1;
                    return;
                }
                let start = out.len();
                resource.follow(record.resource);
                let id = id.record(record.index);
                out.extend_from_slice(b"{\"create\":{\"_id\":");
                string(&mut out, &id);
                out.extend_from_slice(b"}}\n");
                document(&mut out, &record, &resource, &id);
                out.push(b'\n');
                items.push(Item { message: index, record: record.index, raw: record.raw, lines: start..out.len() });
            });
            // The scanner checks the whole message before it shows a record: a bad one has written nothing.
            if let Err(error) = scanned {
                bad.push((index, error));
            }
        }
        Self { bytes: out.into(), items, bad, dropped }
    }

    /// The lines of some items, given ascending. Without a copy when they follow one another.
    pub(super) fn lines(&self, items: &[usize]) -> Bytes {
        let (Some(&first), Some(&last)) = (items.first(), items.last()) else {
            return Bytes::new();
        };
        if last - first + 1 == items.len() {
            return self.bytes.slice(self.items[first].lines.start..self.items[last].lines.end);
        }
        let len = items.iter().map(|&item| self.items[item].lines.len()).sum();
        let mut lines = Vec::with_capacity(len);
        for &item in items {
            lines.extend_from_slice(&self.bytes[self.items[item].lines.clone()]);
        }
        lines.into()
    }
}

/// What makes a record's id. The same record gets the same id however often it is sent or read, and within one sender (or
/// one partition) ids sort in the order of sending: they are the tie-break between events of one nanosecond.
enum Id<'a> {
    /// A sender that numbers its batches: a batch sent again has the same ids.
    Sender { instance: &'a str, sequence: u64 },
    /// Any other: a message read again has the same ids.
    Place { origin: u64, partition: i32, offset: i64 },
}

impl<'a> Id<'a> {
    fn new(message: &'a Message, origin: u64) -> Self {
        match (&message.headers.instance, message.headers.sequence) {
            (Some(instance), Some(sequence)) if instance.len() <= INSTANCE_BYTES_MAX => {
                Self::Sender { instance, sequence }
            }
            _ => Self::Place { origin, partition: message.position.partition, offset: message.position.offset },
        }
    }

    /// A `:` is in the ids of the first kind and never in those of the second.
    fn record(&self, index: u32) -> String {
        match self {
            Self::Sender { instance, sequence } => format!("{instance}:{sequence:016x}:{index:06x}"),
            Self::Place { origin, partition, offset } => {
                format!("{origin:016x}/{partition:08x}/{offset:016x}/{index:06x}")
            }
        }
    }
}

/// A resource's part of the documents, written once for all of its records.
#[derive(Default)]
struct Resource<'a> {
    view: ResourceView<'a>,
    json: Vec<u8>,
    notes: Notes<'a>,
}

impl<'a> Resource<'a> {
    fn follow(&mut self, view: ResourceView<'a>) {
        if self.json.is_empty() || !std::ptr::eq(self.view.raw, view.raw) {
            self.json.clear();
            self.notes = Notes::default();
            self.view = view;
            object(&mut self.json, view.attributes(), None, &mut self.notes);
        }
    }
}

fn document<'a>(out: &mut Vec<u8>, record: &RecordView<'a>, resource: &Resource<'a>, id: &str) {
    let mut notes = Notes::default();
    out.extend_from_slice(b"{\"@timestamp\":\"");
    out.extend_from_slice(time::text(time::clamp(record.time_ns())).as_bytes());
    out.extend_from_slice(b"\",\"tie\":");
    string(out, id);
    out.extend_from_slice(b",\"severity_number\":");
    out.extend_from_slice(itoa::Buffer::new().format(record.severity.0).as_bytes());
    field(out, "level", record.severity.name());
    field(out, "service", record.resource.service);
    field(out, "target", record.target());
    field(out, "message", &record.body.text());
    if let Some(id) = record.trace_id() {
        field(out, "trace_id", &hex(&id));
    }
    if let Some(id) = record.span_id() {
        field(out, "span_id", &hex(&id));
    }
    out.extend_from_slice(b",\"attributes\":");
    attributes(out, record.attributes(), &mut notes);
    out.extend_from_slice(b",\"resource\":");
    out.extend_from_slice(&resource.json);
    notes.inherit(&resource.notes, record.attributes());
    notes.write(out);
    rest(out, record);
    out.push(b'}');
}

/// What no search looks at by itself, kept because it was sent.
fn rest(out: &mut Vec<u8>, record: &RecordView<'_>) {
    if record.time_unix_nano != 0 && record.observed_time_unix_nano != 0 {
        field(out, "observed_timestamp", &time::text(time::clamp(record.observed_time_unix_nano)));
    }
    for (name, text) in [("severity_text", record.severity_text), ("event_name", record.event_name)] {
        if !text.is_empty() {
            field(out, name, text);
        }
    }
    if record.flags != 0 {
        out.extend_from_slice(b",\"flags\":");
        out.extend_from_slice(itoa::Buffer::new().format(record.flags).as_bytes());
    }
    if !record.scope.raw.is_empty() {
        out.extend_from_slice(b",\"scope\":{\"name\":");
        string(out, record.scope.name);
        field(out, "version", record.scope.version);
        out.extend_from_slice(b",\"attributes\":");
        object(out, record.scope.attributes(), None, &mut Notes::default());
        out.push(b'}');
    }
}

/// What the index has to be told about attributes beside their values.
#[derive(Default)]
struct Notes<'a> {
    numbers: Vec<(Cow<'a, str>, String)>,
    opaque: Vec<Cow<'a, str>>,
}

impl<'a> Notes<'a> {
    fn opaque(&mut self, path: Cow<'a, str>) {
        if self.opaque.len() == OPAQUE_MAX {
            self.opaque.push(Cow::Borrowed(ANY));
        } else if self.opaque.len() < OPAQUE_MAX && !self.opaque.contains(&path) {
            self.opaque.push(path);
        }
    }

    /// Adds a resource's notes; a number whose path the record has itself is not seen by any expression.
    fn inherit(&mut self, resource: &Notes<'a>, own: Pairs<'a>) {
        for (path, code) in &resource.numbers {
            if own.find(path).is_none() {
                self.numbers.push((path.clone(), code.clone()));
            }
        }
        for path in &resource.opaque {
            self.opaque(path.clone());
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if !self.numbers.is_empty() {
            // A path may come from a nested map and from a dotted key: JSON has it once, and `opaque` says so.
            let ambiguous = self.opaque.iter().any(|path| path == ANY);
            if ambiguous {
                self.numbers.sort_unstable();
                self.numbers.dedup_by(|a, b| a.0 == b.0);
            }
            out.extend_from_slice(b",\"numbers\":{");
            for (index, (path, code)) in self.numbers.iter().enumerate() {
                comma(out, index);
                key(out, path);
                out.push(b'"');
                out.extend_from_slice(code.as_bytes());
                out.push(b'"');
            }
            out.push(b'}');
        }
        if !self.opaque.is_empty() {
            out.extend_from_slice(b",\"opaque\":[");
            for (index, path) in self.opaque.iter().enumerate() {
                comma(out, index);
                // A path too long to be a term can only be found by looking at every such event.
                string(out, if path.len() > TERM_CHARS_MAX { ANY } else { path });
            }
            out.push(b']');
        }
    }
}

/// A record's attributes, without the text `target`: it stands beside them, under the same name.
fn attributes<'a>(out: &mut Vec<u8>, pairs: Pairs<'a>, notes: &mut Notes<'a>) {
    let mut pairs = distinct(pairs);
    pairs.retain(|(name, value)| *name != "target" || !matches!(value, AnyView::Str(_)));
    members(out, &pairs, None, notes);
}

/// A list of keys and values as an object; `parent` is the path of the map they are in.
fn object<'a>(out: &mut Vec<u8>, pairs: Pairs<'a>, parent: Option<&str>, notes: &mut Notes<'a>) {
    members(out, &distinct(pairs), parent, notes);
}

fn members<'a>(out: &mut Vec<u8>, pairs: &[(&'a str, AnyView<'a>)], parent: Option<&str>, notes: &mut Notes<'a>) {
    if pairs.len() > MEMBERS_MAX {
        notes.opaque(Cow::Borrowed(ANY));
    }
    out.push(b'{');
    for (index, &(name, value)) in pairs.iter().enumerate() {
        comma(out, index);
        key(out, name);
        // A map and a dotted key that reaches into it: the index would mix their values up.
        if matches!(value, AnyView::Map(_))
            && pairs.len() <= MEMBERS_MAX
            && pairs.iter().any(|(other, _)| other.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        {
            notes.opaque(Cow::Borrowed(ANY));
        }
        let path = parent.map_or(Cow::Borrowed(name), |parent| Cow::Owned(format!("{parent}.{name}")));
        self::value(out, value, path, notes);
    }
    out.push(b'}');
}

fn value<'a>(out: &mut Vec<u8>, value: AnyView<'a>, path: Cow<'a, str>, notes: &mut Notes<'a>) {
    match value {
        AnyView::Str(text) if text.len() <= TERM_CHARS_MAX => {}
        AnyView::Bool(_) => {}
        // Three bytes make four characters.
        AnyView::Bytes(bytes) if bytes.len() <= TERM_CHARS_MAX / 4 * 3 => {}
        AnyView::Int(value) => notes.numbers.push((path, number::code(value as f64))),
        AnyView::Double(value) => {
            // In JSON it is text.
            if !value.is_finite() {
                notes.opaque(path.clone());
            }
            notes.numbers.push((path, number::code(value)));
        }
        AnyView::Map(pairs) => {
            object(out, pairs, Some(&path), notes);
            notes.opaque(path);
            return;
        }
        AnyView::Array(elements) => {
            array(out, elements, notes);
            notes.opaque(path);
            return;
        }
        AnyView::Empty | AnyView::Str(_) | AnyView::Bytes(_) => notes.opaque(path),
    }
    scalar(out, value);
}

/// No path leads into a list, but the index makes one for the maps in it.
fn array<'a>(out: &mut Vec<u8>, elements: Elements<'a>, notes: &mut Notes<'a>) {
    out.push(b'[');
    for (index, element) in elements.iter().enumerate() {
        comma(out, index);
        match element {
            AnyView::Map(pairs) => {
                notes.opaque(Cow::Borrowed(ANY));
                object(out, pairs, None, &mut Notes::default());
            }
            AnyView::Array(inner) => array(out, inner, notes),
            _ => scalar(out, element),
        }
    }
    out.push(b']');
}

fn scalar(out: &mut Vec<u8>, value: AnyView<'_>) {
    // Writing into a Vec does not fail, and no scalar fails to serialize.
    let _ = serde_json::to_writer(out, &value);
}

/// The pairs whose key does not come again, in wire order: Elasticsearch refuses an object that has a key twice, and for the
/// expression language the last one counts.
fn distinct<'a>(pairs: Pairs<'a>) -> Vec<(&'a str, AnyView<'a>)> {
    /// Up to here looking through all of them is cheaper than a table.
    const FEW: usize = 32;
    let mut all: Vec<(&str, AnyView<'_>)> = pairs.iter().collect();
    if all.len() <= FEW {
        for index in (0..all.len()).rev() {
            if all[index + 1..].iter().any(|(later, _)| *later == all[index].0) {
                all.remove(index);
            }
        }
        return all;
    }
    let last: HashMap<&str, usize> = all.iter().enumerate().map(|(index, (name, _))| (*name, index)).collect();
    let mut index = 0..;
    all.retain(|(name, _)| index.next() == last.get(name).copied());
    all
}

fn comma(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// `,"name":"text"`; the name is ours and needs no escapes.
fn field(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    string(out, text);
}

/// `"name":`. A flattened field refuses the whole document for a NUL in a key, so a replacement character stands for it.
fn key(out: &mut Vec<u8>, name: &str) {
    if name.contains('\0') {
        string(out, &name.replace('\0', "\u{fffd}"));
    } else {
        string(out, name);
    }
    out.push(b':');
}

fn string(out: &mut Vec<u8>, text: &str) {
    // Writing into a Vec does not fail.
    let _ = serde_json::to_writer(out, text);
}

fn hex(id: &[u8]) -> String {
    let mut text = Vec::with_capacity(id.len() * 2);
    for byte in id {
        let _ = write!(text, "{byte:02x}");
    }
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests;
