//! The reading end: a member of a consumer group, on a thread of its own.
//!
//! The thread polls all the time, whether or not `next` is called: a group throws out a member that does not, and a rebalance
//! waits for it. What it reads stands in a bounded buffer; when drain does not take it for a while, the partitions are paused.
//! Offsets are committed only as drain says.

mod lag;
mod poller;
mod rebalance;

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use self::{poller::Poller, rebalance::Context};
use super::{KafkaOptions, Topic, config_error};
use crate::{
    metrics::Metrics,
    queue::{BoxFuture, Fetched, Message, Position, QueueError, QueueReader},
};

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

struct Shared {
    metrics: Arc<Metrics>,
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
    pub fn connect(options: &KafkaOptions, group: &str, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        let shared = Shared { metrics, state: Mutex::default(), ready: Notify::new(), room: Condvar::new() };
        let shared = Arc::new(shared);
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
