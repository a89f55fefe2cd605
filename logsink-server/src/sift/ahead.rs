//! Rules before the queue: what they drop is cut out of a request, and what they redact never gets there.

use std::sync::Arc;

use super::{Sift, now_ns};
use crate::{
    control::Snapshot,
    otlp::{self, WireError},
    queue::Batch,
};

/// The rules have not been read since the server started, so that nobody knows what must not get into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread;

impl Sift {
    /// The rules that may have to be applied to a batch before the queue. Not to one that its sender has sifted, and not to other
    /// batches of the logsink library either: their records' ids are places in the batch, and a batch that is sent again has the same
    /// ones only when none was cut out. Those are left to the drain.
    ///
    /// # Errors
    /// While the rules have not been read.
    pub fn rules_ahead(&self, batch: &Batch) -> Result<Option<Arc<Snapshot>>, Unread> {
        if batch.headers.rules.is_some() || batch.headers.instance.is_some() {
            return Ok(None);
        }
        let snapshot = self.in_force().ok_or(Unread)?;
        Ok((!snapshot.documents.is_empty()).then_some(snapshot))
    }

    /// A checked batch as the rules want it; none when they drop all of it. Its bytes are what they were unless a rule matched. Where
    /// the rules for one of its services remember events, in limits or for repeats, the batch is left to the drain as well: should
    /// the queue not take it, it comes again, and they would take it for one more. What a rule has matched is counted again then.
    ///
    /// # Errors
    /// When the batch is not OTLP, though it was checked: it must not go on then.
    pub fn cut(&self, snapshot: &Arc<Snapshot>, mut batch: Batch) -> Result<Option<Batch>, WireError> {
        if !otlp::any_resource(&batch.payload, |resource| snapshot.concerns(resource.service))?
            || self.would_remember(snapshot, &batch.payload)?
        {
            return Ok(Some(batch));
        }
        let judged = self.judge(snapshot, &batch.payload)?;
        if judged.records > 0 && judged.dropped.len() == judged.records as usize {
            return Ok(None);
        }
        let revision = judged.service.map(|service| snapshot.revision(service));
        if let Some(edited) = judged.edited(&batch.payload, &judged.dropped)? {
            batch.payload = edited;
        }
        batch.headers.rules = revision;
        Ok(Some(batch))
    }

    /// Whether the rules for one of the services that have records would remember something of them.
    fn would_remember(&self, snapshot: &Arc<Snapshot>, payload: &[u8]) -> Result<bool, WireError> {
        let (now_ns, mut last, mut remember) = (now_ns(), None, false);
        otlp::walk(payload, &mut |record| {
            let service = record.resource.service;
            if last != Some(service) {
                last = Some(service);
                remember |= self.rules_for(snapshot, service).is_some_and(|applied| applied.rules.remembers(now_ns));
            }
        })?;
        Ok(remember)
    }
}
