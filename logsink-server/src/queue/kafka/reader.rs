//! The reading end: a member of a consumer group, on a thread of its own.
//!
//! The thread polls all the time, whether or not `next` is called: a group throws out a member that does not, and a rebalance
//! waits for it. What it reads stands in a bounded buffer; when drain does not take it for a while, the partitions are paused.
//! Offsets are committed only as drain says.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};
use tokio::sync::{Notify, oneshot};

use super::{KafkaOptions, Topic, config_error, from_kafka, payload, queue_error};
use crate::queue::{BoxFuture, Fetched, Message, Position, QueueError, QueueReader};

/// - no commits and no positions but ours;
/// - `cooperative-sticky`: a member that comes or goes does not stop the others;
/// - `session.timeout.ms`: how long the partitions of a dead member lie idle;
/// - `fetch.queue.backoff.ms`: at librdkafka's second, a full queue idles the drain (153,000 records/s instead of 600,000);
/// - `queued.max.messages.kbytes`: bytes read ahead inside librdkafka.
const PROPERTIES: [(&str, &str); 8] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("fetch.queue.backoff.ms", "20"),
    ("queued.max.messages.kbytes", "32768"),
    ("allow.auto.create.topics", "false"),
];

/// Bytes that wait for `next`; one message more may be in. Two reads of drain's usual size.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// How long the buffer stays full before the partitions are paused. Pausing makes librdkafka throw away what it has read
/// ahead, so it is not for every hiccup; rebalances wait so long at most.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How long a poll waits for a message: how late a close or a resumption is noticed.
const POLL: Duration = Duration::from_millis(50);
/// How often positions are committed: a restart reads at most so much again, beside what was under way.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

/// Between attempts to create the topic; each one takes some seconds by itself.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The reading end.
pub struct KafkaReader {
    shared: Arc<Shared>,
    stage: Stage,
}

enum Stage {
    /// Nothing was asked for.
    New(Box<(Topic, Poller)>),
    /// The thread runs, or has ended with this answer.
    Running(oneshot::Receiver<Result<(), QueueError>>),
    /// The thread did not start.
    Failed,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something stands in the buffer, or the thread has ended.
    ready: Notify,
    /// Something was taken from the buffer, or the reader is closing.
    room: Condvar,
}

#[derive(Default)]
struct State {
    buffer: VecDeque<Event>,
    /// Bytes of the buffered messages.
    bytes: usize,
    /// How often each partition was assigned.
    epochs: BTreeMap<i32, u32>,
    /// The partitions that are ours.
    assigned: Vec<i32>,
    /// Counts changes of the assignment.
    rebalances: u64,
    /// Offsets to commit, by partition.
    positions: BTreeMap<i32, i64>,
    is_dirty: bool,
    closing: bool,
    ended: bool,
}

enum Event {
    Message(Message),
    Revoked(Vec<i32>),
    Error(QueueError),
}

impl Shared {
    // A panic while the lock is held leaves plain values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: Event) {
        let mut state = self.state();
        if let Event::Message(message) = &event {
            state.bytes += message.payload.len();
        }
        state.buffer.push_back(event);
        drop(state);
        self.ready.notify_one();
    }
}

// === impl KafkaReader ===

