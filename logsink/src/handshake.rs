//! One thread acts, another forbids it: never both at a time, and free of charge for the one that acts.
//!
//! The actor announces what it is about to do, looks whether it is barred, and acts only when it is not. The other side
//! bars it, then waits until nothing is announced. For that, the announcement must be visible before the actor's look, and
//! the bar before the other side's look at the announcement. The usual means, a fence on both sides, would cost every event
//! some nanoseconds for the sake of rare moments; so where Linux offers it the side that bars pays for both, with a system
//! call that puts a fence into every running thread.

use std::time::Duration;

use crate::sync::{AtomicBool, Instant, Ordering, barrier, compiler_fence, fence, yield_now};

/// A pair of fences, of which one is cheap.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fences {
    /// Whether the light side must bring its own fence.
    both: bool,
}

impl Fences {
    pub(crate) fn new() -> Self {
        Self { both: !barrier::is_there() }
    }

    /// Does now what the first [`Fences::heavy`] would have to do, which takes the system some milliseconds.
    pub(crate) fn prepare(self) {
        if !self.both {
            // Where it fails, `fence_all_threads` knows another way.
            barrier::register();
        }
    }

    /// The side that is passed often: between its store and its load.
    #[inline]
    pub(crate) fn light(self) {
        if self.both {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// The side that is passed rarely: between its store and its load. Some microseconds, and an interrupt for each
    /// processor that runs a thread of the process.
    pub(crate) fn heavy(self) {
        fence(Ordering::SeqCst);
        if !self.both {
            barrier::fence_all_threads();
        }
    }
}

/// The announcement of the one thread that acts.
#[derive(Debug)]
pub(crate) struct Actor(AtomicBool);

impl Actor {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Acts, unless it is barred. What others did while it was barred has happened before.
    #[inline]
    pub(crate) fn act<R>(&self, barred: &AtomicBool, fences: Fences, act: impl FnOnce() -> R) -> Option<R> {
        self.0.store(true, Ordering::Relaxed);
        fences.light();
        let done = if barred.load(Ordering::Acquire) { None } else { Some(act()) };
        self.0.store(false, Ordering::Release);
        done
    }

    /// Waits for the end of an act that has been announced; everything it did has happened then. To be called after the bar
    /// was set and [`Fences::heavy`]. An act is a dozen instructions, so only a thread that the system does not run takes
    /// longer; `false` when it is not over `within` that time.
    pub(crate) fn wait(&self, within: Duration) -> bool {
        if !self.0.load(Ordering::Acquire) {
            return true;
        }
        let deadline = Instant::now() + within;
        while self.0.load(Ordering::Acquire) {
            if Instant::now() >= deadline {
                return false;
            }
            yield_now();
        }
        true
    }
}
