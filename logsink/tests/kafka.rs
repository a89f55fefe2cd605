//! Events → a real Kafka broker → the official OTLP types.
//!
//! Needs a broker: `KAFKA_BROKERS=127.0.0.1:9092 cargo test -p logsink --features kafka --test kafka -- --ignored`

#![cfg(feature = "kafka")]

use std::time::{Duration, Instant};

use logsink::{Guard, config::Compression};
use opentelemetry_proto::tonic::{collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value};
use prost::Message as _;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
};
use tracing_subscriber::layer::SubscriberExt;

const PATIENCE: Duration = Duration::from_secs(30);

fn brokers() -> String {
    std::env::var("KAFKA_BROKERS").expect("KAFKA_BROKERS: the address of a Kafka broker")
}

/// A topic of the test's own; the broker makes it when it is first written to.
fn topic(name: &str) -> String {
    format!("logsink-test-{name}-{}", std::process::id())
}

fn with(builder: logsink::Builder, body: impl FnOnce(&Guard)) -> Guard {
    let (layer, guard) = builder.alone().layer().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || body(&guard));
    guard
}

fn emit(range: std::ops::Range<i64>) {
    range.for_each(|n| tracing::info!(n, "event"));
}

/// All messages of partition 0, once there are `count`.
fn consume(topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers())
        .set("group.id", topic)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut messages = Vec::new();
    while messages.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} messages", messages.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) {
            messages.push(message.detach());
        }
    }
    messages
}

fn numbers(messages: &[OwnedMessage]) -> Vec<i64> {
    let mut numbers: Vec<_> = messages
        .iter()
        .map(|message| ExportLogsServiceRequest::decode(message.payload().unwrap()).unwrap())
        .flat_map(|request| request.resource_logs)
        .flat_map(|resource_logs| resource_logs.scope_logs)
        .flat_map(|scope_logs| scope_logs.log_records)
        .filter_map(|record| {
            let pair = record.attributes.into_iter().find(|pair| pair.key == "n")?;
            match pair.value?.value? {
                Value::IntValue(number) => Some(number),
                _ => None,
            }
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let header = message.headers()?.iter().find(|header| header.key == name)?;
    Some(String::from_utf8(header.value?.to_vec()).unwrap())
}

#[test]
#[ignore = "needs a Kafka broker: see the head of this file"]
fn a_message_is_an_otlp_request_with_its_headers() {
    let topic = topic("plain");
    let builder = logsink::builder().service("shop").endpoint(format!("kafka://{}/{topic}", brokers()));
    let guard = with(builder.filter("trace"), |guard| {
        emit(0..20_000);
        guard.flush(PATIENCE).unwrap();
    });
    let batches = guard.metrics().batches as usize;
    let messages = consume(&topic, batches);
    assert_eq!(numbers(&messages), (0..20_000).collect::<Vec<_>>());
    let mut sequences: Vec<u64> = Vec::new();
    for message in &messages {
        assert_eq!(message.key(), Some(guard.instance().as_bytes()));
        assert_eq!(header(message, "logsink-instance").as_deref(), Some(guard.instance()));
        sequences.push(header(message, "logsink-sequence").unwrap().parse().unwrap());
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=batches as u64).collect::<Vec<_>>());
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
#[ignore = "needs a Kafka broker: see the head of this file"]
fn a_batch_above_the_topic_s_limit_is_halved() {
    // librdkafka refuses it by its own limit, as it does what a broker refused.
    let topic = topic("large");
    let builder = logsink::builder().endpoint(format!("kafka://{}/{topic}", brokers())).configure(|config| {
        config.batch.age_ms_max = 60_000;
        let limit = logsink::config::Secret("20000".to_owned());
        config.kafka.insert("message.max.bytes".to_owned(), limit);
    });
    let guard = with(builder, |guard| {
        emit(0..1000);
        tracing::info!(n = 1000, blob = "x".repeat(40_000), "too large alone");
        guard.flush(PATIENCE).unwrap();
    });
    let counts = guard.metrics();
    assert!(counts.splits > 0);
    assert_eq!((counts.sent, counts.lost(), counts.truncated), (1001, 0, 1), "{counts}");
    assert_eq!(numbers(&consume(&topic, counts.batches as usize)), (0..1001).collect::<Vec<_>>());
}

#[test]
#[ignore = "needs a Kafka broker: see the head of this file"]
fn the_topic_s_own_limit_is_asked_for_and_kept() {
    let topic = topic("small");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers()).create().unwrap();
    let small = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "10000");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let created = runtime.block_on(admin.create_topics([&small], &AdminOptions::new())).unwrap();
    assert!(created.iter().all(Result::is_ok), "{created:?}");

    let builder = logsink::builder().endpoint(format!("kafka://{}/{topic}", brokers())).configure(|config| {
        config.batch.age_ms_max = 60_000;
        // Brokers judge a batch as it is sent.
        config.send.compression = Some(Compression::None);
    });
    let guard = with(builder, |guard| {
        emit(0..1);
        guard.flush(PATIENCE).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while guard.metrics().kafka.is_none_or(|kafka| kafka.topic_bytes_max != Some(10_000)) {
            assert!(Instant::now() < deadline, "{:?}", guard.metrics().kafka);
            std::thread::sleep(Duration::from_millis(10));
        }
        emit(1..2000);
        tracing::info!(n = 2000, blob = "x".repeat(50_000), "too large alone");
        guard.flush(PATIENCE).unwrap();
    });
    let counts = guard.metrics();
    assert_eq!((counts.sent, counts.lost(), counts.truncated, counts.retries), (2001, 0, 1, 0), "{counts}");
    let messages = consume(&topic, counts.batches as usize);
    assert_eq!(numbers(&messages), (0..2001).collect::<Vec<_>>());
    let largest = messages.iter().map(|message| message.payload().unwrap().len()).max().unwrap();
    assert!((8_000..10_000).contains(&largest), "{largest}");
}

#[test]
#[ignore = "needs a Kafka broker: see the head of this file"]
fn a_broker_that_is_away_costs_time_but_no_event() {
    let topic = topic("away");
    // A relay that is not there yet stands for a broker that is away: what it then relays is the real one.
    let relay = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = relay.local_addr().unwrap();
    drop(relay);
    let builder = logsink::builder()
        .endpoint(format!("kafka://{address}/{topic}"))
        .configure(|config| config.send.timeout_ms = 1_000);
    let guard = with(builder, |guard| {
        emit(0..100);
        assert!(guard.flush(Duration::from_secs(3)).is_err(), "nobody listens");
        let relay = std::net::TcpListener::bind(address).unwrap();
        std::thread::spawn(move || {
            for incoming in relay.incoming() {
                let there = std::net::TcpStream::connect(brokers()).unwrap();
                let here = incoming.unwrap();
                let (mut from, mut to) = (here.try_clone().unwrap(), there.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                let (mut from, mut to) = (there, here);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        guard.flush(PATIENCE).unwrap();
    });
    let counts = guard.metrics();
    assert!(counts.retries > 0);
    assert_eq!((counts.sent, counts.lost()), (100, 0), "{counts}");
    assert_eq!(numbers(&consume(&topic, counts.batches as usize)), (0..100).collect::<Vec<_>>());
}
