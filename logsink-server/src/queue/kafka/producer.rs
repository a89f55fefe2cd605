//! A producer that outlives librdkafka's: idempotent, and replaced when it does not work any more ([`silence`]).
//!
//! Messages wait here, in a lane for each partition, rather than in librdkafka ([`lanes`]).

mod client;
mod lanes;
mod limit;
mod silence;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{ClientConfig, error::RDKafkaErrorCode, metadata::Metadata};
use tokio::{
    sync::oneshot,
    task::spawn_blocking,
    time::{sleep, timeout},
};

pub(super) use self::{client::Outgoing, limit::Limit};
use self::{
    client::{Answer, Client},
    lanes::PAUSE,
    silence::Silence,
};
use super::{KafkaOptions, Topic, config_error, queue_error};
use crate::{metrics::Metrics, queue::QueueError};

/// - `linger.ms`: how long a partition's batch is open ([`lanes`]).
/// - `message.timeout.ms`: what a sender waits for an answer, rather than librdkafka's five minutes; it tries again by itself.
/// - `queue.buffering.max.kbytes`: as much as ingest lets be under way.
const PROPERTIES: [(&str, &str); 5] = [
    ("acks", "all"),
    ("enable.idempotence", "true"),
    ("linger.ms", "2"),
    ("message.timeout.ms", "15000"),
    ("queue.buffering.max.kbytes", "262144"),
];

/// librdkafka's `batch.size`: the bytes of several messages that it sends as one.
const BATCH_BYTES: usize = 1_000_000;

/// How long the brokers may take to say how the topic is: readiness answers within a second.
const READY_TIMEOUT: Duration = Duration::from_millis(700);
/// How long the brokers may take to say how many partitions the topic has, before the first message.
const PARTITIONS_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a topic that was created just now and has none yet.
const PARTITIONS_PAUSE: Duration = Duration::from_millis(50);
/// How often the number is asked for again: what has been added is written to from then on.
const PARTITIONS_EVERY: Duration = Duration::from_secs(30);

/// Sends to one topic.
#[derive(Clone)]
pub(super) struct Producer(Arc<Inner>);

struct Inner {
    /// Replaced in one step.
    current: Mutex<Current>,
    limit: Mutex<Limit>,
    /// Held while the topic is asked for its limit, or for its partitions.
    learning: tokio::sync::Mutex<()>,
    silence: Silence,
    /// What a message may wait for its lane and its answer.
    patience: Duration,
    topic: Topic,
    metrics: Arc<Metrics>,
}

struct Current {
    config: ClientConfig,
    client: Client,
    /// When the number of partitions was last asked for; none: it is wrong.
    looked: Option<Instant>,
}

/// A message under way. Dropped before it has left, it is not sent.
pub(super) struct Sent {
    client: Client,
    answered: oneshot::Receiver<Answer>,
    is_answered: bool,
    at: Instant,
    bytes: usize,
}

