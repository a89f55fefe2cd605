//! Batches → the transport: several under way at a time, each tried until it is taken, given up or cut.
//!
//! A batch keeps its sequence number through all its tries, so that a server which has stored it already can tell. The
//! halves of a batch that was too large get numbers of their own: the number of the whole was refused, so nothing is stored
//! under it, and it never comes again. (Only where a try whose answer got lost is followed by a refusal as too large, by
//! another server behind the same address, can a server hold the whole and both halves: doubled, never lost.)

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed, mpsc},
    time::Duration,
};

use tokio::{
    sync::{mpsc::Receiver, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Hurry,
    health::{self, Health},
    pending::Pending,
};
use crate::{
    batch::Envelope,
    metrics::{Metrics, Reason},
    retry::{Next, Policy, Retry},
    transport::{Accepted, Batch, SendError, Transport, header},
    voice::say,
};

/// No batch is sent whose sequence number is this far above the oldest one under way: a server remembers a window of
/// numbers to tell doubles, and a batch that is tried for long must not fall out of it.
const SEQUENCE_SPREAD_MAX: u64 = 64;

/// A record is not cut below this: what is left would say nothing. Its sink refuses everything, or nearly so.
const SHRUNK_BYTES_MIN: usize = 1 << 10;

/// How often losses are reported on stderr, at most.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// How soon what is done by `tick` happens.
const TICK_INTERVAL: Duration = Duration::from_millis(250);

/// What comes from the pump, in its order.
pub(super) enum Item {
    /// To be sent; with the revision of the rules that judged its events.
    Batch(Pending, Option<Arc<str>>),
    /// To be answered when all batches before it have ended.
    Barrier(mpsc::SyncSender<()>),
}

pub(super) struct Sender {
    pub(super) envelope: Arc<Envelope>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) policy: Policy,
    pub(super) in_flight_max: usize,
    pub(super) instance: String,
    pub(super) hurry: Arc<Hurry>,
    pub(super) health: Arc<Mutex<Health>>,
}

impl Sender {
    /// Runs until the pump has ended and all its batches have, or until `stop` turns true; what is under way then is dropped,
    /// and so counted.
    pub(super) async fn run(
        self,
        transport: Arc<dyn Transport>,
        mut items: Receiver<Item>,
        mut tick: Box<dyn FnMut() + Send>,
        mut stop: watch::Receiver<bool>,
    ) {
        let line = Arc::new(Line { sender: self, transport, sequence: Mutex::new(1) });
        let mut tasks = JoinSet::new();
        let mut under_way = UnderWay::default();
        let mut open = true;
        let mut report = tokio::time::interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
        let mut ticks = tokio::time::interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);

        while open || !tasks.is_empty() {
            let spread = under_way.oldest().map_or(0, |oldest| line.sequence_next() - oldest);
            let room = tasks.len() < line.sender.in_flight_max && spread < SEQUENCE_SPREAD_MAX;
            tokio::select! {
                item = items.recv(), if open && room => match item {
                    Some(Item::Batch(pending, revision)) => {
                        let sequence = line.take_sequence();
                        let task = tasks.spawn(line.clone().deliver(pending, sequence, revision));
                        under_way.begin(task.id(), sequence);
                    }
                    Some(Item::Barrier(reply)) => under_way.barrier(line.sequence_next(), reply),
                    None => open = false,
                },
                Some(ended) = tasks.join_next_with_id() => {
                    // A panic below a transport has ended one batch, which counted itself.
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    under_way.end(id);
                }
                _ = ticks.tick() => tick(),
                _ = report.tick() => line.sender.report(),
                // An error means that the worker is gone, which is as good a reason to end.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
    }

    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        health::lock(&self.health)
    }

    fn report(&self) {
        say_all(self.health().report(std::time::Instant::now(), &self.metrics.snapshot()));
    }
}

/// Which batches are under way, by the sequence number that each began with, and who waits for them.
#[derive(Default)]
struct UnderWay {
    tasks: HashMap<tokio::task::Id, u64>,
    begun: BTreeMap<u64, ()>,
    barriers: VecDeque<(u64, mpsc::SyncSender<()>)>,
}

impl UnderWay {
    fn oldest(&self) -> Option<u64> {
        self.begun.keys().next().copied()
    }

    fn begin(&mut self, id: tokio::task::Id, sequence: u64) {
        self.tasks.insert(id, sequence);
        self.begun.insert(sequence, ());
    }

    fn end(&mut self, id: tokio::task::Id) {
        if let Some(sequence) = self.tasks.remove(&id) {
            self.begun.remove(&sequence);
        }
        self.answer();
    }

    /// `reply` hears when nothing below `sequence` is under way any more.
    fn barrier(&mut self, sequence: u64, reply: mpsc::SyncSender<()>) {
        self.barriers.push_back((sequence, reply));
        self.answer();
    }

    fn answer(&mut self) {
        let oldest = self.oldest().unwrap_or(u64::MAX);
        while let Some((sequence, reply)) = self.barriers.pop_front() {
            if oldest < sequence {
                return self.barriers.push_front((sequence, reply));
            }
            // Who asked may have stopped waiting.
            let _ = reply.try_send(());
        }
    }
}

