//! The flight recorder, on the whole way.

use opentelemetry_proto::tonic::logs::v1::LogRecord;

use super::*;

/// Nothing is sent before it is asked for: what arrives then was waited for.
fn patient(sink: &Arc<Memory>) -> Builder {
    builder(sink).recorder("debug").configure(|config| config.batch.age_ms_max = 60_000)
}

fn records(sink: &Memory) -> Vec<LogRecord> {
    let requests = sink.taken();
    let requests = requests.iter().map(|batch| ExportLogsServiceRequest::decode(batch.payload.clone()).unwrap());
    requests.flat_map(|request| request.resource_logs).flat_map(|r| r.scope_logs).flat_map(|s| s.log_records).collect()
}

fn text(record: &LogRecord, key: &str) -> Option<String> {
    let any = record.attributes.iter().find(|pair| pair.key == key)?.value.clone()?;
    match any.value? {
        Value::StringValue(text) => Some(text),
        Value::BoolValue(truth) => Some(truth.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

fn message(record: &LogRecord) -> String {
    match record.body.clone().and_then(|body| body.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("the body is {other:?}"),
    }
}

#[test]
fn a_flush_waits_for_what_was_asked_for_before_it() {
    let sink = Arc::new(Memory::new());
    let guard = with(patient(&sink), |guard| {
        for round in 0..50 {
            let _request = tracing::info_span!("request", round).entered();
            tracing::debug!("detail {round}");
            tracing::error!("failure {round}");
            guard.flush(PATIENCE).unwrap();
            let sent: Vec<_> = records(&sink).iter().rev().take(2).map(message).collect();
            assert_eq!(sent, [format!("detail {round}"), format!("failure {round}")]);
        }
    });
    for record in records(&sink) {
        let mark = (record.severity_number == 5).then(|| "true".to_owned());
        assert_eq!(text(&record, "logsink.recorded"), mark, "{}", message(&record));
    }
    let metrics = guard.metrics();
    assert_eq!((metrics.sent, metrics.drained, metrics.lost()), (100, 100, 0));
    assert_eq!((metrics.recorder.recorded, metrics.recorder.released), (50, 50));
}

#[test]
fn an_error_wakes_the_worker_before_the_ring_comes_round() {
    let sink = Arc::new(Memory::new());
    // It would look in a minute. A batch of one is cut when the next record comes.
    let _guard = with(patient(&sink).configure(|config| config.batch.records_max = 1), |_| {
        let _request = tracing::info_span!("request").entered();
        tracing::debug!("detail");
        tracing::error!("failure");
        wait_until("the detail has come", || !sink.taken().is_empty());
        assert_eq!(records(&sink).iter().map(message).collect::<Vec<_>>(), ["failure"]);
    });
}

#[test]
fn rules_see_what_is_released() {
    let sink = Arc::new(Memory::new());
    let dir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.toml");
    let text_of_rules = r#"
        [[rule]]
        name = "secrets"
        then = { redact = ["password"] }
        [[rule]]
        name = "not these"
        when = "n=2"
        then = "drop"
        [[rule]]
        name = "louder"
        when = "n=3"
        then = { set_level = "warn" }
    "#;
    std::fs::write(&rules, text_of_rules).unwrap();
    let guard = with(patient(&sink).rules(format!("file:{}", rules.display())), |guard| {
        wait_until("the rules are in force", || !guard.rules().revision.is_empty());
        let _request = tracing::info_span!("request").entered();
        for n in 1..=3 {
            tracing::debug!(n, password = "hunter2", logsink.recorded = "not by me", "detail {n}");
        }
        tracing::error!("failure");
        guard.flush(PATIENCE).unwrap();
    });
    let records = records(&sink);
    assert_eq!(records.iter().map(message).collect::<Vec<_>>(), ["failure", "detail 1", "detail 3"]);
    for record in &records[1..] {
        assert_eq!(text(record, "password").as_deref(), Some("[redacted]"));
        assert_eq!(text(record, "logsink.recorded").as_deref(), Some("true"));
        let marks = record.attributes.iter().filter(|pair| pair.key == "logsink.recorded").count();
        assert_eq!(marks, 1, "no key twice");
    }
    assert_eq!((records[1].severity_number, records[2].severity_number), (5, 13));
    let metrics = guard.metrics();
    assert_eq!(metrics.dropped_for(Reason::FilteredByRule), 1);
    assert_eq!((metrics.recorder.recorded, metrics.recorder.released), (3, 2));
}

#[test]
fn an_end_sends_what_was_asked_for() {
    let sink = Arc::new(Memory::new());
    let guard = with(patient(&sink), |_| {
        std::thread::scope(|scope| {
            let request = tracing::info_span!("request");
            request.in_scope(|| tracing::debug!("here"));
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            let there = request.clone();
            scope.spawn(move || {
                tracing::dispatcher::with_default(&dispatch, || there.in_scope(|| tracing::debug!("there")));
            });
            drop(request);
        });
        tracing::debug!("nobody asks");
        let _request = tracing::info_span!("request").entered();
        tracing::debug!("detail");
        tracing::error!("failure");
    });
    assert!(sink.taken().is_empty());
    let metrics = guard.shutdown(PATIENCE).unwrap();
    assert_eq!(records(&sink).iter().map(message).collect::<Vec<_>>(), ["failure", "detail"]);
    assert_eq!((metrics.recorder.recorded, metrics.recorder.released), (4, 1));
}

#[test]
fn what_the_recorder_cannot_use_is_refused_by_name() {
    for (change, message) in [
        (
            |config: &mut crate::Config| config.recorder.filter = Some("debg".to_owned()),
            "recorder.filter: unknown level",
        ),
        (|config| config.recorder.trigger = "loud".to_owned(), "recorder.trigger: unknown level `loud`: write trace,"),
        (
            |config| config.recorder.ring_bytes = 1000,
            "recorder.ring_bytes: 1000 is out of range: write a number from 131072",
        ),
        (
            |config| config.recorder.bytes_max = 1000,
            "recorder.bytes_max: 1000 is out of range: write a number from 262144",
        ),
    ] as [(fn(&mut crate::Config), &str); 4]
    {
        let mut config = crate::Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }
    let mut config = crate::Config::default();
    let variables = [
        ("LOGSINK_RECORDER", "debug"),
        ("LOGSINK_RECORDER_TRIGGER", "warn"),
        ("LOGSINK_RECORDER_RING_BYTES", "131072"),
    ];
    config
        .apply_env(&|name| variables.iter().find(|(have, _)| *have == name).map(|(_, value)| (*value).to_owned()))
        .unwrap();
    config.validate().unwrap();
    let recording = config.recorder.recording().unwrap().unwrap();
    assert_eq!((recording.filter.to_string(), recording.trigger), ("debug".to_owned(), crate::Severity::WARN));
    assert_eq!(crate::Config::default().recorder.recording().unwrap(), None, "off by default");
}
