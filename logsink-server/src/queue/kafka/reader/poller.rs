//! The thread that polls: messages into the buffer, positions out of it. It waits for nothing but messages and room.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use bytes::{BufMut, Bytes, BytesMut};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::oneshot;

use super::{
    Shared,
    buffer::State,
    client::{self, Client},
    watch::Watch,
};
use crate::queue::{
    Headers, Message, Position, QueueError,
    kafka::{TOO_LARGE, config_error, from_kafka, queue_error},
};

/// Bytes that wait for `next`; a poll's batch more may be in. Four reads of drain's usual size.
const BUFFER_BYTES_MAX: usize = 8 << 20;
/// Bytes and messages that are brought into the buffer at a time: one lock for a hundred of the smallest messages, and no wait
/// for drain while there is something to do.
const BATCH_BYTES: usize = 256 << 10;
const BATCH_MESSAGES: usize = 256;
/// How long the buffer stays full before the partitions are paused. Pausing makes librdkafka throw away what it has read
/// ahead, so it is not for every hiccup; rebalances wait so long at most.
const PAUSE_AFTER: Duration = Duration::from_millis(500);
/// How long a poll waits for a message: how late a close or a resumption is noticed.
const POLL: Duration = Duration::from_millis(50);
/// How often positions are committed: a restart reads at most so much again, beside what was under way.
const COMMIT_EVERY: Duration = Duration::from_millis(200);
/// How long the last commit waits for a rebalance to end: a stop takes no longer than some ten seconds.
const LAST_COMMIT: Duration = Duration::from_secs(6);

/// What is kept of a message that is too large.
const BEGINNING_BYTES: usize = 64 << 10;
/// Wire type 7 does not exist.
const NO_KEY: u8 = 7;

pub(super) struct Poller {
    shared: Arc<Shared>,
    config: ClientConfig,
    /// A larger message is none of ours.
    message_bytes_max: usize,
    consumer: Arc<Client>,
    /// The epochs of our partitions, as of the client's rebalance with this number; none when they have to be asked for.
    epochs: Option<(u64, BTreeMap<i32, u32>)>,
    /// Read and not yet in the buffer.
    batch: Vec<Message>,
    /// The assignment that is paused, by its number.
    paused: Option<u64>,
}

impl Poller {
    pub(super) fn new(shared: Arc<Shared>, config: ClientConfig, message_bytes_max: usize) -> Result<Self, QueueError> {
        let consumer = Client::connect(&shared, &config)?;
        Ok(Self { shared, config, message_bytes_max, consumer, epochs: None, batch: Vec::new(), paused: None })
    }

