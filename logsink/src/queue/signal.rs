//! Wakes the worker; cheap when it is awake already.

use std::{sync::Arc, time::Duration};

use super::lock;
use crate::sync::{AtomicBool, Instant, Mutex, Ordering, Thread, current, park_timeout};

/// Ends the worker's wait, from any thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waker {
    signal: Arc<Signal>,
}

#[derive(Debug, Default)]
struct Signal {
    /// Somebody has asked and the worker has not noticed yet: only the first to ask pays for waking it.
    asked: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

impl Waker {
    /// Ends the current wait, or the next one when the worker is busy.
    pub(crate) fn wake(&self) {
        if !self.signal.asked.swap(true, Ordering::AcqRel)
            && let Some(sleeper) = &*lock(&self.signal.sleeper)
        {
            sleeper.unpark();
        }
    }

    pub(super) fn wait(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        // Registered before `asked` is looked at: who asks later finds the sleeper, who asked earlier is seen.
        *lock(&self.signal.sleeper) = Some(current());
        while !self.signal.asked.swap(false, Ordering::AcqRel) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            park_timeout(left);
        }
    }
}