impl Producer {
    pub(super) fn new(options: KafkaOptions, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        let compression = [("compression.codec", options.compression.name())];
        let mut config = options.client(&[&PROPERTIES[..], &compression].concat());
        config.set("message.max.bytes", options.message_bytes_max.to_string());
        let limit = Mutex::new(Limit::new(options.message_bytes_max, &config));
        let current = Current::new(config, &options.topic)?;
        Ok(Self(Arc::new(Inner {
            limit,
            learning: tokio::sync::Mutex::default(),
            silence: Silence::default(),
            patience: patience(&current.config),
            current: Mutex::new(current),
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
        let partitions = current.client.partitions();
        current.client = Client::new(&config, &self.options().topic).expect("the properties are right");
        current.client.set_partitions(partitions);
    }

    /// Waits until the topic is there, and how many partitions it has is known.
    pub(super) async fn topic(&self) -> Result<(), QueueError> {
        self.0.topic.ready().await?;
        let client = self.client()?;
        if client.partitions() == 0 { self.find_partitions(&client).await } else { Ok(()) }
    }

    async fn find_partitions(&self, client: &Client) -> Result<(), QueueError> {
        let _learning = self.0.learning.lock().await;
        let started = Instant::now();
        while client.partitions() == 0 {
            let metadata =
                self.look(client.clone(), true, PARTITIONS_TIMEOUT.saturating_sub(started.elapsed())).await?;
            let found = metadata.topics().iter().find(|topic| topic.name() == self.options().topic);
            let error = found.and_then(|topic| topic.error()).map(RDKafkaErrorCode::from);
            if client.partitions() > 0 {
                break;
            }
            if started.elapsed() >= PARTITIONS_TIMEOUT {
                let (topic, why) = (&self.options().topic, error.map(|code| format!(": {code}")).unwrap_or_default());
                return Err(QueueError::Unavailable(format!("the Kafka topic {topic} has no partitions{why}")));
            }
            sleep(PARTITIONS_PAUSE).await;
        }
        Ok(())
    }

    /// A client that works as far as librdkafka knows.
    fn client(&self) -> Result<Client, QueueError> {
        let mut current = self.0.current();
        if let Some((code, reason)) = current.client.inner().fatal_error() {
            let reason = format!("librdkafka has given it up: {code}: {reason}");
            self.0.replace(&mut current, &reason)?;
        }
        Ok(current.client.clone())
    }

    /// Whether the topic can be written: brokers answer, and each of its partitions, if it is there, has a leader.
    pub(super) async fn ready(&self) -> Result<(), QueueError> {
        // Asking for a topic that is not there yet may make the brokers create it, as they like it: ask for all until then.
        let is_there = self.0.topic.ready.initialized();
        let metadata = self.look(self.client()?, is_there, READY_TIMEOUT).await?;
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

    /// What the brokers say of the topic, or of all; takes note of the number of partitions.
    async fn look(&self, client: Client, of_topic: bool, timeout: Duration) -> Result<Metadata, QueueError> {
        let topic = of_topic.then(|| self.options().topic.clone());
        let asked = spawn_blocking(move || {
            let asked = client.inner().fetch_metadata(topic.as_deref(), timeout);
            if let (Ok(metadata), Some(topic)) = (&asked, &topic) {
                let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
                // Without one it is about to go, or to come.
                if let Some(partitions @ 1..) = found.map(|topic| topic.partitions().len()) {
                    client.set_partitions(partitions);
                }
            }
            asked
        });
        let asked = asked.await.map_err(|error| QueueError::Failed(format!("asking Kafka failed: {error}")))?;
        match asked {
            Ok(metadata) => {
                self.0.silence.told();
                Ok(metadata)
            }
            Err(error) => {
                self.unheard(Duration::ZERO, None);
                let brokers = self.options().brokers.join(",");
                Err(QueueError::Unavailable(format!("Kafka at {brokers} does not answer in time: {error}")))
            }
        }
    }

    /// Hands a message on, to be sent when its partition takes more.
    pub(super) fn send(&self, message: Outgoing) -> Result<Sent, QueueError> {
        let (at, bytes) = (Instant::now(), message.payload.len());
        let client = self.client()?;
        self.look_again(&client, at);
        Ok(Sent { answered: client.send(message), client, is_answered: false, at, bytes })
    }

    /// Asks for the number of partitions now and then.
    fn look_again(&self, client: &Client, now: Instant) {
        {
            let mut current = self.0.current();
            if current.looked.is_some_and(|looked| now.duration_since(looked) < PARTITIONS_EVERY) {
                return;
            }
            current.looked = Some(now);
        }
        let (producer, client) = (self.clone(), client.clone());
        // It ends by itself, within its time-out. Who does not answer is found out by the messages themselves.
        drop(tokio::spawn(async move { producer.look(client, true, PARTITIONS_TIMEOUT).await.map(drop) }));
    }

    /// Waits until all in-sync replicas have the message.
    pub(super) async fn answer(&self, mut sent: Sent) -> Result<(), QueueError> {
        let unavailable = |what: &str| QueueError::Unavailable(format!("{what}: send it again"));
        let (error, is_unheard) = match sent.wait(self.0.patience).await {
            Some(Ok(Ok(()))) => {
                self.0.silence.acknowledged();
                return Ok(());
            }
            Some(Ok(Err(error))) => {
                use RDKafkaErrorCode as Code;
                let code = error.rdkafka_error_code();
                // The topic was made anew, with fewer.
                if matches!(code, Some(Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::UnknownTopic)) {
                    self.0.current().looked = None;
                }
                let is_unheard = code == Some(Code::MessageTimedOut);
                (queue_error(&error, sent.bytes, self.options().message_bytes_max), is_unheard)
            }
            Some(Err(_)) => (unavailable("the Kafka producer was replaced"), false),
            None => (unavailable("Kafka did not take it in time"), true),
        };
        if is_unheard {
            self.unheard(sent.at.elapsed(), Some(sent.at));
        }
        Err(error)
    }
}

impl Sent {
    /// The answer; none when it takes too long. One that is there counts however late it is asked for: a time-out looks at it
    /// before it looks at the clock.
    async fn wait(&mut self, patience: Duration) -> Option<Result<Answer, oneshot::error::RecvError>> {
        loop {
            let left = patience.saturating_sub(self.at.elapsed());
            match timeout(PAUSE.min(left), &mut self.answered).await {
                Ok(answer) => {
                    self.is_answered = true;
                    return Some(answer);
                }
                Err(_) if left.is_zero() => return None,
                // A partition that failed may be tried again now.
                Err(_) => self.client.go_on(),
            }
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answered.close();
            self.client.sweep();
        }
    }
}

impl Current {
    fn new(config: ClientConfig, topic: &str) -> Result<Self, QueueError> {
        let client = Client::new(&config, topic).map_err(config_error)?;
        Ok(Self { config, client, looked: Some(Instant::now()) })
    }
}

impl Inner {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// librdkafka's own time-out, and a little: it knows better why.
fn patience(config: &ClientConfig) -> Duration {
    const MORE: Duration = Duration::from_secs(1);
    let property = |name| config.get(name).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    let told = property("delivery.timeout.ms").or_else(|| property("message.timeout.ms")).unwrap_or_default();
    // 0 is for ever, and librdkafka's.
    if told.is_zero() { Duration::from_secs(300) } else { told + MORE }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for many looks at the last of them late.
    #[tokio::test]
    async fn an_answer_that_is_there_counts_however_late_it_is_looked_at() {
        let options = KafkaOptions { brokers: vec!["127.0.0.1:1".into()], ..KafkaOptions::default() };
        let client = Client::new(&options.client(&[]), &options.topic).unwrap();
        let patience = Duration::from_millis(1);
        let at = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        for is_there in [true, false] {
            let (answer, answered) = oneshot::channel();
            let mut sent = Sent { client: client.clone(), answered, is_answered: false, at, bytes: 1 };
            if is_there {
                answer.send(Ok(())).unwrap();
                assert!(matches!(sent.wait(patience).await, Some(Ok(Ok(())))));
            } else {
                assert!(sent.wait(patience).await.is_none(), "its sender is still there");
            }
        }
    }
}
