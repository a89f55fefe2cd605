//! `init()` in a plain program: every event of `tracing` and `log` arrives once, with its context, and nothing of the
//! library's own.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use otlp_server::{OtlpServer, PATIENCE, attribute, text};

#[test]
fn every_event_of_a_plain_program_arrives_once() {
    let server = OtlpServer::start();
    // Everything, so that what tonic, h2 and the worker say below would come back if it could.
    let guard = logsink::builder()
        .alone()
        .service("shop")
        .endpoint(server.url())
        .filter("trace")
        .resource("deployment.environment.name", "test")
        .header("authorization", "Bearer token")
        .init()
        .unwrap();

    tracing::warn!(n = 0, path = "/api", "request failed");
    let span = tracing::info_span!("checkout", user = "alice");
    span.in_scope(|| tracing::info!(n = 1, "item added"));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                for n in 0..2500 {
                    tracing::info!(n = 2 + thread * 2500 + n, "busy");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    guard.flush(PATIENCE).unwrap();
    assert_eq!(server.numbers(), (0..10_002).collect::<Vec<_>>());

    let call = &server.calls()[0];
    assert_eq!(call.metadata.get("authorization").unwrap(), "Bearer token");
    assert_eq!(call.metadata.get("logsink-instance").unwrap(), guard.instance());
    let mut sequences: Vec<u64> = server
        .calls()
        .iter()
        .map(|call| call.metadata.get("logsink-sequence").unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());

    let resource = &call.request.resource_logs[0].resource.as_ref().unwrap().attributes;
    assert_eq!(text(resource, "service.name").as_deref(), Some("shop"));
    assert_eq!(text(resource, "service.instance.id").as_deref(), Some(guard.instance()));
    assert_eq!(text(resource, "deployment.environment.name").as_deref(), Some("test"));
    assert_eq!(attribute(resource, "process.pid"), Some(&Value::IntValue(std::process::id().into())));

    let records = server.records();
    let first = records.iter().find(|record| otlp_server::number(&record.attributes) == Some(0)).unwrap();
    assert_eq!((first.severity_number, first.severity_text.as_str()), (13, "WARN"));
    assert_eq!(text(&first.attributes, "path").as_deref(), Some("/api"));
    let second = records.iter().find(|record| otlp_server::number(&record.attributes) == Some(1)).unwrap();
    assert_eq!(text(&second.attributes, "user").as_deref(), Some("alice"));

    #[cfg(feature = "log")]
    {
        log::error!(target: "legacy", "from log");
        guard.flush(PATIENCE).unwrap();
        let records = server.records();
        let record = records.iter().find(|record| text(&record.attributes, "target").as_deref() == Some("legacy"));
        assert_eq!(record.unwrap().severity_number, 17);
    }

    // A batch's worth of time for anything that the sending itself may have said.
    let before = server.records().len();
    std::thread::sleep(Duration::from_millis(500));
    let records = server.records();
    assert_eq!(records.len(), before, "the library speaks to itself: {:?}", records.last());
    assert!(records.iter().all(|record| {
        !text(&record.attributes, "thread.name").is_some_and(|thread| thread.starts_with("logsink"))
    }));

    // A second init says what to do, and harms nothing.
    let error = logsink::builder().alone().endpoint(server.url()).init().unwrap_err();
    assert!(matches!(error, logsink::InitError::AlreadyInitialized));
    assert!(error.to_string().contains("call logsink::init() once"), "{error}");

    // The last events go out when the guard is dropped; what comes until the process ends, soon after.
    tracing::info!(n = 10_002, "goodbye");
    drop(guard);
    assert_eq!(server.numbers().last(), Some(&10_002));
    tracing::info!(n = 10_003, "after the guard");
    otlp_server::wait_until("the event after the guard", || server.numbers().last() == Some(&10_003));
    assert_eq!(server.numbers().len(), 10_004);
}
