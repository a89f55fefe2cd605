//! OTLP messages into Kafka: one message per batch, its value the bytes of an `ExportLogsServiceRequest`, as the
//! OpenTelemetry Collector's `otlp_proto` encoding has it.
//!
//! The producer is idempotent and waits for all in-sync replicas; a batch counts as sent when the broker's delivery report
//! says so. The key is the instance id, so one process's batches stay in one partition, and retries meet there.
//!
//! librdkafka's threads never log through the application: what they have to say is counted (and said on stderr where that
//! is asked for), and errors that matter come
//! back as the result of a send.

mod limit;
mod settings;
mod topic_id;
mod trouble;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
    statistics::Broker,
};
use tokio::sync::oneshot;
use tracing_core::Level;

use super::{Accepted, Batch, SendError, Sending, Transport, header};
use crate::{
    ConfigError,
    config::{Compression, Config},
    metrics::{KafkaBroker, Metrics},
    queue,
    voice::diagnostics,
};
pub use topic_id::topic_id;
use trouble::Word;

/// How long the poll thread sleeps when there is nothing to report; also how late it notices the end.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the brokers may take to tell the topic's limit, and how often they are asked again: it is rarely changed.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(5);
const LIMIT_AGE_MAX: Duration = Duration::from_secs(300);
/// When they did not tell, because they were down or the topic was not made yet.
const LIMIT_RETRY: Duration = Duration::from_secs(10);
/// The key, the headers, and the frames of a record and of a batch of records around a payload. All but the loss counters
/// among the headers have a fixed length, and those are a dozen words.
const FRAME_BYTES_MAX: usize = 1 << 10;

/// A Kafka topic as a sink.
pub struct KafkaTransport {
    client: ClientConfig,
    topic: String,
    metrics: Arc<Metrics>,
    /// Replaced when librdkafka has declared it broken for good.
    producer: Mutex<Option<Arc<Producer>>>,
    limit: Arc<Mutex<Limit>>,
}

type Producer = BaseProducer<Context>;

/// The largest batch that the topic takes.
#[derive(Debug, Default)]
struct Limit {
    /// With its frame, as the brokers have told.
    bytes_max: Option<usize>,
    /// When to ask next; `None`: with the next batch.
    ask_at: Option<Instant>,
}

impl KafkaTransport {
    /// Prepares a producer; over TLS when `tls` says so. No broker needs to be there yet.
    ///
    /// # Errors
    /// When librdkafka refuses a property, or a file that the settings name cannot be read.
    pub fn new(
        brokers: &str,
        topic: &str,
        tls: bool,
        config: &Config,
        compression: Compression,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConfigError> {
        let transport = Self {
            client: settings::properties(brokers, tls, config, compression)?,
            topic: topic.to_owned(),
            metrics,
            producer: Mutex::new(None),
            limit: Arc::default(),
        };
        transport.producer().map_err(|error| ConfigError { field: "kafka".to_owned(), message: error.to_string() })?;
        Ok(transport)
    }

    /// The producer, made when there is none.
    fn producer(&self) -> Result<Arc<Producer>, KafkaError> {
        let mut slot = lock(&self.producer);
        if let Some(producer) = &*slot {
            return Ok(producer.clone());
        }
        let context = Context { metrics: self.metrics.clone(), fatal: AtomicBool::new(false), word: Mutex::new(None) };
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
            let mut slot = lock(&self.producer);
            if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, producer)) {
                *slot = None;
            }
        }
    }

    /// Asks for the topic's limit when that is due, without waiting for the answer.
    fn ask_limit(&self, producer: &Arc<Producer>) {
        let now = Instant::now();
        {
            let mut limit = lock(&self.limit);
            if limit.ask_at.is_some_and(|at| now < at) {
                return;
            }
            limit.ask_at = Some(now + LIMIT_TIMEOUT + LIMIT_RETRY);
        }
        let (producer, topic) = (producer.clone(), self.topic.clone());
        let (limit, metrics) = (self.limit.clone(), self.metrics.clone());
        tokio::task::spawn_blocking(move || {
            // SAFETY: the producer, whose handle it is, lives in this closure.
            let told = unsafe { limit::of_topic(producer.client().native_ptr(), &topic, LIMIT_TIMEOUT) };
            let mut limit = lock(&limit);
            if told.is_some() {
                limit.bytes_max = told;
                metrics.kafka(|kafka| kafka.topic_bytes_max = told);
            }
            limit.ask_at = Some(Instant::now() + if told.is_some() { LIMIT_AGE_MAX } else { LIMIT_RETRY });
        });
    }

    async fn produce(&self, batch: Batch) -> Result<Accepted, SendError> {
        let producer = self.producer().map_err(|error| trouble::judge(&error, &self.topic, None).1)?;
        self.ask_limit(&producer);
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
        let context = producer.context();
        match result {
            Ok(()) => {
                *lock(&context.word) = None;
                self.metrics.kafka(|kafka| kafka.trouble = None);
                Ok(Accepted::default())
            }
            Err(error) => {
                self.replace_when_broken(&producer);
                let (trouble, error) = trouble::judge(&error, &self.topic, lock(&context.word).as_ref());
                if matches!(error, SendError::TooLarge { .. }) {
                    // What is known of the limit is out of date.
                    lock(&self.limit).ask_at = None;
                } else {
                    self.metrics.kafka(|kafka| kafka.trouble = Some(trouble));
                }
                Err(error)
            }
        }
    }
}

/// Whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What the topic takes and what librdkafka is set to take, before compression: compressed, a batch is smaller still.
    fn bytes_max(&self) -> Option<usize> {
        let own = self.client.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        let topic = lock(&self.limit).bytes_max;
        let bytes_max = own.into_iter().chain(topic).min();
        bytes_max.map(|bytes: usize| bytes.saturating_sub(FRAME_BYTES_MAX))
    }

    fn close(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        // Destroying waits for librdkafka's threads; the last reference is often the poll thread's, which ends by itself.
        let producer = lock(&self.producer).take();
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

/// What librdkafka calls back.
struct Context {
    metrics: Arc<Metrics>,
    fatal: AtomicBool,
    /// What the client last said of its connections, since a batch was last taken.
    word: Mutex<Option<Word>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let level = match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                Level::ERROR
            }
            RDKafkaLogLevel::Warning => Level::WARN,
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => Level::INFO,
            RDKafkaLogLevel::Debug => Level::DEBUG,
        };
        diagnostics::say(&level, "rdkafka", format_args!("{facility}: {message}"));
        self.metrics.client_line();
    }

    fn error(&self, error: KafkaError, reason: &str) {
        diagnostics::say(&Level::ERROR, "rdkafka", format_args!("{error}: {reason}"));
        self.metrics.client_line();
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == RDKafkaErrorCode::Fatal {
            self.fatal.store(true, Relaxed);
        }
        let word = Word::new(code, reason);
        let mut last = lock(&self.word);
        if word.replaces(last.as_ref(), code) {
            *last = Some(word);
        }
    }

    fn stats(&self, statistics: Statistics) {
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        let figures = |broker: Broker, before: &[KafkaBroker]| {
            let round_trip = broker.rtt.filter(|window| window.cnt > 0);
            // An interval without an answer says nothing of the round trip.
            let before = before.iter().find(|before| before.name == broker.name).cloned().unwrap_or_default();
            KafkaBroker {
                state: broker.state,
                in_flight: count(broker.outbuf_cnt) + count(broker.waitresp_cnt),
                round_trip_us_avg: round_trip.as_ref().map_or(before.round_trip_us_avg, |window| count(window.avg)),
                round_trip_us_p99: round_trip.as_ref().map_or(before.round_trip_us_p99, |window| count(window.p99)),
                errors: broker.txerrs + broker.rxerrs,
                retries: broker.txretries,
                timeouts: broker.req_timeouts,
                name: broker.name,
            }
        };
        self.metrics.kafka(|kafka| {
            // What librdkafka keeps for itself has no place in the cluster: the addresses that it started with.
            let brokers = statistics.brokers.into_values().filter(|broker| broker.nodeid >= 0);
            let mut brokers: Vec<_> = brokers.map(|broker| figures(broker, &kafka.brokers)).collect();
            brokers.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            kafka.queue_batches = statistics.msg_cnt;
            kafka.queue_bytes = statistics.msg_size;
            kafka.sent_bytes = count(statistics.txmsg_bytes);
            kafka.brokers = brokers;
        });
    }
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
    use crate::metrics::KafkaTrouble;

    #[test]
    fn a_property_that_librdkafka_refuses_is_the_operator_s_error() {
        let config = Config::from_toml("[kafka]\n\"linger.weeks\" = \"5\"", "f").unwrap();
        let error =
            KafkaTransport::new("127.0.0.1:1", "t", false, &config, Compression::Zstd, Arc::default()).unwrap_err();
        assert!(error.field == "kafka" && error.message.contains("linger.weeks"), "{error}");
    }

    #[test]
    fn a_send_without_a_broker_ends_in_time() {
        let config = Config::from_toml("[send]\ntimeout_ms = 1000", "f").unwrap();
        let metrics = Arc::new(Metrics::new());
        let transport =
            KafkaTransport::new("127.0.0.1:1", "t", false, &config, Compression::Zstd, metrics.clone()).unwrap();
        let batch = Batch { payload: bytes::Bytes::from_static(b""), records: 0, sequence: 1, headers: Vec::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(transport.send(batch));
        let Err(SendError::Retryable { message, .. }) = result else { panic!("{result:?}") };
        assert!(message.starts_with("no broker can be reached: ") && message.contains("127.0.0.1:1"), "{message}");
        assert_eq!(metrics.snapshot().kafka.unwrap().trouble, Some(KafkaTrouble::Unreachable));
    }
}
