//! Rules from a file take effect in a running process, and the sink is told which were applied.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

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

/// Set where a test runs itself as a program of its own, whose stderr is the test's to choose.
const CHILD: &str = "LOGSINK_TEST_RULES_FILE";

#[test]
fn a_file_that_is_not_there_yet_is_waited_for_calmly() {
    if let Some(file) = std::env::var_os(CHILD) {
        let file = std::path::PathBuf::from(file);
        let rules = format!("file:{}", file.display());
        let (_layer, guard) = logsink::builder()
            .alone()
            .endpoint("stdout:")
            .rules(rules)
            .layer::<tracing_subscriber::Registry>()
            .unwrap();
        wait_until("the rules", || !guard.rules().revision.is_empty());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_file_that_is_not_there_yet_is_waited_for_calmly", "--nocapture"])
        .env(CHILD, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let expected = format!("logsink: rules file {} is not there yet; waiting for it", file.display());
    assert_eq!(lines.next().as_ref(), Some(&expected));
    fs::write(&file, "filter = \"debug\"").unwrap();
    assert_eq!(lines.collect::<Vec<_>>(), [""; 0], "one line is enough");
    assert!(child.wait().unwrap().success());
}

/// As when the program that collects a service's stderr has died.
#[test]
fn a_stderr_that_nobody_reads_does_not_stop_the_rules() {
    if let Some(file) = std::env::var_os(CHILD) {
        let rules = format!("file:{}", std::path::Path::new(&file).display());
        let (_layer, guard) = logsink::builder()
            .alone()
            .endpoint("stdout:")
            .rules(rules)
            .layer::<tracing_subscriber::Registry>()
            .unwrap();
        wait_until("the refusal", || guard.rules().refused.is_some());
        fs::write(&file, "filter = \"debug\"").unwrap();
        wait_until("the rules", || !guard.rules().revision.is_empty());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    fs::write(&file, "filter = 7").unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_stderr_that_nobody_reads_does_not_stop_the_rules", "--nocapture"])
        .env(CHILD, &file)
        .stdout(Stdio::null())
        .stderr(writer)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}
