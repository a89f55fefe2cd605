//! What stands between ingest and index: an ordered, durable log of OTLP requests, in partitions.
//!
//! Two implementations: [`kafka`] (cluster) and [`disk`] (standalone). A writer's `Ok` means durable: Kafka answered with
//! acks=all, or the disk log was fsynced.

pub mod dead;
pub mod disk;
pub mod headers;
pub mod json;
pub mod kafka;
pub(crate) mod split;

use std::{future::Future, pin::Pin};

use bytes::Bytes;

/// What the names of attributes begin with that were a message's headers.
pub(crate) const HEADER_PREFIX: &str = "kafka.header.";

/// W3C's trace context beside a message or a request: `00-<trace>-<span>-<flags>`.
pub const TRACEPARENT: &str = "traceparent";

/// What travels beside a payload (`logsink::transport::header`): gRPC metadata on the way in, Kafka headers in the topic,
/// a few bytes in the frame of the disk log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// The sender's instance id; none for a sender that is not the logsink library.
    pub instance: Option<String>,
    /// The sender's batch sequence number.
    pub sequence: Option<u64>,
    /// The revision of the rules that have been applied already: by the sender, at ingest, or at the drain (`sift`), which is seen
    /// in dead letters.
    pub rules: Option<String>,
    /// The sender's loss counters.
    pub lost: Option<String>,
    /// The index of the message's first record in the sender's batch: not 0 where the batch was too large for one message.
    pub first: u32,
    /// What else stood beside a message in Kafka, or the `traceparent` of a request: kept for dead letters.
    pub others: Vec<(String, Bytes)>,
    /// When the queue took the message, Unix milliseconds; set by the queue (in Kafka it is the message's timestamp). It is
    /// the time of records that bring none: the same however often the message is read.
    pub appended_ms: Option<i64>,
}

impl Headers {
    /// `appended_ms` in Unix nanoseconds; 0 when the queue did not say.
    pub fn appended_ns(&self) -> u64 {
        self.appended_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0).saturating_mul(1_000_000)
    }

    /// Trace and span of the message, from the sender's `traceparent`: what its records have that name none themselves.
    pub fn trace(&self) -> Option<(u128, u64)> {
        trace_of(self.traceparent()?)
    }

    /// The sender's [`TRACEPARENT`], whatever it says.
    pub(crate) fn traceparent(&self) -> Option<&str> {
        let (_, text) = self.others.iter().find(|(key, _)| key.eq_ignore_ascii_case(TRACEPARENT))?;
        std::str::from_utf8(text).ok()
    }
}

/// Trace and span of a [`TRACEPARENT`]; none when it is not one.
pub(crate) fn trace_of(traceparent: &str) -> Option<(u128, u64)> {
    let mut parts = traceparent.split('-').skip(1);
    let (trace, span, _flags) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex(trace, 32) || !is_hex(span, 16) {
        return None;
    }
    let ids = (u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?);
    (ids.0 != 0 && ids.1 != 0).then_some(ids)
}

/// What ingest appends: the bytes of one checked `ExportLogsServiceRequest`.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The request as it came, or as rules have left it.
    pub payload: Bytes,
    /// What travels beside it.
    pub headers: Headers,
}

/// A place in the queue. The disk log has one partition, 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The message's offset in it.
    pub offset: i64,
}

/// What drain reads.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it stands.
    pub position: Position,
    /// Rises by one each time the partition is assigned anew: what was read before a rebalance is not confused with what
    /// comes after it.
    pub epoch: u32,
    /// The bytes of one `ExportLogsServiceRequest`, unchecked: another program may have written it.
    pub payload: Bytes,
    /// What travels beside it.
    pub headers: Headers,
    /// Indexes, ascending, of the records that the server's rules dropped (set by `sift`): they are not indexed, but they
    /// count, so that the other records' ids stay what they are when the message is read again under other rules.
    pub dropped: Vec<u32>,
}

impl Message {
    /// What it takes of memory, and counts in every budget: tiny messages and those with much beside them, too.
    pub fn bytes(&self) -> usize {
        let others: usize =
            self.headers.others.iter().map(|(key, value)| key.len() + value.len() + size_of::<(String, Bytes)>()).sum();
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let own = text(&self.headers.instance) + text(&self.headers.rules) + text(&self.headers.lost);
        self.payload.len() + others + own + size_of::<Self>()
    }
}

/// What a reader hands to drain.
#[derive(Debug)]
pub enum Fetched {
    /// Messages, in order within each partition; never empty.
    Messages(Vec<Message>),
    /// These partitions went to another reader: forget what is under way in them.
    Revoked(Vec<i32>),
    /// The queue was closed: nothing will come any more.
    Closed,
}

/// What a queue cannot do.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Worth trying again: a broker is away, a buffer is full.
    #[error("{0}")]
    Unavailable(String),
    /// The batch is over the queue's limit.
    #[error("the batch has {bytes} bytes and the queue takes {bytes_max} at most: send smaller batches")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The disk or the broker refuses: someone has to act.
    #[error("{0}")]
    Failed(String),
}

/// A boxed future, as the seams' traits hand them out.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The writing end.
pub trait QueueWriter: Send + Sync + 'static {
    /// Appends one batch; resolves when it is durable.
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<(), QueueError>>;
    /// Whether an append would succeed, as far as can be told without one; the error says what is the matter.
    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async { Ok(()) })
    }
}

/// The reading end; each reader has its own.
pub trait QueueReader: Send + 'static {
    /// Waits for messages and takes up to about `bytes_max` of payload. Cancel-safe: a dropped call loses nothing.
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>>;
    /// Everything before these positions is done with and may be forgotten; a restart begins at them. Their offsets are
    /// those of the next messages wanted.
    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError>;
    /// Commits durably what was committed and gives the partitions back.
    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>>;
}

/// Where records go that no index will ever take: kept with the reason, for a person to look at and to send again.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps the bytes of one record (`record` is its index in the message), or of a whole message that is not OTLP
    /// (`record` is none); resolves when they are durable. Copies what it needs before it returns.
    fn put(
        &self,
        message: &Message,
        record: Option<u32>,
        reason: &str,
        bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>>;
    /// Whether one could be kept, as far as can be told; where they are kept beside the queue, that says how the queue is.
    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async { Ok(()) })
    }
}