    /// Joins the group, on a thread of its own.
    pub(super) fn start(self) -> Result<oneshot::Receiver<Result<(), QueueError>>, QueueError> {
        self.consumer.subscribe(&[&self.shared.topic]).map_err(config_error)?;
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
    fn run(mut self) -> Result<(), QueueError> {
        let mut watch = Watch::start(&self.shared, &self.consumer, &self.config)?;
        let mut committed = Instant::now();
        loop {
            self.flow();
            let (closing, verdict, is_anew, pauses) = {
                let mut state = self.shared.state();
                (state.closing, state.verdict.take(), std::mem::take(&mut state.is_anew), state.pauses())
            };
            if closing {
                break;
            }
            if let Some(reason) = verdict {
                self.replace(&reason)?;
                watch = Watch::start(&self.shared, &self.consumer, &self.config)?;
            }
            if is_anew {
                self.begin_anew();
            }
            #[cfg(all(test, feature = "real-servers"))]
            if self.shared.state().stall {
                self.with_assignment("stall", |partitions| self.consumer.pause(partitions));
                self.shared.state().stall = false;
            }
            self.read()?;
            if committed.elapsed() >= COMMIT_EVERY * pauses {
                committed = Instant::now();
                self.commit()?;
            }
        }
        let committed = self.commit_last();
        watch.end();
        // Nobody asks for them any more.
        self.batch.clear();
        self.shared.state().forget();
        self.consumer.end();
        committed
    }

    /// Reads what is there, a batch at most, and waits for a first message when there is nothing.
    fn read(&mut self) -> Result<(), QueueError> {
        let (mut bytes, mut timeout) = (0, POLL);
        while bytes < BATCH_BYTES && self.batch.len() < BATCH_MESSAGES {
            match self.consumer.poll(timeout) {
                None => break,
                Some(Ok(message)) => {
                    let position = Position { partition: message.partition(), offset: message.offset() };
                    // A rebalance may have been in this poll; what it brings is of the assignment after it.
                    let rebalances = self.consumer.context().rebalances.load(Relaxed);
                    let epochs = match self.epochs.take() {
                        Some(epochs) if epochs.0 == rebalances => epochs,
                        _ => (rebalances, self.shared.state().epochs()),
                    };
                    let epoch = self.epochs.insert(epochs).1.get(&position.partition).copied();
                    let Some(epoch) = epoch else { continue };
                    let mut headers = from_kafka(message.headers());
                    headers.appended_ms = message.timestamp().to_millis();
                    let payload = self.payload(message, &mut headers);
                    bytes += payload.len();
                    self.batch.push(Message { position, epoch, payload, headers, dropped: Vec::new() });
                    timeout = Duration::ZERO;
                }
                Some(Err(error)) => {
                    self.bring();
                    return self.fail(error);
                }
            }
        }
        self.bring();
        Ok(())
    }

    fn payload(&self, message: BorrowedMessage<'_>, headers: &mut Headers) -> Bytes {
        let bytes = message.payload().unwrap_or_default();
        if bytes.len() <= self.message_bytes_max {
            return client::payload(&self.consumer, message);
        }
        // Larger than any writer of ours makes them: unpacked from a few kilobytes perhaps. Its beginning is enough for a dead
        // letter, which it becomes, because no request ends with a byte like this.
        tracing::error!(
            topic = self.shared.topic,
            partition = message.partition(),
            offset = message.offset(),
            bytes = bytes.len(),
            "a message is far larger than this server takes: only its beginning is kept, as a dead letter"
        );
        headers.others.push((TOO_LARGE.into(), Bytes::from(bytes.len().to_string())));
        let mut beginning = BytesMut::with_capacity(BEGINNING_BYTES + 1);
        beginning.extend_from_slice(&bytes[..BEGINNING_BYTES.min(bytes.len())]);
        beginning.put_u8(NO_KEY);
        beginning.freeze()
    }

    fn bring(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let back = self.shared.state().push(&mut self.batch);
        self.shared.ready.notify_one();
        if !back.is_empty() {
            self.epochs = None;
            self.shared.alarm.notify_all();
        }
        for jump in back {
            tracing::warn!(
                topic = self.shared.topic,
                partition = jump.partition,
                from = jump.from,
                to = jump.to,
                "the offsets went back: the topic was made anew, or the partition has lost its end. Reading on from there"
            );
        }
    }

    fn fail(&mut self, error: KafkaError) -> Result<(), QueueError> {
        if let KafkaError::MessageConsumptionFatal(code) = &error {
            self.shared.state().verdict = Some(format!("librdkafka has given it up: {code}"));
            return Ok(());
        }
        match queue_error(&error, 0, 0) {
            failed @ QueueError::Failed(_) => {
                self.shared.state().fail(failed);
                self.shared.ready.notify_one();
            }
            // librdkafka tries again by itself.
            _ => tracing::warn!(%error, topic = self.shared.topic, "reading from Kafka"),
        }
        Ok(())
    }

    /// Goes on with a new client. What the old one had is read again: its partitions are revoked, and not committed, because it
    /// cannot say whether they still are ours.
    fn replace(&mut self, reason: &str) -> Result<(), QueueError> {
        tracing::error!(topic = self.shared.topic, reason, "the Kafka consumer does not work: going on with a new one");
        self.shared.metrics.kafka_replaced("consumer");
        let consumer = Client::connect(&self.shared, &self.config)?;
        let old = std::mem::replace(&mut self.consumer, consumer);
        old.context().is_retired.store(true, Relaxed);
        let partitions = {
            let mut state = self.shared.state();
            let partitions = state.partitions();
            state.revoke(&partitions);
            state.verdict = None;
            state.is_paused = false;
            partitions
        };
        partitions.iter().for_each(|&partition| self.shared.metrics.lag(partition, None));
        self.shared.ready.notify_one();
        self.paused = None;
        self.epochs = None;
        // Its end may take as long as it likes; its messages may be with an index that takes nothing for hours, and it must not be
        // a member of the group until then.
        if let Err(error) = thread::Builder::new().name("logsink-kafka-end".into()).spawn(move || old.end()) {
            tracing::warn!(%error, "no thread for the end of the old Kafka client: it ended here");
        }
        self.consumer.subscribe(&[&self.shared.topic]).map_err(config_error)
    }

    /// The topic is another one under the same name: reads it from its beginning. Of its messages, those that were read already
    /// are read again; they have the same ids.
    fn begin_anew(&mut self) {
        let topic = &self.shared.topic;
        let partitions = self.shared.state().begin_anew();
        tracing::error!(topic, ?partitions, "the topic was made anew: reading it from its beginning");
        self.epochs = None;
        self.shared.ready.notify_one();
        for partition in partitions {
            // Without waiting: what still comes from before is told by its offset (`State::push`).
            if let Err(error) = self.consumer.seek(topic, partition, Offset::Beginning, Duration::ZERO) {
                // It is not fetched yet, and begins where the group stands, which in a new topic is nowhere.
                tracing::warn!(%error, topic, partition, "cannot go to the beginning of the partition");
            }
        }
    }

    /// Holds back while the buffer is full: a moment by waiting, longer by pausing.
    fn flow(&mut self) {
        let mut state = self.shared.state();
        let rebalances = state.rebalances;
        if self.paused.is_some() {
            if state.bytes() <= BUFFER_BYTES_MAX / 2 {
                self.paused = None;
                state.is_paused = false;
                drop(state);
                self.with_assignment("resume", |partitions| self.consumer.resume(partitions));
            } else if self.paused != Some(rebalances) {
                // Partitions that came while we were paused run.
                self.paused = Some(rebalances);
                drop(state);
                self.with_assignment("pause", |partitions| self.consumer.pause(partitions));
            }
            return;
        }
        if state.bytes() < BUFFER_BYTES_MAX {
            return;
        }
        let is_full = |state: &mut State| state.bytes() >= BUFFER_BYTES_MAX && !state.closing;
        let waited = self.shared.room.wait_timeout_while(state, PAUSE_AFTER, is_full);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if is_full(&mut state) {
            self.paused = Some(rebalances);
            state.is_paused = true;
            drop(state);
            self.with_assignment("pause", |partitions| self.consumer.pause(partitions));
        }
    }

    fn with_assignment(&self, action: &str, act: impl FnOnce(&TopicPartitionList) -> KafkaResult<()>) {
        if let Err(error) = self.consumer.assignment().and_then(|partitions| act(&partitions)) {
            // A rebalance comes between: it is tried again after the next poll, or does not matter any more.
            tracing::debug!(%error, topic = self.shared.topic, "cannot {action} the partitions");
        }
    }

    /// What is not committed is read again.
    fn commit(&self) -> Result<(), QueueError> {
        let due = self.shared.state().due(false);
        if due.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.consumer.commit(&positions(&self.shared.topic, &due)?, CommitMode::Async) {
            tracing::warn!(%error, topic = self.shared.topic, "cannot commit the positions in Kafka");
            self.shared.state().committed(false);
        }
        Ok(())
    }

    /// Commits at the end, and waits for it. While the group hands partitions about it takes no commits: what is still ours
    /// after that is committed, and what is not was revoked, with its positions.
    fn commit_last(&mut self) -> Result<(), QueueError> {
        use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
        let started = Instant::now();
        loop {
            let due = self.shared.state().due(true);
            if due.is_empty() {
                return Ok(());
            }
            let error = match self.consumer.commit(&positions(&self.shared.topic, &due)?, CommitMode::Sync) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.rdkafka_error_code() {
                Some(IllegalGeneration | RebalanceInProgress | UnknownMemberId) if started.elapsed() < LAST_COMMIT => {
                    // Serves the rebalance; what it reads is not acknowledged, so the next owner reads it.
                    self.read()?;
                }
                Some(IllegalGeneration | RebalanceInProgress | UnknownMemberId) => {
                    let topic = &self.shared.topic;
                    tracing::warn!(%error, topic, "the last positions are not committed: the next reader reads a little again");
                    return Ok(());
                }
                _ => {
                    return Err(QueueError::Unavailable(format!("cannot commit the last positions in Kafka: {error}")));
                }
            }
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
