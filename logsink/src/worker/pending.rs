//! A batch whose fate is open. It ends in exactly one way, and each way is counted: a batch that is merely dropped, because
//! the deadline of the shutdown has come or a task was ended, counts as lost to the shutdown.

use std::sync::Arc;

use crate::{
    Severity,
    batch::{Envelope, Sealed},
    metrics::{Metrics, Reason},
    queue,
    transport::{Accepted, wire},
};

/// A batch on its way.
#[derive(Debug)]
pub(super) struct Pending {
    sealed: Sealed,
    metrics: Arc<Metrics>,
    resolved: bool,
}

impl Pending {
    pub(super) fn new(sealed: Sealed, metrics: Arc<Metrics>) -> Self {
        Self { sealed, metrics, resolved: false }
    }

    pub(super) fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// The sink has taken it, perhaps in part.
    pub(super) fn sent(mut self, accepted: &Accepted) {
        self.resolved = true;
        let records = u64::from(self.sealed.records);
        let rejected = accepted.rejected.min(records);
        self.metrics.sent(records - rejected, self.sealed.payload.len() as u64);
        if rejected > 0 {
            // The sink does not say which.
            self.metrics.dropped_many(Reason::Rejected, Severity::UNSPECIFIED, rejected);
        }
    }

    /// Nobody will get it.
    pub(super) fn lost(mut self, reason: Reason) {
        self.resolved = true;
        self.count(reason);
    }

    /// Its halves; itself, when it has only one record.
    pub(super) fn split(mut self, envelope: &Envelope) -> Result<(Self, Self), Self> {
        let Some((first, second)) = self.sealed.split(envelope) else { return Err(self) };
        self.resolved = true;
        self.metrics.split();
        Ok((Self::new(first, self.metrics.clone()), Self::new(second, self.metrics.clone())))
    }

    /// Its one record cut, so that the payload has `bytes_max` bytes at most; itself, when it cannot be cut that far.
    pub(super) fn shrink(mut self, envelope: &Envelope, bytes_max: usize) -> Result<Self, Self> {
        let Some((sealed, values)) = self.sealed.shrink(envelope, bytes_max) else { return Err(self) };
        self.resolved = true;
        (0..values).for_each(|_| self.metrics.truncated());
        Ok(Self::new(sealed, self.metrics.clone()))
    }

    fn count(&self, reason: Reason) {
        for record in queue::records(self.sealed.body()) {
            // `ScopeLogs.log_records` holds a `LogRecord`, whose field 2 is `severity_number`.
            let record = wire::field(record, 2).map_or(&[][..], wire::Value::bytes);
            let number = wire::field(record, 2).map_or(0, wire::Value::number);
            self.metrics.dropped(reason, Severity(u8::try_from(number).unwrap_or_default()));
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.resolved {
            self.count(Reason::Shutdown);
        }
    }
}
