//! The open block: messages that are indexed nowhere yet but searched as they are, record by record, over their bytes.
//!
//! It is a list of shared messages, so a search takes its own copy of the list and is not disturbed by writes.

use std::sync::Arc;

use bytes::Bytes;

use super::key::Key;
use crate::{
    otlp::{self, RecordView, WireError},
    queue,
};

/// A message whose records are not in a file yet.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) offset: i64,
    payload: Bytes,
    /// What it takes in the log, whether or not its bytes are kept here.
    log_bytes: usize,
    /// Ascending indexes of records that are not to be stored.
    dropped: Vec<u32>,
    /// When it was written here.
    written_ns: i64,
    /// The time of a record that has none of its own: when the queue took it.
    appended_ns: i64,
    /// Trace and span of the records that name none themselves.
    trace: Option<([u8; 16], [u8; 8])>,
    pub(super) rows: usize,
    pub(super) time_min_ns: i64,
    pub(super) time_max_ns: i64,
}

impl Message {
    /// Takes over a message.
    ///
    /// # Errors
    /// When its payload is not OTLP.
    pub(super) fn read(message: &queue::Message, now_ns: i64) -> Result<Self, WireError> {
        let mut taken = Self {
            payload: message.payload.clone(),
            dropped: message.dropped.clone(),
            appended_ns: match message.headers.appended_ns() {
                0 => now_ns,
                time => i64::try_from(time).unwrap_or(i64::MAX - 1),
            },
            trace: message.headers.trace().map(|(trace, span)| (trace.to_be_bytes(), span.to_be_bytes())),
            ..Self::nothing(message, now_ns)
        };
        let (mut rows, mut min, mut max) = (0, i64::MAX, i64::MIN);
        otlp::scan(&taken.payload, None, &mut |record: &RecordView<'_>| {
            if let Some(key) = taken.key(record) {
                rows += 1;
                min = min.min(key.time_ns);
                max = max.max(key.time_ns);
            }
        })?;
        (taken.rows, taken.time_min_ns, taken.time_max_ns) = (rows, min, max);
        Ok(taken)
    }

    /// A message without records to store: a batch sent twice, or a dead letter. It takes its place among the others so that
    /// the log is not let go of before a manifest knows of it.
    pub(super) fn nothing(message: &queue::Message, now_ns: i64) -> Self {
        let queue::Headers { instance, rules, lost, .. } = &message.headers;
        let trace = message.headers.traceparent().map_or(0, str::len);
        let headers = trace + [instance, rules, lost].into_iter().flatten().map(String::len).sum::<usize>();
        Self {
            offset: message.position.offset,
            payload: Bytes::new(),
            log_bytes: message.payload.len() + headers,
            dropped: Vec::new(),
            written_ns: now_ns,
            appended_ns: now_ns,
            trace: None,
            rows: 0,
            time_min_ns: i64::MAX,
            time_max_ns: i64::MIN,
        }
    }

    /// Calls `each` with every record to be stored.
    pub(super) fn for_each_row<'a>(&'a self, each: &mut dyn FnMut(Key, RecordView<'a>)) -> Result<(), WireError> {
        // It was checked when it was taken over.
        otlp::walk(&self.payload, &mut |record| {
            if let Some(key) = self.key(&record) {
                let around = self.trace.as_ref();
                each(key, around.map_or(record, |trace| record.or_trace(trace)));
            }
        })
    }

    /// The key of a record; none when it is not to be stored.
    fn key(&self, record: &RecordView<'_>) -> Option<Key> {
        if self.dropped.binary_search(&record.index).is_ok() {
            return None;
        }
        let time_ns = match record.time_ns() {
            0 => self.appended_ns,
            // A search's end is exclusive: the last nanosecond of all could not be found.
            time => i64::try_from(time).unwrap_or(i64::MAX).min(i64::MAX - 1),
        };
        Some(Key { time_ns, offset: self.offset, index: record.index })
    }
}

/// What a message costs in memory beside its bytes, and more than its frame costs in the log: keeps a flood of tiny ones
/// within the block's bound too.
const MESSAGE_OVERHEAD: usize = 160;

/// The messages of one block to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Open {
    pub(super) messages: Vec<Arc<Message>>,
    pub(super) rows: usize,
    /// What its messages take in the log, which keeps them until the block is published: those without a record to store,
    /// too, or a log full of nothing else would never be let go of. More than they take in memory.
    pub(super) bytes: usize,
    /// When its first message was written; 0 while it is empty.
    pub(super) since_ns: i64,
}

impl Open {
    pub(super) fn push(&mut self, message: Message) {
        if self.messages.is_empty() {
            self.since_ns = message.written_ns;
        }
        self.rows += message.rows;
        self.bytes += message.log_bytes + MESSAGE_OVERHEAD;
        self.messages.push(Arc::new(message));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The lowest log offset in it.
    pub(super) fn offset_min(&self) -> Option<i64> {
        self.messages.iter().map(|message| message.offset).min()
    }
}