/// What the tasks share.
struct Line {
    sender: Sender,
    transport: Arc<dyn Transport>,
    /// The next sequence number.
    sequence: Mutex<u64>,
}

/// How the tries of one batch ended.
enum End {
    Sent(Accepted),
    /// With the most that the sink takes, where that is known.
    TooLarge(String, Option<usize>),
    Lost(Reason, String),
}

impl Line {
    fn sequence_next(&self) -> u64 {
        *self.sequence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_sequence(&self) -> u64 {
        let mut next = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        *next - 1
    }

    async fn deliver(self: Arc<Self>, first: Pending, sequence: u64, revision: Option<Arc<str>>) {
        // A stack: the first half goes before the second, and a half of a half before either.
        let mut stack = vec![(first, sequence)];
        while let Some((pending, sequence)) = stack.pop() {
            let end = match self.transport.bytes_max() {
                Some(max) if pending.sealed().payload.len() > max => {
                    End::TooLarge(format!("the sink takes {max} bytes at most"), Some(max))
                }
                _ => self.try_until_end(&pending, sequence, revision.as_deref()).await,
            };
            match end {
                End::Sent(accepted) => {
                    if accepted.rejected > 0 {
                        let reason = if accepted.message.is_empty() { "no reason given" } else { &accepted.message };
                        self.sender.health().refused(Reason::Rejected, reason);
                    }
                    let in_part = accepted.rejected > 0;
                    pending.sent(&accepted);
                    if in_part {
                        self.sender.report();
                    }
                }
                End::Lost(reason, message) => {
                    self.sender.health().refused(reason, &message);
                    pending.lost(reason);
                    self.sender.report();
                }
                End::TooLarge(message, max) => match self.smaller(pending, max) {
                    Ok(parts) => {
                        let parts: Vec<_> = parts.into_iter().map(|part| (part, self.take_sequence())).collect();
                        stack.extend(parts.into_iter().rev());
                    }
                    Err(single) => {
                        self.sender.health().refused(Reason::Oversize, &message);
                        single.lost(Reason::Oversize);
                        self.sender.report();
                    }
                },
            }
        }
    }

    /// The halves of a batch that was too large; of one record, that record cut to what the sink takes, else to half. The
    /// batch itself when no more can be cut.
    fn smaller(&self, pending: Pending, bytes_max: Option<usize>) -> Result<Vec<Pending>, Pending> {
        let envelope = &self.sender.envelope;
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

    async fn try_until_end(&self, pending: &Pending, sequence: u64, revision: Option<&str>) -> End {
        let mut retry = Retry::new(self.sender.policy, std::time::Instant::now());
        loop {
            let (message, after) = match self.transport.send(self.batch(pending, sequence, revision)).await {
                Ok(accepted) => {
                    self.recovered();
                    return End::Sent(accepted);
                }
                Err(SendError::TooLarge { message }) => {
                    let max = self.transport.bytes_max().filter(|max| pending.sealed().payload.len() > *max);
                    return End::TooLarge(message, max);
                }
                Err(SendError::Permanent { message }) => return End::Lost(Reason::Permanent, message),
                Err(SendError::Retryable { message, after }) => (message, after),
            };
            let now = std::time::Instant::now();
            let said = self.sender.health().failed(now, &message, &self.sender.metrics.snapshot());
            say_all(said);
            if self.sender.hurry.waiting.load(Relaxed) > 0 {
                retry.restart();
            }
            match retry.failed(now, after, fastrand::f64()) {
                Next::GiveUp => return End::Lost(Reason::RetriesExhausted, message),
                Next::Again { delay, asked: true } => tokio::time::sleep(delay).await,
                Next::Again { delay, asked: false } => {
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        // Somebody waits for a flush, or another batch got through.
                        () = self.sender.hurry.notify.notified() => retry.restart(),
                    }
                }
            }
            self.sender.metrics.retried();
        }
    }

    fn batch(&self, pending: &Pending, sequence: u64, revision: Option<&str>) -> Batch {
        let mut headers =
            vec![(header::INSTANCE, self.sender.instance.clone()), (header::SEQUENCE, sequence.to_string())];
        if let Some(revision) = revision {
            headers.push((header::RULES, revision.to_owned()));
        }
        let lost = self.sender.metrics.lost_header();
        if !lost.is_empty() {
            headers.push((header::LOST, lost));
        }
        let sealed = pending.sealed();
        Batch { payload: sealed.payload.clone(), records: sealed.records, sequence, headers }
    }

    fn recovered(&self) {
        let (was_down, line) =
            self.sender.health().succeeded(std::time::Instant::now(), &self.sender.metrics.snapshot());
        say_all(line);
        if was_down {
            self.sender.hurry.notify.notify_waiters();
        }
    }
}

fn say_all(lines: impl IntoIterator<Item = String>) {
    lines.into_iter().for_each(say);
}
