//! A service that sends all it can, beside one that sends little, while the queue takes nothing: what is under way is shared.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use logsink_tests::{
    App, Server, load,
    otlp::Door,
    server::Space,
    stack::{alone, control},
    unique, until,
};

use crate::numbers;

const PATIENCE: Duration = Duration::from_secs(120);
/// Records of a greedy batch: some 150 KB, of a megabyte that may be under way.
const BATCH: u64 = 2_000;
/// Requests that the greedy one has under way, or tries to.
const HANDS: usize = 12;
/// Between two of its tries: it does not wait for as long as it is told to.
const IMPATIENCE: Duration = Duration::from_millis(20);

/// Ends the greedy one when its story does, however that ends.
struct End<'f>(&'f AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[test]
fn a_greedy_service_leaves_room_for_a_modest_one_while_kafka_hangs() {
    const MODEST: u64 = 200;
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let sections = "[ingest]\nrequest_bytes_max = \"512KiB\"\npending_bytes_max = \"1MiB\"\n".to_owned();
    let space = Space { sections, ..Space::new("fair") };
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let (greedy, modest) = (unique("greedy"), unique("modest"));
    let counter = |name: &str, service: &str| {
        server.counter(&format!("logsink_ingest_service_{name}_total{{service=\"{service}\"}}"))
    };
    // Both are known, and so is the topic.
    Door::Http.export(&server, &load::request(&greedy, [])).expect("nothing is always taken");
    let mut app = App::build(dir.path(), &modest, &server.grpc_url()).env("LOGSINK_BATCH_AGE_MS_MAX", "50").start();
    app.emit("before", 1, 1);
    server.await_hits(&format!("service={modest}"), 1, PATIENCE);

    control("pause", &["kafka"]);
    let (is_over, next, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::new(HashSet::new()));
    thread::scope(|scope| {
        let _end = End(&is_over);
        let grab = |door: Door| {
            while !is_over.load(Relaxed) {
                let first = next.fetch_add(BATCH, Relaxed);
                let batch = load::request(&greedy, first..first + BATCH);
                match door.export(&server, &batch) {
                    Ok(()) => acknowledged.lock().unwrap().extend(first..first + BATCH),
                    Err(refusal) => {
                        assert!(refusal.wait.is_some(), "it is told when to come again: {refusal:?}");
                        thread::sleep(IMPATIENCE);
                    }
                }
            }
        };
        for hand in 0..HANDS {
            scope.spawn(move || grab(if hand % 2 == 0 { Door::Grpc } else { Door::Http }));
        }
        until("the greedy one has its share", PATIENCE, || match counter("refused", &greedy) {
            refused if refused > 2 * HANDS as u64 => Ok(()),
            refused => Err(format!("{refused} refused")),
        });
        app.emit("beside", MODEST - 1, 100);
        until("the modest one has sent beside it", PATIENCE, || match app.emitted() {
            MODEST => Ok(()),
            emitted => Err(format!("{emitted} events")),
        });
        let before = counter("refused", &greedy);
        until("the greedy one is refused still", PATIENCE, || {
            if counter("refused", &greedy) > before { Ok(()) } else { Err(before.to_string()) }
        });
        control("resume", &["kafka"]);
    });

    app.flush(PATIENCE);
    let metrics = app.metrics();
    assert_eq!((&metrics["lost"], &metrics["retries"]), (&0.into(), &0.into()), "nothing failed: {metrics}");
    assert_eq!((counter("refused", &modest), counter("records", &modest)), (0, MODEST));
    numbers::exactly_once(&server.await_hits(&format!("service={modest}"), MODEST as usize, PATIENCE), MODEST);
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(!acknowledged.is_empty(), "the greedy one had a share");
    let hits = server.await_hits(&format!("service={greedy}"), acknowledged.len(), PATIENCE);
    let found: HashSet<_> = hits.iter().filter_map(|hit| hit["attributes"]["n"].as_u64()).collect();
    assert!(acknowledged.is_subset(&found), "what was acknowledged is found");
    app.quit();
}
