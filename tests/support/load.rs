//! Events straight into the topic, as a program that is not ours writes them: numbered, in every partition.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};

use crate::{now_ns, server::Space, stack};

/// How long the broker may take to acknowledge what is under way.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the server may take to make its topic: one that only drains is ready before.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(60);

/// A request of the service's events with these numbers in the attribute `n`.
pub fn request(service: &str, numbers: impl IntoIterator<Item = u64>) -> ExportLogsServiceRequest {
    let pair = |key: &str, value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let record = |n: u64| LogRecord {
        time_unix_nano: now_ns() as u64,
        severity_number: 9,
        body: Some(AnyValue { value: Some(Value::StringValue(format!("event {n} of the load"))) }),
        attributes: vec![pair("n", Value::IntValue(n as i64))],
        ..LogRecord::default()
    };
    let scope = ScopeLogs { log_records: numbers.into_iter().map(record).collect(), ..ScopeLogs::default() };
    let resource = Resource {
        attributes: vec![pair("service.name", Value::StringValue(service.to_owned()))],
        ..Resource::default()
    };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope], ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![logs] }
}

/// A producer of the stack's broker with these properties.
///
/// # Panics
/// When a property is wrong.
pub fn producer(properties: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", stack::kafka()).set("linger.ms", "5");
    // The topic is the server's to make: the broker would make one of a single partition.
    config.set("allow.auto.create.topics", "false");
    properties.iter().for_each(|(key, value)| _ = config.set(*key, *value));
    config.create().expect("the properties are right")
}

/// Hands over one message; waits while the producer is full.
///
/// # Panics
/// When the producer refuses it.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, payload: &[u8]) {
    let start = Instant::now();
    loop {
        let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(TRACEPARENT) });
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(payload).headers(headers);
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(20));
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), _))
                if start.elapsed() < TOPIC_TIMEOUT =>
            {
                producer.poll(Duration::from_millis(20));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
    producer.poll(Duration::ZERO);
}

/// What stands beside each message of [`send`].
pub const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Waits until everything is acknowledged.
///
/// # Panics
/// When it is not.
pub fn flush(producer: &BaseProducer) {
    producer.flush(FLUSH_TIMEOUT).expect("the broker acknowledges in time");
}

/// A stream of events into all partitions in turn.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Begins: every `pause` a message of `records` events for each partition.
    pub fn start(space: &Space, service: &str, records: u64, pause: Duration) -> Self {
        let (is_over, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (topic, partitions, service) = (space.topic.clone(), space.partitions, service.to_owned());
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let producer = producer(&[("acks", "all"), ("enable.idempotence", "true")]);
            while !over.load(Relaxed) {
                for partition in 0..partitions {
                    let first = count.load(Relaxed);
                    let payload = request(&service, first..first + records).encode_to_vec();
                    send(&producer, &topic, partition as i32, &payload);
                    count.store(first + records, Relaxed);
                }
                thread::sleep(pause);
            }
            flush(&producer);
        });
        Self { is_over, sent, thread }
    }

    /// Events so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Ends it, waits until all is acknowledged, and returns how many there were.
    ///
    /// # Panics
    /// When the broker did not take one.
    pub fn finish(self) -> u64 {
        self.is_over.store(true, Relaxed);
        self.thread.join().expect("all is acknowledged");
        self.sent.load(Relaxed)
    }
}
