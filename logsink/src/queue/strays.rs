//! Records that have no chunk: one small buffer for all threads, behind a lock.

use std::{
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Shared, lock};
use crate::{Severity, metrics::Reason};

/// The records without a chunk.
pub(super) struct Strays {
    waiting: Mutex<Waiting>,
    /// The records were taken, or the queue was closed.
    taken: Condvar,
    /// Bytes of them, to refuse quickly.
    bytes: AtomicUsize,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    records: Vec<u8>,
    /// Threads that wait for [`Strays::taken`].
    threads: usize,
}

impl Strays {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), taken: Condvar::new(), bytes: AtomicUsize::new(0), bytes_max }
    }

    /// Changes the records for what is in `empty`.
    pub(super) fn take(&self, empty: &mut Vec<u8>) {
        let mut waiting = lock(&self.waiting);
        std::mem::swap(&mut waiting.records, empty);
        self.bytes.store(0, Ordering::Relaxed);
        if waiting.threads > 0 {
            self.taken.notify_all();
        }
    }

    /// Lets threads that wait look again.
    pub(super) fn wake_waiting(&self) {
        // Under the lock nobody is between its look and its wait.
        drop(lock(&self.waiting));
        self.taken.notify_all();
    }
}

impl Shared {
    /// Whether there is room for one more at the moment. It is not kept for who asks.
    pub(super) fn strays_have_room(&self, severity: Severity) -> bool {
        self.strays.bytes.load(Ordering::Relaxed) < self.strays_max(severity)
    }

    fn strays_max(&self, severity: Severity) -> usize {
        let reserve = if self.settings.levels.keeps(severity) { self.settings.reserve_bytes } else { 0 };
        self.strays.bytes_max + reserve
    }

    /// Takes one framed record that has no chunk. Where its level is worth it, waits for room until `patience` ends: other
    /// threads may have used what there was when the record was begun.
    ///
    /// # Errors
    /// When the strays' budget is spent or the queue is closed.
    pub(super) fn give_stray(&self, record: &[u8], severity: Severity, patience: &mut Patience) -> Result<(), Reason> {
        if self.closing.is_closed() {
            return Err(self.closing.reason());
        }
        let mut waiting = lock(&self.strays.waiting);
        loop {
            // Under the lock, which the last drain takes after the closing.
            if self.closing.is_closed() {
                return Err(self.closing.reason());
            }
            if waiting.records.len() + record.len() <= self.strays_max(severity) {
                break;
            }
            let left = match self.settings.levels.blocks(severity) {
                true => patience.left(self.settings.wait_max),
                false => Duration::ZERO,
            };
            if left.is_zero() {
                return Err(Reason::QueueFull);
            }
            waiting.threads += 1;
            // The consumer may be asleep, and not know that somebody waits.
            self.signal.wake();
            waiting = self.strays.taken.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
            waiting.threads -= 1;
        }
        waiting.records.extend_from_slice(record);
        self.strays.bytes.store(waiting.records.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// How long one record waits for room, at all its stops together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Patience {
    ends: Option<Instant>,
}

impl Patience {
    /// What is left of a wait of `wait_max` that begins when this is asked first.
    pub(super) fn left(&mut self, wait_max: Duration) -> Duration {
        let now = Instant::now();
        self.ends.get_or_insert(now + wait_max).saturating_duration_since(now)
    }
}
