//! Several servers take events in; the library finds them in etcd.

use std::time::Duration;

use logsink_tests::{App, Server, http, server::Space, unique, until};

use crate::numbers;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn one_of_two_is_killed_under_load_and_a_third_takes_its_share() {
    const EVENTS: u64 = 12_000;
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("found");
    let search = Server::cluster(dir.path(), "search", &["drain", "query"], &space);
    let mut first = Server::cluster(dir.path(), "first", &["ingest"], &space);
    let mut second = Server::cluster(dir.path(), "second", &["ingest"], &space);
    let lists = |server: &Server, expected: &[&Server]| {
        until("the list of servers is as it should be", PATIENCE, || {
            let list = server.servers();
            let all = expected.iter().all(|server| list.contains(&server.grpc_url()));
            if all && list.lines().count() == expected.len() + 1 { Ok(()) } else { Err(list) }
        });
    };
    lists(&first, &[&first, &second]);

    let service = unique("fleet");
    let build = App::build(dir.path(), &service, &space.etcd_url());
    // Small batches, so that many are there to be shared.
    let mut app = build.env("LOGSINK_BATCH_AGE_MS_MAX", "20").start();
    app.emit("fleet", EVENTS, 1_500);
    let mut reach = |count: u64| {
        until("events are emitted", PATIENCE, || {
            let now = app.emitted();
            if now >= count { Ok(()) } else { Err(format!("{now} events")) }
        });
    };
    reach(EVENTS / 3);
    for server in [&first, &second] {
        assert!(server.counter("logsink_ingest_records_total") > 0, "both get some");
    }
    first.kill();
    reach(EVENTS / 2);
    let third = Server::cluster(dir.path(), "third", &["ingest"], &space);
    until("the third gets some", PATIENCE, || match third.counter("logsink_ingest_records_total") {
        0 => Err("none yet".to_owned()),
        _ => Ok(()),
    });
    reach(EVENTS);
    app.flush(PATIENCE);
    let hits = search.await_hits(&format!("service={service}"), EVENTS as usize, PATIENCE);
    numbers::exactly_once(&hits, EVENTS);

    // The killed one leaves the list with its lease, one that stops at once.
    lists(&second, &[&second, &third]);
    assert!(second.stop().success());
    let list = third.servers();
    assert!(!list.contains(&second.grpc_url()) && list.contains(&third.grpc_url()), "{list}");
    app.quit();
}

#[test]
fn readiness_names_what_is_the_matter() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("names");
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let drain = Server::cluster(dir.path(), "drain", &["drain"], &space);
    for server in [&server, &drain] {
        let ready = http::get(&server.http_url("/readyz")).unwrap().body;
        let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
        for (step, dependency) in [("queue", "Kafka"), ("index", "Elasticsearch"), ("rules", "etcd")] {
            assert_eq!(ready["checks"][step]["dependency"], dependency, "{ready}");
            assert_eq!(ready["checks"][step]["ready"], true, "{ready}");
        }
    }
    let shown = http::get(&server.http_url("/metrics")).unwrap().body;
    assert!(shown.contains("logsink_drain_pending_bytes_max"), "{shown}");
}
