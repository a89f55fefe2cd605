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

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;

use self::attributes::{Notes, attributes, object};
use super::{
    json,
    route::{Routes, Stream, Target},
    server::Flavor,
    time,
};
use crate::{
    otlp::{self, AnyView, Attributes, RecordView, ResourceView, ScopeView, WireError},
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
    /// Where the documents go.
    pub(super) streams: Vec<Stream>,
    /// By message: before this time, Unix nanoseconds, none of its records can have been stored.
    pub(super) since_ns: Vec<u64>,
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
    pub(super) fn routed(messages: &'a [Message], origin: u64, flavor: Flavor, routes: &Routes) -> Self {
        // JSON with its two copies of the keys is two to three times the protobuf.
        let payload: usize = messages.iter().map(|message| message.payload.len()).sum();
        let mut out = Vec::with_capacity(payload * 5 / 2);
        let (mut items, mut bad, mut dropped) = (Vec::<Item<'_>>::new(), Vec::new(), 0);
        let mut writer = Writer::new(flavor, routes);
        let mut since_ns = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let before = (out.len(), items.len(), dropped);
            writer.follow_message(message, origin);
            let scanned = otlp::scan(&message.payload, &mut |record, attributes| {
                if message.dropped.binary_search(&record.index).is_ok() {
                    dropped += 1;
                    return;
                }
                let start = out.len();
                let time_ns = if record.time_ns() == 0 { message.headers.appended_ns() } else { record.time_ns() };
                writer.write(&mut out, &record, attributes, time_ns);
                items.push(Item { message: index, record: record.index, raw: record.raw, lines: start..out.len() });
            });
            // A bad message writes nothing: what stood before the fault is taken back.
            if let Err(error) = scanned {
                out.truncate(before.0);
                items.truncate(before.1);
                dropped = before.2;
                bad.push((index, error));
            }
            since_ns.push(writer.since_ns);
        }
        Self { bytes: out.into(), items, bad, dropped, streams: writer.target.into_streams(), since_ns }
    }

    /// The documents of `messages` where the request's path says where they go.
    #[cfg(any(test, feature = "bench-internals"))]
    pub(super) fn write(messages: &'a [Message], origin: u64, flavor: Flavor) -> Self {
        Self::routed(messages, origin, flavor, &Routes::fixed("logs-logsink-default"))
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

/// What is known from one record to the next.
struct Writer<'a, 'r> {
    flavor: Flavor,
    /// What the ids of a message's records begin with, escaped.
    id: Vec<u8>,
    /// The index of the message's first record in the sender's batch.
    first: u32,
    /// Before this time none of the message's records can have been stored.
    since_ns: u64,
    /// Whether the ids are those of a sender that numbers its batches.
    is_numbered: bool,
    target: Target<'r>,
    resource: Resource<'a>,
    scope: Scope<'a>,
    clock: time::Clock,
    notes: Notes<'a>,
}

impl<'a, 'r> Writer<'a, 'r> {
    fn new(flavor: Flavor, routes: &'r Routes) -> Self {
        Self {
            flavor,
            id: Vec::new(),
            first: 0,
            since_ns: 0,
            is_numbered: false,
            target: Target::new(routes),
            resource: Resource::default(),
            scope: Scope::default(),
            clock: time::Clock::default(),
            notes: Notes::default(),
        }
    }

    /// Makes a message's ids. The same record gets the same id however often it is sent or read, and within one sender (or
    /// one partition) ids sort in the order of sending: they are the tie-break between events of one nanosecond.
    ///
    /// A sender that numbers its batches gives a batch sent again the same ids; any other's record has the id of its place,
    /// so that a message read again has the same ones. A `:` is in the ids of the first kind and never in those of the second.
    fn follow_message(&mut self, message: &Message, origin: u64) {
        self.is_numbered = true;
        let id = match (&message.headers.instance, message.headers.sequence) {
            (Some(instance), Some(sequence)) if instance.len() <= INSTANCE_BYTES_MAX => {
                format!("{instance}:{sequence:016x}:")
            }
            _ => {
                self.is_numbered = false;
                // A topic that is made anew begins at offset 0 again: its messages are told from the old ones by their time.
                let origin = origin ^ message.headers.appended_ns();
                format!("{:08x}/{:016x}/{origin:016x}/", message.position.partition, message.position.offset)
            }
        };
        self.first = message.headers.first;
        self.id.clear();
        json::escaped(&mut self.id, &id);
        // What has the id of its place cannot have been stored before it stood there; a batch that is sent twice, not before
        // its records happened.
        self.since_ns = message.headers.appended_ns();
        self.target.follow_message(time::clamp(self.since_ns));
    }

    /// `"id"`
    fn id(&self, out: &mut Vec<u8>, index: u32) {
        out.push(b'"');
        out.extend_from_slice(&self.id);
        let index = self.first.saturating_add(index);
        // Six digits, and more for who sends more.
        let [high, rest @ ..] = index.to_be_bytes();
        if high != 0 {
            out.extend_from_slice(format!("{high:x}").as_bytes());
        }
        json::hex(out, rest);
        out.push(b'"');
    }

    /// The line before the document.
    fn action(&mut self, out: &mut Vec<u8>, index: u32, time_ns: u64) {
        out.extend_from_slice(b"{\"create\":{");
        out.extend_from_slice(self.target.action(time::clamp(time_ns)));
        out.extend_from_slice(b"\"_id\":");
        self.id(out, index);
        out.extend_from_slice(b"}}\n");
    }

    /// Writes a record's two lines.
    fn write(&mut self, out: &mut Vec<u8>, record: &RecordView<'a>, pairs: Attributes<'_, 'a>, time_ns: u64) {
        if self.resource.follow(record.resource) {
            self.target.follow_resource(&record.resource);
        }
        if self.is_numbered {
            self.since_ns = self.since_ns.min(time_ns);
        }
        self.action(out, record.index, time_ns);
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.clock.write(out, time::clamp(time_ns));
        out.extend_from_slice(b"\",\"tie\":");
        self.id(out, record.index);
        json::number(out, "severity_number", record.severity.0);
        json::field(out, "level", record.severity.name());
        out.extend_from_slice(&self.resource.service);
        json::field(out, "target", target(record, pairs));
        json::field(out, "message", &record.body.text());
        if let Some(id) = record.trace_id() {
            out.extend_from_slice(b",\"trace_id\":\"");
            json::hex(out, id);
            out.push(b'"');
        }
        if let Some(id) = record.span_id() {
            out.extend_from_slice(b",\"span_id\":\"");
            json::hex(out, id);
            out.push(b'"');
        }
        let (start, end) = (out.len(), out.len() + ATTRIBUTES.len());
        out.extend_from_slice(ATTRIBUTES);
        self.notes.clear();
        attributes(out, pairs, &mut self.notes);
        if self.notes.has_long && self.flavor == Flavor::OpenSearch {
            out.splice(start..end, keep(ATTRIBUTES));
            self.notes.opaque(Cow::Borrowed(ANY));
        }
        if self.resource.notes.has_long && self.flavor == Flavor::OpenSearch {
            out.extend(keep(RESOURCE));
            self.notes.opaque(Cow::Borrowed(ANY));
        } else {
            out.extend_from_slice(RESOURCE);
        }
        out.extend_from_slice(&self.resource.json);
        self.notes.inherit(&self.resource.notes, record.attributes(), pairs);
        self.notes.write(out);
        self.rest(out, record);
        out.extend_from_slice(b"}\n");
    }

    /// What no search looks at by itself, kept because it was sent.
    fn rest(&mut self, out: &mut Vec<u8>, record: &RecordView<'a>) {
        if record.time_unix_nano != 0 && record.observed_time_unix_nano != 0 {
            out.extend_from_slice(b",\"observed_timestamp\":\"");
            self.clock.write(out, time::clamp(record.observed_time_unix_nano));
            out.push(b'"');
        }
        for (name, text) in [("severity_text", record.severity_text), ("event_name", record.event_name)] {
            if !text.is_empty() {
                json::field(out, name, text);
            }
        }
        if record.flags != 0 {
            json::number(out, "flags", record.flags);
        }
        self.scope.follow(record.scope);
        out.extend_from_slice(&self.scope.json);
    }
}

/// What [`RecordView::target`] says, from attributes that are read already.
fn target<'a>(record: &RecordView<'a>, pairs: Attributes<'_, 'a>) -> &'a str {
    match pairs.iter().rfind(|(name, _)| *name == "target") {
        Some(&(_, AnyView::Str(target))) => target,
        _ => record.scope.name,
    }
}

