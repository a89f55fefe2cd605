//! A running pipeline, shared by all who may end it: the guard, the hooks at the process's exit, at a panic and at a signal.
//!
//! Whoever comes second waits for the first. Nobody waits where that would be for ever: on a thread of the library, which
//! would wait for itself, and in a forked process, whose threads stayed behind.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    metrics::{Metrics, Reason},
    queue::{self, Producer},
    reload::Reload,
    voice::say,
    worker::Worker,
};

/// What runs between `init` or `layer` and the end.
pub(crate) struct Pipeline {
    worker: Worker,
    queue: Producer,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reload: Arc<Reload>,
    pub(super) instance: String,
    /// How long the last events are waited for when nobody says otherwise.
    flush_timeout: Duration,
    /// The process that has the threads: one forked from it has not.
    process: u32,
    /// Whether the panic hook flushes this one.
    flushed_by_panics: AtomicBool,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    phase: Phase,
    /// When a flush by [`Pipeline::flush_last`] was given up.
    given_up: Option<Instant>,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Running,
    Ending,
    Ended {
        flushed: bool,
    },
}

impl Pipeline {
    pub(super) fn new(
        worker: Worker,
        queue: Producer,
        metrics: Arc<Metrics>,
        reload: Arc<Reload>,
        instance: String,
        flush_timeout: Duration,
    ) -> Self {
        Self {
            worker,
            queue,
            metrics,
            reload,
            instance,
            flush_timeout,
            process: std::process::id(),
            flushed_by_panics: AtomicBool::new(false),
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Waits until everything emitted before the call has been sent or given up; `false` when `timeout` passed first, or
    /// nobody may wait here.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        self.may_wait() && self.worker.flush(timeout)
    }

    /// The flush of a guard whose pipeline goes on.
    pub(super) fn flush_last(&self) {
        if !self.flush(self.flush_timeout) {
            self.state().given_up = Some(Instant::now());
        }
    }

    /// Sends what is left and ends the pipeline; `false` when not all was sent in time.
    pub(crate) fn end(&self, timeout: Duration) -> bool {
        if !self.may_wait() {
            return false;
        }
        let deadline = Instant::now() + timeout;
        let mut state = self.state();
        if state.phase == Phase::Running {
            state.phase = Phase::Ending;
            drop(state);
            let flushed = self.worker.shutdown(timeout);
            self.state().phase = Phase::Ended { flushed };
            self.ended.notify_all();
            return flushed;
        }
        loop {
            if let Phase::Ended { flushed } = state.phase {
                return flushed;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The same, within the time that the settings allow. Where the guard has just waited in vain, the process's end does not
    /// wait as long again.
    pub(crate) fn end_in_time(&self) -> bool {
        if !self.may_wait() {
            return false;
        }
        let given_up = self.state().given_up;
        self.end(given_up.map_or(self.flush_timeout, |at| self.flush_timeout.min(at.elapsed())))
    }

    /// Has what is buffered sent soon, without waiting.
    pub(crate) fn hurry(&self) {
        self.flush(Duration::ZERO);
    }

    pub(crate) fn flush_timeout(&self) -> Duration {
        self.flush_timeout
    }

    pub(crate) fn set_flushed_by_panics(&self) {
        self.flushed_by_panics.store(true, Relaxed);
    }

    pub(crate) fn is_flushed_by_panics(&self) -> bool {
        self.flushed_by_panics.load(Relaxed)
    }

    /// In a process forked from the one that has the threads.
    pub(crate) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    /// In such a process, at once after the fork: refuses all further events, so that they are counted rather than kept for
    /// threads that are not there. Takes no lock.
    pub(crate) fn forked(&self) {
        self.queue.close_in_child();
    }

    /// What a forked process has to say at its end.
    pub(super) fn say_forked(&self) {
        let lost = self.metrics.dropped_for(Reason::Forked);
        if lost > 0 {
            say(format_args!("this process was forked after logsink was started: its {lost} events were not sent"));
        }
    }

    fn may_wait(&self) -> bool {
        !self.is_forked() && !queue::is_own_thread()
    }

    /// Whole after every statement, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
