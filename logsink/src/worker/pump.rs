//! The thread `logsink`: empties the queue, whatever the sinks do, and offers what it finds to every lane.

use std::{
    ops::Range,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{
    Own,
    backlog::{Barrier, Revision},
    health,
    lane::Shared,
    losses::Losses,
    pending::{self, Pending},
    release::Release,
};
use crate::{
    batch::{Batcher, Envelope, Sealed},
    encode::view::RecordView,
    filter::rules::BaseFilter,
    queue::{self, FRAME_TAG},
    reload::unix_now_ns,
};

pub(super) enum Command {
    /// The barrier falls when everything that was in the queue has been sent or given up.
    Flush(Barrier),
    /// The same; then the queue is closed and the pump ends.
    Stop(Barrier),
}

pub(super) struct Pump {
    pub(super) consumer: queue::Consumer,
    pub(super) feeds: Vec<Feed>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) own: Own,
    /// What `own` appends to, kept for its capacity.
    pub(super) own_records: Vec<u8>,
    pub(super) revision: Box<dyn Fn() -> Option<String> + Send>,
    pub(super) release: Option<Release>,
}

impl Pump {
    pub(super) fn run(mut self) {
        self.release.iter().for_each(Release::prepare);
        let mut since = Instant::now();
        // The rules of the previous round: what this round drains was judged by them or by newer ones.
        let mut revision: Revision = None;
        loop {
            // Before the drain, so that what was emitted before a flush was asked for is part of it.
            let commands: Vec<_> = self.commands.try_iter().collect();
            let stop = commands.iter().any(|command| matches!(command, Command::Stop(_)));
            let now = Instant::now();
            self.drain(since, &revision, stop);
            since = now;
            for feed in &mut self.feeds {
                feed.cut(Instant::now(), !commands.is_empty(), &revision);
                feed.tell_losses(stop);
            }
            for command in commands {
                let (Command::Flush(barrier) | Command::Stop(barrier)) = command;
                self.feeds.iter().for_each(|feed| feed.shared.backlog.push_barrier(barrier.clone()));
            }
            if stop {
                return;
            }
            revision = (self.revision)().map(Arc::from);
            let now = Instant::now();
            self.consumer.wait(self.feeds.iter().map(|feed| feed.due_in(now)).min().unwrap_or_default());
        }
    }

    /// Takes what is in the queue, and what the flight recorder was asked for; `last`: and closes the queue, so that nothing
    /// comes after.
    fn drain(&mut self, since: Instant, revision: &Revision, last: bool) {
        let Self { consumer, feeds, own, own_records, release, .. } = self;
        let each = &mut |run: &[u8]| feeds.iter_mut().for_each(|feed| feed.offer(run, since, revision));
        if last {
            consumer.close_and_drain(each);
        } else {
            consumer.drain(each);
        }
        // After the events that asked for it, so that a reader finds the error first.
        if let Some(release) = release {
            release.run(each);
        }
        // After the events that they speak of.
        own_records.clear();
        own(last, own_records);
        if !own_records.is_empty() {
            each(own_records);
        }
    }
}

/// The pump's end of a lane: which records it takes, and the batch begun.
pub(super) struct Feed {
    pub(super) taste: Taste,
    pub(super) batcher: Batcher,
    pub(super) age_max: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) envelope: Arc<Envelope>,
    /// Where the stream says what it lost.
    pub(super) losses: Option<Losses>,
}

/// What a lane takes.
#[derive(Debug)]
pub(super) enum Taste {
    /// Every record, unlooked at.
    All,
    /// Records of which each is looked at.
    Some {
        /// What is to pass; `None`: all.
        filter: Option<BaseFilter>,
        /// Those that only the console wants, too.
        local: bool,
    },
}

impl Feed {
    /// Takes what it likes of a run of whole framed records, the oldest of which was made at `since` or later.
    pub(super) fn offer(&mut self, run: &[u8], since: Instant, revision: &Revision) {
        let Self { taste, batcher, shared, .. } = self;
        let each = &mut |sealed| hand_over(shared, sealed, revision);
        match taste {
            Taste::All => batcher.push(run, since, each),
            Taste::Some { filter, local } => {
                let mut pass = |run: &[u8]| batcher.push(run, since, each);
                pass_some(run, filter.as_ref(), *local, &mut pass);
            }
        }
    }

    /// Hands the batch begun over when it is due, or at once.
    fn cut(&mut self, now: Instant, at_once: bool, revision: &Revision) {
        let sealed = if at_once { self.batcher.seal() } else { self.batcher.due(now) };
        if let Some(sealed) = sealed {
            hand_over(&self.shared, sealed, revision);
        }
    }

    /// Sends a record of what was lost, when it is time for one and the sink seems to take it.
    fn tell_losses(&mut self, last: bool) {
        let Some(losses) = &mut self.losses else { return };
        if health::lock(&self.shared.health).is_down() {
            return;
        }
        let metrics = &self.shared.metrics;
        if let Some(record) = losses.due(Instant::now(), unix_now_ns(), metrics, last) {
            metrics.drained(1);
            let batch = Pending::notice(self.envelope.seal(&record, 1), metrics.clone(), losses.own());
            self.shared.backlog.push(batch, None);
        }
    }

    fn due_in(&self, now: Instant) -> Duration {
        self.batcher.due_in(now).unwrap_or(self.age_max).min(self.age_max)
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.backlog.end_pump();
    }
}

fn hand_over(lane: &Shared, sealed: Sealed, revision: &Revision) {
    lane.metrics.drained(sealed.records.into());
    lane.backlog.push(Pending::new(sealed, lane.metrics.clone()), revision.clone());
}

/// Gives `pass` the records that are wanted, neighbours together.
fn pass_some(run: &[u8], filter: Option<&BaseFilter>, local: bool, pass: &mut dyn FnMut(&[u8])) {
    let mut wanted: Range<usize> = 0..0;
    let mut at = 0;
    let mut retagged = Vec::new();
    for record in queue::records(run) {
        let start = at;
        at += record.len();
        let shared = record.first() == Some(&FRAME_TAG);
        if (shared || local) && filter.is_none_or(|filter| likes(filter, record)) {
            if shared {
                wanted = if wanted.end == start { wanted.start..at } else { next(wanted, start..at, run, pass) };
                continue;
            }
            // As every other record from here on.
            wanted = next(wanted, at..at, run, pass);
            retagged.clear();
            retagged.extend_from_slice(record);
            retagged[0] = FRAME_TAG;
            pass(&retagged);
        }
    }
    next(wanted, at..at, run, pass);
}

/// Passes what was collected and begins anew.
fn next(collected: Range<usize>, begin: Range<usize>, run: &[u8], pass: &mut dyn FnMut(&[u8])) -> Range<usize> {
    if !collected.is_empty() {
        pass(&run[collected]);
    }
    begin
}

fn likes(filter: &BaseFilter, record: &[u8]) -> bool {
    use crate::filter::EventView;
    let view = RecordView::new(record, "", pending::severity(record));
    filter.wants(view.target(), view.severity())
}

#[cfg(test)]
mod tests;
