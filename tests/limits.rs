//! What one service may send: a flood is held back, told when to come again, and holds up nobody else.

use std::{
    thread,
    time::{Duration, Instant},
};

use logsink_tests::{
    App, Server, load,
    otlp::{Door, RESOURCE_EXHAUSTED},
    unique, until,
};

use crate::numbers;

#[test]
fn a_flood_is_held_to_its_rate_and_a_small_service_does_not_notice() {
    const FLOOD: u64 = 6_000;
    const SMALL: u64 = 100;
    let dir = tempfile::tempdir().unwrap();
    let (flood, small) = (unique("flood"), unique("small"));
    let settings =
        format!("[ingest.limits]\nburst = \"1s\"\n[ingest.limits.services.{flood}]\nrecords_per_second = 1000\n");
    let server = Server::configured(dir.path(), &settings);
    let start = |service: &str| {
        App::build(dir.path(), service, &server.grpc_url()).env("LOGSINK_BATCH_RECORDS_MAX", "200").start()
    };
    let (mut flooding, mut calm) = (start(&flood), start(&small));
    let begun = Instant::now();
    flooding.emit("flood", FLOOD, 100_000);
    calm.emit("small", SMALL, 200);

    let all_out = |app: &mut App, count| {
        until("all is emitted", Duration::from_secs(60), || match app.emitted() {
            now if now == count => Ok(()),
            now => Err(format!("{now} events")),
        });
    };
    all_out(&mut calm, SMALL);
    calm.flush(Duration::from_secs(60));
    all_out(&mut flooding, FLOOD);
    let limited = format!("logsink_ingest_service_refused_total{{service=\"{flood}\"}}");
    let taken = format!("logsink_ingest_service_records_total{{service=\"{flood}\"}}");
    flooding.flush(Duration::from_secs(120));
    let took = begun.elapsed();
    assert!(server.counter(&limited) > 0, "it was told to come again");
    assert_eq!(server.counter(&taken), FLOOD, "and it came");
    assert_eq!(server.counter(&format!("logsink_ingest_service_refused_total{{service=\"{small}\"}}")), 0);
    // A second's worth at once, one batch more, and a thousand a second after that.
    assert!(took >= Duration::from_millis(4_500), "{FLOOD} records at 1,000 a second took {took:?}");
    for (service, count) in [(&flood, FLOOD), (&small, SMALL)] {
        let hits = server.await_hits(&format!("service={service}"), count as usize, Duration::from_secs(60));
        numbers::exactly_once(&hits, count);
    }
    flooding.quit();
    calm.quit();
}

#[test]
fn a_service_over_its_rate_is_told_when_to_come_again_and_is_let_in_then() {
    const FIRST: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::configured(dir.path(), "[ingest.limits]\nrecords_per_second = 20\nburst = \"1s\"\n");
    for (door, code) in [(Door::Grpc, RESOURCE_EXHAUSTED), (Door::Http, 429)] {
        let service = unique("over");
        // Three seconds' worth, of which one may come at once: it is taken whole, and owes two.
        door.export(&server, &load::request(&service, 0..FIRST)).expect("a full bucket takes any batch");
        let more = load::request(&service, [FIRST]);
        let refusal = door.export(&server, &more).expect_err("it owes two seconds");
        assert_eq!(refusal.code, code, "{refusal:?}");
        assert!(refusal.message.contains("over its rate"), "{refusal:?}");
        let wait = refusal.wait.unwrap_or_else(|| panic!("it is told when: {refusal:?}"));
        assert!(!wait.is_zero() && wait <= Duration::from_secs(2), "{refusal:?}");
        door.export(&server, &load::request(&unique("other"), [0])).expect("others have their own rate");
        // As it was told to.
        thread::sleep(wait);
        door.export(&server, &more).expect("who waits as told is let in");
        let hits = server.await_hits(&format!("service={service}"), FIRST as usize + 1, Duration::from_secs(20));
        numbers::exactly_once(&hits, FIRST + 1);
    }
}
