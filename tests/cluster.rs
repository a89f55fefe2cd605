//! The same product on Kafka, Elasticsearch and etcd.

use std::{fs, time::Duration};

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
fn two_drains_share_the_work_and_one_takes_over_when_the_other_is_killed() {
    const EVENTS: u64 = 1_500;
    /// Their instances spread them over the four partitions; that one drain gets none of them happens once in 30,000 runs.
    const SENDERS: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("scale-out");
    let ingest = Server::cluster(dir.path(), "ingest", &["ingest"], &space);
    let mut drains = ["drain-1", "drain-2"].map(|name| Server::cluster(dir.path(), name, &["drain"], &space));
    let query = Server::cluster(dir.path(), "query", &["query"], &space);

    let mut senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let service = unique("sender");
            let home = dir.path().join(&service);
            fs::create_dir(&home).unwrap();
            let mut app = App::build(&home, &service, &ingest.grpc_url()).start();
            // Ten seconds: the kill falls into the stream.
            app.emit("a", EVENTS, EVENTS / 10);
            (service, app)
        })
        .collect();
    until("both drains index events", FOUND, || {
        let drained = drains.each_ref().map(|drain| drain.counter("logsink_drain_records_total"));
        if drained.iter().all(|count| *count > 0) { Ok(()) } else { Err(format!("{drained:?}")) }
    });
    let [killed, left] = &mut drains;
    killed.kill();
    let before = left.counter("logsink_drain_records_total");

    for (_, app) in &mut senders {
        until("all is out", FOUND, || if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) });
        app.flush(Duration::from_secs(30));
        let metrics = app.metrics();
        assert_eq!((metrics["sent"].as_u64(), metrics["lost"].as_u64()), (Some(EVENTS), Some(0)), "{metrics}");
    }
    // The other one alone finishes it: also what the killed one had read and not committed.
    let url = format!("{}/{}/_count", elasticsearch(), space.data_stream);
    let all = SENDERS as u64 * EVENTS;
    until("all is indexed", 2 * FOUND, || {
        let answer = http::get(&url)?;
        let count = serde_json::from_str::<serde_json::Value>(&answer.body).map_err(|error| error.to_string())?;
        if count["count"].as_u64() >= Some(all) { Ok(()) } else { Err(answer.body) }
    });
    assert!(left.counter("logsink_drain_records_total") > before, "the one that is left has taken over");
    for (service, app) in senders {
        numbers::exactly_once(&query.query(&format!("service={service}")), EVENTS);
        app.quit();
    }
    assert!(left.stop().success());
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