/// A resource's part of the documents, written once for all of its records.
#[derive(Default)]
struct Resource<'a> {
    view: ResourceView<'a>,
    /// `,"service":"…"`
    service: Vec<u8>,
    json: Vec<u8>,
    notes: Notes<'a>,
}

impl<'a> Resource<'a> {
    /// Whether it is another one than before.
    fn follow(&mut self, view: ResourceView<'a>) -> bool {
        let is_another = self.json.is_empty() || !std::ptr::eq(self.view.raw, view.raw);
        if is_another {
            self.service.clear();
            json::field(&mut self.service, "service", view.service);
            self.json.clear();
            self.notes.clear();
            self.view = view;
            object(&mut self.json, view.attributes(), None, &mut self.notes);
        }
        is_another
    }
}

/// A scope's part; empty when nothing is known of it.
#[derive(Default)]
struct Scope<'a> {
    view: ScopeView<'a>,
    json: Vec<u8>,
}

impl<'a> Scope<'a> {
    fn follow(&mut self, view: ScopeView<'a>) {
        if std::ptr::eq(self.view.raw, view.raw) {
            return;
        }
        self.json.clear();
        self.view = view;
        if !view.raw.is_empty() {
            self.json.extend_from_slice(b",\"scope\":{\"name\":");
            json::string(&mut self.json, view.name);
            json::field(&mut self.json, "version", view.version);
            self.json.extend_from_slice(ATTRIBUTES);
            object(&mut self.json, view.attributes(), None, &mut Notes::default());
            self.json.extend_from_slice(b"}");
        }
    }
}

const ATTRIBUTES: &[u8] = b",\"attributes\":";
const RESOURCE: &[u8] = b",\"resource\":";

/// The same member under the name that is not indexed.
fn keep(member: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let (name, end) = member.split_at(member.len() - 2);
    name.iter().chain(KEPT.as_bytes()).chain(end).copied()
}

#[cfg(test)]
mod tests;
