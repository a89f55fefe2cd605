//! One batch → the transport: tried until it is taken, given up or cut.
//!
//! A batch keeps its sequence number through all its tries, so that a server which has stored it already can tell. The
//! halves of a batch that was too large get numbers of their own: the number of the whole was refused, so nothing is stored
//! under it, and it never comes again. (Only where a try whose answer got lost is followed by a refusal as too large, by
//! another server behind the same address, can a server hold the whole and both halves: doubled, never lost.)

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    backlog::Revision,
    health::{self, Health},
    lane::{CLOSE_TIMEOUT, Settings, Shared},
    pending::Pending,
};
use crate::{
    batch::Envelope,
    metrics::Reason,
    reload::unix_now_ns,
    retry::{Next, Policy, Retry},
    transport::{Accepted, Batch, SendError, Transport, header},
    voice::say,
};

/// A record is not cut below this: what is left would say nothing. Its sink refuses everything, or nearly so.
const SHRUNK_BYTES_MIN: usize = 1 << 10;

/// How often losses are reported on stderr, at most.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// What a lane's batches under way share.
pub(super) struct Sender {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    envelope: Arc<Envelope>,
    policy: Policy,
    pub(super) instance: Arc<str>,
    /// The next sequence number.
    sequence: Mutex<u64>,
}

/// A batch with what it is sent with.
pub(super) struct Letter {
    pub(super) batch: Pending,
    /// Under which the sequence number counts: another process's, when that has left the batch in a spool.
    pub(super) instance: Arc<str>,
    pub(super) sequence: u64,
    pub(super) revision: Revision,
    /// Unix time after which it is not tried again.
    pub(super) expires_ns: Option<u64>,
}

/// How the tries of one batch ended.
enum End {
    Sent(Accepted),
    /// With the most that the sink takes, where that is known.
    TooLarge(String, Option<usize>),
    Lost(Reason, String),
}

impl Sender {
    pub(super) fn new(settings: Settings, shared: Arc<Shared>, transport: Arc<dyn Transport>) -> Self {
        let Settings { envelope, retry: policy, instance, .. } = settings;
        Self { shared, transport, envelope, policy, instance: instance.into(), sequence: Mutex::new(1) }
    }

    /// Gives up connections.
    pub(super) async fn close(&self) {
        // What the transport does not end by itself falls with the runtime.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.transport.close()).await;
    }