impl KafkaReader {
    /// A member of the group, from the first `next` on; the topic is created when it is missing. Does not wait for the
    /// brokers: while they are away, `next` waits.
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions, group: &str) -> Result<Self, QueueError> {
        let shared = Arc::new(Shared::default());
        let mut config = options.client(&PROPERTIES);
        config.set("group.id", group);
        let consumer = config.create_with_context(Context(Arc::clone(&shared))).map_err(config_error)?;
        let poller = Poller { shared: Arc::clone(&shared), consumer, topic: options.topic.clone() };
        Ok(Self { shared, stage: Stage::New(Box::new((Topic::new(options.clone()), poller))) })
    }

    /// Bytes that wait for `next`.
    #[cfg(all(test, feature = "real-servers"))]
    pub(super) fn buffered(&self) -> usize {
        self.shared.state().bytes
    }

    async fn fetch(&mut self, bytes_max: usize) -> Result<Fetched, QueueError> {
        if let Stage::New(new) = &self.stage {
            while let Err(error) = new.0.ready().await {
                match error {
                    QueueError::Unavailable(message) => tracing::warn!("{message}: trying again"),
                    error => return Err(error),
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        self.stage = match mem::replace(&mut self.stage, Stage::Failed) {
            Stage::New(new) => Stage::Running(new.1.start()?),
            stage => stage,
        };
        loop {
            if let Some(fetched) = self.take(bytes_max) {
                return fetched;
            }
            self.shared.ready.notified().await;
        }
    }

    /// Takes messages up to the next event of another kind.
    fn take(&self, bytes_max: usize) -> Option<Result<Fetched, QueueError>> {
        let mut state = self.shared.state();
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some(event) = state.buffer.pop_front() {
            match event {
                Event::Message(message) if messages.is_empty() || bytes + message.payload.len() <= bytes_max => {
                    bytes += message.payload.len();
                    messages.push(message);
                }
                other if !messages.is_empty() => {
                    state.buffer.push_front(other);
                    break;
                }
                Event::Message(_) => {}
                Event::Revoked(partitions) => return Some(Ok(Fetched::Revoked(partitions))),
                Event::Error(error) => return Some(Err(error)),
            }
        }
        if messages.is_empty() {
            return state.ended.then_some(Ok(Fetched::Closed));
        }
        state.bytes -= bytes;
        drop(state);
        self.shared.room.notify_one();
        Some(Ok(Fetched::Messages(messages)))
    }
}

impl QueueReader for KafkaReader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        Box::pin(self.fetch(bytes_max))
    }

    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError> {
        let mut state = self.shared.state();
        for position in next {
            // What went to another reader is that one's to commit.
            if state.assigned.contains(&position.partition) {
                state.positions.insert(position.partition, position.offset);
                state.is_dirty = true;
            }
        }
        Ok(())
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        self.shared.state().closing = true;
        self.shared.room.notify_one();
        Box::pin(async move {
            match &mut self.stage {
                Stage::New(..) | Stage::Failed => Ok(()),
                Stage::Running(ended) => {
                    let failed = || QueueError::Failed("the Kafka reader's thread has failed".into());
                    ended.await.unwrap_or_else(|_| Err(failed()))
                }
            }
        })
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.shared.room.notify_one();
    }
}

// === The thread ===

struct Poller {
    shared: Arc<Shared>,
    consumer: BaseConsumer<Context>,
    topic: String,
}

impl Poller {
    /// Joins the group, on a thread of its own.
    fn start(self) -> Result<oneshot::Receiver<Result<(), QueueError>>, QueueError> {
        self.consumer.subscribe(&[&self.topic]).map_err(config_error)?;
        let (end, ended) = oneshot::channel();
        let run = move || {
            let shared = Arc::clone(&self.shared);
            // Whoever does not wait for the end does not want its answer.
            let _ = end.send(self.run());
            shared.state().ended = true;
            shared.ready.notify_one();
        };
        match thread::Builder::new().name("logsink-kafka".into()).spawn(run) {
            Ok(_) => Ok(ended),
            Err(error) => Err(QueueError::Failed(format!("cannot start the Kafka reader's thread: {error}"))),
        }
    }

