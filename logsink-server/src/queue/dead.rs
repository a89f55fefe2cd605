//! Dead letters as they are read again: what `logsink-server dead-letters` shows, sends again and removes.

use bytes::Bytes;

use super::{Headers, QueueError};
use crate::error::Error;

/// A record, or a message, that no index took.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its name among the dead letters.
    pub id: String,
    /// When it was put there, Unix milliseconds.
    pub time_ms: i64,
    /// Why.
    pub reason: String,
    /// Where it was read: `topic/partition/offset`; empty when it never was in the queue.
    pub source: String,
    /// The record's index in its message; none for a whole message.
    pub record: Option<u32>,
    /// What stood beside the message.
    pub headers: Headers,
    /// One `ExportLogsServiceRequest` with the record, or the message's bytes, whatever they are.
    pub bytes: Bytes,
    /// How many bytes there were, when only the first are kept.
    pub cut_from: Option<u64>,
}

/// What became of letters that were sent again.
#[derive(Debug, Default)]
pub struct Replayed {
    /// How many were taken.
    pub sent: u64,
    /// The ids of those that were refused for what they are, and why.
    pub refused: Vec<(String, String)>,
    /// Why it ended early: it would have been the same for each one that was left.
    pub stopped: Option<Error>,
    /// The ids of those that were not sent because of that.
    pub left: Vec<String>,
}

/// Which dead letters.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// These only.
    pub ids: Vec<String>,
    /// A part of the reason, in any case of letters.
    pub reason: Option<String>,
    /// What the source begins with.
    pub source: Option<String>,
    /// Put there at that time or later, Unix milliseconds.
    pub from_ms: Option<i64>,
    /// Put there before that time, Unix milliseconds.
    pub to_ms: Option<i64>,
}

impl Wanted {
    /// Whether a letter is one of these.
    pub fn has(&self, letter: &DeadLetter) -> bool {
        let holds = |part: &String| letter.reason.to_lowercase().contains(&part.to_lowercase());
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.reason.as_ref().is_none_or(holds)
            && self.source.as_ref().is_none_or(|source| letter.source.starts_with(source.as_str()))
            && self.from_ms.is_none_or(|from| letter.time_ms >= from)
            && self.to_ms.is_none_or(|to| letter.time_ms < to)
    }
}

impl DeadLetter {
    /// The headers with which it is sent again: records have the ids that they would have had. A sender that numbers its batches
    /// has said so; for any other's, the place where it was read stands for it, so that sending again twice doubles nothing.
    pub fn replay_headers(&self) -> Headers {
        let mut headers = self.headers.clone();
        if headers.instance.is_none() || headers.sequence.is_none() {
            let mut place = self.source.rsplitn(2, '/');
            let offset = place.next().and_then(|offset| offset.parse().ok());
            if let (Some(offset), Some(partition)) = (offset, place.next()) {
                headers.instance = Some(format!("dead/{partition}"));
                headers.sequence = Some(offset);
            }
        }
        headers.first = headers.first.saturating_add(self.record.unwrap_or(0));
        headers
    }
}

/// What is kept of dead letters, seen by a person at a terminal. Calls block.
pub trait DeadArchive {
    /// Shows each letter, oldest first in each partition, until told to stop.
    ///
    /// # Errors
    /// When they cannot be read.
    fn each(&self, show: &mut dyn FnMut(DeadLetter) -> bool) -> Result<(), QueueError>;

    /// Removes all letters that are there. Returns how many.
    ///
    /// # Errors
    /// When they cannot be removed.
    fn purge(&self) -> Result<u64, QueueError>;
}
