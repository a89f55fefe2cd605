//! Framed records → batches, cut by bytes, by count and by age. Pure: is given `now` and the records, does no I/O.
//!
//! A record in the queue is framed as the field it will be in `ScopeLogs` (`0x12 <length> LogRecord`), so the body of a
//! batch is a plain concatenation of records, copied once. What stands before it (the resource, the scope and the lengths
//! around them) is known only when the batch is cut; room for it is kept in front of the body and filled from its end.

mod buffers;

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{encode::shrink::shrink, queue::records};
use buffers::{Buffer, Buffers};

/// Where to cut. A record that is alone larger than `bytes_max` makes a batch of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of a batch's payload.
    pub(crate) bytes_max: usize,
    /// Records in a batch.
    pub(crate) records_max: u32,
    /// How long a record may wait for company.
    pub(crate) age_max: Duration,
}

/// What all batches of a process have in common: the encoded `Resource` and `InstrumentationScope` fields.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// Field 1 of `ResourceLogs`, with its tag and length.
    resource: Vec<u8>,
    /// Field 1 of `ScopeLogs`, with its tag and length.
    scope: Vec<u8>,
}

/// Tag of a length-delimited field 1 and 2.
const FIELD_1: u8 = 0x0a;
const FIELD_2: u8 = 0x12;

/// A tag and the longest length that a payload below 4 GiB can have.
const PREFIX_BYTES_MAX: usize = 1 + 5;

impl Envelope {
    /// Encodes the resource's attributes (all of them text or integers) and the scope.
    pub(crate) fn new(resource: &[(String, Attribute)]) -> Self {
        let mut attributes = Vec::new();
        for (key, value) in resource {
            let mut any = Vec::new();
            match value {
                Attribute::Text(text) => put_field(&mut any, 1, text.as_bytes()),
                Attribute::Int(number) => {
                    any.push(3 << 3);
                    put_varint(&mut any, *number as u64);
                }
            }
            let mut pair = Vec::new();
            put_field(&mut pair, 1, key.as_bytes());
            put_field(&mut pair, 2, &any);
            put_field(&mut attributes, 1, &pair);
        }
        let mut scope_body = Vec::new();
        put_field(&mut scope_body, 1, b"logsink");
        put_field(&mut scope_body, 2, env!("CARGO_PKG_VERSION").as_bytes());

        let mut envelope = Self { resource: Vec::new(), scope: Vec::new() };
        put_field(&mut envelope.resource, 1, &attributes);
        put_field(&mut envelope.scope, 1, &scope_body);
        envelope
    }

    /// Room to keep in front of a body.
    fn bytes_max(&self) -> usize {
        2 * PREFIX_BYTES_MAX + self.resource.len() + self.scope.len()
    }

    /// Fills the room in front of the body; the payload starts where the head starts.
    fn close(&self, mut bytes: Buffer, records: u32) -> Sealed {
        let body = self.bytes_max()..bytes.len();
        let scope_logs = self.scope.len() + body.len();
        let mut inner = vec![FIELD_2];
        put_varint(&mut inner, scope_logs as u64);
        let resource_logs = self.resource.len() + inner.len() + scope_logs;

        let mut head = vec![FIELD_1];
        put_varint(&mut head, resource_logs as u64);
        head.extend_from_slice(&self.resource);
        head.extend_from_slice(&inner);
        head.extend_from_slice(&self.scope);

        let start = body.start - head.len();
        bytes[start..body.start].copy_from_slice(&head);
        let body = body.start - start..body.end - start;
        Sealed { payload: Bytes::from_owner(bytes).slice(start..), body, records }
    }

    /// A batch of these records alone.
    pub(crate) fn seal(&self, body: &[u8], records: u32) -> Sealed {
        let mut bytes = vec![0; self.bytes_max()];
        bytes.extend_from_slice(body);
        self.close(Buffer::from(bytes), records)
    }
}

/// A value of a resource attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Attribute {
    Text(String),
    Int(i64),
}

