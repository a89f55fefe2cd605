//! The end of a queue: a record is either drained or refused, never published to nobody.
//!
//! A writer publishes as an [`Actor`](crate::handshake::Actor) that is barred when the queue is closed. The consumer closes
//! the queue, then waits for the commits that were announced, then drains.

use crate::{
    handshake::Fences,
    metrics::Reason,
    sync::{AtomicBool, Ordering},
};

/// Whether the queue takes records, and how both ends learn of it.
pub(super) struct Closing {
    closed: AtomicBool,
    /// This process was forked from the one that reads the queue.
    in_child: AtomicBool,
    fences: Fences,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self { closed: AtomicBool::new(false), in_child: AtomicBool::new(false), fences: Fences::new() }
    }

    /// Good for an early way out; to rely on it, be an actor.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Why a closed queue refuses a record.
    #[cold]
    pub(super) fn reason(&self) -> Reason {
        if self.in_child.load(Ordering::Relaxed) { Reason::Forked } else { Reason::Shutdown }
    }

    /// What bars a writer.
    #[inline]
    pub(super) fn bar(&self) -> (&AtomicBool, Fences) {
        (&self.closed, self.fences)
    }

    /// Closes the queue of a process that has just been forked: its only thread is the caller, so nothing is under way.
    pub(super) fn close_in_child(&self) {
        self.in_child.store(true, Ordering::Relaxed);
        self.closed.store(true, Ordering::Relaxed);
    }

    /// The consumer's side: who announces a commit after this finds the queue closed, and who announced one before is seen.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.fences.heavy();
    }
}
