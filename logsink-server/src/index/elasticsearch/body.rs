//! Messages → the body of a `_bulk` request, in one pass over their wire bytes.
//!
//! A record becomes two lines: `create` with its id, and its document. The document holds what the sender sent, and beside
//! it what makes the index answer as the expression language does:
//! - `numbers`: each number among the attributes, by dotted path, as text that sorts as the numbers do;
//! - `opaque`: the paths whose value the index does not hold as the expression language sees it (a list, a map as a whole,
//!   null, text too long for a term). A search takes events with such a path along and looks at them itself. [`ANY`] stands
//!   for every path.
//!
//! Elasticsearch and OpenSearch refuse a document for a path too long for a term, and OpenSearch for text too long for one,
//! wherever among the attributes it is. Then the attributes go as a whole into a field that is not indexed, [`KEPT`].

mod attributes;
mod id;
mod keys;
mod notes;
mod parts;
mod row;
mod writer;

use std::ops::Range;

use bytes::Bytes;

use self::writer::{Pass, Writer};
use super::{
    fields::FieldNames,
    route::{Routes, Stream},
};
use crate::{
    otlp::{self, AnyView, KeyId, RecordView, Unread, Vocabulary, WireError, WireFault},
    queue::Message,
    text::Out,
};

/// Longer text is in the document but not in the index: a term has 32,766 bytes at most, and a character three.
pub(super) const TERM_CHARS_MAX: usize = 8_191;
/// In `opaque`: no path of this event can be trusted to the index.
pub(super) const ANY: &str = "*";
/// What ends a path in the terms of a `flat_object`.
const FLAT_END: char = '=';
/// What comes after the name of a field that is kept and not indexed.
pub(super) const KEPT: &str = "_kept";
/// The most bytes that buffers keep for the next body: more than most bodies need, and a bound on what one large body leaves
/// behind.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The most bytes of resources and scopes that the documents of one message may repeat: a megabyte of empty records below a
/// megabyte of resource would become a terabyte. What ingest lets in stays below: 100,000 records of a kilobyte of resource
/// are 100 MB.
const REPEATED_BYTES_MAX: usize = if cfg!(test) { 4 << 20 } else { 256 << 20 };

const TOO_MUCH: WireFault =
    WireFault::OverLimit { what: "bytes of resources that its records repeat", max: REPEATED_BYTES_MAX as u32 };

/// What kind of documents are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// Whether attributes are a `flat_object`, as OpenSearch has it: with text too long for a term it is refused, so that they go
    /// into [`KEPT`] fields then; and the index holds `PATH=VALUE`, where a path with [`FLAT_END`] in it passes for a shorter one.
    pub(super) is_flat_object: bool,
    /// How the fields are called.
    pub(super) names: FieldNames,
}

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
    /// Message and record of the first document that found no room.
    next: Option<(usize, u32)>,
    vocabulary: Vocabulary,
    writer: Writer,
}

/// Which documents a body has: those from a record of a message on, until it has so many bytes. The document that passes the
/// bound is its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    message: usize,
    record: u32,
    bytes_max: usize,
}

