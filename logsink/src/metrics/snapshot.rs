//! All counters at one moment, for whoever wants to look.

use std::fmt;

use super::{KafkaStatistics, Reason};
use crate::Severity;

/// What did not arrive, for one reason and level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    /// Why.
    pub reason: Reason,
    /// The first severity of the records' level.
    pub severity: Severity,
    /// How many records.
    pub count: u64,
}

/// The counters of a sink beside the main one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkSnapshot {
    /// Its endpoint, or `console`.
    pub sink: String,
    /// What became of the records that it was to get. Losses on the way to all sinks are in the main snapshot alone.
    pub counts: Snapshot,
}

/// All counters at one moment, since the start of the process: those of the way to all sinks and of the main sink, and beside
/// them those of each further sink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Records that the worker took out of the queue for the main sink, or over from the spool of an earlier process.
    pub drained: u64,
    /// Records that the main sink acknowledged.
    pub sent: u64,
    /// Records that did not arrive, by reason and level; only those above zero.
    pub dropped: Vec<Dropped>,
    /// Values that were cut short.
    pub truncated: u64,
    /// Batches that the sink acknowledged.
    pub batches: u64,
    /// Payload bytes that the sink acknowledged, before compression.
    pub bytes: u64,
    /// Sends after a failed one.
    pub retries: u64,
    /// Batches that were cut in two because the sink found them too large.
    pub splits: u64,
    /// Records that went to the spool on disk; each of them counts as sent or dropped when it leaves it.
    pub spooled: u64,
    /// Lines that client libraries below a transport wanted to log.
    pub client_lines: u64,
    /// What the flight recorder did, as of the worker's last round (a fifth of a second at most, or the last flush).
    pub recorder: Recorder,
    /// The sinks beside the main one: those of `[[sink]]` in their order, then the console.
    pub sinks: Vec<SinkSnapshot>,
    /// What the Kafka client tells of itself, where there is one.
    pub kafka: Option<KafkaStatistics>,
}

/// What became of the events that the flight recorder was to keep. None of them counts as lost: nobody had asked for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorder {
    /// Events that were recorded, whatever became of them.
    pub recorded: u64,
    /// Of these, events that were handed on to be sent; rules may have dropped more.
    pub released: u64,
    /// Events that were not recorded because the worker was just reading their thread's ring, or because they were made
    /// inside another event or while their thread ended.
    pub refused: u64,
    /// Events that were not recorded because every ring belonged to another thread.
    pub no_room: u64,
    /// Errors whose span trees were not looked for: there were too many at a time.
    pub unanswered: u64,
}

impl Snapshot {
    /// Records dropped for this reason, of all levels.
    pub fn dropped_for(&self, reason: Reason) -> u64 {
        self.dropped.iter().filter(|dropped| dropped.reason == reason).map(|dropped| dropped.count).sum()
    }

    /// Records that somebody wanted and nobody got.
    pub fn lost(&self) -> u64 {
        self.dropped.iter().filter(|dropped| dropped.reason.is_loss()).map(|dropped| dropped.count).sum()
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent {} of {} records in {} batches ({} bytes)", self.sent, self.drained, self.batches, self.bytes)?;
        for (name, count) in [
            ("retries", self.retries),
            ("splits", self.splits),
            ("truncated", self.truncated),
            ("spooled", self.spooled),
            ("released", self.recorder.released),
        ] {
            if count > 0 {
                write!(f, ", {name} {count}")?;
            }
        }
        for reason in Reason::ALL {
            let count = self.dropped_for(reason);
            if count > 0 {
                write!(f, ", {reason} {count}")?;
            }
        }
        Ok(())
    }
}
