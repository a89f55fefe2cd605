//! Every counter of the library, named once; each record that does not arrive adds to a counter named by its reason.
//!
//! The counters are shared relaxed atomics. An event that goes its normal way touches none of them: the worker counts what it
//! drains and sends, by the batch; a producer counts only what it must drop. So the equation
//! `emitted = sent + dropped + in flight` is computed without a contended cache line per event.

mod kafka;
#[cfg(feature = "opentelemetry")]
pub(crate) mod otel;
mod prometheus;
mod series;
mod snapshot;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

pub use self::{
    kafka::{KafkaBroker, KafkaStatistics, KafkaTrouble},
    snapshot::{Dropped, Recorder, SinkSnapshot, Snapshot},
};

use crate::Severity;

/// Why a record did not reach the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The base filter does not want it. Counted only where the decision is made per event: a callsite that the filter
    /// silences for good costs nothing, hence counts nothing.
    FilteredByBase,
    /// A rule dropped it: drop, sample or rate limit. `RuleSet::counts` says which.
    FilteredByRule,
    /// The queue's byte budget was spent.
    QueueFull,
    /// It is too large, even cut down or alone in its batch.
    Oversize,
    /// It was made while another event of this thread was being encoded, and could not be encoded too.
    Reentrant,
    /// Formatting one of its values panicked. The panic went on to the caller.
    Panicked,
    /// It was made by a thread of the library or of its clients: letting it in would feed the log with itself.
    OwnThread,
    /// It was made by a thread that was ending, whose buffer was gone already.
    ThreadEnded,
    /// The sink refused it and took the rest of the batch (OTLP partial success).
    Rejected,
    /// The sink refused the whole batch, and trying again is pointless.
    Permanent,
    /// The batch was tried as long as the configuration allows.
    RetriesExhausted,
    /// The spool on disk had reached its bytes.
    SpoolFull,
    /// It had waited in the spool for longer than it may.
    SpoolExpired,
    /// The disk refused it, or damaged it. (Of damaged frames, of which nobody knows how many records they had, each counts
    /// one.)
    SpoolFailed,
    /// It was still waiting when the deadline of the last flush passed, or came after the end of the library.
    Shutdown,
    /// It was made in a process forked from the one that sends.
    Forked,
}

impl Reason {
    /// All reasons, in the order of the flow.
    pub const ALL: [Self; 16] = [
        Self::FilteredByBase,
        Self::FilteredByRule,
        Self::QueueFull,
        Self::Oversize,
        Self::Reentrant,
        Self::Panicked,
        Self::OwnThread,
        Self::ThreadEnded,
        Self::Rejected,
        Self::Permanent,
        Self::RetriesExhausted,
        Self::SpoolFull,
        Self::SpoolExpired,
        Self::SpoolFailed,
        Self::Shutdown,
        Self::Forked,
    ];

