//! How far the group is behind: a partition's end in Kafka less the position committed for it.
//!
//! The end is asked for, one partition at a time: librdkafka knows it from its fetches only, and what is paused because the
//! index does not keep up is not fetched.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How often each partition is asked about; with so many that a tick of the watch is too long for it, less often.
const ROUND: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// Whose turn it is, and where partitions began.
#[derive(Default)]
pub(super) struct Lag {
    turn: usize,
    at: Option<Instant>,
    /// Where the group stood when a partition came.
    starts: BTreeMap<i32, i64>,
}

impl Lag {
    /// A partition came, and the group stood there.
    pub(super) fn begin(&mut self, partition: i32, committed: i64) {
        self.starts.insert(partition, committed);
    }

    pub(super) fn start(&self, partition: i32) -> i64 {
        self.starts.get(&partition).copied().unwrap_or(0)
    }

    /// The next partition, when it is time for it.
    pub(super) fn turn<T: Copy>(&mut self, partitions: &[T]) -> Option<T> {
        let now = Instant::now();
        if partitions.is_empty() || self.at.is_some_and(|at| now < at) {
            return None;
        }
        self.at = Some(now + ROUND / u32::try_from(partitions.len()).unwrap_or(u32::MAX));
        self.turn = (self.turn + 1) % partitions.len();
        Some(partitions[self.turn])
    }

    /// A partition's lag: `committed` is what drain has said since it came.
    pub(super) fn of(&self, partition: i32, committed: Option<i64>, start: i64, end: i64) -> i64 {
        let committed = committed.unwrap_or_else(|| self.start(partition));
        // Retention may have deleted what was never read.
        (end - committed.max(start)).max(0)
    }
}
