//! The thread that polls: messages into the buffer, positions out of it, and the lag of one partition after the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaResult,
};
use tokio::sync::oneshot;

use super::{Event, Shared, State, lag::Lag, rebalance::Context};
use crate::queue::{
    Message, Position, QueueError,
    kafka::{config_error, from_kafka, payload, queue_error},
};

/// Bytes that wait for `next`; one message more may be in. Two reads of drain's usual size.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// How long the buffer stays full before the partitions are paused. Pausing makes librdkafka throw away what it has read
/// ahead, so it is not for every hiccup; rebalances wait so long at most.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How long a poll waits for a message: how late a close or a resumption is noticed.
const POLL: Duration = Duration::from_millis(50);
/// How often positions are committed: a restart reads at most so much again, beside what was under way.
const COMMIT_EVERY: Duration = Duration::from_millis(200);

pub(super) struct Poller {
    pub(super) shared: Arc<Shared>,
    pub(super) consumer: BaseConsumer<Context>,
    pub(super) topic: String,
}

impl Poller {
    /// Joins the group, on a thread of its own.
    pub(super) fn start(self) -> Result<oneshot::Receiver<Result<(), QueueError>>, QueueError> {
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
        let mut lag = Lag::default();
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
            lag.measure(&self);
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

pub(super) fn positions(topic: &str, offsets: &BTreeMap<i32, i64>) -> Result<TopicPartitionList, QueueError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (&partition, &offset) in offsets {
        let added = list.add_partition_offset(topic, partition, Offset::Offset(offset));
        added.map_err(|error| QueueError::Failed(format!("an offset that Kafka does not know: {error}")))?;
    }
    Ok(list)
}
