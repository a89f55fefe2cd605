//! One sink's way: takes batches from its backlog and has several under way at a time. Lanes share nothing but the pump, so
//! a sink that is down or slow holds up no other.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use super::{
    backlog::{Backlog, Barrier, Bounds, Item},
    health::Health,
    send::{REPORT_INTERVAL, Sender},
    spill,
};
use crate::{
    batch::{Envelope, Limits},
    filter::rules::BaseFilter,
    metrics::Metrics,
    retry,
    transport::Transport,
};

/// No batch is sent whose sequence number is this far above the oldest one under way: a server remembers a window of
/// numbers to tell doubles, and a batch that is tried for long must not fall out of it.
pub(super) const SEQUENCE_SPREAD_MAX: u64 = 64;

/// What a lane is told at its start.
pub(crate) struct Settings {
    /// The sink, as messages and figures call it.
    pub(crate) sink: String,
    /// What the sink gets of the records that pass the rules; `None`: all of them.
    pub(crate) filter: Option<BaseFilter>,
    /// Whether it also gets what only the console wants.
    pub(crate) local: bool,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    pub(crate) retry: retry::Policy,
    pub(crate) in_flight_max: usize,
    pub(crate) envelope: Arc<Envelope>,
    /// Under which the sink knows the sender: no two lanes have the same, since each counts its batches by itself.
    pub(crate) instance: String,
    pub(crate) metrics: Arc<Metrics>,
    /// How often the sink is told what was lost, at most; `None`: never.
    pub(crate) losses_every: Option<Duration>,
    /// Where batches go that the sink does not take in time, when the policy is to spill.
    pub(crate) spool: Option<spill::Settings>,
}

/// What others see of a lane.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) backlog: Backlog,
    pub(super) hurry: Hurry,
    pub(super) health: Mutex<Health>,
    pub(super) metrics: Arc<Metrics>,
}

/// Cuts backoffs short.
#[derive(Debug, Default)]
pub(super) struct Hurry {
    pub(super) notify: Notify,
    /// Callers that wait for a flush: while there are any, delays stay small.
    pub(super) waiting: AtomicUsize,
}

impl Shared {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            backlog: Backlog::new(settings.bounds, settings.envelope.clone()),
            hurry: Hurry::default(),
            health: Mutex::new(Health::new(settings.sink.clone())),
            metrics: settings.metrics.clone(),
        }
    }
}

/// The sending end of a lane.
pub(super) struct Lane {
    shared: Arc<Shared>,
    sender: Arc<Sender>,
    in_flight_max: usize,
    tasks: JoinSet<()>,
    under_way: UnderWay,
}

impl Lane {
    pub(super) fn new(settings: Settings, shared: Arc<Shared>, transport: Arc<dyn Transport>) -> Self {
        let in_flight_max = settings.in_flight_max;
        let sender = Sender::new(settings, shared.clone(), transport);
        Self { shared, sender: Arc::new(sender), in_flight_max, tasks: JoinSet::new(), under_way: UnderWay::default() }
    }

    /// Runs until the pump has ended and all its batches have, or until `stop` turns true; what is there then is dropped, and
    /// so counted.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut report = tokio::time::interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.begin();
            if self.tasks.is_empty() && self.shared.backlog.is_done() {
                break;
            }
            let shared = self.shared.clone();
            tokio::select! {
                () = shared.backlog.arrived() => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    // A panic below a transport has ended one batch, which counted itself.
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    self.under_way.end(id);
                }
                _ = report.tick() => self.sender.report(),
                // An error means that the worker is gone, which is as good a reason to end.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        self.close().await;
    }

    /// Begins with what there is, while there is room for more under way.
    fn begin(&mut self) {
        loop {
            let spread = self.under_way.oldest().map_or(0, |oldest| self.sender.sequence_next() - oldest);
            if self.tasks.len() >= self.in_flight_max || spread >= SEQUENCE_SPREAD_MAX {
                return;
            }
            match self.shared.backlog.pop() {
                Some(Item::Batch(batch, revision)) => {
                    let letter = self.sender.letter(batch, revision);
                    let sequence = letter.sequence;
                    let task = self.tasks.spawn(self.sender.clone().deliver(letter));
                    self.under_way.begin(task.id(), sequence);
                }
                Some(Item::Barrier(barrier)) => self.under_way.barrier(self.sender.sequence_next(), barrier),
                None => return,
            }
        }
    }

    async fn close(&mut self) {
        self.tasks.shutdown().await;
        self.sender.close().await;
    }
}

impl Drop for Lane {
    /// However it ends, nobody waits for it any more.
    fn drop(&mut self) {
        self.shared.backlog.end_sender();
    }
}

/// Which batches are under way, by the sequence number that each began with, and who waits for them.
#[derive(Default)]
struct UnderWay {
    tasks: HashMap<tokio::task::Id, u64>,
    begun: BTreeSet<u64>,
    barriers: VecDeque<(u64, Barrier)>,
}

impl UnderWay {
    fn oldest(&self) -> Option<u64> {
        self.begun.first().copied()
    }

    fn begin(&mut self, id: tokio::task::Id, sequence: u64) {
        self.tasks.insert(id, sequence);
        self.begun.insert(sequence);
    }

    fn end(&mut self, id: tokio::task::Id) {
        if let Some(sequence) = self.tasks.remove(&id) {
            self.begun.remove(&sequence);
        }
        self.let_go();
    }

    /// The barrier falls when nothing below `sequence` is under way any more.
    fn barrier(&mut self, sequence: u64, barrier: Barrier) {
        self.barriers.push_back((sequence, barrier));
        self.let_go();
    }

    fn let_go(&mut self) {
        let oldest = self.oldest().unwrap_or(u64::MAX);
        while self.barriers.front().is_some_and(|(sequence, _)| oldest >= *sequence) {
            self.barriers.pop_front();
        }
    }
}

/// After the deadline of a shutdown, a connection gets this long to end.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
