//! Rules before the queue: what they drop is cut out of a request, and what they redact never gets there.

use std::sync::Arc;

use super::Sift;
use crate::{
    control::Snapshot,
    otlp::{self, WireError},
    queue::Batch,
};

/// The rules that concern a request.
pub struct Concern {
    snapshot: Arc<Snapshot>,
    /// Services that the request has, those that come again included.
    pub(crate) services: usize,
}

/// The rules have not been read since the server started, so that nobody knows what must not get into the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread;

impl Sift {
    /// Whether rules have to be applied to a checked batch before the queue. Not to one that has been sifted by its sender, and not to
    /// other batches of the logsink library either: their records' ids are places in the batch, and a batch that is sent again has the
    /// same ones only when none was cut out. Those are left to the drain.
    ///
    /// # Errors
    /// While the rules have not been read.
    pub fn concern(&self, batch: &Batch) -> Result<Option<Concern>, Unread> {
        if batch.headers.rules.is_some() || batch.headers.instance.is_some() {
            return Ok(None);
        }
        let snapshot = self.rules.borrow().clone().ok_or(Unread)?;
        let (mut services, mut concern) = (0, false);
        let read = otlp::any_resource(&batch.payload, |resource| {
            services += 1;
            concern |= snapshot.concerns(resource.service);
            false
        });
        // It was checked when it came in.
        Ok((concern && read.is_ok()).then_some(Concern { snapshot, services }))
    }

    /// The batch as the rules want it; none when they drop all of it. Its bytes are what they were unless a rule matched. Where a
    /// service's rules remember events, in limits and for repeats, the batch is left to the drain as well: should the queue not
    /// take it, it comes again, and the rules would take it for one more.
    ///
    /// # Errors
    /// When the batch is not OTLP, though it was checked: it must not go on then.
    pub fn cut(&self, concern: &Concern, mut batch: Batch) -> Result<Option<Batch>, WireError> {
        let snapshot = &concern.snapshot;
        let remember =
            |service: &str| self.rules_for(snapshot, service).is_some_and(|applied| applied.rules.remembers());
        if otlp::any_resource(&batch.payload, |resource| remember(resource.service))? {
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
}
