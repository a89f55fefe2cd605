//! An event allocates nothing on its caller in steady state: counted by the allocator itself. A binary of its own, because
//! an allocator is the whole program's.

#[path = "../logsink/tests/support/counting.rs"]
mod counting;

use std::time::Duration;

use logsink_tests::{Server, unique};

#[test]
fn an_event_allocates_nothing_on_its_caller() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("alloc");
    let guard = logsink::builder()
        .endpoint(server.grpc_url())
        .service(&service)
        .console(logsink::config::Console::Off)
        .init()
        .expect("logsink starts");

    let span = tracing::info_span!("request", user = "ada", attempt = 3_u64);
    let _entered = span.enter();
    let error = std::io::Error::other("connection refused");
    let emit = |n: u64| {
        tracing::info!(user_id = n, path = "/api/v1/items", latency_ms = 3.5_f64, ok = true, "request finished");
        tracing::warn!(n, debug = ?Some(n), display = %n, "of every kind: {}", n);
        tracing::error!(error = &error as &dyn std::error::Error, "request failed");
    };
    // The first events build the templates of their callsites and take the thread's first chunks.
    const WARM: u64 = 3_000;
    const COUNTED: u64 = 1_000;
    (0..WARM).for_each(&emit);
    guard.flush(Duration::from_secs(30)).expect("the server takes them");

    let before = counting::allocations();
    (0..COUNTED).for_each(&emit);
    let allocations = counting::allocations() - before;
    assert_eq!(allocations, 0, "over {} events", 3 * COUNTED);

    guard.flush(Duration::from_secs(30)).expect("the server takes them");
    let metrics = guard.metrics();
    assert_eq!((metrics.sent, metrics.lost()), (3 * (WARM + COUNTED), 0), "{metrics}");
    let events = usize::try_from(3 * (WARM + COUNTED)).unwrap();
    server.await_hits(&format!("service={service}"), events, Duration::from_secs(30));
}