impl Part {
    /// From the first one on.
    pub(super) fn first(bytes_max: usize) -> Self {
        Self { message: 0, record: 0, bytes_max }
    }
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

/// What a body leaves to the next one: memory, and what is known of the resources and keys that were met. With them, writing a body
/// allocates nothing for its records.
#[derive(Default)]
pub(super) struct Buffers {
    out: Vec<u8>,
    items: Vec<Item<'static>>,
    vocabulary: Vocabulary,
    writer: Writer,
}

/// A 64-bit hash of the queue's name (FNV-1a), for ids: it must be the same for ever and everywhere.
pub(super) fn origin(queue: &str) -> u64 {
    queue.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl<'a> Body<'a> {
    /// Writes the documents of `messages`, which come from the queue that `origin` stands for, with the memory of an earlier body:
    /// see [`Self::into_buffers`]. Those that `part` wants: a record of a few bytes can have a resource of kilobytes, which each
    /// document repeats, so that a body of all would know no bound.
    pub(super) fn write_into(
        buffers: Buffers,
        messages: &'a [Message],
        origin: u64,
        shape: Shape,
        routes: &Routes,
        part: Part,
    ) -> Self {
        let Buffers { out, items, mut vocabulary, mut writer } = buffers;
        let (mut out, mut items) = (Out::new(out), reuse(items));
        let (mut bad, mut dropped, mut since_ns) = (Vec::new(), 0, Vec::with_capacity(messages.len()));
        let mut pass = Pass::new(routes);
        writer.begin(shape);
        // JSON with its two copies of the keys is two to three times the protobuf.
        let payload: usize = messages.iter().map(|message| message.payload.len()).sum();
        out.reserve((payload * 5 / 2).min(part.bytes_max));
        let mut next = None;
        for (index, message) in messages.iter().enumerate() {
            if index < part.message || next.is_some() {
                since_ns.push(u64::MAX);
                continue;
            }
            let before = (out.len(), items.len());
            writer.follow_message(message, origin, &mut pass);
            let first = if index == part.message { part.record } else { 0 };
            let mut documents = Documents {
                message,
                index,
                first,
                bytes_max: part.bytes_max,
                appended_ns: message.headers.appended_ns(),
                out: &mut out,
                items: &mut items,
                writer: &mut writer,
                pass: &mut pass,
                dropped: 0,
                repeated: 0,
                over: None,
                next: None,
            };
            let scanned = otlp::scan(&message.payload, Some(&mut vocabulary), &mut documents);
            let Documents { dropped: by_rules, over, next: rest, .. } = documents;
            // A bad message writes nothing: what stood before the fault is taken back.
            let over = over.map(|at| WireError { at, fault: TOO_MUCH });
            match scanned.err().or(over) {
                None => (next, dropped) = (rest, dropped + by_rules),
                Some(error) => {
                    out.truncate(before.0);
                    items.truncate(before.1);
                    // The part before has said so already.
                    if first == 0 {
                        bad.push((index, error));
                    }
                }
            }
            since_ns.push(pass.since_ns);
        }
        Self {
            bytes: out.into_bytes().into(),
            items,
            bad,
            dropped,
            streams: pass.into_streams(),
            since_ns,
            next,
            vocabulary,
            writer,
        }
    }

    /// What this body has no room for; none when it ends with the last of the messages.
    pub(super) fn rest(&self, bytes_max: usize) -> Option<Part> {
        self.next.map(|(message, record)| Part { message, record, bytes_max })
    }

    /// [`Self::write_into`] with memory of its own: at first every key is new, then all are known, and the documents are the same.
    #[cfg(test)]
    pub(super) fn routed(messages: &'a [Message], origin: u64, shape: Shape, routes: &Routes) -> Self {
        let write = |buffers| Self::write_into(buffers, messages, origin, shape, routes, Part::first(usize::MAX));
        let first = write(Buffers::default());
        let bytes = first.bytes.to_vec();
        let second = write(first.into_buffers());
        assert_eq!(bytes.escape_ascii().to_string(), second.bytes.escape_ascii().to_string());
        second
    }

    /// The documents of `messages` where the request's path says where they go.
    #[cfg(test)]
    pub(super) fn write(messages: &'a [Message], origin: u64, shape: impl Into<Shape>) -> Self {
        Self::routed(messages, origin, shape.into(), &Routes::fixed("logs-logsink-default"))
    }

    /// The memory for the next body. That of the lines is among it when nobody else holds any of them.
    pub(super) fn into_buffers(self) -> Buffers {
        let out = self.bytes.try_into_mut().map(Vec::from).unwrap_or_default();
        let out = if out.capacity() > KEPT_BYTES_MAX { Vec::new() } else { out };
        Buffers { out: cleared(out), items: reuse(self.items), vocabulary: self.vocabulary, writer: self.writer }
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

/// Writes the documents of a message as it is scanned.
struct Documents<'w, 'a, 'r> {
    message: &'a Message,
    /// The message's index.
    index: usize,
    /// Its first record that is wanted.
    first: u32,
    bytes_max: usize,
    appended_ns: u64,
    out: &'w mut Out,
    items: &'w mut Vec<Item<'a>>,
    writer: &'w mut Writer,
    pass: &'w mut Pass<'a, 'r>,
    /// Records that the rules dropped.
    dropped: u64,
    /// Bytes of resources and scopes, once for each record.
    repeated: usize,
    /// Where they became too many.
    over: Option<usize>,
    /// The first document that found no room.
    next: Option<(usize, u32)>,
}

impl<'a> otlp::Visit<'a> for Documents<'_, 'a, '_> {
    #[inline]
    fn begin(&mut self, vocabulary: &Vocabulary) {
        self.writer.begin_record(vocabulary);
    }

    #[inline(always)]
    fn attribute(&mut self, key: KeyId, value: AnyView<'a>) {
        self.writer.attribute(key, value);
    }

    #[inline(always)]
    fn text(&mut self, key: KeyId, text: Unread<'a>) -> bool {
        self.writer.text(key, text)
    }

    // When the body is full, the rest of the message is read all the same: a message with a fault is bad as a whole.
    #[inline]
    fn record(&mut self, record: &RecordView<'a>, keys: Option<&Vocabulary>) {
        let Self { message, first, .. } = *self;
        self.repeated += record.resource.raw.len() + record.scope.raw.len();
        if self.repeated > REPEATED_BYTES_MAX {
            self.over.get_or_insert(record.raw.as_ptr().addr() - message.payload.as_ptr().addr());
        }
        if record.index < first || self.next.is_some() || self.over.is_some() {
            return;
        }
        let start = self.out.len();
        if start >= self.bytes_max {
            self.next = Some((self.index, record.index));
            return;
        }
        if !message.dropped.is_empty() && message.dropped.binary_search(&record.index).is_ok() {
            self.dropped += 1;
            return;
        }
        let time_ns = if record.time_ns() == 0 { self.appended_ns } else { record.time_ns() };
        self.writer.write(self.out, record, keys, time_ns, self.pass);
        let lines = start..self.out.len();
        self.items.push(Item { message: self.index, record: record.index, raw: record.raw, lines });
    }
}

/// The list's memory for items of other messages: collecting what comes out of a list into one of the same layout keeps its
/// allocation.
fn reuse<'b>(mut items: Vec<Item<'_>>) -> Vec<Item<'b>> {
    items.clear();
    items.into_iter().map(|item| Item { raw: &[], ..item }).collect()
}

fn cleared(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.clear();
    bytes
}

#[cfg(test)]
mod tests;
