//! What the library and the server write to Kafka, read by a plain consumer and decoded with the official OTLP types.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use logsink_tests::{App, Server, load, otlp::Door, server::Space, stack::kafka, unique, until};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
};
use prost::Message as _;
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers as _,
};

#[test]
fn a_kafka_message_decodes_with_the_official_types() {
    const EVENTS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("wire");
    let service = unique("wire");
    let mut app = App::build(dir.path(), &service, &space.kafka_url())
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        .start();
    app.emit("a", EVENTS, 10_000);
    until("all is out", Duration::from_secs(20), || {
        if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) }
    });
    app.flush(Duration::from_secs(30));
    app.quit();

    let mut numbers = Vec::new();
    let mut sequences = Vec::new();
    for message in consume(&space.topic, EVENTS as usize) {
        let request = ExportLogsServiceRequest::decode(message.payload.as_slice()).expect("OTLP");
        let headers = &message.headers;
        assert!(headers.contains_key("logsink-instance"), "{headers:?}");
        sequences.push(headers["logsink-sequence"].parse::<u64>().expect("a number"));
        for resource_logs in request.resource_logs {
            let resource = resource_logs.resource.expect("a resource");
            assert_eq!(text(&resource.attributes, "service.name"), service);
            assert_eq!(text(&resource.attributes, "deployment.environment"), "test");
            assert_eq!(text(&resource.attributes, "telemetry.sdk.language"), "rust");
            for record in resource_logs.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                assert_eq!((record.severity_number, record.severity_text.as_str()), (9, "INFO"));
                assert!(record.time_unix_nano > 1_700_000_000_000_000_000 && record.observed_time_unix_nano > 0);
                assert_eq!(text(&record.attributes, "target"), "load");
                assert_eq!(text(&record.attributes, "run"), "a", "the span's field");
                assert_eq!(text(&record.attributes, "span.name"), "load");
                assert!(text(&record.attributes, "code.file.path").ends_with("testapp.rs"));
                let Some(Value::IntValue(n)) = value(&record.attributes, "n") else {
                    panic!("n is an int: {record:?}")
                };
                let body = record.body.and_then(|body| body.value);
                assert_eq!(body, Some(Value::StringValue(format!("event {n} of the load"))));
                let keys: std::collections::BTreeSet<_> = record.attributes.iter().map(|a| &a.key).collect();
                assert_eq!(keys.len(), record.attributes.len(), "no key twice: {:?}", record.attributes);
                numbers.push(n);
            }
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..EVENTS as i64).collect::<Vec<_>>());
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!(sequences.first(), Some(&1), "from 1, none twice: {sequences:?}");
}

#[test]
fn what_rules_drop_and_redact_at_ingest_never_reaches_the_topic() {
    const RULES: &str = "[[rule]]\nname = \"small\"\nwhen = 'n<3'\nthen = \"drop\"\n\n\
                         [[rule]]\nname = \"five\"\nwhen = 'n=5'\nthen = { redact = [\"message\"] }\n";
    let dir = tempfile::tempdir().unwrap();
    let space = Space { sections: "[ingest]\napply_rules = true\n".into(), ..Space::new("cut") };
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let (service, other) = (unique("cut"), unique("whole"));
    let file = dir.path().join("small.toml");
    std::fs::write(&file, RULES).unwrap();
    server.rules(&["put", "--service", &service, file.to_str().unwrap()]);

    Door::Grpc.export(&server, &load::request(&service, 0..10)).unwrap();
    Door::Http.export(&server, &load::request(&service, 0..3)).unwrap();
    Door::Http.export(&server, &load::request(&other, 0..10)).unwrap();
    server.await_hits(&format!("service={service}"), 7, Duration::from_secs(60));
    server.await_hits(&format!("service={other}"), 10, Duration::from_secs(60));
    assert_eq!(server.query(&format!("service={service} message=\"[redacted]\" n=5")).len(), 1);
    assert_eq!(server.counter("logsink_rule_dropped_total{rule=\"small\"}"), 6);
    assert_eq!(server.counter("logsink_queue_appended_total"), 2, "of the one nothing was left");

    let mut found = BTreeMap::new();
    for message in consume(&space.topic, 17) {
        let request = ExportLogsServiceRequest::decode(message.payload.as_slice()).expect("OTLP");
        let [logs] = &request.resource_logs[..] else { panic!("one resource") };
        let name = text(&logs.resource.as_ref().expect("a resource").attributes, "service.name");
        for record in &logs.scope_logs[0].log_records {
            let Some(Value::IntValue(n)) = value(&record.attributes, "n") else { panic!("n is an int: {record:?}") };
            let body = record.body.clone().and_then(|body| body.value);
            assert!(found.insert((name.clone(), n), (body, message.headers.contains_key("logsink-rules"))).is_none());
        }
    }
    let mut expected = BTreeMap::new();
    let body = |text: String| Some(Value::StringValue(text));
    for n in 3..10 {
        let words = if n == 5 { "[redacted]".to_owned() } else { format!("event {n} of the load") };
        expected.insert((service.clone(), n), (body(words), true));
    }
    expected.extend((0..10).map(|n| ((other.clone(), n), (body(format!("event {n} of the load")), false))));
    assert_eq!(found, expected);
}

struct Raw {
    payload: Vec<u8>,
    headers: BTreeMap<String, String>,
}

/// Reads the topic from its beginning until it has `records` log records.
fn consume(topic: &str, records: usize) -> Vec<Raw> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka())
        .set("group.id", "wire-test")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).expect("the topic is there");
    let mut everything = TopicPartitionList::new();
    for partition in metadata.topics()[0].partitions() {
        everything.add_partition_offset(topic, partition.id(), rdkafka::Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&everything).expect("the partitions are there");

    let (mut messages, mut seen) = (Vec::new(), 0);
    let start = Instant::now();
    while seen < records {
        assert!(start.elapsed() < Duration::from_secs(30), "{seen} of {records} records in the topic");
        let Some(message) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = message.expect("a message");
        let payload = message.payload().expect("a value").to_vec();
        let request = ExportLogsServiceRequest::decode(payload.as_slice()).expect("OTLP");
        seen += request.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum::<usize>();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let headers = headers.map(|header| {
            (header.key.to_owned(), String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned())
        });
        messages.push(Raw { headers: headers.collect(), payload });
    }
    messages
}

fn value(attributes: &[KeyValue], key: &str) -> Option<Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.clone().and_then(|AnyValue { value }| value)
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{key} is text: {other:?} among {attributes:?}"),
    }
}
