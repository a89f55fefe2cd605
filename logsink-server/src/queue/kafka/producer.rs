//! A producer that outlives librdkafka's: idempotent, and replaced when it does not work any more.
//!
//! librdkafka gives a producer up for good when it cannot promise idempotence any more, such as after the brokers have lost
//! what they knew of it; and it may stay without brokers though they are there (librdkafka#5301), which is told by a fresh client
//! that is answered while the old one is not (`probe`). What was under way in the old one fails: senders repeat what was not
//! acknowledged, and the index knows repeats.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, Producer as _, future_producer::DeliveryFuture},
};

use super::{KafkaOptions, Logged, Topic, config_error, probe, queue_error};
use crate::{metrics::Metrics, queue::QueueError};

/// - `linger.ms` 5: below 2 the broker thread spins (0.61 s against 0.07 s of CPU for 500,000 records). It spins above, too, while
///   a partition has five messages under way, which is as many as idempotence allows, and others have lingered (`inflight` in
///   `rd_kafka_toppar_producer_serve`): near saturation up to half of what ingest costs. Not sending to a partition before it has
///   answered would end that.
/// - `message.timeout.ms`: what a sender waits for an answer, rather than librdkafka's five minutes; it tries again by itself.
/// - `queue.buffering.max.kbytes`: as much as ingest lets be under way.
const PROPERTIES: [(&str, &str); 5] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "5"),
    ("message.timeout.ms", "15000"),
    ("queue.buffering.max.kbytes", "262144"),
];

/// librdkafka's `batch.size`: the bytes of several messages that it sends as one.
const BATCH_BYTES: usize = 1_000_000;
/// The least that a topic is taken to hold, whatever brokers say: a record of a few words and its resource.
const LIMIT_MIN: usize = 1 << 10;

/// How long the brokers may take to say how the topic is: readiness answers within a second.
const READY_TIMEOUT: Duration = Duration::from_millis(700);
/// How long the brokers may take to say what the topic holds.
const LIMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a producer may be without an answer before a fresh client is asked.
const SILENCE_MAX: Duration = Duration::from_secs(8);
/// Between two questions to fresh clients.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// What a client may take that has to connect again: `reconnect.backoff.max.ms` and the connection itself.
const SECOND_CHANCE: Duration = Duration::from_secs(3);

/// Sends to one topic.
#[derive(Clone)]
pub(super) struct Producer(Arc<Inner>);

struct Inner {
    /// Replaced in one step.
    current: Mutex<Current>,
    /// Bytes of a message that the topic takes.
    limit: AtomicUsize,
    /// Held while the topic is asked for its limit.
    learning: tokio::sync::Mutex<()>,
    /// Since when nothing was answered; none while all is well.
    silence: Mutex<Option<Instant>>,
    /// A fresh client is being asked, or was within [`PROBE_EVERY`].
    probing: AtomicBool,
    topic: Topic,
    metrics: Arc<Metrics>,
}

struct Current {
    config: ClientConfig,
    producer: FutureProducer<Logged>,
}

/// A message under way.
pub(super) struct Sent {
    delivery: DeliveryFuture,
    bytes: usize,
}

impl Producer {
    pub(super) fn new(options: KafkaOptions, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        let compression = [("compression.codec", options.compression.name())];
        let mut config = options.client(&[&PROPERTIES[..], &compression].concat());
        config.set("message.max.bytes", options.message_bytes_max.to_string());
        let producer = config.create_with_context(Logged).map_err(config_error)?;
        Ok(Self(Arc::new(Inner {
            current: Mutex::new(Current { config, producer }),
            limit: AtomicUsize::new(options.message_bytes_max),
            learning: tokio::sync::Mutex::default(),
            silence: Mutex::default(),
            probing: AtomicBool::new(false),
            topic: Topic::new(options),
            metrics,
        })))
    }

    pub(super) fn options(&self) -> &KafkaOptions {
        &self.0.topic.options
    }

