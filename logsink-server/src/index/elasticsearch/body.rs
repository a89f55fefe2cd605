//! Messages → the body of a `_bulk` request, in one pass over their wire bytes.
//!
//! A record becomes two lines: `create` with its id, and its document. The document holds what the sender sent, and beside
//! it what makes the index answer as the expression language does:
//! - `numbers`: each number among the attributes, by dotted path, as text that sorts as the numbers do;
//! - `opaque`: the paths whose value the index does not hold as the expression language sees it (a list, a map as a whole,
//!   null, text too long for a term). A search takes events with such a path along and looks at them itself. [`ANY`] stands
//!   for every path.
//!
//! OpenSearch refuses a document for text too long for a term, wherever in a `flat_object` it is. There, attributes with such
//! text go as a whole into a field that is not indexed, [`KEPT`].

mod attributes;

use std::{borrow::Cow, io::Write, ops::Range};

use bytes::Bytes;

use self::attributes::{Notes, attributes, object};
use super::{setup::Flavor, time};
use crate::{
    otlp::{self, RecordView, ResourceView, WireError},
    queue::Message,
};

/// Longer text is in the document but not in the index: a term has 32,766 bytes at most, and a character three.
pub(super) const TERM_CHARS_MAX: usize = 8_191;
/// In `opaque`: no path of this event can be trusted to the index.
pub(super) const ANY: &str = "*";
/// What comes after the name of a field that is kept and not indexed.
pub(super) const KEPT: &str = "_kept";
/// A longer instance id does not fit into a document's id (512 bytes) with what follows it; no sender of ours has one.
const INSTANCE_BYTES_MAX: usize = 256;

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
    pub(super) fn write(messages: &'a [Message], origin: u64, flavor: Flavor) -> Self {
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
                let time_ns = if record.time_ns() == 0 { message.headers.appended_ns() } else { record.time_ns() };
                document(&mut out, &record, time_ns, &resource, &id, flavor);
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

fn document<'a>(
    out: &mut Vec<u8>,
    record: &RecordView<'a>,
    time_ns: u64,
    resource: &Resource<'a>,
    id: &str,
    flavor: Flavor,
) {
    let mut notes = Notes::default();
    out.extend_from_slice(b"{\"@timestamp\":\"");
    out.extend_from_slice(time::text(time::clamp(time_ns)).as_bytes());
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
    let (start, end) = (out.len(), out.len() + ATTRIBUTES.len());
    out.extend_from_slice(ATTRIBUTES);
    attributes(out, record.attributes(), &mut notes);
    if notes.has_long && flavor == Flavor::OpenSearch {
        out.splice(start..end, keep(ATTRIBUTES));
        notes.opaque(Cow::Borrowed(ANY));
    }
    if resource.notes.has_long && flavor == Flavor::OpenSearch {
        out.extend(keep(RESOURCE));
        notes.opaque(Cow::Borrowed(ANY));
    } else {
        out.extend_from_slice(RESOURCE);
    }
    out.extend_from_slice(&resource.json);
    notes.inherit(&resource.notes, record.attributes());
    notes.write(out);
    rest(out, record);
    out.push(b'}');
}

const ATTRIBUTES: &[u8] = b",\"attributes\":";
const RESOURCE: &[u8] = b",\"resource\":";

/// The same member under the name that is not indexed.
fn keep(member: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let (name, end) = member.split_at(member.len() - 2);
    name.iter().chain(KEPT.as_bytes()).chain(end).copied()
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

/// `,"name":"text"`; the name is ours and needs no escapes.
fn field(out: &mut Vec<u8>, name: &str, text: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    string(out, text);
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
