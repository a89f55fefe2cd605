//! Reads the topic of dead letters from its beginning, without a place in any group.

use std::time::{Duration, Instant};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    consumer::{BaseConsumer, Consumer},
    message::{BorrowedMessage, Headers as _},
};

use super::{APPENDED, CUT_FROM, REASON, RECORD, SOURCE, dead_topic, replay::Replay};
use crate::{
    metrics::Metrics,
    queue::{
        QueueError,
        dead::{DeadArchive, DeadLetter, Replayed},
        kafka::{KafkaOptions, Logged, TOO_LARGE, config_error, from_kafka, payload, producer::Producer},
    },
};

/// How long the brokers may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may take that is there.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The dead letters of a topic.
pub struct KafkaDeadArchive {
    consumer: BaseConsumer<Logged>,
    options: KafkaOptions,
    topic: String,
}

impl KafkaDeadArchive {
    /// The dead letters of `options.topic`. Asks nobody yet.
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions) -> Result<Self, QueueError> {
        let own = [
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "earliest"),
            // librdkafka wants a name; nothing is ever committed under it.
            ("group.id", "logsink-dead-letters"),
            ("allow.auto.create.topics", "false"),
        ];
        let consumer = options.client(&own).create_with_context(Logged).map_err(config_error)?;
        Ok(Self { consumer, options: options.clone(), topic: dead_topic(&options.topic) })
    }

    /// First offset and end of each partition; empty when the topic is not there.
    fn ends(&self) -> Result<Vec<(i32, i64, i64)>, QueueError> {
        let away = |error| {
            QueueError::Unavailable(format!("Kafka at {} does not answer: {error}", self.options.brokers.join(",")))
        };
        let metadata = self.consumer.fetch_metadata(None, ANSWER_TIMEOUT).map_err(away)?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let partitions = topic.into_iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id());
        let ends = partitions.map(|partition| {
            let (start, end) = self.consumer.fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT)?;
            Ok((partition, start, end))
        });
        ends.collect::<Result<_, _>>().map_err(away)
    }

    /// Sends letters back into the topic that they came from, to be indexed after all: as many as Kafka takes.
    ///
    /// # Errors
    /// When a property is wrong.
    pub async fn replay(&self, letters: Vec<DeadLetter>) -> Result<Replayed, QueueError> {
        let producer = Producer::new(self.options.clone(), Metrics::new())?;
        Ok(Replay::new(&producer, letters).run().await)
    }
}

impl DeadArchive for KafkaDeadArchive {
    fn each(&self, show: &mut dyn FnMut(DeadLetter) -> bool) -> Result<(), QueueError> {
        for (partition, start, end) in self.ends()? {
            let mut list = TopicPartitionList::new();
            let added = list.add_partition_offset(&self.topic, partition, Offset::Offset(start));
            added.and_then(|()| self.consumer.assign(&list)).map_err(config_error)?;
            let (mut next, mut waiting) = (start, Instant::now());
            while next < end {
                match self.consumer.poll(Duration::from_millis(500)) {
                    Some(Ok(message)) => {
                        (next, waiting) = (message.offset() + 1, Instant::now());
                        if !show(letter(&message)) {
                            return Ok(());
                        }
                    }
                    // Connections are tried again; marks of transactions at the end never come.
                    _ if waiting.elapsed() < READ_TIMEOUT => {}
                    _ => {
                        return Err(QueueError::Unavailable(format!(
                            "Kafka does not send the dead letters from {partition}/{next} on"
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn purge(&self) -> Result<u64, QueueError> {
        let mut list = TopicPartitionList::new();
        let mut letters = 0;
        for (partition, start, end) in self.ends()? {
            if start < end {
                list.add_partition_offset(&self.topic, partition, Offset::Offset(end)).map_err(config_error)?;
                letters += u64::try_from(end - start).unwrap_or(0);
            }
        }
        if letters == 0 {
            return Ok(0);
        }
        let refused = |error| QueueError::Failed(format!("Kafka does not delete the dead letters: {error}"));
        let admin: AdminClient<Logged> = self.options.client(&[]).create_with_context(Logged).map_err(config_error)?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_TIMEOUT)).request_timeout(Some(ANSWER_TIMEOUT));
        let deleting = admin.delete_records(&list, &options);
        let done = tokio::runtime::Handle::current().block_on(deleting).map_err(refused)?;
        for element in done.elements() {
            element.error().map_err(refused)?;
        }
        Ok(letters)
    }
}

fn letter(message: &BorrowedMessage<'_>) -> DeadLetter {
    let mut headers = from_kafka(message.headers());
    let mut letter = DeadLetter {
        id: format!("{}/{}", message.partition(), message.offset()),
        time_ms: message.timestamp().to_millis().unwrap_or(0),
        reason: String::new(),
        source: String::new(),
        record: None,
        headers: Default::default(),
        bytes: payload(message.payload()),
        cut_from: None,
    };
    let mut read_from = None;
    // Another writer of the topic may have left any of them out.
    for kafka in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        let text = String::from_utf8_lossy(kafka.value.unwrap_or_default());
        match kafka.key {
            REASON => letter.reason = text.into_owned(),
            SOURCE => letter.source = text.into_owned(),
            RECORD => letter.record = text.parse().ok(),
            APPENDED => headers.appended_ms = text.parse().ok(),
            CUT_FROM => letter.cut_from = text.parse().ok(),
            TOO_LARGE => read_from = text.parse().ok(),
            _ => {}
        }
    }
    // What the reader kept of it may have been cut once more.
    letter.cut_from = read_from.or(letter.cut_from);
    headers.others.retain(|(key, _)| !key.starts_with("logsink-dead-"));
    letter.headers = headers;
    letter
}