    /// The client is without brokers, as if of itself.
    #[cfg(test)]
    pub(super) fn strand(&self) {
        let mut current = self.0.current();
        let mut config = current.config.clone();
        config.set("bootstrap.servers", "127.0.0.1:1");
        current.producer = config.create_with_context(Logged).expect("the properties are right");
    }

    /// Waits until the topic is there.
    pub(super) async fn topic(&self) -> Result<(), QueueError> {
        self.0.topic.ready().await
    }

    /// Bytes of a message that the topic takes, as far as is known.
    pub(super) fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// A producer that works as far as librdkafka knows.
    fn producer(&self) -> Result<FutureProducer<Logged>, QueueError> {
        let mut current = self.0.current();
        if let Some((code, reason)) = current.producer.client().fatal_error() {
            let reason = format!("librdkafka has given it up: {code}: {reason}");
            self.0.replace(&mut current, &reason)?;
        }
        Ok(current.producer.clone())
    }

    /// Whether the topic can be written: brokers answer, and each of its partitions, if it is there, has a leader.
    pub(super) async fn ready(&self) -> Result<(), QueueError> {
        // Asking for a topic that is not there yet may make the brokers create it, as they like it: ask for all until then.
        let topic = self.0.topic.ready.initialized().then(|| self.options().topic.clone());
        let producer = self.producer()?;
        let asked = move || producer.client().fetch_metadata(topic.as_deref(), READY_TIMEOUT);
        let asked = tokio::task::spawn_blocking(asked).await;
        let asked = asked.map_err(|error| QueueError::Failed(format!("asking Kafka failed: {error}")))?;
        self.heard(asked.is_ok(), Duration::ZERO);
        let brokers = self.options().brokers.join(",");
        let metadata = asked
            .map_err(|error| QueueError::Unavailable(format!("Kafka at {brokers} does not answer in time: {error}")))?;
        let topics = metadata.topics().iter().filter(|topic| topic.name() == self.options().topic);
        let partitions = topics.flat_map(|topic| topic.partitions());
        let headless = partitions.filter(|partition| partition.leader() < 0).count();
        match headless {
            0 => Ok(()),
            _ => Err(QueueError::Unavailable(format!(
                "{headless} partitions of the Kafka topic {} have no leader",
                self.options().topic
            ))),
        }
    }

    /// Hands a message to librdkafka, which copies it. Without a key any partition will do.
    pub(super) fn send(&self, key: &str, payload: &[u8], headers: OwnedHeaders) -> Result<Sent, QueueError> {
        self.send_at(key, payload, headers, None)
    }

    /// As [`Producer::send`], with the time of the message, Unix milliseconds.
    pub(super) fn send_at(
        &self,
        key: &str,
        payload: &[u8],
        headers: OwnedHeaders,
        time_ms: Option<i64>,
    ) -> Result<Sent, QueueError> {
        let mut record = FutureRecord::to(&self.options().topic).payload(payload).headers(headers);
        if !key.is_empty() {
            record = record.key(key);
        }
        if let Some(time_ms) = time_ms {
            record = record.timestamp(time_ms);
        }
        match self.producer()?.send_result(record) {
            Ok(delivery) => Ok(Sent { delivery, bytes: payload.len() }),
            Err((error, _)) => Err(queue_error(&error, payload.len(), self.options().message_bytes_max)),
        }
    }

