//! Kafka headers of other producers' OTLP messages: searched, and kept with what no index takes.

use std::time::Duration;

use logsink_tests::{
    Server, load,
    process::succeed,
    server::{Space, command},
    unique, until,
};
use prost::Message as _;
use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord},
};

const FOUND: Duration = Duration::from_secs(60);

fn send(producer: &BaseProducer, topic: &str, payload: &[u8], tenant: &str) {
    let headers = OwnedHeaders::new()
        .insert(Header { key: "traceparent", value: Some(load::TRACEPARENT) })
        .insert(Header { key: "tenant", value: Some(tenant) })
        .insert(Header { key: "x-route", value: Some("eu/7") });
    let record = BaseRecord::<(), [u8]>::to(topic).partition(0).payload(payload).headers(headers);
    producer.send(record).map_err(|(error, _)| error).expect("librdkafka takes it");
}

#[test]
fn headers_that_are_named_are_found_and_all_of_them_outlive_the_dead_letters() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space { kafka: "header_attributes = [\"tenant\", \"absent\"]\n".into(), ..Space::new("headers") };
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let service = unique("tenants");
    let producer = load::producer(&[]);
    for (n, tenant) in ["acme", "globex"].into_iter().enumerate() {
        send(&producer, &space.topic, &load::request(&service, [n as u64]).encode_to_vec(), tenant);
    }
    send(&producer, &space.topic, b"this is no OTLP", "acme");
    load::flush(&producer);
    let hits = server.await_hits(&format!("service={service} kafka.header.tenant=globex"), 1, FOUND);
    assert_eq!((hits.len(), &hits[0]["attributes"]["n"]), (1, &1.into()), "{hits:?}");
    assert_eq!(hits[0]["trace_id"], "0af7651916cd43dd8448eb211c80319c", "without being named: {}", hits[0]);
    let nobody_asked = server.query(&format!("service={service} exists(kafka.header.x-route)"));
    assert_eq!(nobody_asked.len(), 0, "{nobody_asked:?}");

    // What is put aside has them all, and so has what is sent again and put aside once more.
    let config = dir.path().join("all.toml");
    let letters = |arguments: &[&str]| succeed(command(&["dead-letters"]).args(arguments).arg("--config").arg(&config));
    let listed = |count: usize| {
        until(&format!("{count} are put aside"), FOUND, || {
            let list = letters(&["list"]);
            if list.lines().count() == 1 + count { Ok(()) } else { Err(list) }
        });
    };
    listed(1);
    assert!(letters(&["replay", "0/0"]).contains("sent 1 dead letter again"));
    listed(2);
    for id in ["0/0", "0/1"] {
        let page = letters(&["show", id]);
        for part in ["tenant", "acme", "x-route", "eu/7", load::TRACEPARENT] {
            assert!(page.contains(part), "{part} in:\n{page}");
        }
    }
}
