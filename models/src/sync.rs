//! Loom's in the place of `logsink/src/sync.rs`.

use std::{ops::Add, time::Duration};

pub(crate) use loom::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread::{Thread, current, yield_now},
};

/// Time stands still: no deadline passes because the machine is busy.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(Duration::ZERO)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// No timeout ever passes: who is not woken waits for good, and loom says so.
pub(crate) fn park_timeout(_: Duration) {
    loom::thread::park();
}

/// Nothing that loom could see.
pub(crate) fn compiler_fence(_: Ordering) {}

pub(crate) mod barrier {
    use std::cell::Cell;

    thread_local! {
        /// All threads of a model run on one thread of the system.
        static IS_THERE: Cell<bool> = const { Cell::new(false) };
    }

    /// Makes the light side of what this thread models do without a fence, as where the system has `membarrier`, which then
    /// does nothing: for what must hold before it is called.
    pub(crate) fn without_fences() {
        IS_THERE.set(true);
    }

    pub(crate) fn is_there() -> bool {
        IS_THERE.get()
    }

    pub(crate) fn register() -> bool {
        true
    }

    pub(crate) fn fence_all_threads() {}
}
