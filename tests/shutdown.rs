//! SIGTERM while requests to the index are under way, and a second one.

use std::time::Duration;

use logsink_tests::{App, Server, server::Space, stack::elasticsearch, unique, until};

use crate::proxy::{Fault, Proxy};

const PATIENCE: Duration = Duration::from_secs(60);
const EVENTS: u64 = 300;

/// A server behind a proxy, with events whose request to the index is under way.
fn busy(dir: &std::path::Path, fault: Fault) -> (Server, Proxy, String) {
    let proxy = Proxy::start(&elasticsearch());
    let space = Space::new("shutdown").through(proxy.url());
    let server = Server::cluster(dir, "server", &["ingest", "drain", "query"], &space);
    proxy.always(Some(fault));
    let service = unique("stopping");
    let mut app = App::build(dir, &service, &server.grpc_url()).start();
    app.emit("a", EVENTS, EVENTS);
    until("all is out", PATIENCE, || if app.emitted() == EVENTS { Ok(()) } else { Err(app.emitted().to_string()) });
    app.flush(PATIENCE);
    until("a request is under way", PATIENCE, || if proxy.bulks() > 0 { Ok(()) } else { Err("none".into()) });
    (server, proxy, service)
}

#[test]
fn a_stop_waits_for_what_is_under_way_and_commits_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, proxy, service) = busy(dir.path(), Fault::Late(Duration::from_secs(2)));
    let status = server.stop();
    assert!(status.success(), "{status}: {}", server.stderr());
    proxy.always(None);
    let answered = proxy.bulks();
    server.restart();
    let hits = server.await_hits(&format!("service={service}"), EVENTS as usize, PATIENCE);
    assert_eq!(hits.len() as u64, EVENTS);
    assert_eq!(server.counter("logsink_index_duplicates_total"), 0, "{answered} requests were answered before");
}

#[test]
fn a_second_signal_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, ..) = busy(dir.path(), Fault::Silence(PATIENCE * 2));
    server.signal("TERM");
    until("it says that it stops", PATIENCE, || {
        let log = server.stderr();
        if log.contains("a second signal ends at once") { Ok(()) } else { Err(log) }
    });
    let status = server.stop();
    assert_eq!(status.code(), Some(1), "{}", server.stderr());
    assert!(server.stderr().contains("ending at once"), "{}", server.stderr());
}