fn put_field(bytes: &mut Vec<u8>, number: u8, value: &[u8]) {
    bytes.push(number << 3 | 2);
    put_varint(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A batch that is complete, without a sequence number yet.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    /// `ExportLogsServiceRequest`
    pub(crate) payload: Bytes,
    /// Where in the payload the framed records are.
    body: Range<usize>,
    pub(crate) records: u32,
}

impl Sealed {
    /// The framed records.
    pub(crate) fn body(&self) -> &[u8] {
        &self.payload[self.body.clone()]
    }

    /// Where in the payload the framed records begin.
    pub(crate) fn body_start(&self) -> usize {
        self.body.start
    }

    /// A batch that was written down: its records go to the payload's end. `None` when they cannot.
    pub(crate) fn restore(payload: Bytes, body_start: usize, records: u32) -> Option<Self> {
        (body_start <= payload.len()).then(|| Self { body: body_start..payload.len(), payload, records })
    }

    /// Two batches with half of the records each; `None` when there is only one.
    pub(crate) fn split(&self, envelope: &Envelope) -> Option<(Self, Self)> {
        let half = self.records / 2;
        if half == 0 {
            return None;
        }
        let end: usize = records(self.body()).take(half as usize).map(<[u8]>::len).sum();
        let (first, second) = self.body().split_at(end);
        Some((envelope.seal(first, half), envelope.seal(second, self.records - half)))
    }

    /// The batch of one record with that record cut, so that its payload has `bytes_max` bytes at most, and how many values
    /// were cut for it; `None` when it cannot be cut that far.
    pub(crate) fn shrink(&self, envelope: &Envelope, bytes_max: usize) -> Option<(Self, u32)> {
        let room = bytes_max.checked_sub(envelope.bytes_max())?;
        let shrunk = shrink(self.body(), room)?;
        Some((envelope.seal(&shrunk.record, 1), shrunk.values))
    }
}

/// Collects records.
#[derive(Debug)]
pub(crate) struct Batcher {
    limits: Limits,
    envelope: Arc<Envelope>,
    buffers: Arc<Buffers>,
    /// Room for the head, then the body so far. Empty until the first record comes.
    bytes: Buffer,
    records: u32,
    oldest: Instant,
}

impl Batcher {
    pub(crate) fn new(limits: Limits, envelope: Arc<Envelope>, now: Instant) -> Self {
        Self { limits, envelope, buffers: Arc::default(), bytes: Buffer::default(), records: 0, oldest: now }
    }

    /// Takes a run of whole framed records, the oldest of which was made at `since` or later, and hands over each batch that
    /// it fills.
    pub(crate) fn push(&mut self, mut run: &[u8], since: Instant, each: &mut dyn FnMut(Sealed)) {
        while !run.is_empty() {
            let mut taken = self.take_piece(run);
            if taken == (0, 0) {
                let Some(record) = records(run).next() else { return };
                let full = self.records == self.limits.records_max || self.len() + record.len() > self.limits.bytes_max;
                if full && let Some(sealed) = self.seal() {
                    each(sealed);
                    continue;
                }
                // It is larger than a piece, or alone larger than a batch should be.
                self.begin();
                self.bytes.extend_from_slice(record);
                taken = (record.len(), 1);
            }
            if self.records == 0 {
                self.oldest = since;
            }
            self.records += taken.1;
            run = &run[taken.0..];
        }
    }

    /// Takes the whole records at the start of a run that are within one piece and within the limits, and tells how many bytes
    /// and records they are. They are copied first and looked at afterwards: to copy is to read memory in its order, which the
    /// processor does ahead, while a walk from length to length through what another core has written waits for each of them.
    fn take_piece(&mut self, run: &[u8]) -> (usize, u32) {
        let room = self.limits.bytes_max.saturating_sub(self.len());
        let records_left = (self.limits.records_max - self.records) as usize;
        let piece = &run[..run.len().min(room).min(PIECE_BYTES)];
        if piece.is_empty() || records_left == 0 {
            return (0, 0);
        }
        self.begin();
        let start = self.bytes.len();
        self.bytes.extend_from_slice(piece);
        let (bytes, count) = records(&self.bytes[start..])
            .take(records_left)
            .fold((0, 0), |(bytes, count), record| (bytes + record.len(), count + 1));
        self.bytes.truncate(start + bytes);
        (bytes, count)
    }

    /// How long until the batch begun is due; `None` when there is none.
    pub(crate) fn due_in(&self, now: Instant) -> Option<Duration> {
        (self.records > 0).then(|| (self.oldest + self.limits.age_max).saturating_duration_since(now))
    }

    /// The batch begun, when its oldest record has waited long enough.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Sealed> {
        (now.saturating_duration_since(self.oldest) >= self.limits.age_max).then(|| self.seal()).flatten()
    }

    /// The batch begun, however small.
    pub(crate) fn seal(&mut self) -> Option<Sealed> {
        if self.records == 0 {
            return None;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let records = std::mem::take(&mut self.records);
        Some(self.envelope.close(bytes, records))
    }

    fn len(&self) -> usize {
        self.bytes.len().max(self.envelope.bytes_max())
    }

    /// Keeps room for the head, before the first record.
    fn begin(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = self.buffers.take();
            self.bytes.resize(self.envelope.bytes_max(), 0);
        }
    }
}

/// Small enough that a piece and its copy are both in the first-level cache (48 KiB, rarely 32).
const PIECE_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests;
