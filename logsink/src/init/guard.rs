//! The handle on a running pipeline.

use std::{fmt, sync::Arc, time::Duration};

use super::pipeline::Pipeline;
use crate::{error::FlushError, metrics::Snapshot, reload::Status};

/// Keeps the library running. Dropping it sends what is left and waits for that no longer than `flush_timeout` (default: five
/// seconds).
///
/// A guard of [`layer`](crate::layer()) ends the library with that: what is not sent by then is counted, and events after it
/// are dropped and counted. A guard of [`init`](crate::init) does not: events are taken until the process ends, when a handler
/// of the C library's `exit` sends the last of them. So those of thread-local destructors and of `atexit` handlers that were
/// registered after `init` arrive too.
///
/// It does not outlive a fork: see [Where it can be called](crate#where-it-can-be-called).
#[must_use = "dropping the guard flushes, or ends the library: bind it to a name, such as `_logsink`"]
pub struct Guard {
    pipeline: Arc<Pipeline>,
    /// What dropping it does.
    at_drop: AtDrop,
}

/// What dropping a guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtDrop {
    /// Sends what is left; the pipeline goes on.
    Flush,
    /// Sends what is left and ends the pipeline.
    End,
}

impl Guard {
    pub(super) fn new(pipeline: Arc<Pipeline>, at_drop: AtDrop) -> Self {
        Self { pipeline, at_drop }
    }

    /// Waits until every event emitted before the call has been taken by the sinks, all of them, or given up (see
    /// [`Guard::metrics`]), though other threads go on logging; with the policy `spill`, until it is taken or durable on disk.
    /// Blocks the calling thread, which may be one of an async runtime: the library does not need that.
    ///
    /// # Errors
    /// When `timeout` passes first; nothing is lost by that: sending goes on. At once in a forked process and on threads of the
    /// library (within a [`Transport`](crate::transport::Transport)), where waiting would never end.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.pipeline.flush(timeout) { Ok(()) } else { Err(FlushError { timeout }) }
    }

    /// All counters. [`Snapshot::to_prometheus`] is the answer of a `/metrics` route.
    pub fn metrics(&self) -> Snapshot {
        self.pipeline.metrics.snapshot()
    }

    /// Registers all counters with an OpenTelemetry meter, as observable counters `logsink.…` (`logsink.records.sent`,
    /// `logsink.records.dropped` by `reason` and `level`, …): the meter's provider then exports them beside the application's
    /// own. They go on, with their last values, when the guard is dropped. To be called once for each meter.
    ///
    /// Needs the feature `opentelemetry`.
    #[cfg(feature = "opentelemetry")]
    pub fn observe(&self, meter: &opentelemetry::metrics::Meter) {
        crate::metrics::otel::observe(meter, &self.pipeline.metrics);
    }

    /// Which rules are in force, and why newer ones were refused.
    pub fn rules(&self) -> Status {
        self.pipeline.reload.status()
    }

    /// How many events each rule has matched, by its name, in the order of the rules.
    pub fn rule_counts(&self) -> Vec<(String, u64)> {
        let active = self.pipeline.reload.active();
        active.rules.counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }

    /// The instance id, under which the sink knows this process.
    pub fn instance(&self) -> &str {
        &self.pipeline.instance
    }

    /// Sends what is left and ends the library, and says whether all was sent. Later events are dropped and counted.
    ///
    /// # Errors
    /// When `timeout` passed first; what was not sent by then is lost and counted. At once where [`Guard::flush`] fails at once.
    pub fn shutdown(self, timeout: Duration) -> Result<Snapshot, FlushError> {
        let flushed = self.pipeline.end(timeout);
        if flushed { Ok(self.metrics()) } else { Err(FlushError { timeout }) }
    }

    pub(crate) fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// The counters, for a look after the guard is gone.
    #[cfg(test)]
    pub(crate) fn metrics_shared(&self) -> Arc<crate::metrics::Metrics> {
        self.pipeline.metrics.clone()
    }

    /// Ends a pipeline that never got an event.
    pub(super) fn abandon(self) {
        self.pipeline.end(Duration::ZERO);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.pipeline.is_forked() {
            self.pipeline.say_forked();
            // Whose last owner would wait for threads that are not there.
            std::mem::forget(self.pipeline.clone());
            return;
        }
        match self.at_drop {
            AtDrop::Flush => self.pipeline.flush_last(),
            AtDrop::End => drop(self.pipeline.end(self.pipeline.flush_timeout())),
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("instance", &self.instance())
            .field("metrics", &self.metrics())
            .finish_non_exhaustive()
    }
}