    /// Its name in metrics, in headers and on stderr.
    pub fn name(self) -> &'static str {
        match self {
            Self::FilteredByBase => "filtered_by_base",
            Self::FilteredByRule => "filtered_by_rule",
            Self::QueueFull => "queue_full",
            Self::Oversize => "oversize",
            Self::Reentrant => "reentrant",
            Self::Panicked => "panicked",
            Self::OwnThread => "own_thread",
            Self::ThreadEnded => "thread_ended",
            Self::Rejected => "rejected",
            Self::Permanent => "permanent",
            Self::RetriesExhausted => "retries_exhausted",
            Self::SpoolFull => "spool_full",
            Self::SpoolExpired => "spool_expired",
            Self::SpoolFailed => "spool_failed",
            Self::Shutdown => "shutdown",
            Self::Forked => "forked",
        }
    }

    /// Whether somebody wanted the record: what a filter, a rule or the feedback guard drops is not a loss.
    pub fn is_loss(self) -> bool {
        !matches!(self, Self::FilteredByBase | Self::FilteredByRule | Self::OwnThread)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Levels that drops are counted by: unspecified, trace, debug, info, warn, error, fatal.
const LEVELS: usize = 7;

/// The live counters. One per pipeline, shared by all its steps.
#[derive(Debug, Default)]
pub struct Metrics {
    dropped: [[AtomicU64; LEVELS]; Reason::ALL.len()],
    truncated: AtomicU64,
    drained: AtomicU64,
    sent: AtomicU64,
    batches: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    splits: AtomicU64,
    spooled: AtomicU64,
    client_lines: AtomicU64,
    recorder: [AtomicU64; 5],
    /// The counters of the sinks beside the main one.
    sinks: Mutex<Vec<(String, Arc<Metrics>)>>,
    /// `None` before a Kafka client has said anything.
    kafka: Mutex<Option<KafkaStatistics>>,
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// One record will not arrive.
    pub fn dropped(&self, reason: Reason, severity: Severity) {
        self.dropped_many(reason, severity, 1);
    }

    /// `count` records of one level will not arrive.
    pub fn dropped_many(&self, reason: Reason, severity: Severity, count: u64) {
        self.dropped[reason as usize][level_index(severity)].fetch_add(count, Relaxed);
    }

    /// A value of a record was cut short; the record itself goes on.
    pub fn truncated(&self) {
        self.truncated.fetch_add(1, Relaxed);
    }

    /// The worker took `records` out of the queue.
    pub fn drained(&self, records: u64) {
        self.drained.fetch_add(records, Relaxed);
    }

    /// The sink took one batch with `records` in it (those that it rejected not counted) and `bytes` of payload.
    pub fn sent(&self, records: u64, bytes: u64) {
        self.sent.fetch_add(records, Relaxed);
        self.batches.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// A batch is about to be sent once more.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// A batch was too large for the sink and was cut in two.
    pub fn split(&self) {
        self.splits.fetch_add(1, Relaxed);
    }

    /// `records` are safe on disk and will be sent from there.
    pub(crate) fn spooled(&self, records: u64) {
        self.spooled.fetch_add(records, Relaxed);
    }

    /// A client library below a transport wanted to log a line of its own.
    pub fn client_line(&self) {
        self.client_lines.fetch_add(1, Relaxed);
    }

    /// The counters of a sink beside the main one go into the snapshots too.
    pub(crate) fn add_sink(&self, sink: String, metrics: Arc<Metrics>) {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner).push((sink, metrics));
    }

    /// The Kafka client has told something of itself. Locked for a moment by its own thread and by snapshots.
    #[cfg(feature = "kafka")]
    pub(crate) fn kafka(&self, change: impl FnOnce(&mut KafkaStatistics)) {
        change(self.kafka.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    }

    /// What the flight recorder has counted so far.
    pub(crate) fn recorder(&self, counts: Recorder) {
        let Recorder { recorded, released, refused, no_room, unanswered } = counts;
        let counts = [recorded, released, refused, no_room, unanswered];
        self.recorder.iter().zip(counts).for_each(|(kept, count)| kept.store(count, Relaxed));
    }

    /// Records dropped for this reason so far, of all levels.
    pub fn dropped_for(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize].iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Records that somebody wanted and nobody got.
    pub(crate) fn lost(&self) -> u64 {
        Reason::ALL.into_iter().filter(|reason| reason.is_loss()).map(|reason| self.dropped_for(reason)).sum()
    }

    /// Batches that the sink acknowledged.
    pub(crate) fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// The loss counters as they ride beside a batch: `reason=count` separated by commas, reasons at zero left out.
    pub fn lost_header(&self) -> String {
        let mut text = String::new();
        for reason in Reason::ALL {
            let count = self.dropped_for(reason);
            if count > 0 {
                let comma = if text.is_empty() { "" } else { "," };
                text.push_str(&format!("{comma}{reason}={count}"));
            }
        }
        text
    }

    /// A copy of all counters. Counters are read one after the other, so under load they may be apart by a few events.
    pub fn snapshot(&self) -> Snapshot {
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sinks = sinks.into_iter().map(|(sink, metrics)| SinkSnapshot { sink, counts: metrics.snapshot() });
        let sinks = sinks.collect();
        // Outcomes before the drain counter: in flight is then never negative.
        let sent = self.sent.load(Relaxed);
        let [recorded, released, refused, no_room, unanswered] =
            self.recorder.each_ref().map(|count| count.load(Relaxed));
        let mut dropped = Vec::new();
        for reason in Reason::ALL {
            for (index, count) in self.dropped[reason as usize].iter().enumerate() {
                let count = count.load(Relaxed);
                if count > 0 {
                    dropped.push(Dropped { reason, severity: level_severity(index), count });
                }
            }
        }
        Snapshot {
            sent,
            dropped,
            drained: self.drained.load(Relaxed),
            truncated: self.truncated.load(Relaxed),
            batches: self.batches.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            retries: self.retries.load(Relaxed),
            splits: self.splits.load(Relaxed),
            spooled: self.spooled.load(Relaxed),
            client_lines: self.client_lines.load(Relaxed),
            recorder: Recorder { recorded, released, refused, no_room, unanswered },
            sinks,
            kafka: self.kafka.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn level_index(severity: Severity) -> usize {
    // 1, 5, 9, … 21 become 1 to 6; unspecified stays 0.
    usize::from(severity.floor().0).div_ceil(4)
}

fn level_severity(index: usize) -> Severity {
    if index == 0 { Severity::UNSPECIFIED } else { Severity((index as u8 - 1) * 4 + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted_by_reason_and_level() {
        let metrics = Metrics::new();
        metrics.dropped(Reason::QueueFull, Severity::ERROR);
        metrics.dropped(Reason::QueueFull, Severity(18));
        metrics.dropped(Reason::QueueFull, Severity::UNSPECIFIED);
        metrics.dropped_many(Reason::FilteredByRule, Severity::DEBUG, 7);
        let snapshot = metrics.snapshot();
        assert_eq!(
            snapshot.dropped,
            [
                Dropped { reason: Reason::FilteredByRule, severity: Severity::DEBUG, count: 7 },
                Dropped { reason: Reason::QueueFull, severity: Severity::UNSPECIFIED, count: 1 },
                Dropped { reason: Reason::QueueFull, severity: Severity::ERROR, count: 2 },
            ]
        );
        assert_eq!(snapshot.lost(), 3, "what a rule drops is not lost");
        assert_eq!(metrics.lost_header(), "filtered_by_rule=7,queue_full=3");
    }

    #[test]
    fn every_reason_has_its_own_row_and_every_level_its_own_column() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for number in 0..=24 {
            assert_eq!(level_severity(level_index(Severity(number))), Severity(number).floor());
        }
    }

    #[test]
    fn a_snapshot_reads_as_one_line() {
        let metrics = Metrics::new();
        metrics.drained(10);
        metrics.sent(9, 900);
        metrics.retried();
        metrics.dropped(Reason::Rejected, Severity::INFO);
        assert_eq!(
            metrics.snapshot().to_string(),
            "sent 9 of 10 records in 1 batches (900 bytes), retries 1, rejected 1"
        );
    }
}
