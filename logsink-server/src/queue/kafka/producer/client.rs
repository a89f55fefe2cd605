//! One librdkafka producer: messages in, through their partition's lane, answers out.
//!
//! A thread of its own takes the answers. It also hands over what has waited for them, so that no task has to wake between an
//! answer and the next batch.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext, PurgeConfig},
};
use tokio::sync::oneshot;

use super::{
    BATCH_BYTES,
    lanes::{Lanes, Waiting},
};
use crate::queue::kafka::Logged;

/// How long a poll for answers takes when there are none: how long the thread outlives its client.
const POLL: Duration = Duration::from_millis(100);

/// What librdkafka makes of a message.
pub(super) type Answer = Result<(), KafkaError>;

/// Shared by its clones; ends with the last.
#[derive(Clone)]
pub(super) struct Client(Arc<Running>);

struct Running {
    producer: Arc<BaseProducer<Context>>,
    is_over: Arc<AtomicBool>,
}

/// A message on its way in.
pub(in super::super) struct Outgoing {
    /// Empty: any partition will do.
    pub(in super::super) key: String,
    pub(in super::super) payload: Bytes,
    pub(in super::super) headers: OwnedHeaders,
    /// Unix milliseconds; none: when librdkafka takes it.
    pub(in super::super) time_ms: Option<i64>,
}

/// An [`Outgoing`] whose sender waits.
struct Queued {
    message: Outgoing,
    answer: oneshot::Sender<Answer>,
}

/// What librdkafka gives back with the answer.
struct Ticket {
    lane: usize,
    answer: oneshot::Sender<Answer>,
}

struct Context {
    topic: String,
    lanes: Mutex<Lanes<Queued>>,
    /// Weak: it owns this.
    producer: OnceLock<Weak<BaseProducer<Self>>>,
}

impl Client {
    /// A producer for one topic.
    pub(super) fn new(config: &ClientConfig, topic: &str) -> Result<Self, KafkaError> {
        // A lane gets what librdkafka sends as one.
        let bytes_max = config.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_BYTES);
        let linger =
            ["linger.ms", "queue.buffering.max.ms"].into_iter().find_map(|name| config.get(name)?.parse().ok());
        let linger = Duration::try_from_secs_f64(linger.unwrap_or(0.0) / 1e3).unwrap_or_default();
        let lanes = Mutex::new(Lanes::new(linger, bytes_max));
        let context = Context { topic: topic.to_owned(), lanes, producer: OnceLock::new() };
        let producer: Arc<BaseProducer<Context>> = Arc::new(config.create_with_context(context)?);
        producer.context().producer.get_or_init(|| Arc::downgrade(&producer));
        let is_over = Arc::new(AtomicBool::new(false));
        let answers = {
            let (producer, is_over) = (Arc::clone(&producer), Arc::clone(&is_over));
            move || {
                while !is_over.load(Relaxed) {
                    producer.poll(POLL);
                }
                // Whoever waits yet is told.
                producer.context().lanes().close();
                producer.purge(PurgeConfig::default().queue().inflight());
                producer.poll(POLL);
            }
        };
        std::thread::Builder::new().name("kafka-answers".into()).spawn(answers).map_err(|error| {
            KafkaError::ClientCreation(format!("no thread for the answers of the Kafka producer: {error}"))
        })?;
        Ok(Self(Arc::new(Running { producer, is_over })))
    }

    /// librdkafka's own, to ask the brokers something.
    pub(super) fn inner(&self) -> &rdkafka::client::Client<impl ClientContext + use<>> {
        self.0.producer.client()
    }

    /// How many partitions the topic has as far as is known; 0: not yet.
    pub(super) fn partitions(&self) -> usize {
        self.context().lanes().len()
    }

    /// The topic has so many partitions.
    pub(super) fn set_partitions(&self, partitions: usize) {
        self.context().lanes().resize(partitions);
        self.go_on();
    }

    /// Hands over what may go now: time has passed.
    pub(super) fn go_on(&self) {
        self.context().go_on();
    }

    /// Lets a message wait for its lane. The receiver gets librdkafka's answer, or is cancelled when the client ends before.
    pub(super) fn send(&self, message: Outgoing) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        self.context().lanes().put(Queued { message, answer });
        self.go_on();
        answered
    }

    /// Gives back what waits and nobody waits for.
    pub(super) fn sweep(&self) {
        self.context().lanes().sweep();
    }

    /// Cancels what has not been handed over, and waits up to `timeout` for the answers of what has. Blocks.
    pub(super) fn finish(self, timeout: Duration) {
        self.context().lanes().close();
        // What it says is told to each sender.
        let _ = self.0.producer.flush(timeout);
    }

    fn context(&self) -> &Context {
        self.0.producer.context()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
    }
}

impl Context {
    fn lanes(&self) -> MutexGuard<'_, Lanes<Queued>> {
        // A panic while it is held leaves each message in one place.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what may go now.
    fn go_on(&self) {
        // None: the client is ending.
        let Some(producer) = self.producer.get().and_then(Weak::upgrade) else { return };
        loop {
            let Some((lane, messages)) = self.lanes().next(Instant::now()) else { return };
            for queued in messages {
                self.hand_over(&producer, lane, queued);
            }
        }
    }

    fn hand_over(&self, producer: &BaseProducer<Self>, lane: usize, Queued { message, answer }: Queued) {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(Ticket { lane, answer }))
            .partition(i32::try_from(lane).unwrap_or(i32::MAX))
            .payload(message.payload.as_ref())
            .headers(message.headers);
        if !message.key.is_empty() {
            record = record.key(&message.key);
        }
        if let Some(time_ms) = message.time_ms {
            record = record.timestamp(time_ms);
        }
        if let Err((error, record)) = producer.send(record) {
            self.answer(*record.delivery_opaque, Err(error));
        }
    }

    fn answer(&self, ticket: Ticket, answer: Answer) {
        // A message's own fault is not the partition's.
        let is_well = match &answer {
            Ok(()) => true,
            Err(error) => error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge),
        };
        self.lanes().answered(ticket.lane, is_well, Instant::now());
        // Its sender may have gone: it was not promised anything then.
        let _ = ticket.answer.send(answer);
    }
}

impl Waiting for Queued {
    fn key(&self) -> Option<&[u8]> {
        let key = self.message.key.as_bytes();
        (!key.is_empty()).then_some(key)
    }

    fn bytes(&self) -> usize {
        self.message.payload.len()
    }

    fn is_abandoned(&self) -> bool {
        self.answer.is_closed()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Logged.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logged.error(error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        self.answer(*ticket, result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
        self.go_on();
    }
}
