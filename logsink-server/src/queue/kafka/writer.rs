//! The writing end: idempotent, answered when all in-sync replicas have the message.

use rdkafka::{
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, future_producer::DeliveryFuture},
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
}

/// Sends to one topic.
pub(super) struct Producer {
    producer: FutureProducer<Logged>,
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
        Ok(Self { producer, topic: Topic::new(options) })
    }

    /// Hands a message to librdkafka, which copies it. Without a key any partition will do.
    pub(super) fn send(&self, key: &str, payload: &[u8], headers: OwnedHeaders) -> Result<Sent, QueueError> {
        let mut record = FutureRecord::to(&self.topic.options.topic).payload(payload).headers(headers);
        if !key.is_empty() {
            record = record.key(key);
        }
        match self.producer.send_result(record) {
            Ok(delivery) => Ok(Sent { delivery, bytes: payload.len() }),
            Err((error, _)) => Err(queue_error(&error, payload.len(), self.topic.options.message_bytes_max)),
        }
    }

    /// Waits until all in-sync replicas have the message.
    pub(super) async fn answer(&self, sent: Sent) -> Result<(), QueueError> {
        match sent.delivery.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(queue_error(&error, sent.bytes, self.topic.options.message_bytes_max)),
            Err(_) => Err(QueueError::Unavailable("the Kafka producer was closed".into())),
        }
    }
}