    /// Waits until all in-sync replicas have the message.
    pub(super) async fn answer(&self, sent: Sent) -> Result<(), QueueError> {
        match sent.delivery.await {
            Ok(Ok(_)) => {
                self.heard(true, Duration::ZERO);
                Ok(())
            }
            Ok(Err((error, _))) => {
                // It has waited for that long.
                let is_silence = error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut);
                if is_silence {
                    self.heard(false, SILENCE_MAX);
                }
                Err(queue_error(&error, sent.bytes, self.options().message_bytes_max))
            }
            Err(_) => Err(QueueError::Unavailable("the Kafka producer was replaced: send it again".into())),
        }
    }

    /// Notes whether the client was answered; when it was not for long, a fresh one is asked.
    fn heard(&self, is_answer: bool, waited: Duration) {
        let silent = {
            let mut silence = self.0.silence.lock().unwrap_or_else(PoisonError::into_inner);
            if is_answer {
                *silence = None;
                return;
            }
            let now = Instant::now();
            let since = silence.get_or_insert_with(|| now.checked_sub(waited).unwrap_or(now));
            now.duration_since(*since)
        };
        if silent < SILENCE_MAX || self.0.probing.swap(true, Relaxed) {
            return;
        }
        let inner = Arc::clone(&self.0);
        // It ends by itself, within the time-outs of its questions.
        drop(tokio::spawn(async move {
            let asking = Arc::clone(&inner);
            let asked = tokio::task::spawn_blocking(move || asking.probe(silent)).await;
            if let Ok(Err(error)) = asked {
                tracing::error!(%error, "cannot replace the Kafka producer");
            }
            tokio::time::sleep(PROBE_EVERY).await;
            inner.probing.store(false, Relaxed);
        }));
    }

    /// A message of so many bytes was too large though the limit was `known`: finds the topic's limit, or else tries with half.
    pub(super) async fn learn(&self, bytes: usize, known: usize) -> Result<(), QueueError> {
        let _learning = self.0.learning.lock().await;
        if self.limit() < known {
            // Another one has learnt it.
            return Ok(());
        }
        let told = self.topic_limit().await;
        let limit = match told {
            Some(told) if told < known => told,
            // Messages that were sent as one were too large together.
            Some(told) if bytes <= known / 2 => told.min(known),
            _ => bytes.min(known) / 2,
        };
        let limit = limit.max(LIMIT_MIN);
        tracing::warn!(
            topic = self.options().topic,
            limit,
            "the Kafka topic takes smaller messages: splitting larger batches"
        );
        self.0.limit.store(limit, Relaxed);
        let mut current = self.0.current();
        current.config.set("batch.size", limit.min(BATCH_BYTES).to_string());
        let producer = current.config.create_with_context(Logged).map_err(config_error)?;
        let old = std::mem::replace(&mut current.producer, producer);
        drop(current);
        // What is under way in it may yet arrive.
        drop(tokio::task::spawn_blocking(move || {
            // Its time-outs end it: whoever waits for an answer gets one.
            let _ = old.flush(LIMIT_TIMEOUT * 4);
        }));
        Ok(())
    }

    /// The topic's `max.message.bytes`, when the brokers tell it.
    async fn topic_limit(&self) -> Option<usize> {
        use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
        let admin: AdminClient<Logged> = self.options().client(&[]).create_with_context(Logged).ok()?;
        let options = AdminOptions::new().request_timeout(Some(LIMIT_TIMEOUT));
        let topic = ResourceSpecifier::Topic(&self.options().topic);
        let answers = admin.describe_configs([&topic], &options).await;
        let told = answers.ok()?.into_iter().next()?.ok()?;
        told.entry_map().get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, current: &mut Current, reason: &str) -> Result<(), QueueError> {
        let topic = &self.topic.options.topic;
        tracing::error!(topic, reason, "the Kafka producer does not work: going on with a new one");
        self.metrics.kafka_replaced("producer");
        let producer = current.config.create_with_context(Logged).map_err(config_error)?;
        let old = std::mem::replace(&mut current.producer, producer);
        *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = None;
        // Its end waits for its threads: not here. No runtime: the process is ending.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn_blocking(move || drop(old)));
        }
        Ok(())
    }

    /// Replaces the producer when a fresh client is answered and this one is not. Blocks.
    fn probe(&self, silent: Duration) -> Result<(), QueueError> {
        let (config, producer) = {
            let current = self.current();
            (current.config.clone(), current.producer.clone())
        };
        if !probe::answers(&config, &self.topic.options.topic) {
            return Ok(());
        }
        let asked: Result<_, KafkaError> = producer.client().fetch_metadata(None, SECOND_CHANCE);
        drop(producer);
        if asked.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
            *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(());
        }
        let reason = format!("no broker has answered it for {silent:.0?}, and a fresh client is answered");
        self.replace(&mut self.current(), &reason)
    }
}
