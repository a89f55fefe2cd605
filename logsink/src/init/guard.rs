//! The handle on a running pipeline.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    error::FlushError,
    metrics::{Metrics, Snapshot},
    reload::{Reload, Status},
    worker::Worker,
};

/// Keeps the library running. Dropping it sends what is left, waits for that no longer than `flush_timeout` (default: five
/// seconds), counts what is not sent by then, and ends the library; events after that are dropped and counted.
///
/// It does not outlive a fork: a program that becomes a daemon starts the library afterwards. In the forked process nothing
/// is sent, flushes fail at once, and dropping the guard says so on stderr.
#[must_use = "dropping the guard ends the library: bind it to a name, such as `_logsink`"]
pub struct Guard {
    worker: Worker,
    metrics: Arc<Metrics>,
    reload: Arc<Reload>,
    instance: String,
    flush_timeout: Duration,
}

impl Guard {
    pub(super) fn new(
        worker: Worker,
        metrics: Arc<Metrics>,
        reload: Arc<Reload>,
        instance: String,
        flush_timeout: Duration,
    ) -> Self {
        Self { worker, metrics, reload, instance, flush_timeout }
    }

    /// Waits until every event emitted before the call has been taken by the sinks, all of them, or given up (see
    /// [`Guard::metrics`]); with the policy `spill`, until it is taken or durable on disk.
    /// Blocks the calling thread, which may be one of an async runtime: the library does not need that.
    ///
    /// # Errors
    /// When `timeout` passes first. Nothing is lost by that: sending goes on.
    pub fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        if self.worker.flush(timeout) { Ok(()) } else { Err(FlushError { timeout }) }
    }

    /// All counters. [`Snapshot::to_prometheus`] is the answer of a `/metrics` route.
    pub fn metrics(&self) -> Snapshot {
        self.metrics.snapshot()
    }

    /// Registers all counters with an OpenTelemetry meter, as observable counters `logsink.…` (`logsink.records.sent`,
    /// `logsink.records.dropped` by `reason` and `level`, …): the meter's provider then exports them beside the application's
    /// own. They go on, with their last values, when the guard is dropped. To be called once for each meter.
    ///
    /// Needs the feature `opentelemetry`.
    #[cfg(feature = "opentelemetry")]
    pub fn observe(&self, meter: &opentelemetry::metrics::Meter) {
        crate::metrics::otel::observe(meter, &self.metrics);
    }

    /// Which rules are in force, and why newer ones were refused.
    pub fn rules(&self) -> Status {
        self.reload.status()
    }

    /// How many events each rule has matched, by its name, in the order of the rules.
    pub fn rule_counts(&self) -> Vec<(String, u64)> {
        let active = self.reload.active();
        active.rules.counts().into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }

    /// The instance id, under which the sink knows this process.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Sends what is left and ends the library, as dropping it does, but says whether all was sent.
    ///
    /// # Errors
    /// When `timeout` passed first; what was not sent by then is lost and counted.
    pub fn shutdown(self, timeout: Duration) -> Result<Snapshot, FlushError> {
        let flushed = self.worker.shutdown(timeout);
        if flushed { Ok(self.metrics.snapshot()) } else { Err(FlushError { timeout }) }
    }

    /// The counters, for a look after the guard is gone.
    #[cfg(test)]
    pub(crate) fn metrics_shared(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Ends a pipeline that never got an event.
    pub(super) fn abandon(self) {
        self.worker.shutdown(Duration::ZERO);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.worker.shutdown(self.flush_timeout);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("instance", &self.instance)
            .field("metrics", &self.metrics.snapshot())
            .finish_non_exhaustive()
    }
}