    pub(super) fn sequence_next(&self) -> u64 {
        *self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_sequence(&self) -> u64 {
        let mut next = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        *next - 1
    }

    /// Ends when each record of the batch has been sent or lost.
    pub(super) async fn deliver(self: Arc<Self>, letter: Letter) {
        // A stack: the first half goes before the second, and a half of a half before either.
        let mut stack = vec![letter];
        while let Some(letter) = stack.pop() {
            let end = match self.transport.bytes_max() {
                Some(max) if letter.batch.bytes() > max => {
                    End::TooLarge(format!("the sink takes {max} bytes at most"), Some(max))
                }
                _ => self.try_until_end(&letter).await,
            };
            let Letter { batch: pending, revision, expires_ns, .. } = letter;
            match end {
                End::Sent(accepted) => {
                    if accepted.rejected > 0 {
                        let reason = if accepted.message.is_empty() { "no reason given" } else { &accepted.message };
                        self.health().refused(Reason::Rejected, reason);
                    }
                    let in_part = accepted.rejected > 0;
                    pending.sent(&accepted);
                    if in_part {
                        self.report();
                    }
                }
                End::Lost(reason, message) => {
                    self.health().refused(reason, &message);
                    pending.lost(reason);
                    self.report();
                }
                End::TooLarge(message, max) => match self.smaller(pending, max) {
                    Ok(parts) => {
                        let part = |batch| Letter { expires_ns, ..self.letter(batch, revision.clone()) };
                        // Numbered in order, then stacked.
                        let parts: Vec<_> = parts.into_iter().map(part).collect();
                        stack.extend(parts.into_iter().rev());
                    }
                    Err(single) => {
                        self.health().refused(Reason::Oversize, &message);
                        single.lost(Reason::Oversize);
                        self.report();
                    }
                },
            }
        }
    }

    /// The halves of a batch that was too large; of one record, that record cut to what the sink takes, else to half. The
    /// batch itself when no more can be cut.
    fn smaller(&self, pending: Pending, bytes_max: Option<usize>) -> Result<Vec<Pending>, Pending> {
        let envelope = &self.envelope;
        let single = match pending.split(envelope) {
            Ok((first, second)) => return Ok(vec![first, second]),
            Err(single) => single,
        };
        let half = (single.sealed().payload.len() / 2).max(SHRUNK_BYTES_MIN);
        let bytes_max = bytes_max.unwrap_or(half);
        if single.sealed().payload.len() <= bytes_max {
            return Err(single);
        }
        single.shrink(envelope, bytes_max).map(|shrunk| vec![shrunk])
    }

    /// A letter of this process's own, under its next sequence number.
    pub(super) fn letter(&self, batch: Pending, revision: Revision) -> Letter {
        let (instance, sequence) = (self.instance.clone(), self.take_sequence());
        Letter { batch, instance, sequence, revision, expires_ns: None }
    }

    async fn try_until_end(&self, letter: &Letter) -> End {
        let mut retry = Retry::new(self.policy, std::time::Instant::now());
        loop {
            let (message, after) = match self.transport.send(self.batch(letter)).await {
                Ok(accepted) => {
                    self.recovered();
                    return End::Sent(accepted);
                }
                Err(SendError::TooLarge { message }) => {
                    let max = self.transport.bytes_max().filter(|max| letter.batch.bytes() > *max);
                    return End::TooLarge(message, max);
                }
                Err(SendError::Permanent { message }) => return End::Lost(Reason::Permanent, message),
                Err(SendError::Retryable { message, after }) => (message, after),
            };
            let now = std::time::Instant::now();
            let said = self.health().failed(now, &message, &self.shared.metrics.snapshot());
            say_all(said);
            if letter.expires_ns.is_some_and(|expires| unix_now_ns() > expires) {
                return End::Lost(Reason::SpoolExpired, message);
            }
            if self.shared.hurry.waiting.load(Relaxed) > 0 {
                retry.restart();
            }
            match retry.failed(now, after, fastrand::f64()) {
                Next::GiveUp => return End::Lost(Reason::RetriesExhausted, message),
                Next::Again { delay, asked: true } => tokio::time::sleep(delay).await,
                Next::Again { delay, asked: false } => {
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        // Somebody waits for a flush, or another batch got through.
                        () = self.shared.hurry.notify.notified() => retry.restart(),
                    }
                }
            }
            self.shared.metrics.retried();
        }
    }

    fn batch(&self, letter: &Letter) -> Batch {
        let Letter { instance, sequence, revision, .. } = letter;
        let mut headers = vec![(header::INSTANCE, instance.to_string()), (header::SEQUENCE, sequence.to_string())];
        if let Some(revision) = revision {
            headers.push((header::RULES, revision.to_string()));
        }
        let lost = self.shared.metrics.lost_header();
        if !lost.is_empty() {
            headers.push((header::LOST, lost));
        }
        let sealed = letter.batch.sealed();
        Batch { payload: sealed.payload.clone(), records: sealed.records, sequence: *sequence, headers }
    }

    fn recovered(&self) {
        let (was_down, line) = self.health().succeeded(std::time::Instant::now(), &self.shared.metrics.snapshot());
        say_all(line);
        if was_down {
            self.shared.hurry.notify.notify_waiters();
        }
    }

    /// Says on stderr what was lost, when it is time to.
    pub(super) fn report(&self) {
        say_all(self.health().report(std::time::Instant::now(), &self.shared.metrics.snapshot()));
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        health::lock(&self.shared.health)
    }
}

fn say_all(lines: impl IntoIterator<Item = String>) {
    lines.into_iter().for_each(say);
}
