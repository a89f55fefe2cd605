//! A list of servers in an application's settings, without etcd: each batch goes to one of them.

use std::time::Duration;

use logsink_tests::{App, Server, server::Space, unique, until};

use crate::numbers;

const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn one_of_a_list_is_killed_and_has_its_share_again_when_it_is_back() {
    const EVENTS: u64 = 12_000;
    /// More than a batch or two that were let through by chance.
    const SHARE: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let space = Space { etcd: false, ..Space::new("list") };
    let search = Server::cluster(dir.path(), "search", &["drain", "query"], &space);
    let mut first = Server::cluster(dir.path(), "first", &["ingest"], &space);
    let second = Server::cluster(dir.path(), "second", &["ingest"], &space);
    let taken = |server: &Server, more_than: u64| {
        until("it takes its share", PATIENCE, || match server.counter("logsink_ingest_records_total") {
            records if records > more_than => Ok(records),
            records => Err(format!("{records} records")),
        })
    };

    let service = unique("listed");
    let list = format!("{},{}", first.grpc_url(), second.grpc_url().trim_start_matches("http://"));
    // Small batches, so that many are there to be shared.
    let mut app = App::build(dir.path(), &service, &list).env("LOGSINK_BATCH_AGE_MS_MAX", "20").start();
    app.emit("list", EVENTS, 800);
    taken(&first, SHARE);
    let before = taken(&second, SHARE);
    first.kill();
    taken(&second, before + 2 * SHARE);
    // With the same address; its counters begin at 0.
    first.restart();
    let before = second.counter("logsink_ingest_records_total");
    taken(&first, SHARE);
    taken(&second, before);
    assert!(app.emitted() < EVENTS, "all of that happened while events flowed");

    until("all is out", PATIENCE, || if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) });
    app.flush(PATIENCE);
    assert_eq!(app.metrics()["lost"], 0);
    let hits = search.await_hits(&format!("service={service}"), EVENTS as usize, PATIENCE);
    numbers::exactly_once(&hits, EVENTS);
    let said = app.quit();
    let fails = format!("{} fails, going on with the others", first.grpc_url());
    let again = format!("{} takes batches again", first.grpc_url());
    assert!(said.contains(&fails) && said.contains(&again), "{said}");
}
