//! Where events are kept to be searched.
//!
//! Two implementations: [`elasticsearch`] (cluster) and [`embedded`] (standalone).

pub mod elasticsearch;
pub mod embedded;

use crate::{
    query::{Page, Query},
    queue::{BoxFuture, Message},
};

/// What a write did with the records it was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Stored, or there already (a replay).
    pub stored: u64,
    /// Not storable for good, and in the dead-letter queue with the reason.
    pub dead: u64,
    /// Dropped by the server's rules before.
    pub dropped: u64,
}

/// How much an index takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appetite {
    /// Writes that are of use at a time.
    pub writes: usize,
    /// Bytes of payload that a write should have.
    pub payload_bytes: usize,
}

/// What an index cannot do. A writer retries what is worth it by itself: what comes out needs a person.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The request (a search) is wrong; the message says what to write instead.
    #[error("{0}")]
    BadRequest(String),
    /// The index is away or overloaded.
    #[error("{0}")]
    Unavailable(String),
    /// Someone has to act: no permission, disk full, damaged file.
    #[error("{0}")]
    Failed(String),
}

/// Makes messages searchable.
pub trait IndexWriter: Send + Sync + 'static {
    /// Writes the records of these messages. `Ok` only when each record is stored, dead-lettered or dropped by a rule.
    /// Several calls may be under way at a time, for different messages. A message that is not OTLP is dead-lettered.
    /// Does not give up on an index that is away: it retries until it answers or the future is dropped.
    fn write<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<Written, IndexError>>;

    /// How much it takes just now: it follows what the cluster behind it does. `None`: what the drain thinks.
    fn appetite(&self) -> Option<Appetite> {
        None
    }

    /// The offset in `partition` before which everything written is durable in the index, when that is less than everything
    /// written: the embedded store's open block is covered by the queue until it is published. `None`: all is durable.
    fn durable(&self, _partition: i32) -> Option<i64> {
        None
    }

    /// Publishes what is still open; called once, at the end.
    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Answers searches.
pub trait IndexReader: Send + Sync + 'static {
    /// The newest `query.limit` events that match, newest first.
    fn search<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, IndexError>>;
    /// Whether it can answer now; the error says what is the matter.
    fn ready(&self) -> BoxFuture<'_, Result<(), IndexError>>;
    /// What is known to be missing from its answers, a sentence each: it works, and a person should look at it.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
