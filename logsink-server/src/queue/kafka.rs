//! The cluster's queue: a Kafka topic whose message values are `ExportLogsServiceRequest`s, as the OpenTelemetry Collector's
//! `otlp_proto` writes and reads them.

mod admin;
mod dead;
mod probe;
mod producer;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use logsink::transport::header;
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminOptions, NewTopic, TopicReplication},
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
};
use serde::Deserialize;
use tokio::sync::OnceCell;

pub use dead::{KafkaDeadArchive, KafkaDeadLetters};
pub use reader::KafkaReader;
pub use writer::KafkaWriter;

use self::admin::Admin;
use super::{Headers, QueueError};
use crate::config::kafka::{Assignment, Compression, Oversize};

/// How long the brokers may take to answer when a topic is created.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Which topic, on which brokers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaOptions {
    /// `host:port` of some of the brokers.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: String,
    /// Partitions, when the topic has to be created; 0: it is there, and is not ours to create.
    pub partitions: i32,
    /// Copies of each partition, when the topic has to be created; -1 leaves it to the brokers.
    pub replication: i32,
    /// Bytes of one message; a topic that is created takes so much. An existing topic may take less.
    pub message_bytes_max: usize,
    /// This member's name in the group: when it comes back within the session, it has its partitions still.
    pub instance: Option<String>,
    /// How the group's members share the partitions.
    pub assignment: Assignment,
    /// What becomes of a record that does not fit a message by itself.
    pub oversize: Oversize,
    /// How what is written is compressed.
    pub compression: Compression,
    /// Further properties of librdkafka; they win over the server's own.
    pub properties: BTreeMap<String, String>,
}

impl Default for KafkaOptions {
    /// The Collector's topic, 6 partitions, and messages of 17 MiB: the largest request (16 MiB) and what goes around it.
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "otlp_logs".into(),
            partitions: 6,
            replication: -1,
            message_bytes_max: 17 << 20,
            instance: None,
            assignment: Assignment::default(),
            oversize: Oversize::default(),
            compression: Compression::default(),
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaOptions {
    /// A client's properties: the common ones, its own, and the operator's over both.
    fn client(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers.join(","));
        config.set("client.id", "logsink-server");
        config.set("socket.nagle.disable", "true");
        // librdkafka's ten seconds are long for senders that wait for a broker to come back.
        config.set("reconnect.backoff.max.ms", "2000");
        config.set_log_level(RDKafkaLogLevel::Warning);
        for (key, value) in own {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }

    async fn create_topic(&self) -> Result<(), QueueError> {
        if self.partitions == 0 {
            return Ok(());
        }
        let admin = Admin::connect(self)?;
        let bytes_max = self.message_bytes_max.to_string();
        let topic = NewTopic::new(&self.topic, self.partitions, TopicReplication::Fixed(self.replication))
            .set("max.message.bytes", &bytes_max);
        let timeout = Some(CONNECT_TIMEOUT);
        let options = AdminOptions::new().request_timeout(timeout).operation_timeout(timeout);
        let answers = admin.create_topics([&topic], &options).await.map_err(|error| {
            QueueError::Unavailable(format!("Kafka at {} does not answer: {error}", self.brokers.join(",")))
        })?;
        for answer in answers {
            match answer {
                Ok(_) => tracing::info!(topic = self.topic, partitions = self.partitions, "created the Kafka topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                // It may be there and ours to use, though not to create: what is not there shows itself when it is used.
                Err((_, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed)) => {
                    tracing::warn!(topic = self.topic, "not allowed to create the Kafka topic: it has to be there");
                }
                Err((topic, code)) => {
                    return Err(QueueError::Failed(format!("cannot create the Kafka topic {topic}: {code}")));
                }
            }
        }
        Ok(())
    }
}

/// A topic that is created when it is first used and missing: a server starts whether or not the brokers are there.
struct Topic {
    options: KafkaOptions,
    ready: OnceCell<()>,
}

impl Topic {
    fn new(options: KafkaOptions) -> Self {
        Self { options, ready: OnceCell::new() }
    }

    /// Waits until the topic is there.
    async fn ready(&self) -> Result<(), QueueError> {
        self.ready.get_or_try_init(|| self.options.create_topic()).await.copied()
    }
}

/// What librdkafka has to say goes to the server's own log.
#[derive(Debug, Clone, Copy)]
struct Logged;

impl rdkafka::consumer::ConsumerContext for Logged {}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "logsink_server::kafka", %error, reason, "Kafka");
    }
}

fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
    match level {
        Emerg | Alert | Critical | Error => tracing::error!(target: "logsink_server::kafka", facility, "{message}"),
        Warning => tracing::warn!(target: "logsink_server::kafka", facility, "{message}"),
        Notice | Info => tracing::info!(target: "logsink_server::kafka", facility, "{message}"),
        Debug => tracing::debug!(target: "logsink_server::kafka", facility, "{message}"),
    }
}

fn config_error(error: KafkaError) -> QueueError {
    QueueError::Failed(format!("kafka: {error}"))
}

/// Whether waiting may help, or someone has to act.
fn queue_error(error: &KafkaError, bytes: usize, bytes_max: usize) -> QueueError {
    use RDKafkaErrorCode as Code;
    match error.rdkafka_error_code() {
        // The topic's limit may be below ours; it is not told.
        Some(Code::MessageSizeTooLarge) => QueueError::TooLarge { bytes, bytes_max: bytes_max.min(bytes) },
        // The producer is replaced before the next message: worth another try.
        Some(Code::Fatal) => QueueError::Unavailable(format!("the Kafka producer has failed: {error}")),
        Some(
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::PolicyViolation,
        ) => QueueError::Failed(format!("Kafka refuses: {error}")),
        _ => QueueError::Unavailable(format!("Kafka cannot take it now: {error}")),
    }
}

fn to_kafka(headers: &Headers) -> OwnedHeaders {
    let (sequence, first) = (headers.sequence.map(|sequence| sequence.to_string()), headers.first.to_string());
    let all = [
        (header::INSTANCE, headers.instance.as_deref()),
        (header::SEQUENCE, sequence.as_deref()),
        (header::RULES, headers.rules.as_deref()),
        (header::LOST, headers.lost.as_deref()),
        (header::FIRST, (headers.first > 0).then_some(first.as_str())),
    ];
    let own = all.into_iter().filter_map(|(key, value)| Some((key, value?.as_bytes())));
    let others = headers.others.iter().map(|(key, value)| (key.as_str(), value.as_ref()));
    let kafka = OwnedHeaders::new_with_capacity(all.len() + headers.others.len());
    own.chain(others).fold(kafka, |kafka, (key, value)| kafka.insert(Header { key, value: Some(value) }))
}

/// Beside a message that the reader kept only the beginning of: how many bytes it had.
const TOO_LARGE: &str = "logsink-too-large";

/// How many bytes of others' headers are kept of a message: tracing and routing take some hundred.
const OTHERS_BYTES_MAX: usize = 8 << 10;

/// Headers of ours that are not text are passed over. Those of others are kept, up to [`OTHERS_BYTES_MAX`].
fn from_kafka(headers: Option<&impl rdkafka::message::Headers>) -> Headers {
    let mut own = Headers::default();
    let mut bytes = 0;
    for kafka in headers.into_iter().flat_map(|headers| headers.iter()) {
        let text = || kafka.value.and_then(|value| std::str::from_utf8(value).ok());
        match kafka.key {
            header::INSTANCE => own.instance = text().map(str::to_owned),
            header::SEQUENCE => own.sequence = text().and_then(|sequence| sequence.parse().ok()),
            header::RULES => own.rules = text().map(str::to_owned),
            header::LOST => own.lost = text().map(str::to_owned),
            header::FIRST => own.first = text().and_then(|first| first.parse().ok()).unwrap_or(0),
            key => {
                let value = kafka.value.unwrap_or_default();
                bytes += key.len() + value.len();
                if bytes <= OTHERS_BYTES_MAX {
                    own.others.push((key.to_owned(), Bytes::copy_from_slice(value)));
                }
            }
        }
    }
    own
}

/// A tombstone has no value: a request without records.
fn payload(value: Option<&[u8]>) -> Bytes {
    value.map_or_else(Bytes::new, Bytes::copy_from_slice)
}
