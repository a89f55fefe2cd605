//! queue → sift → index: reads messages, writes them to the index in batches, and commits their positions afterwards.
//!
//! Promises: a position is committed only when the index (or the dead letters) holds every message before it; a message is
//! never given up, so an index that is away makes the drain wait, not lose. Several writes are under way at a time; they
//! finish in any order and the [`Watermark`] puts them in line.
//!
//! Overloaded: what was read and is not indexed yet stays within one byte budget. At the budget the drain stops asking for
//! messages; the queue keeps them, and its reader has no more ready than its own small bound. What the index makes of messages before it sends them has
//! a budget beside this one, so that what was read can always be written.
//!
//! Fetching, preparing and sending overlap: the reader has its own thread, and each write is a task, which does what takes
//! milliseconds through [`compute`]. How many writes there are, and how large, follows the index's [`Appetite`].

mod ages;

use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until, timeout_at},
};

use self::ages::Ages;
use crate::{
    compute::compute,
    index::{Appetite, IndexError, IndexWriter, Written},
    metrics::{Metrics, Partition},
    offsets::Watermark,
    queue::{Fetched, Message, Position, QueueError, QueueReader},
};

/// What the server's rules make of a message before it is indexed.
pub type Sift = Arc<dyn Fn(Message) -> Message + Send + Sync>;

/// How much the drain takes on at a time.
#[derive(Debug, Clone)]
pub struct DrainOptions {
    /// Bytes of payload read and not yet indexed. 16 MiB by default.
    pub pending_bytes_max: usize,
    /// Bytes of one write at most. 2 MiB by default; the index may want less.
    pub write_bytes_max: usize,
    /// Writes under way at a time at most. 4 by default; the index may want fewer.
    pub writes_max: usize,
    /// How long a message waits for others to share its write while other writes are under way. 50 ms by default: little
    /// beside a refresh of one second.
    pub linger: Duration,
    /// How long what is under way may take to finish after the shutdown was asked for. 10 s by default. What has not
    /// finished by then is read again after the restart.
    pub grace: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            pending_bytes_max: 16 << 20,
            write_bytes_max: 2 << 20,
            writes_max: 4,
            linger: Duration::from_millis(50),
            grace: Duration::from_secs(10),
        }
    }
}

/// How often positions are committed: what a crash makes the next start read again is at most this much (and doubles
/// nothing, since the records' ids are the same).
const COMMIT_INTERVAL: Duration = Duration::from_secs(1);
/// The first wait after a failure of the queue or the index; it doubles up to [`RETRY_DELAY_MAX`].
const RETRY_DELAY_MIN: Duration = Duration::from_millis(100);
/// The longest wait: a person has mended something and should see it taken up while still looking.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(15);

/// The step between queue and index.
pub struct Drain {
    reader: Box<dyn QueueReader>,
    sift: Sift,
    index: Arc<dyn IndexWriter>,
    metrics: Arc<Metrics>,
    options: DrainOptions,

    watermark: Watermark,
    ages: Arc<Ages>,
    /// What the reader was last told, by partition.
    committed: BTreeMap<i32, i64>,
    /// Read, waiting for a write.
    waiting: Waiting,
    /// Under way; each task hands back what it wrote.
    writes: JoinSet<Finished>,
    /// Bytes in `waiting` and `writes`.
    pending_bytes: usize,
}

/// Messages that no write has taken yet.
#[derive(Default)]
struct Waiting {
    messages: Vec<Message>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

/// A write that has ended well.
struct Finished {
    positions: Vec<(Position, u32)>,
    bytes: usize,
    written: Written,
}

impl Drain {
    /// A drain that reads from `reader`, applies `sift` and writes to `index`.
    pub fn new(
        reader: Box<dyn QueueReader>,
        sift: Sift,
        index: Arc<dyn IndexWriter>,
        metrics: Arc<Metrics>,
        options: DrainOptions,
    ) -> Self {
        let ages = Arc::new(Ages::default());
        metrics.drain_pending_bytes_max.set(i64::try_from(options.pending_bytes_max).unwrap_or(i64::MAX));
        let shown = Arc::clone(&ages);
        metrics.ask_before_showing(move |metrics| {
            // Partitions that went elsewhere are not shown any more.
            metrics.drain_lag_seconds.clear();
            for (partition, age) in shown.oldest(Timestamp::now().as_millisecond()) {
                metrics.drain_lag_seconds.get_or_create(&Partition { partition }).set(age);
            }
        });
        Self {
            reader,
            sift,
            index,
            metrics,
            options,
            watermark: Watermark::default(),
            ages,
            committed: BTreeMap::new(),
            waiting: Waiting::default(),
            writes: JoinSet::new(),
            pending_bytes: 0,
        }
    }

