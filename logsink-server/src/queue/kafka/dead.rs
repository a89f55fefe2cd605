//! Dead letters in a topic of their own, `<topic>.dead`: one `ExportLogsServiceRequest` with the record, or a whole message as it
//! was, and beside it, in headers, all that stood beside the message and why it is here.

mod archive;
mod replay;

use std::sync::Arc;

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

pub use archive::KafkaDeadArchive;

use super::{
    KafkaOptions,
    producer::{Outgoing, Producer},
    to_kafka,
};
use crate::{
    metrics::Metrics,
    queue::{BoxFuture, DeadLetters, Headers, Message, QueueError, split},
};

/// Why no index takes it.
const REASON: &str = "logsink-dead-reason";
/// `topic/partition/offset` of the message.
const SOURCE: &str = "logsink-dead-source";
/// The record's index in the message; without it the value is the whole message.
const RECORD: &str = "logsink-dead-record";
/// When the queue took the message, Unix milliseconds.
const APPENDED: &str = "logsink-dead-appended";
/// How many bytes it had, when only the first are kept.
const CUT_FROM: &str = "logsink-dead-cut-from";

/// What stands around a dead letter at most, beside its reason and the headers of its message.
const AROUND_BYTES: usize = 16 << 10;
/// A longer reason is cut: Elasticsearch quotes the document in some.
const REASON_BYTES_MAX: usize = 4 << 10;

/// Dead letters of one topic.
pub struct KafkaDeadLetters {
    producer: Producer,
    /// Where they come from.
    source: String,
}

/// The topic of a topic's dead letters.
fn dead_topic(topic: &str) -> String {
    format!("{topic}.dead")
}

impl KafkaDeadLetters {
    /// A writer of `<topic>.dead`, which is created with one partition when it is missing. Does not wait for the brokers.
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        let source = options.topic.clone();
        let options =
            KafkaOptions { topic: dead_topic(&source), partitions: options.partitions.min(1), ..options.clone() };
        Ok(Self { producer: Producer::new(options, metrics)?, source })
    }

    /// Keeps a record that was never in the queue, because it does not fit there.
    pub(super) async fn put_unread(&self, headers: &Headers, reason: &str, bytes: &[u8]) -> Result<(), QueueError> {
        self.producer.topic().await?;
        let headers = to_kafka(headers).insert(Header { key: REASON, value: Some(reason) });
        // Whole or not at all: its sender hears of it.
        let payload = Bytes::copy_from_slice(bytes);
        let sent = self.producer.send(Outgoing { key: String::new(), payload, headers, time_ms: None })?;
        self.producer.answer(sent).await
    }

    fn headers(&self, message: &Message, record: Option<u32>, reason: &str) -> OwnedHeaders {
        let position = message.position;
        let source = format!("{}/{}/{}", self.source, position.partition, position.offset);
        let end = (0..=reason.len().min(REASON_BYTES_MAX)).rev().find(|end| reason.is_char_boundary(*end));
        let reason = &reason[..end.unwrap_or(0)];
        let number = |headers: OwnedHeaders, key, number: Option<String>| match &number {
            Some(number) => headers.insert(Header { key, value: Some(number) }),
            None => headers,
        };
        let headers = to_kafka(&message.headers)
            .insert(Header { key: REASON, value: Some(reason) })
            .insert(Header { key: SOURCE, value: Some(&source) });
        let headers = number(headers, RECORD, record.map(|record| record.to_string()));
        number(headers, APPENDED, message.headers.appended_ms.map(|ms| ms.to_string()))
    }

    /// Keeps as many of the bytes as the topic takes.
    async fn keep(&self, headers: OwnedHeaders, bytes: Bytes) -> Result<(), QueueError> {
        self.producer.topic().await?;
        loop {
            let limit = self.producer.limit();
            let kept = bytes.len().min(limit.message.saturating_sub(AROUND_BYTES.min(limit.message / 2)));
            let headers = match kept < bytes.len() {
                true => headers.clone().insert(Header { key: CUT_FROM, value: Some(&bytes.len().to_string()) }),
                false => headers.clone(),
            };
            let payload = bytes.slice(..kept);
            let sent = self.producer.send(Outgoing { key: String::new(), payload, headers, time_ms: None });
            let answer = match sent {
                Ok(sent) => self.producer.answer(sent).await,
                Err(error) => Err(error),
            };
            match answer {
                // Each lesson halves at least what is sent as one, or the limit, down to a kilobyte.
                Err(QueueError::TooLarge { bytes, .. }) if bytes > 1 => self.producer.learn(bytes, limit).await?,
                answer => return answer,
            }
        }
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(self.producer.ready())
    }

    fn put(
        &self,
        message: &Message,
        record: Option<u32>,
        reason: &str,
        bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let headers = self.headers(message, record, reason);
        // With the resource and the scope, without which a record does not say where it is from.
        let request = record.and_then(|record| split::one(&message.payload, record));
        let bytes = request.map_or_else(|| Bytes::copy_from_slice(bytes), Bytes::from);
        Box::pin(self.keep(headers, bytes))
    }
}
