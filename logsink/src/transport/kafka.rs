//! OTLP messages into Kafka: one message per batch, its value the bytes of an `ExportLogsServiceRequest`, as the
//! OpenTelemetry Collector's `otlp_proto` encoding has it.
//!
//! The producer is idempotent and waits for all in-sync replicas; a batch counts as sent when the broker's delivery report
//! says so. The key is the instance id, so one process's batches stay in one partition, and retries meet there.
//!
//! librdkafka's threads never log through the application: what they have to say is counted, and errors that matter come
//! back as the result of a send.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};
use tokio::sync::oneshot;

use super::{Accepted, Batch, SendError, Sending, Transport, header};
use crate::{
    ConfigError,
    config::{Compression, Config},
    metrics::Metrics,
    queue,
};

/// How long the poll thread sleeps when there is nothing to report; also how late it notices the end.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// librdkafka's broker thread spins with 0 to 2 ms (0.61 against 0.07 s of CPU per 500,000 records); batches are ours
/// anyway.
const LINGER_MS: &str = "5";
/// Room for the key, the headers and the frame around a payload in `message.max.bytes`.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;

/// A Kafka topic as a sink.
pub struct KafkaTransport {
    client: ClientConfig,
    topic: String,
    metrics: Arc<Metrics>,
    /// Replaced when librdkafka has declared it broken for good.
    producer: Mutex<Option<Arc<Producer>>>,
}

type Producer = BaseProducer<Context>;

impl KafkaTransport {
    /// Prepares a producer. No broker needs to be there yet.
    ///
    /// # Errors
    /// When librdkafka refuses a property.
    pub fn new(
        brokers: &str,
        topic: &str,
        config: &Config,
        compression: Compression,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        let message_bytes_max = config.batch.bytes_max + MESSAGE_OVERHEAD_BYTES;
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", brokers)
            .set("client.id", "logsink")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", LINGER_MS)
            .set("message.max.bytes", message_bytes_max.to_string())
            // The worker does the waiting and the reporting: a send ends in time, well or not.
            .set("message.timeout.ms", config.send.timeout_ms.to_string())
            .set("request.timeout.ms", config.send.timeout_ms.to_string())
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", config.retry.delay_ms_max.to_string())
            .set(
                "compression.codec",
                match compression {
                    Compression::None => "none",
                    Compression::Gzip => "gzip",
                    Compression::Zstd => "zstd",
                    Compression::Lz4 => "lz4",
                },
            )
            .set_log_level(RDKafkaLogLevel::Warning);
        for (property, value) in &config.kafka {
            client.set(property, &value.0);
        }
        let transport = Self { client, topic: topic.to_owned(), metrics, producer: Mutex::new(None) };
        transport.producer().map_err(|error| ConfigError { field: "kafka".to_owned(), message: error.to_string() })?;
        Ok(transport)
    }

    /// The producer, made when there is none.
    fn producer(&self) -> Result<Arc<Producer>, KafkaError> {
        let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let context = Context { metrics: self.metrics.clone(), fatal: AtomicBool::new(false) };
        let producer: Arc<Producer> = Arc::new(self.client.create_with_context(context)?);
        let weak = Arc::downgrade(&producer);
        thread::Builder::new()
            .name("logsink-kafka".to_owned())
            .spawn(move || poll(&weak))
            .map_err(|error| KafkaError::ClientCreation(format!("cannot start the poll thread: {error}")))?;
        *slot = Some(producer.clone());
        Ok(producer)
    }