    /// Runs until `shutdown` becomes true (or its sender is gone) or the queue is closed, then lets what is under way
    /// finish, publishes the index's open part, commits and closes the reader.
    ///
    /// # Errors
    /// When the index could not be closed or the last commit failed. Nothing is lost by that: the next start reads again
    /// from the last commit.
    pub async fn run(mut self, mut shutdown: watch::Receiver<bool>) -> Result<(), DrainError> {
        let mut commit_at = Instant::now() + COMMIT_INTERVAL;
        let mut read_delay = RETRY_DELAY_MIN;
        let mut read_at = Instant::now();
        loop {
            self.start_writes(Instant::now());
            let room = self.room();
            let linger_at = self.waiting.since.map(|since| since + self.options.linger);
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stop| *stop) => break,
                Some(finished) = self.writes.join_next() => self.finish(finished),
                () = sleep_until(commit_at) => {
                    commit_at = Instant::now() + COMMIT_INTERVAL;
                    self.commit();
                }
                () = sleep_until(linger_at.unwrap_or(commit_at)), if linger_at.is_some() && self.has_slot() => {}
                fetched = read(&mut *self.reader, read_at, room), if room > 0 => {
                    match fetched {
                        Ok(fetched) => {
                            read_delay = RETRY_DELAY_MIN;
                            if self.take(fetched).is_break() {
                                break;
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, retry_in = ?read_delay, "cannot read from the queue");
                            read_at = Instant::now() + jittered(read_delay);
                            read_delay = (read_delay * 2).min(RETRY_DELAY_MAX);
                        }
                    }
                }
            }
        }
        self.stop().await
    }

    fn take(&mut self, fetched: Fetched) -> ControlFlow<()> {
        match fetched {
            Fetched::Messages(messages) => {
                for message in messages {
                    self.watermark.begin(message.position, message.epoch);
                    self.ages.begin(&message);
                    self.metrics.drain_messages.inc();
                    self.pending_bytes += weight(&message);
                    self.waiting.push(message);
                }
                self.show_pending();
            }
            Fetched::Revoked(partitions) => {
                for partition in partitions {
                    self.watermark.forget(partition);
                    self.ages.forget(partition);
                    self.committed.remove(&partition);
                    self.pending_bytes -= self.waiting.forget(partition);
                    self.metrics.drain_revoked.inc();
                }
                self.show_pending();
            }
            Fetched::Closed => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Bytes to ask the reader for. It gives one message always, whatever its size.
    fn room(&self) -> usize {
        let room = self.options.pending_bytes_max.saturating_sub(self.pending_bytes);
        room.min(self.options.write_bytes_max)
    }

    /// Writes under way at most, and the payload bytes of one, as the index would have it just now.
    fn appetite(&self) -> (usize, usize) {
        let DrainOptions { writes_max, write_bytes_max, .. } = self.options;
        match self.index.appetite() {
            None => (writes_max, write_bytes_max),
            Some(Appetite { writes, payload_bytes }) => {
                (writes.clamp(1, writes_max), payload_bytes.clamp(1, write_bytes_max))
            }
        }
    }

    fn has_slot(&self) -> bool {
        self.writes.len() < self.appetite().0
    }

    /// Hands waiting messages to writes. A write that is not full starts only when none is under way, so that a lone event
    /// is not held up, or when its first message has lingered.
    fn start_writes(&mut self, now: Instant) {
        while let Some(since) = self.waiting.since {
            let (writes_max, bytes_max) = self.appetite();
            let full = self.waiting.bytes >= bytes_max;
            let due = full || self.writes.is_empty() || now >= since + self.options.linger;
            if !due || self.writes.len() >= writes_max {
                return;
            }
            let (messages, bytes) = self.waiting.split(bytes_max);
            let (index, sift, metrics) = (Arc::clone(&self.index), Arc::clone(&self.sift), Arc::clone(&self.metrics));
            self.writes.spawn(write(index, sift, messages, bytes, metrics));
        }
    }

    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        let finished = match finished {
            Ok(finished) => finished,
            // A write that panics is a defect, and its messages are neither stored nor known to be unstorable: going on
            // would leave them behind for ever without a word.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_cancelled) => return,
        };
        self.pending_bytes -= finished.bytes;
        self.show_pending();
        let Written { stored, dead, dropped } = finished.written;
        self.metrics.drain_records.inc_by(stored + dead + dropped);
        for (position, epoch) in finished.positions {
            self.watermark.finish(position, epoch);
        }
    }

    /// Tells the reader what is done with and durable.
    fn commit(&mut self) {
        let next: Vec<Position> = self
            .watermark
            .positions()
            .map(|mut position| {
                if let Some(durable) = self.index.durable(position.partition) {
                    position.offset = position.offset.min(durable);
                }
                position
            })
            .filter(|position| self.committed.get(&position.partition).is_none_or(|&last| position.offset > last))
            .collect();
        if next.is_empty() {
            return;
        }
        let started = Instant::now();
        let committed = self.reader.commit(&next);
        self.metrics.drain_commit_seconds.observe(started.elapsed().as_secs_f64());
        match committed {
            Ok(()) => {
                self.metrics.drain_commits.inc();
                let now_ms = Timestamp::now().as_millisecond();
                for position in &next {
                    self.ages.commit(*position, now_ms, |age| self.metrics.drain_delay_seconds.observe(age));
                }
                self.committed.extend(next.iter().map(|position| (position.partition, position.offset)));
            }
            // The next interval tries again with what is done by then.
            Err(error) => tracing::warn!(%error, "cannot commit the queue's positions"),
        }
    }

    async fn stop(mut self) -> Result<(), DrainError> {
        let deadline = Instant::now() + self.options.grace;
        loop {
            // Linger does not apply any more.
            self.start_writes(Instant::now() + self.options.linger);
            match timeout_at(deadline, self.writes.join_next()).await {
                Ok(Some(finished)) => self.finish(finished),
                Ok(None) => break,
                Err(_elapsed) => {
                    let bytes = self.pending_bytes;
                    tracing::warn!(bytes, "stopping before everything read is indexed; it will be read again");
                    self.writes.shutdown().await;
                    break;
                }
            }
        }
        // What is left is read again. Messages may lie in the reader's memory, and it waits for them.
        drop(std::mem::take(&mut self.waiting));
        let closed = self.index.close().await;
        // Publishing may have made more of it durable.
        self.commit();
        self.reader.close().await.map_err(DrainError::Queue)?;
        closed.map_err(DrainError::Index)
    }

    fn show_pending(&self) {
        self.metrics.drain_pending_bytes.set(i64::try_from(self.pending_bytes).unwrap_or(i64::MAX));
    }
}

