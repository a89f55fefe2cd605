//! A batch whose fate is open. It ends in exactly one way, and each way is counted: a batch that is merely dropped, because
//! the deadline of the shutdown has come or a task was ended, counts as lost to the shutdown.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

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
    /// Where the loss of a batch is noted that says itself what was lost.
    notice: Option<Arc<AtomicU64>>,
    /// It is on disk as well: to drop it is to leave it to whoever reads that.
    durable: Arc<AtomicBool>,
    resolved: bool,
}

impl Pending {
    pub(super) fn new(sealed: Sealed, metrics: Arc<Metrics>) -> Self {
        Self { sealed, metrics, notice: None, durable: Arc::default(), resolved: false }
    }

    /// A batch that is on disk.
    pub(super) fn durable(sealed: Sealed, metrics: Arc<Metrics>) -> Self {
        let batch = Self::new(sealed, metrics);
        batch.durable.store(true, Relaxed);
        batch
    }

    /// A batch that only says what was lost: its own loss adds to `lost` besides, so that it is not said in turn.
    pub(super) fn notice(sealed: Sealed, metrics: Arc<Metrics>, lost: Arc<AtomicU64>) -> Self {
        let mut batch = Self::new(sealed, metrics);
        batch.notice = Some(lost);
        batch
    }

    pub(super) fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    /// Bytes of memory that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.sealed.payload.len()
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
            self.note(rejected);
        }
    }

    /// Nobody will get it.
    pub(super) fn lost(mut self, reason: Reason) {
        self.resolved = true;
        self.count(reason);
    }

    /// To be set when it is on disk as well.
    pub(super) fn durable_flag(&self) -> Arc<AtomicBool> {
        self.durable.clone()
    }

    /// It is on disk, and leaves memory.
    pub(super) fn spooled(mut self) {
        self.resolved = true;
        self.metrics.spooled(self.sealed.records.into());
    }

    /// Its halves; itself, when it has only one record.
    pub(super) fn split(mut self, envelope: &Envelope) -> Result<(Self, Self), Self> {
        let Some((first, second)) = self.sealed.split(envelope) else { return Err(self) };
        self.resolved = true;
        self.metrics.split();
        Ok((self.part(first), self.part(second)))
    }

    /// What is left of it when only records that `keeps` likes go on; the others are lost. `None` when none is left.
    pub(super) fn only(
        mut self,
        envelope: &Envelope,
        reason: Reason,
        keeps: impl Fn(Severity) -> bool,
    ) -> Option<Self> {
        self.resolved = true;
        let mut kept = Vec::new();
        let mut records = 0;
        for record in queue::records(self.sealed.body()) {
            let severity = severity(record);
            if keeps(severity) {
                kept.extend_from_slice(record);
                records += 1;
            } else {
                self.metrics.dropped(reason, severity);
                self.note(1);
            }
        }
        (records > 0).then(|| self.part(envelope.seal(&kept, records)))
    }

    /// A batch of some of its records.
    fn part(&self, sealed: Sealed) -> Self {
        Self {
            sealed,
            metrics: self.metrics.clone(),
            notice: self.notice.clone(),
            durable: self.durable.clone(),
            resolved: false,
        }
    }

    /// Its one record cut, so that the payload has `bytes_max` bytes at most; itself, when it cannot be cut that far.
    pub(super) fn shrink(mut self, envelope: &Envelope, bytes_max: usize) -> Result<Self, Self> {
        let Some((sealed, values)) = self.sealed.shrink(envelope, bytes_max) else { return Err(self) };
        self.resolved = true;
        (0..values).for_each(|_| self.metrics.truncated());
        Ok(self.part(sealed))
    }

    fn count(&self, reason: Reason) {
        for record in queue::records(self.sealed.body()) {
            self.metrics.dropped(reason, severity(record));
        }
        self.note(self.sealed.records.into());
    }

    fn note(&self, records: u64) {
        if let Some(notice) = &self.notice {
            notice.fetch_add(records, Relaxed);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.resolved && !self.durable.load(Relaxed) {
            self.count(Reason::Shutdown);
        }
    }
}

/// The severity of a framed record: a `LogRecord`, whose field 2 is `severity_number`, behind any tag.
pub(super) fn severity(record: &[u8]) -> Severity {
    let record = wire::fields(record).next().map_or(&[][..], |(_, record)| record.bytes());
    let number = wire::field(record, 2).map_or(0, wire::Value::number);
    Severity(u8::try_from(number).unwrap_or_default())
}