    /// Drops a producer that librdkafka has declared broken: the next send makes a new one.
    fn replace_when_broken(&self, producer: &Arc<Producer>) {
        if producer.context().fatal.load(Relaxed) {
            let mut slot = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, producer)) {
                *slot = None;
            }
        }
    }

    async fn produce(&self, batch: Batch) -> Result<Accepted, SendError> {
        let producer = self.producer().map_err(|error| judge(&error))?;
        let headers = batch.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        let key = batch.header(header::INSTANCE).unwrap_or_default();
        let (answer, delivered) = oneshot::channel();
        let record = BaseRecord::<str, [u8], _>::with_opaque_to(&self.topic, Box::new(answer))
            .key(key)
            .payload(&batch.payload)
            .headers(headers);
        let result = match producer.send(record) {
            Ok(()) => delivered.await.unwrap_or(Err(KafkaError::Canceled)),
            Err((error, _)) => Err(error),
        };
        result.map(|()| Accepted::default()).map_err(|error| {
            self.replace_when_broken(&producer);
            judge(&error)
        })
    }
}

impl std::fmt::Debug for KafkaTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the properties: they may hold a password.
        f.debug_struct("KafkaTransport").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Transport for KafkaTransport {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(self.produce(batch))
    }

    fn close(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Destroying waits for librdkafka's threads; the last reference is often the poll thread's, which ends by itself.
        let producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(async { drop(producer) })
    }
}

/// Serves delivery reports until the transport has let go of the producer.
fn poll(producer: &Weak<Producer>) {
    queue::mark_own_thread();
    while let Some(producer) = producer.upgrade() {
        producer.poll(POLL_TIMEOUT);
    }
}

/// Worth trying again: all that a broker's restart, a leader's move or a network can cause.
fn judge(error: &KafkaError) -> SendError {
    use RDKafkaErrorCode as Code;
    let message = error.to_string();
    match error.rdkafka_error_code() {
        // Of the broker or, before anything is sent, of librdkafka's own limit.
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => SendError::TooLarge { message },
        Some(
            Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::InvalidTopic
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::InvalidRequiredAcks
            | Code::UnsupportedForMessageFormat,
        ) => SendError::Permanent { message },
        _ => SendError::Retryable { message, after: None },
    }
}

/// What librdkafka calls back.
struct Context {
    metrics: Arc<Metrics>,
    fatal: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {
        self.metrics.client_line();
    }

    fn error(&self, error: KafkaError, _reason: &str) {
        self.metrics.client_line();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal.store(true, Relaxed);
        }
    }

    fn stats(&self, _statistics: Statistics) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, report: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        let result = match report {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.clone()),
        };
        if matches!(&result, Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal)) {
            self.fatal.store(true, Relaxed);
        }
        // Nobody waits any more when the worker's deadline has passed; it has counted the batch.
        let _ = answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_property_that_librdkafka_refuses_is_the_operator_s_error() {
        let config = Config::from_toml("[kafka]\n\"linger.weeks\" = \"5\"", "f").unwrap();
        let error = KafkaTransport::new("127.0.0.1:1", "t", &config, Compression::Zstd, Arc::default()).unwrap_err();
        assert!(error.field == "kafka" && error.message.contains("linger.weeks"), "{error}");
    }

    #[test]
    fn errors_are_told_apart_by_who_can_act() {
        let produced = |code| judge(&KafkaError::MessageProduction(code));
        assert!(matches!(produced(RDKafkaErrorCode::MessageSizeTooLarge), SendError::TooLarge { .. }));
        assert!(matches!(produced(RDKafkaErrorCode::TopicAuthorizationFailed), SendError::Permanent { .. }));
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::QueueFull,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::UnknownTopicOrPartition,
            RDKafkaErrorCode::Fatal,
        ] {
            assert!(matches!(produced(code), SendError::Retryable { .. }), "{code:?}");
        }
        assert!(matches!(judge(&KafkaError::Canceled), SendError::Retryable { .. }));
    }

    #[test]
    fn a_send_without_a_broker_ends_in_time() {
        let config = Config::from_toml("[send]\ntimeout_ms = 300", "f").unwrap();
        let transport = KafkaTransport::new("127.0.0.1:1", "t", &config, Compression::Zstd, Arc::default()).unwrap();
        let batch = Batch { payload: bytes::Bytes::from_static(b""), records: 0, sequence: 1, headers: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(transport.send(batch));
        assert!(matches!(result, Err(SendError::Retryable { .. })), "{result:?}");
    }
}
