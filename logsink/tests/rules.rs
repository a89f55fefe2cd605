//! Rules from a file take effect in a running process, and the sink is told which were applied.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::fs;

use otlp_server::{OtlpServer, PATIENCE, wait_until};

#[test]
fn a_changed_file_changes_what_is_sent() {
    let server = OtlpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    let guard = logsink::builder()
        .alone()
        .service("shop")
        .endpoint(server.url())
        .rules(format!("file:{}", file.display()))
        .init()
        .unwrap();
    tracing::info!(n = 0, "kept");
    tracing::debug!(n = 1, "below the base filter");
    guard.flush(PATIENCE).unwrap();
    assert_eq!(server.numbers(), [0]);
    assert!(server.calls()[0].metadata.get("logsink-rules").is_none());

    let rules =
        "filter = \"debug\"\n[[rule]]\nname = \"no health checks\"\nwhen = 'path=\"/health\"'\nthen = \"drop\"\n";
    fs::write(&file, rules).unwrap();
    wait_until("the rules", || tracing::enabled!(tracing::Level::DEBUG));
    tracing::debug!(n = 2, "wanted by the new filter");
    tracing::info!(n = 3, path = "/health", "dropped by the rule");
    guard.flush(PATIENCE).unwrap();
    // The header speaks of rules only where they judged the whole batch: not before the next round.
    tracing::info!(n = 4, path = "/cart", "kept");
    guard.flush(PATIENCE).unwrap();
    assert_eq!(server.numbers(), [0, 2, 4]);
    assert_eq!(guard.rule_counts(), [("no health checks".to_owned(), 1)]);
    let revision = server.calls().last().unwrap().metadata.get("logsink-rules").cloned();
    assert_eq!(revision.unwrap().to_str().unwrap(), guard.rules().revision);
    #[cfg(feature = "log")]
    wait_until("records of `log` to follow", || log::max_level() == log::LevelFilter::Debug);

    // A bad document never replaces a good one.
    fs::write(&file, "filter = \"debug\"\n[[rule]]\nname = \"x\"\nwhen = 'path='\nthen = \"drop\"\n").unwrap();
    wait_until("the refusal", || guard.rules().refused.is_some());
    tracing::debug!(n = 5, "still wanted");
    guard.flush(PATIENCE).unwrap();
    assert_eq!(server.numbers(), [0, 2, 4, 5]);
}
