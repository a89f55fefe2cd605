//! The writing end: answered when all in-sync replicas have the batch.
//!
//! A batch that is larger than the topic's messages may be is split between its records. The parts keep the sender's instance and
//! sequence, and each says which record of the batch is its first (`logsink-first`): a record has the same id however often the
//! batch is sent, and wherever it is cut. A record that no message can hold is truncated or becomes a dead letter, as the
//! settings say. A batch whose parts would repeat its resources too often is refused: its records fit messages in smaller batches.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::OnceCell;

use super::{
    KafkaDeadLetters, KafkaOptions,
    producer::{Limit, Outgoing, Producer, Sent},
    to_kafka,
};
use crate::{
    config::kafka::Oversize,
    metrics::Metrics,
    queue::{
        Batch, BoxFuture, Headers, QueueError, QueueWriter,
        split::{Part, SplitError, split},
    },
};

/// What Kafka puts around a message: the head of a batch of records (61 bytes), the lengths of the message and of its parts.
const FRAME_BYTES: usize = 128;
/// What Kafka puts around a header.
const HEADER_FRAME_BYTES: usize = 10;

/// The writing end. An instance's messages go to one partition, so that they stay in order. Those of senders without an instance
/// id go to any: a large service would fill one partition alone, and the order across batches is not promised.
pub struct KafkaWriter {
    producer: Producer,
    metrics: Arc<Metrics>,
    /// Made when they are first needed.
    dead: OnceCell<KafkaDeadLetters>,
}

impl KafkaWriter {
    /// A writer of the topic, which is created when it is missing. Does not wait for the brokers: while they are away,
    /// appends fail with [`QueueError::Unavailable`].
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        let producer = Producer::new(options.clone(), Arc::clone(&metrics))?;
        Ok(Self { producer, metrics, dead: OnceCell::new() })
    }

    #[cfg(test)]
    pub(super) fn strand(&self) {
        self.producer.strand();
    }

    async fn write(&self, batch: Batch) -> Result<(), QueueError> {
        self.producer.topic().await?;
        let limit = self.producer.limit();
        if batch.payload.len() + overhead(&batch.headers) <= limit.message {
            let sent = self.send(&batch.headers, batch.payload)?;
            return self.answer(sent, limit).await;
        }
        self.write_parts(&batch).await
    }

    /// Writes the batch in parts, one after the other, so that they stay in order.
    async fn write_parts(&self, batch: &Batch) -> Result<(), QueueError> {
        let limit = self.producer.limit();
        let room = limit.message.saturating_sub(overhead(&batch.headers));
        let truncate = self.producer.options().oversize == Oversize::Truncate;
        let parts = split(&batch.payload, room, truncate).map_err(|error| match error {
            SplitError::Growth => QueueError::TooLarge { bytes: batch.payload.len(), bytes_max: limit.message },
            SplitError::Malformed(_) => QueueError::Failed(format!("a batch that cannot be split: {error}")),
        })?;
        self.metrics.queue_split.inc();
        for part in parts {
            let headers = Headers { first: batch.headers.first.saturating_add(part.first), ..batch.headers.clone() };
            if part.is_over {
                self.bury(&headers, &part).await?;
                continue;
            }
            let sent = self.send(&headers, part.payload.into())?;
            self.answer(sent, limit).await?;
            self.metrics.queue_truncated.inc_by(u64::from(part.is_truncated));
        }
        Ok(())
    }

    fn send(&self, headers: &Headers, payload: Bytes) -> Result<Sent, QueueError> {
        let key = headers.instance.clone().unwrap_or_default();
        self.producer.send(Outgoing { key, payload, headers: to_kafka(headers), time_ms: None })
    }

    /// A message that the topic does not take though the limit was `known` teaches what it takes; its sender repeats it, and it
    /// is split then.
    async fn answer(&self, sent: Sent, known: Limit) -> Result<(), QueueError> {
        match self.producer.answer(sent).await {
            Err(QueueError::TooLarge { bytes, .. }) => {
                self.producer.learn(bytes, known).await?;
                Err(QueueError::Unavailable(
                    "the Kafka topic takes smaller messages than was known: send it again".into(),
                ))
            }
            answer => answer,
        }
    }

    async fn bury(&self, headers: &Headers, part: &Part) -> Result<(), QueueError> {
        let limit = self.producer.limit().message;
        let connect = || async { KafkaDeadLetters::connect(self.producer.options(), Arc::clone(&self.metrics)) };
        let dead = self.dead.get_or_try_init(connect).await?;
        let reason = format!("too_large: a record of {} bytes; the topic takes {limit}", part.payload.len());
        dead.put_unread(headers, &reason, &part.payload).await?;
        self.metrics.dead("too_large", 1);
        tracing::warn!(
            bytes = part.payload.len(),
            limit,
            "put a record among the dead letters: the topic cannot hold it"
        );
        Ok(())
    }
}

impl QueueWriter for KafkaWriter {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.write(batch))
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.producer.ready())
    }
}

/// What stands around the payload at most, the first record's index included.
pub(super) fn overhead(headers: &Headers) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 2 * HEADER_FRAME_BYTES);
    let Headers { instance, rules, lost, others, .. } = headers;
    let others: usize = others.iter().map(|(key, value)| key.len() + value.len() + HEADER_FRAME_BYTES).sum();
    // The instance is the key as well; the two numbers have 30 digits at most.
    FRAME_BYTES + 2 * text(instance) + text(rules) + text(lost) + others + 3 * (16 + HEADER_FRAME_BYTES) + 30
}
