//! What the transcoder needs of a message: the server's own `queue` brings Kafka along.

use bytes::Bytes;

/// What travels beside a payload.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    /// The sender's instance id.
    pub instance: Option<String>,
    /// The sender's batch sequence number.
    pub sequence: Option<u64>,
    /// The index of its first record in the sender's batch.
    pub first: u32,
    /// When the queue took the message, Unix nanoseconds.
    pub appended_ns: u64,
}

impl Headers {
    /// 0 when the queue did not say.
    pub fn appended_ns(&self) -> u64 {
        self.appended_ns
    }

    /// Trace and span of the message, from another producer: none.
    pub fn trace(&self) -> Option<(u128, u64)> {
        None
    }
}

/// A place in the queue.
#[derive(Debug, Clone, Copy)]
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
    /// The bytes of one `ExportLogsServiceRequest`.
    pub payload: Bytes,
    /// What travels beside it.
    pub headers: Headers,
    /// Indexes, ascending, of the records that rules dropped.
    pub dropped: Vec<u32>,
}