    /// Ends when the reader is closed, with the last positions committed.
    fn run(self) -> Result<(), QueueError> {
        // The assignment that is paused, by its number.
        let mut paused = None;
        let mut committed = Instant::now();
        loop {
            self.flow(&mut paused);
            if self.shared.state().closing {
                break;
            }
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let position = Position { partition: message.partition(), offset: message.offset() };
                    let (payload, mut headers) = (payload(message.payload()), from_kafka(message.headers()));
                    headers.appended_ms = message.timestamp().to_millis();
                    let epoch = self.shared.state().epochs.get(&position.partition).copied().unwrap_or(0);
                    self.shared.push(Event::Message(Message {
                        position,
                        epoch,
                        payload,
                        headers,
                        dropped: Vec::new(),
                    }));
                }
                Some(Err(error)) => match queue_error(&error, 0, 0) {
                    QueueError::Failed(_) => self.shared.push(Event::Error(queue_error(&error, 0, 0))),
                    // librdkafka tries again by itself.
                    _ => tracing::warn!(%error, topic = self.topic, "reading from Kafka"),
                },
            }
            if committed.elapsed() >= COMMIT_EVERY {
                committed = Instant::now();
                self.commit(CommitMode::Async)?;
            }
        }
        let committed = self.commit(CommitMode::Sync);
        // Dropping the consumer leaves the group.
        drop(self.consumer);
        committed
    }

    /// Holds back while the buffer is full: a moment by waiting, longer by pausing.
    fn flow(&self, paused: &mut Option<u64>) {
        let mut state = self.shared.state();
        if paused.is_some() {
            if state.bytes <= BUFFER_BYTES_MAX / 2 {
                *paused = None;
                drop(state);
                self.with_assignment("resume", |partitions| self.consumer.resume(partitions));
            } else if *paused != Some(state.rebalances) {
                // Partitions that came while we were paused run.
                *paused = Some(state.rebalances);
                drop(state);
                self.with_assignment("pause", |partitions| self.consumer.pause(partitions));
            }
            return;
        }
        if state.bytes < BUFFER_BYTES_MAX {
            return;
        }
        let is_full = |state: &mut State| state.bytes >= BUFFER_BYTES_MAX && !state.closing;
        let waited = self.shared.room.wait_timeout_while(state, PAUSE_AFTER, is_full);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if is_full(&mut state) {
            *paused = Some(state.rebalances);
            drop(state);
            self.with_assignment("pause", |partitions| self.consumer.pause(partitions));
        }
    }

    fn with_assignment(&self, action: &str, act: impl FnOnce(&TopicPartitionList) -> KafkaResult<()>) {
        if let Err(error) = self.consumer.assignment().and_then(|partitions| act(&partitions)) {
            // A rebalance comes between: it is tried again after the next poll, or does not matter any more.
            tracing::debug!(%error, topic = self.topic, "cannot {action} the partitions");
        }
    }

    fn commit(&self, mode: CommitMode) -> Result<(), QueueError> {
        let positions = {
            let mut state = self.shared.state();
            // The last commit is made anew: the one before it may have failed.
            let is_wanted = state.is_dirty || matches!(mode, CommitMode::Sync);
            if !is_wanted || state.positions.is_empty() {
                return Ok(());
            }
            state.is_dirty = false;
            positions(&self.topic, &state.positions)?
        };
        match self.consumer.commit(&positions, mode) {
            Ok(()) => Ok(()),
            // What is not committed is read again.
            Err(error) if matches!(mode, CommitMode::Async) => {
                tracing::warn!(%error, topic = self.topic, "cannot commit the positions in Kafka");
                self.shared.state().is_dirty = true;
                Ok(())
            }
            Err(error) => Err(QueueError::Unavailable(format!("cannot commit the last positions in Kafka: {error}"))),
        }
    }
}

fn positions(topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, QueueError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (&partition, &offset) in offsets {
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(|error| QueueError::Failed(format!("an offset that Kafka does not know: {error}")))?;
    }
    Ok(list)
}

/// What librdkafka calls back, on the thread that polls.
struct Context(Arc<Shared>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        super::Logged.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut state = self.0.state();
        match rebalance {
            Rebalance::Assign(list) => {
                for partition in list.elements().iter().map(|element| element.partition()) {
                    *state.epochs.entry(partition).or_default() += 1;
                    state.assigned.push(partition);
                }
                state.rebalances += 1;
            }
            Rebalance::Revoke(list) => {
                let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
                let revoked = |partition: &i32| partitions.contains(partition);
                state.assigned.retain(|partition| !revoked(partition));
                let (last, kept): (BTreeMap<_, _>, _) =
                    mem::take(&mut state.positions).into_iter().partition(|(partition, _)| revoked(partition));
                state.positions = kept;
                state.rebalances += 1;
                let buffer = mem::take(&mut state.buffer).into_iter();
                state.buffer = buffer
                    .filter(|event| !matches!(event, Event::Message(message) if revoked(&message.position.partition)))
                    .collect();
                let bytes = |event: &Event| match event {
                    Event::Message(message) => message.payload.len(),
                    Event::Revoked(_) | Event::Error(_) => 0,
                };
                state.bytes = state.buffer.iter().map(bytes).sum();
                drop(state);
                if let (Some(element), false) = (list.elements().first(), last.is_empty()) {
                    // The next reader begins where this one ended; when it fails, it reads a little again.
                    let commit = |list| consumer.commit(&list, CommitMode::Async).map_err(config_error);
                    if let Err(error) = positions(element.topic(), &last).and_then(commit) {
                        tracing::warn!(%error, "cannot commit the positions of partitions that go to another reader");
                    }
                }
                if !partitions.is_empty() {
                    self.0.push(Event::Revoked(partitions));
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance in Kafka failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // The positions are kept and committed again with the next ones, and at the end.
            tracing::warn!(%error, "Kafka refused a commit of positions");
        }
    }
}
