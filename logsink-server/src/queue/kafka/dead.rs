//! Dead letters in a topic of their own, `<topic>.dead`: the bytes as the value, the rest in headers.

use bytes::Bytes;
use rdkafka::message::{Header, OwnedHeaders};

use super::{KafkaOptions, to_kafka, writer::Producer};
use crate::queue::{BoxFuture, DeadLetters, Message, QueueError};

/// Why no index takes it.
const REASON: &str = "logsink-dead-reason";
/// `topic/partition/offset` of the message.
const SOURCE: &str = "logsink-dead-source";
/// The record's index in the message; without it the value is the whole message.
const RECORD: &str = "logsink-dead-record";

/// Dead letters of one topic.
pub struct KafkaDeadLetters {
    producer: Producer,
    /// Where they come from.
    source: String,
}

impl KafkaDeadLetters {
    /// A writer of `<topic>.dead`, which is created with one partition when it is missing. Does not wait for the brokers.
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions) -> Result<Self, QueueError> {
        let source = options.topic.clone();
        let options =
            KafkaOptions { topic: format!("{source}.dead"), partitions: options.partitions.min(1), ..options.clone() };
        Ok(Self { producer: Producer::new(options)?, source })
    }

    fn headers(&self, message: &Message, record: Option<u32>, reason: &str) -> OwnedHeaders {
        let position = message.position;
        let source = format!("{}/{}/{}", self.source, position.partition, position.offset);
        let headers = to_kafka(&message.headers)
            .insert(Header { key: REASON, value: Some(reason) })
            .insert(Header { key: SOURCE, value: Some(&source) });
        match record {
            Some(record) => headers.insert(Header { key: RECORD, value: Some(&record.to_string()) }),
            None => headers,
        }
    }
}

impl DeadLetters for KafkaDeadLetters {
    fn put(
        &self,
        message: &Message,
        record: Option<u32>,
        reason: &str,
        bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let headers = self.headers(message, record, reason);
        let bytes = Bytes::copy_from_slice(bytes);
        Box::pin(async move {
            self.producer.topic.ready().await?;
            let sent = self.producer.send("", &bytes, headers)?;
            self.producer.answer(sent).await
        })
    }
}
