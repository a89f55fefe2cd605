//! The end of a queue: a record is either drained or refused, never published to nobody.
//!
//! A writer publishes as an [`Actor`](crate::handshake::Actor) that is barred when the queue is closed. The consumer closes
//! the queue, then waits for the commits that were announced, then drains.

use crate::{
    handshake::Fences,
    sync::{AtomicBool, Ordering},
};

/// Whether the queue takes records, and how both ends learn of it.
pub(super) struct Closing {
    closed: AtomicBool,
    fences: Fences,
}

impl Closing {
    pub(super) fn new() -> Self {
        Self { closed: AtomicBool::new(false), fences: Fences::new() }
    }

    /// Good for an early way out; to rely on it, be an actor.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// What bars a writer.
    #[inline]
    pub(super) fn bar(&self) -> (&AtomicBool, Fences) {
        (&self.closed, self.fences)
    }

    /// The consumer's side: who announces a commit after this finds the queue closed, and who announced one before is seen.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.fences.heavy();
    }
}
