//! The writing end: idempotent, answered when all in-sync replicas have the message.
//!
//! librdkafka gives a producer up for good when it cannot promise idempotence any more, such as after the brokers have lost
//! what they knew of it. It is replaced then: senders repeat what was not acknowledged, and the index knows repeats.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, Producer as _, future_producer::DeliveryFuture},
};

use super::{KafkaOptions, Logged, Topic, config_error, queue_error, to_kafka};
use crate::queue::{Batch, BoxFuture, QueueError, QueueWriter};

/// - `linger.ms` 5: below 2 the broker thread spins (0.61 s against 0.07 s of CPU for 500,000 records).
/// - `message.timeout.ms`: what a sender waits for an answer, rather than librdkafka's five minutes; it tries again by itself.
/// - `queue.buffering.max.kbytes`: as much as ingest lets be under way.
const PROPERTIES: [(&str, &str); 6] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "5"),
    ("compression.codec", "lz4"),
    ("message.timeout.ms", "15000"),
    ("queue.buffering.max.kbytes", "262144"),
];

/// How long the brokers may take to say how the topic is: readiness answers within a second.
const READY_TIMEOUT: Duration = Duration::from_millis(700);

/// The writing end. A sender's messages go to one partition, chosen by its instance id or else its service, so that they
/// stay in order.
pub struct KafkaWriter(Producer);

impl KafkaWriter {
    /// A writer of the topic, which is created when it is missing. Does not wait for the brokers: while they are away,
    /// appends fail with [`QueueError::Unavailable`].
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions) -> Result<Self, QueueError> {
        Producer::new(options.clone()).map(Self)
    }
}

impl QueueWriter for KafkaWriter {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            self.0.topic.ready().await?;
            let key = batch.headers.instance.as_deref().unwrap_or(&batch.service);
            let sent = self.0.send(key, &batch.payload, to_kafka(&batch.headers))?;
            // librdkafka has copied: nothing of the batch is held while the brokers work.
            drop(batch);
            self.0.answer(sent).await
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.0.ready())
    }
}

/// Sends to one topic.
pub(super) struct Producer {
    config: ClientConfig,
    /// Replaced when librdkafka has given it up.
    producer: Mutex<FutureProducer<Logged>>,
    pub(super) topic: Topic,
}

/// A message under way.
pub(super) struct Sent {
    delivery: DeliveryFuture,
    bytes: usize,
}

impl Producer {
    pub(super) fn new(options: KafkaOptions) -> Result<Self, QueueError> {
        let mut config = options.client(&PROPERTIES);
        config.set("message.max.bytes", options.message_bytes_max.to_string());
        let producer = config.create_with_context(Logged).map_err(config_error)?;
        Ok(Self { config, producer: Mutex::new(producer), topic: Topic::new(options) })
    }

    fn current(&self) -> MutexGuard<'_, FutureProducer<Logged>> {
        // It is replaced in one step.
        self.producer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A producer that works as far as librdkafka knows.
    fn producer(&self) -> Result<FutureProducer<Logged>, QueueError> {
        let mut current = self.current();
        if let Some((code, reason)) = current.client().fatal_error() {
            tracing::error!(
                %code, reason, topic = self.topic.options.topic,
                "librdkafka has given the producer up: going on with a new one"
            );
            // What is under way in the old one has failed already. Its end may wait for its threads: not here.
            let old = std::mem::replace(&mut *current, self.config.create_with_context(Logged).map_err(config_error)?);
            tokio::task::spawn_blocking(move || drop(old));
        }
        Ok(current.clone())
    }

    /// Whether the topic can be written: brokers answer, and each of its partitions, if it is there, has a leader.
    async fn ready(&self) -> Result<(), QueueError> {
        // Asking for a topic that is not there yet may make the brokers create it, as they like it: ask for all until then.
        let topic = self.topic.ready.initialized().then(|| self.topic.options.topic.clone());
        let producer = self.producer()?;
        let asked = move || producer.client().fetch_metadata(topic.as_deref(), READY_TIMEOUT);
        let asked = tokio::task::spawn_blocking(asked).await;
        let asked = asked.map_err(|error| QueueError::Failed(format!("asking Kafka failed: {error}")))?;
        let brokers = self.topic.options.brokers.join(",");
        let metadata = asked
            .map_err(|error| QueueError::Unavailable(format!("Kafka at {brokers} does not answer in time: {error}")))?;
        let topics = metadata.topics().iter().filter(|topic| topic.name() == self.topic.options.topic);
        let partitions = topics.flat_map(|topic| topic.partitions());
        let headless = partitions.filter(|partition| partition.leader() < 0).count();
        match headless {
            0 => Ok(()),
            _ => Err(QueueError::Unavailable(format!(
                "{headless} partitions of the Kafka topic {} have no leader",
                self.topic.options.topic
            ))),
        }
    }

    /// Hands a message to librdkafka, which copies it. Without a key any partition will do.
    pub(super) fn send(&self, key: &str, payload: &[u8], headers: OwnedHeaders) -> Result<Sent, QueueError> {
        let mut record = FutureRecord::to(&self.topic.options.topic).payload(payload).headers(headers);
        if !key.is_empty() {
            record = record.key(key);
        }
        match self.producer()?.send_result(record) {
            Ok(delivery) => Ok(Sent { delivery, bytes: payload.len() }),
            Err((error, _)) => Err(queue_error(&error, payload.len(), self.topic.options.message_bytes_max)),
        }
    }

    /// Waits until all in-sync replicas have the message.
    pub(super) async fn answer(&self, sent: Sent) -> Result<(), QueueError> {
        match sent.delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(queue_error(&error, sent.bytes, self.topic.options.message_bytes_max)),
            Err(_) => Err(QueueError::Unavailable("the Kafka producer was replaced: send it again".into())),
        }
    }
}
