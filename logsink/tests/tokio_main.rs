//! `init()` in an async program: its only thread may block in a flush, as the library does not need it.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::time::Duration;

use otlp_server::{OtlpServer, PATIENCE};

#[tokio::main(flavor = "current_thread")]
async fn program(server: &OtlpServer) {
    let guard = logsink::builder().alone().endpoint(server.url()).init().unwrap();
    let tasks: Vec<_> = (0..10)
        .map(|task| {
            tokio::spawn(async move {
                for n in 0..10 {
                    tracing::info!(n = task * 10 + n, "event");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    guard.flush(PATIENCE).unwrap();
    assert_eq!(server.numbers(), (0..100).collect::<Vec<_>>());
    tracing::info!(n = 100, "event");
    // Here the guard is dropped, within the runtime.
}

#[test]
fn every_event_of_an_async_program_arrives_once() {
    let server = OtlpServer::start();
    program(&server);
    assert_eq!(server.numbers(), (0..=100).collect::<Vec<_>>());
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(server.numbers().len(), 101);
}
