//! The same product on Kafka, Elasticsearch and etcd.

use std::time::Duration;

use logsink_tests::{App, Example, Server, http, server::Space, stack::elasticsearch, unique, until};

use crate::numbers;

/// Kafka, a drain, a bulk request and Elasticsearch's refresh of one second lie between an event and its hit.
const FOUND: Duration = Duration::from_secs(60);

#[test]
fn from_the_axum_example_over_kafka_to_a_hit() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("kafka-in");
    // No process of ours takes events in: the example writes to the topic itself.
    let server = Server::cluster(dir.path(), "drain", &["drain", "query"], &space);
    let service = unique("shop");
    let example = Example::axum(dir.path(), &service, &space.kafka_url());
    assert_eq!(example.get("/orders/42").status, 200);
    let hits = server.await_hits(&format!("service={service} order_id=42"), 1, FOUND);
    let event = hits.iter().find(|hit| hit["message"] == "order found").expect("the handler's own event");
    assert_eq!(event["attributes"]["span.path"], "request:find_order", "{event}");
    assert_eq!(event["attributes"]["url.path"], "/orders/42", "{event}");
    example.stop();
}

#[test]
fn from_the_axum_example_over_grpc_and_kafka_to_a_hit() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("grpc-in");
    // Each role in a process of its own, two drains among them.
    let ingest = Server::cluster(dir.path(), "ingest", &["ingest"], &space);
    let _drains = ["drain-1", "drain-2"].map(|name| Server::cluster(dir.path(), name, &["drain"], &space));
    let query = Server::cluster(dir.path(), "query", &["query"], &space);
    let service = unique("shop");
    let example = Example::axum(dir.path(), &service, &ingest.grpc_url());
    assert_eq!(example.get("/orders/13").status, 402);
    let expression = format!("level>=error service={service} \"payment refused\" order_id>12 not order_id>13");
    let hits = query.await_hits(&expression, 1, FOUND);
    assert_eq!(hits[0]["attributes"]["order_id"], 13, "{}", hits[0]);
    assert_eq!(hits[0]["attributes"]["url.path"], "/orders/13", "{}", hits[0]);
    example.stop();
}

#[test]
fn both_ways_in_meet_in_one_index_and_each_event_is_there_once() {
    const EVENTS: u64 = 5_000;
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("both");
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let endpoints = [("over-kafka", space.kafka_url()), ("over-grpc", server.grpc_url())];
    for (name, endpoint) in &endpoints {
        let service = unique(name);
        let mut app = App::build(dir.path(), &service, endpoint).start();
        app.emit("a", EVENTS, 5_000);
        until("all is out", FOUND, || if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) });
        app.flush(Duration::from_secs(30));
        assert_eq!(app.metrics()["lost"], 0);
        numbers::exactly_once(&server.await_hits(&format!("service={service}"), EVENTS as usize, FOUND), EVENTS);
        // The same searches that the embedded store answers.
        let expression = format!("service={service} n>=4990 \"of the load\" target=load run=a");
        assert_eq!(server.query(&expression).len(), 10);
        app.quit();
    }
    let count = http::get(&format!("{}/{}/_count", elasticsearch(), space.data_stream)).unwrap();
    assert!(count.body.contains(&format!("\"count\":{}", 2 * EVENTS)), "Elasticsearch itself counts: {}", count.body);
}
