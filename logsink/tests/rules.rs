//! Rules from a file take effect in a running process, and the sink is told which were applied.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};
use otlp_server::{OtlpServer, PATIENCE, wait_until};
use tracing_subscriber::layer::SubscriberExt;

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

#[test]
fn repeats_are_said_and_secrets_stay_at_home() {
    let server = OtlpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    let (layer, guard) = logsink::builder()
        .alone()
        .endpoint(server.url())
        .redact(["password"])
        .rules(format!("file:{}", file.display()))
        .layer()
        .unwrap();
    let rules = |text: &str| {
        let before = guard.rules().revision;
        fs::write(&file, text).unwrap();
        wait_until("the rules", || guard.rules().revision != before);
    };
    let sent = || {
        guard.flush(PATIENCE).unwrap();
        server.records().iter().map(in_words).collect::<Vec<_>>()
    };
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
        let refused = |peer: &str, times: usize| {
            for _ in 0..times {
                tracing::warn!(peer, "connection refused");
            }
        };
        // What the settings redact needs no rule, and none can undo it.
        tracing::info!(password = "p", card = "4111 1111 1111 1111", "by ada@example.org");
        let first = "by ada@example.org card=4111 1111 1111 1111 password=[redacted]";
        assert_eq!(sent(), [first]);

        let secrets = "[[rule]]\nname = \"secrets\"\nthen = { redact = { kinds = [\"credit-card\", \"email\"] } }\n";
        let dedup = |window_ms| {
            format!(
                "[[rule]]\nname = \"again\"\nwhen = 'exists(peer)'\nthen = {{ dedup = {{ window_ms = {window_ms}, by = \"peer\" }} }}\n"
            )
        };
        rules(&format!("{secrets}{}", dedup(2_000)));
        tracing::info!(password = "p", card = "4111 1111 1111 1111", "by ada@example.org");
        assert_eq!(sent()[1..], ["by [redacted] card=[redacted] password=[redacted]"]);

        // Nobody comes after: the library itself says it, once the window has ended.
        refused("a", 43);
        let said = "connection refused (repeated 42 times) logsink.repeated=42 logsink.rule=again";
        wait_until("the repeats", || sent().last().is_some_and(|last| last == said));
        assert_eq!(sent()[2..], ["connection refused peer=a", said]);

        // Others do come. Then the rule goes, with a count that it has not told: it is said by the set that follows.
        rules(&dedup(3_600_000));
        refused("b", 3);
        rules("[[rule]]\nname = \"other\"\nwhen = 'target=x'\nthen = \"drop\"\n");
        refused("b", 1);
        rules(&dedup(3_600_000));
        refused("c", 6);
        assert_eq!(
            sent()[4..],
            ["connection refused peer=b", "connection refused peer=b", "connection refused peer=c"]
        );
    });
    let counts = guard.metrics();
    drop(guard);
    // The end of the process ends every window.
    let mut last: Vec<_> = server.records()[7..].iter().map(in_words).collect();
    last.sort_unstable();
    let said =
        |times| format!("connection refused (repeated {times} times) logsink.repeated={times} logsink.rule=again");
    assert_eq!(last, [said(2), said(5)]);
    assert_eq!(counts.dropped_for(logsink::metrics::Reason::FilteredByRule), 42 + 2 + 5);
}

/// A record's message and attributes, those aside that every event has.
fn in_words(record: &LogRecord) -> String {
    let words = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let mut text = record.body.as_ref().and_then(|body| body.value.as_ref()).map(words).unwrap_or_default();
    let mut attributes: Vec<_> = record
        .attributes
        .iter()
        .filter(|pair| !["target", "code.", "thread."].iter().any(|common| pair.key.starts_with(common)))
        .map(|pair| {
            format!(
                " {}={}",
                pair.key,
                pair.value.as_ref().and_then(|any| any.value.as_ref()).map(words).unwrap_or_default()
            )
        })
        .collect();
    attributes.sort_unstable();
    text.extend(attributes);
    text
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