/// What did not go well at the end.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The index could not publish its open part.
    #[error("closing the index: {0}")]
    Index(#[source] IndexError),
    /// The last commit failed.
    #[error("closing the queue: {0}")]
    Queue(#[source] QueueError),
}

// === impl Waiting ===

impl Waiting {
    fn push(&mut self, message: Message) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += weight(&message);
        self.messages.push(message);
    }

    /// Takes messages off the front, up to `bytes_max` and one at least.
    fn split(&mut self, bytes_max: usize) -> (Vec<Message>, usize) {
        let mut bytes = 0;
        let fits = self.messages.iter().position(|message| {
            let over = bytes > 0 && bytes + weight(message) > bytes_max;
            if !over {
                bytes += weight(message);
            }
            over
        });
        let rest = fits.map_or_else(Vec::new, |at| self.messages.split_off(at));
        let taken = std::mem::replace(&mut self.messages, rest);
        self.bytes -= bytes;
        if self.messages.is_empty() {
            self.since = None;
        }
        (taken, bytes)
    }

    /// Removes a partition's messages; returns their bytes.
    fn forget(&mut self, partition: i32) -> usize {
        let before = self.bytes;
        self.messages.retain(|message| {
            let keep = message.position.partition != partition;
            if !keep {
                self.bytes -= weight(message);
            }
            keep
        });
        if self.messages.is_empty() {
            self.since = None;
        }
        before - self.bytes
    }
}

/// What a message counts in the budget: its payload and what it takes besides, or a flood of tiny messages would cost many
/// times the budget.
fn weight(message: &Message) -> usize {
    message.bytes()
}

/// Waits until `at` and then for messages: after a failure of the queue the drain goes on with its other work meanwhile.
async fn read(reader: &mut dyn QueueReader, at: Instant, bytes_max: usize) -> Result<Fetched, QueueError> {
    sleep_until(at).await;
    reader.next(bytes_max).await
}

/// Applies the rules to messages and writes them to the index, however often it takes.
async fn write(
    index: Arc<dyn IndexWriter>,
    sift: Sift,
    messages: Vec<Message>,
    bytes: usize,
    metrics: Arc<Metrics>,
) -> Finished {
    let started = Instant::now();
    let messages: Vec<Message> = compute(|| messages.into_iter().map(|message| sift(message)).collect()).await;
    let mut delay = RETRY_DELAY_MIN;
    let written = loop {
        match index.write(&messages).await {
            Ok(written) => break written,
            Err(error) => {
                metrics.drain_retries.inc();
                tracing::error!(%error, retry_in = ?delay, "cannot write to the index");
                sleep(jittered(delay)).await;
                delay = (delay * 2).min(RETRY_DELAY_MAX);
            }
        }
    };
    metrics.index_stored.inc_by(written.stored);
    metrics.index_dropped.inc_by(written.dropped);
    metrics.index_write_seconds.observe(started.elapsed().as_secs_f64());
    let positions = messages.iter().map(|message| (message.position, message.epoch)).collect();
    Finished { positions, bytes, written }
}

/// Three quarters to five quarters of `delay`, so that several writes do not come back all at once.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(0.75 + 0.5 * fastrand::f64())
}

#[cfg(test)]
mod tests;
