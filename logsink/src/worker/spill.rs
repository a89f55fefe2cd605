//! A lane that goes on over the disk: what the sink does not take in time goes to a spool, and to the sink from there, in
//! order, be it by a later process.
//!
//! - Batches are sent from memory while the sink keeps up. When the backlog is half full, or a flush has waited for
//!   [`FLUSH_GRACE`] or for a sink that is down, everything that is in memory goes to the spool, what is under way first.
//!   From then on the spool is sent from, and newer batches wait behind it.
//! - A flush ends when all is sent or durable. So at an exit while the sink is down nothing is lost.
//! - A batch keeps its instance id and sequence number on disk: whoever sends it again, a server can tell. (The halves of
//!   one that is too large for the sink get numbers of the process that sends them. Killed between them, that process
//!   leaves the whole behind, whose halves then come again under other numbers.)
//! - A full spool takes no more: the newest batches wait in memory, then they are dropped. Batches that grow too old are
//!   dropped instead of sent. Each has a reason of its own.

mod disk;
mod frame;
mod ledger;
mod slot;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{Id, JoinSet},
    time::{Instant, MissedTickBehavior},
};

use super::{
    backlog::{Barrier, Item, Revision},
    health,
    lane::{CLOSE_TIMEOUT, SEQUENCE_SPREAD_MAX, Settings as LaneSettings, Shared},
    pending::Pending,
    send::{Letter, REPORT_INTERVAL, Sender},
};
use crate::{Severity, metrics::Reason, reload::unix_now_ns, spool::SpoolError, transport::Transport};
use disk::{Disk, Done, Next, Place, Written};
use frame::Spilled;
pub(crate) use slot::Settings;

/// How long a flush waits for a sink that takes batches, before it makes them durable instead.
const FLUSH_GRACE: Duration = Duration::from_millis(250);
/// While somebody waits for a flush, how often to look whether the sink is down.
const FLUSH_LOOK: Duration = Duration::from_millis(5);

/// The sending end of a lane that spills.
pub(super) struct SpillingLane {
    shared: Arc<Shared>,
    sender: Arc<Sender>,
    in_flight_max: usize,
    disk: Disk,
    /// A batch that was taken out of the backlog and has no place yet.
    aside: Option<(Pending, Revision)>,
    tasks: JoinSet<()>,
    jobs: HashMap<Id, Job>,
    /// Batches of this process that are on disk as well as under way, by sequence number.
    twins: BTreeMap<u64, Twin>,
    /// The next number that a batch gets when it leaves the backlog.
    arrivals: u64,
    /// Arrivals that are neither sent, lost nor durable.
    exposed: BTreeSet<u64>,
    /// Who waits for all arrivals below a number.
    barriers: VecDeque<(u64, Barrier)>,
    flush_since: Option<Instant>,
}

/// A batch under way.
struct Job {
    instance: Arc<str>,
    sequence: u64,
    origin: Origin,
}

enum Origin {
    /// With what it takes to write it down.
    Memory {
        arrival: u64,
        copy: Box<Copy>,
    },
    Spool(Place),
}

struct Copy {
    spilled: Spilled,
    durable: Arc<AtomicBool>,
}

/// A batch that was written while it was under way.
#[derive(Default)]
struct Twin {
    /// It ended before it was met on disk.
    ended: bool,
    /// Where it was met on disk.
    place: Option<Place>,
}

impl SpillingLane {
    /// Takes a slot. Blocks on the disk.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(super) fn open(
        settings: LaneSettings,
        spool: Settings,
        shared: Arc<Shared>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, SpoolError> {
        let in_flight_max = settings.in_flight_max;
        let disk = Disk::open(spool)?;
        Ok(Self {
            sender: Arc::new(Sender::new(settings, shared.clone(), transport)),
            shared,
            in_flight_max,
            disk,
            aside: None,
            tasks: JoinSet::new(),
            jobs: HashMap::new(),
            twins: BTreeMap::new(),
            arrivals: 0,
            exposed: BTreeSet::new(),
            barriers: VecDeque::new(),
            flush_since: None,
        })
    }

    /// Runs until the pump has ended and all its batches and those on disk are sent, or until `stop` turns true; what is in
    /// memory then goes to the disk.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut report = tokio::time::interval_at(Instant::now() + REPORT_INTERVAL, REPORT_INTERVAL);
        report.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.must_write() {
                self.write_all();
            }
            self.begin();
            self.let_go();
            if self.shared.backlog.is_done() && self.is_idle() {
                break;
            }
            let shared = self.shared.clone();
            let flushing = self.flush_since.is_some();
            tokio::select! {
                () = shared.backlog.arrived(), if self.aside.is_none() => {}
                Some(ended) = self.tasks.join_next_with_id() => {
                    // A panic below a transport has ended one batch, which counted itself.
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    self.end(id);
                }
                done = self.disk.done() => self.after(done),
                () = tokio::time::sleep(FLUSH_LOOK), if flushing => {}
                _ = report.tick() => {
                    self.disk.look_for_others();
                    self.sender.report();
                }
                // An error means that the worker is gone, which is as good a reason to end.
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        // Past the deadline, but with nothing lost. What is not written by then either is dropped, and so counted.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.write_out()).await;
        self.tasks.shutdown().await;
        self.sender.close().await;
        self.disk.close();
    }

    fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.aside.is_none() && self.disk.is_done()
    }

    /// Whether what is in memory must go to the disk.
    fn must_write(&mut self) -> bool {
        let flushing = !self.barriers.is_empty() || self.shared.backlog.has_barrier();
        let since = match (flushing, self.flush_since) {
            (false, _) => None,
            (true, since) => since.or_else(|| Some(Instant::now())),
        };
        self.flush_since = since;
        let overdue =
            since.is_some_and(|since| since.elapsed() >= FLUSH_GRACE || health::lock(&self.shared.health).is_down());
        overdue || self.shared.backlog.is_pressed()
    }

    /// Writes what is in memory, what is under way first, as far as the spool has room.
    fn write_all(&mut self) {
        let mut under_way: Vec<_> = self.jobs.values().filter_map(Job::in_memory).collect();
        under_way.retain(|(_, copy)| !self.twins.contains_key(&copy.spilled.sequence));
        under_way.sort_unstable_by_key(|(arrival, _)| *arrival);
        for (arrival, copy) in under_way {
            let Spilled { sequence, ref sealed, .. } = copy.spilled;
            let bytes = sealed.payload.len();
            let twin = Written::Twin { arrival, sequence, records: sealed.records, durable: copy.durable.clone() };
            match self.disk.append(&copy.spilled) {
                Ok(appended) => self.disk.wait_for(appended, bytes, twin),
                Err(error) => return self.refused(&error),
            }
            self.twins.insert(sequence, Twin::default());
        }
        while let Some((batch, revision)) = self.next() {
            let spilled = Spilled {
                instance: self.sender.instance.clone(),
                // Taken when the spool has taken the batch; nobody else takes it meanwhile, all tasks being on this thread.
                sequence: self.sender.sequence_next(),
                revision: revision.clone(),
                time_ns: unix_now_ns(),
                sealed: batch.sealed().clone(),
            };
            match self.disk.append(&spilled) {
                Ok(appended) => {
                    self.sender.take_sequence();
                    let arrival = self.arrive();
                    self.disk.wait_for(appended, batch.bytes(), Written::Batch { arrival, batch });
                    self.shared.backlog.set_hopeless(None);
                }
                Err(error @ SpoolError::TooLarge { .. }) => {
                    batch.lost(Reason::SpoolFailed);
                    self.trouble(&error);
                }
                Err(error) => {
                    self.aside = Some((batch, revision));
                    return self.refused(&error);
                }
            }
        }
    }

    /// What the spool refuses stays in memory, and with it the newest batches until nothing more fits there.
    fn refused(&mut self, error: &SpoolError) {
        match error {
            SpoolError::Full { .. } => {
                health::lock(&self.shared.health).refused(Reason::SpoolFull, &error.to_string());
                self.shared.backlog.set_hopeless(Some(Reason::SpoolFull));
            }
            // Comes back when something was written.
            SpoolError::Busy => {}
            _ => self.trouble(error),
        }
    }

    fn trouble(&self, error: &SpoolError) {
        health::lock(&self.shared.health).refused(Reason::SpoolFailed, &error.to_string());
        self.sender.report();
    }

    /// Takes the next number of arrival.
    fn arrive(&mut self) -> u64 {
        self.exposed.insert(self.arrivals);
        self.arrivals += 1;
        self.arrivals - 1
    }

    /// Begins with what there is, while there is room for more under way: from the spool, and only when that is empty from
    /// memory.
    fn begin(&mut self) {
        while self.tasks.len() < self.in_flight_max {
            match self.disk.next() {
                Next::Batch(place, spilled) => {
                    if !self.begin_spilled(place, spilled) {
                        return;
                    }
                    self.disk.took();
                }
                Next::Later => return,
                Next::Nothing => {
                    if self.is_spread(&self.sender.instance, self.sender.sequence_next()) {
                        return;
                    }
                    let Some((batch, revision)) = self.next() else { return };
                    self.begin_fresh(batch, revision);
                }
            }
        }
    }

    fn begin_fresh(&mut self, batch: Pending, revision: Revision) {
        let expires_ns = Some(unix_now_ns().saturating_add(self.disk.age_max_ns()));
        let letter = Letter { expires_ns, ..self.sender.letter(batch, revision) };
        let copy = Copy {
            durable: letter.batch.durable_flag(),
            spilled: Spilled {
                instance: letter.instance.clone(),
                sequence: letter.sequence,
                revision: letter.revision.clone(),
                time_ns: unix_now_ns(),
                sealed: letter.batch.sealed().clone(),
            },
        };
        let origin = Origin::Memory { arrival: self.arrive(), copy: Box::new(copy) };
        self.spawn(letter, origin);
    }

    /// `false` when it must wait.
    fn begin_spilled(&mut self, place: Place, spilled: Spilled) -> bool {
        let own = spilled.instance == self.sender.instance;
        if own && let Some(twin) = self.twins.get_mut(&spilled.sequence) {
            if twin.ended {
                self.twins.remove(&spilled.sequence);
                self.settle(place);
            } else {
                twin.place = Some(place);
            }
            return true;
        }
        if self.is_spread(&spilled.instance, spilled.sequence) {
            return false;
        }
        let records = spilled.sealed.records.into();
        let batch = Pending::durable(spilled.sealed, self.shared.metrics.clone());
        if !own {
            self.shared.metrics.drained(records);
        }
        let expires_ns = spilled.time_ns.saturating_add(self.disk.age_max_ns());
        if unix_now_ns() > expires_ns {
            batch.lost(Reason::SpoolExpired);
            self.settle(place);
            return true;
        }
        let Spilled { instance, sequence, revision, .. } = spilled;
        let letter = Letter { batch, instance, sequence, revision, expires_ns: Some(expires_ns) };
        self.spawn(letter, Origin::Spool(place));
        true
    }

    fn spawn(&mut self, letter: Letter, origin: Origin) {
        let job = Job { instance: letter.instance.clone(), sequence: letter.sequence, origin };
        let task = self.tasks.spawn(self.sender.clone().deliver(letter));
        self.jobs.insert(task.id(), job);
    }

    /// Whether a batch under way has a number so far below that this one must wait.
    fn is_spread(&self, instance: &Arc<str>, sequence: u64) -> bool {
        let of_instance = self.jobs.values().filter(|job| job.instance == *instance);
        of_instance.map(|job| job.sequence).min().is_some_and(|oldest| sequence >= oldest + SEQUENCE_SPREAD_MAX)
    }

    /// A batch has been sent or lost.
    fn end(&mut self, id: Id) {
        let Some(job) = self.jobs.remove(&id) else { return };
        match job.origin {
            Origin::Spool(place) => self.settle(place),
            Origin::Memory { arrival, .. } => {
                self.exposed.remove(&arrival);
                if let Some(twin) = self.twins.get_mut(&job.sequence) {
                    twin.ended = true;
                    if let Some(place) = twin.place {
                        self.twins.remove(&job.sequence);
                        self.settle(place);
                    }
                }
            }
        }
    }

    fn settle(&mut self, place: Place) {
        if let Err(error) = self.disk.settle(place) {
            self.trouble(&error);
        }
    }

    fn after(&mut self, done: Done) {
        match done {
            Done::Written(Written::Batch { arrival, batch }, result) => {
                self.exposed.remove(&arrival);
                match result {
                    Ok(_) => batch.spooled(),
                    Err(error) => {
                        batch.lost(Reason::SpoolFailed);
                        self.trouble(&error);
                    }
                }
            }
            Done::Written(Written::Twin { arrival, records, durable, .. }, Ok(_)) => {
                self.shared.metrics.spooled(records.into());
                durable.store(true, Relaxed);
                self.exposed.remove(&arrival);
            }
            Done::Written(Written::Twin { sequence, .. }, Err(error)) => {
                // Not on disk, so it will not be met there.
                self.twins.remove(&sequence);
                self.trouble(&error);
            }
            Done::Read { damaged } if damaged > 0 => {
                self.shared.metrics.drained(damaged);
                self.shared.metrics.dropped_many(Reason::SpoolFailed, Severity::UNSPECIFIED, damaged);
                self.sender.report();
            }
            Done::Failed(error) => self.trouble(&error),
            Done::Read { .. } | Done::Moved => {}
        }
    }

    /// Lets go of the barriers behind which nothing is exposed any more.
    fn let_go(&mut self) {
        let oldest = self.exposed.first().copied().unwrap_or(u64::MAX);
        while self.barriers.front().is_some_and(|(arrival, _)| oldest >= *arrival) {
            self.barriers.pop_front();
        }
    }

    /// Writes everything that is in memory, or will be before the pump has ended.
    async fn write_out(&mut self) {
        loop {
            self.write_all();
            self.let_go();
            let full = self.aside.is_some();
            if !self.disk.is_writing() && (full || self.shared.backlog.is_done()) {
                return;
            }
            let shared = self.shared.clone();
            tokio::select! {
                done = self.disk.done() => self.after(done),
                () = shared.backlog.arrived(), if !full => {}
            }
        }
    }

    /// The next batch of the backlog; notes the barriers before it.
    fn next(&mut self) -> Option<(Pending, Revision)> {
        if let Some(aside) = self.aside.take() {
            return Some(aside);
        }
        loop {
            match self.shared.backlog.pop()? {
                Item::Batch(batch, revision) => return Some((batch, revision)),
                Item::Barrier(barrier) => self.barriers.push_back((self.arrivals, barrier)),
            }
        }
    }
}

impl Drop for SpillingLane {
    /// However it ends, nobody waits for it any more.
    fn drop(&mut self) {
        self.shared.backlog.end_sender();
    }
}

impl Job {
    /// What it takes to write it down, when it is in memory.
    fn in_memory(&self) -> Option<(u64, &Copy)> {
        match &self.origin {
            Origin::Memory { arrival, copy } => Some((*arrival, copy)),
            Origin::Spool(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
