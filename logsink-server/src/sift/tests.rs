use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

use super::*;
use crate::{
    control::{Scope, Stored},
    queue::{Headers, Position},
};

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(value.to_owned())) }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn record(number: i32, body: &str, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: 7,
        severity_number: number,
        severity_text: "odd".to_owned(),
        body: Some(text(body)),
        attributes,
        trace_id: vec![1; 16],
        flags: 1,
        ..LogRecord::default()
    }
}

fn request() -> ExportLogsServiceRequest {
    let of = |service: &str, scopes: Vec<Vec<LogRecord>>| ResourceLogs {
        resource: Some(Resource { attributes: vec![pair("service.name", text(service))], ..Resource::default() }),
        scope_logs: scopes
            .into_iter()
            .map(|log_records| ScopeLogs {
                scope: Some(InstrumentationScope { name: "lib".to_owned(), ..InstrumentationScope::default() }),
                log_records,
                schema_url: "s".to_owned(),
            })
            .collect(),
        schema_url: String::new(),
    };
    let map = |pairs| AnyValue { value: Some(Value::KvlistValue(KeyValueList { values: pairs })) };
    let user = map(vec![pair("email", text("a@b")), pair("id", text("7"))]);
    ExportLogsServiceRequest {
        resource_logs: vec![
            of("cart", vec![vec![record(9, "zero", vec![]), record(17, "one", vec![pair("password", text("x"))])]]),
            of(
                "checkout",
                vec![
                    vec![record(9, "two", vec![pair("user", user), pair("password", text("y"))])],
                    vec![record(5, "three", vec![]), record(9, "four", vec![pair("password.old", text("z"))])],
                ],
            ),
        ],
    }
}

fn message(request: &ExportLogsServiceRequest) -> Message {
    Message {
        position: Position { partition: 0, offset: 0 },
        epoch: 0,
        payload: request.encode_to_vec().into(),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

fn sift(documents: &[(Option<&str>, &str)]) -> Sift {
    let stored = |text: &str| Stored { text: text.to_owned(), revision: "1".to_owned() };
    let documents = documents.iter().map(|(service, text)| (Scope::of(*service), stored(text))).collect();
    Sift::new(watch::channel(Some(Arc::new(Snapshot { documents }))).1, Metrics::new())
}

mod ahead;

#[test]
fn marks_what_is_dropped_and_leaves_the_bytes_alone() {
    let drop = "[[rule]]\nname = \"d\"\nwhen = 'level=info'\nthen = \"drop\"";
    for (documents, dropped) in [
        (vec![(None, drop)], vec![0, 2, 4]),
        (vec![(Some("checkout"), drop)], vec![2, 4]),
        (vec![(None, "filter = \"info\"")], vec![3]),
        (vec![(Some("cart"), "filter = \"off\""), (Some("other"), drop)], vec![0, 1]),
        (vec![(None, "")], vec![]),
        (vec![], vec![]),
    ] {
        let message = message(&request());
        let payload = message.payload.clone();
        let sifted = sift(&documents).sift(message);
        assert_eq!(sifted.dropped, dropped, "{documents:?}");
        assert_eq!(sifted.payload.as_ptr(), payload.as_ptr());
    }
}

#[test]
fn redacts_and_sets_levels_and_nothing_else() {
    let rules = r#"
        [[rule]]
        name = "secrets"
        then = { redact = ["password", "user.email"] }
        [[rule]]
        name = "bodies"
        when = '"two" or "three"'
        then = { redact = ["message"] }
        [[rule]]
        name = "louder"
        when = '"three"'
        then = { set_level = "warn" }
        [[rule]]
        name = "gone"
        when = '"four"'
        then = "drop"
    "#;
    let sifted = sift(&[(None, rules)]).sift(message(&request()));
    assert_eq!(sifted.dropped, [4]);
    let mut expected = request();
    let hidden = || Some(text("[redacted]"));
    expected.resource_logs[0].scope_logs[0].log_records[1].attributes[0].value = hidden();
    let [first, second] = &mut expected.resource_logs[1].scope_logs[..] else { panic!() };
    first.log_records[0].body = hidden();
    first.log_records[0].attributes[1].value = hidden();
    if let Some(Value::KvlistValue(user)) = &mut first.log_records[0].attributes[0].value.as_mut().unwrap().value {
        user.values[0].value = hidden();
    }
    second.log_records[0].body = hidden();
    second.log_records[0].severity_number = 13;
    second.log_records[0].severity_text = "WARN".to_owned();
    assert_eq!(ExportLogsServiceRequest::decode(sifted.payload).unwrap(), expected);
}

#[test]
fn rewriting_without_a_change_copies_byte_for_byte() {
    let mut payload = request().encode_to_vec();
    // A field that no version of OTLP has yet.
    payload.extend([0xFA, 0x3E, 2, 1, 2]);
    assert_eq!(rewrite::rewrite(&payload, &[], &[]).unwrap(), payload);
    for then in
        ["{ redact = [\"absent.field\"] }", "{ redact = { pattern = 'absent' } }", "{ cap = { bytes_max = 9 } }"]
    {
        let rules = logsink::filter::rules::Document::parse(&format!(
            "filter = \"trace\"\n[[rule]]\nname = \"r\"\nthen = {then}"
        ))
        .unwrap();
        let rules = RuleSet::compile(&[rules], "checkout").unwrap();
        let mut changed = 0;
        otlp::for_each_record(&request().encode_to_vec(), &mut |record| {
            let edits = rules.decide(&record, 0).edits;
            assert!(!edits.is_empty());
            let nothing = Change { index: record.index, level: None, repeated: 0, edits };
            assert_eq!(rewrite::rewrite(&payload, &[nothing], &[]).unwrap(), payload, "{then}");
            changed += 1;
        })
        .unwrap();
        assert_eq!(changed, 5);
    }
}

#[test]
fn redacts_by_pattern_and_cuts_also_within_maps_and_lists() {
    let rules = r#"
        [[rule]]
        name = "mail"
        then = { redact = { kinds = ["email"], with = "-" } }
        [[rule]]
        name = "keys"
        then = { redact = { fields = ["user.*key*"], with = "" } }
        [[rule]]
        name = "short"
        then = { cap = { fields = ["user.note", "blob"], bytes_max = 4 } }
    "#;
    let map = |pairs| AnyValue { value: Some(Value::KvlistValue(KeyValueList { values: pairs })) };
    let list = |values| AnyValue { value: Some(Value::ArrayValue(ArrayValue { values })) };
    let bytes = |bytes: &[u8]| AnyValue { value: Some(Value::BytesValue(bytes.to_vec())) };
    let int = AnyValue { value: Some(Value::IntValue(7)) };
    let user = |secret: &str, key: &AnyValue, note: &AnyValue| {
        map(vec![
            pair("id", int.clone()),
            pair(
                "contacts",
                list(vec![text(secret), map(vec![pair("mail", text(secret)), pair("api_key", text("k"))])]),
            ),
            pair("Key.id", key.clone()),
            pair("note", note.clone()),
        ])
    };
    let mut request = request();
    let record = &mut request.resource_logs[0].scope_logs[0].log_records[0];
    record.body = Some(text("sent to a@b.org"));
    record.attributes = vec![
        pair("user", user("a@b.org", &int, &list(vec![text("a@b.org, and c@d.org"), text("abc")]))),
        pair("target", text("a@b.org")),
        pair("blob", bytes(b"12345")),
    ];
    let mut expected = request.clone();
    let sifted = sift(&[(None, rules)]).sift(message(&request));
    let record = &mut expected.resource_logs[0].scope_logs[0].log_records[0];
    record.body = Some(text("sent to -"));
    record.attributes[0] =
        pair("user", user("-", &text(""), &list(vec![text("-, a…[truncated, 4 bytes]"), text("abc")])));
    // `user.contacts.api_key` is one of the keys: `*` stands for dots too.
    if let Some(Value::KvlistValue(user)) = &mut record.attributes[0].value.as_mut().unwrap().value
        && let Some(Value::ArrayValue(contacts)) = &mut user.values[1].value.as_mut().unwrap().value
        && let Some(Value::KvlistValue(contact)) = &mut contacts.values[1].value
    {
        contact.values[1].value = Some(text(""));
    }
    record.attributes[2].value = Some(bytes(b"1234"));
    assert_eq!(ExportLogsServiceRequest::decode(sifted.payload).unwrap(), expected);
}

#[test]
fn the_next_record_tells_how_many_repeats_were_dropped() {
    let rules =
        "[[rule]]\nname = \"dup\"\nwhen = 'service=cart'\nthen = { dedup = { window_ms = 20, by = \"service\" } }";
    let sift = sift(&[(None, rules)]);
    assert_eq!(sift.sift(message(&request())).dropped, [1]);
    // The next window tells: whenever it begins, all that was dropped until then.
    let mut dropped = 1;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let told = loop {
        assert!(std::time::Instant::now() < deadline, "no window has ended");
        let sifted = sift.sift(message(&request()));
        let decoded = ExportLogsServiceRequest::decode(sifted.payload).unwrap();
        let told = decoded.resource_logs[0].scope_logs[0].log_records[0].attributes.last().cloned();
        match told {
            Some(told) => break told,
            None => dropped += sifted.dropped.len() as i64,
        }
    };
    let count = |count| pair("logsink.repeated", AnyValue { value: Some(Value::IntValue(count)) });
    assert_eq!(told, count(dropped));
}

#[test]
fn what_its_sender_has_sifted_is_not_sifted_again() {
    let mut message = message(&request());
    message.headers.rules = Some("g1-s0".to_owned());
    assert!(sift(&[(None, "filter = \"off\"")]).sift(message).dropped.is_empty());
}

/// As a dead letter that is sent again: it has passed a limit once.
#[test]
fn what_the_drain_has_sifted_is_not_sifted_again() {
    let rules =
        "[[rule]]\nname = \"few\"\nwhen = 'service=cart'\nthen = { rate_limit = { per_second = 0.001, burst = 2 } }";
    let sift = sift(&[(None, rules)]);
    let sifted = sift.sift(message(&request()));
    assert_eq!((sifted.dropped, sifted.headers.rules.as_deref()), (vec![], Some("g1-s0")));
    let again = Message { payload: sifted.payload, headers: sifted.headers, ..message(&request()) };
    assert!(sift.sift(again).dropped.is_empty());
    assert_eq!(sift.sift(message(&request())).dropped, [0, 1], "another one is over the limit");
}

#[test]
fn what_no_rules_have_judged_says_so() {
    let garbage = Message { payload: bytes::Bytes::from_static(b"garbage"), ..message(&request()) };
    for (documents, message, revision) in [
        (vec![(Some("checkout"), "filter = \"off\"")], message(&request()), Some("g0-s1")),
        (vec![(Some("other"), "filter = \"off\"")], message(&request()), None),
        (vec![], message(&request()), None),
        (vec![(None, "filter = \"off\"")], message(&ExportLogsServiceRequest::default()), None),
        (vec![(None, "filter = \"off\"")], garbage, None),
    ] {
        assert_eq!(sift(&documents).sift(message).headers.rules.as_deref(), revision, "{documents:?}");
    }
}

#[test]
fn follows_changes_and_passes_on_what_is_not_otlp() {
    let (change, rules) = watch::channel(None);
    let sift = Sift::new(rules, Metrics::new());
    assert!(sift.sift(message(&request())).dropped.is_empty());
    for (filter, dropped) in [("error", 4), ("off", 5), ("trace", 0)] {
        let stored = Stored { text: format!("filter = \"{filter}\""), revision: filter.to_owned() };
        change.send_replace(Some(Arc::new(Snapshot { documents: [(Scope::Global, stored)].into() })));
        assert_eq!(sift.sift(message(&request())).dropped.len(), dropped);
    }
    let garbage = Message { payload: bytes::Bytes::from_static(b"garbage"), ..message(&request()) };
    assert_eq!(sift.sift(garbage).payload, "garbage");
}

#[test]
fn each_rule_s_matches_and_drops_are_shown_also_across_a_change_of_rules() {
    let documents = |text: &str| {
        let stored = Stored { text: text.to_owned(), revision: text.len().to_string() };
        Some(Arc::new(Snapshot { documents: [(Scope::Global, stored)].into() }))
    };
    let quiet = "[[rule]]\nname = \"quiet\"\nwhen = 'level=info service=checkout'\nthen = \"drop\"\n";
    let secret = "[[rule]]\nname = \"secret\"\nthen = { redact = [\"password\"] }\n";
    let (change, rules) = watch::channel(documents(&format!("filter = \"debug\"\n{secret}{quiet}")));
    let metrics = Metrics::new();
    let sift = Sift::new(rules, Arc::clone(&metrics));
    let shown = |wanted: [&str; 4]| {
        let text = metrics.encode();
        for line in wanted {
            assert!(text.lines().any(|found| found == line), "no line `{line}` in:\n{text}");
        }
    };
    sift.sift(message(&request()));
    let first = [
        "logsink_rule_matched_total{rule=\"secret\"} 5",
        "logsink_rule_dropped_total{rule=\"secret\"} 0",
        "logsink_rule_matched_total{rule=\"quiet\"} 2",
        "logsink_rule_dropped_total{rule=\"quiet\"} 2",
    ];
    shown(first);
    // Asking twice counts nothing twice.
    shown(first);
    change.send_replace(documents(&format!("filter = \"info\"\n{quiet}")));
    sift.sift(message(&request()));
    shown([
        "logsink_rule_matched_total{rule=\"secret\"} 5",
        "logsink_rule_matched_total{rule=\"quiet\"} 4",
        "logsink_rule_dropped_total{rule=\"quiet\"} 4",
        "logsink_filter_dropped_total 1",
    ]);
}

#[test]
fn a_name_as_long_as_a_request_is_judged_and_not_kept() {
    let drop = "[[rule]]\nname = \"d\"\nwhen = 'level=info'\nthen = \"drop\"";
    let (change, rules) = watch::channel(None);
    let stored = Stored { text: drop.to_owned(), revision: "1".to_owned() };
    change.send_replace(Some(Arc::new(Snapshot { documents: [(Scope::Global, stored)].into() })));
    let metrics = Metrics::new();
    let sift = Sift::new(rules, Arc::clone(&metrics));
    let mut renamed = request();
    for (resource, bytes) in renamed.resource_logs.iter_mut().zip([SERVICE_BYTES_MAX + 1, SERVICE_BYTES_MAX]) {
        resource.resource.as_mut().unwrap().attributes[0].value = Some(text(&"x".repeat(bytes)));
    }
    assert_eq!(sift.sift(message(&renamed)).dropped, [0, 2, 4]);
    assert_eq!(lock(&sift.compiled).sets.keys().map(String::len).collect::<Vec<_>>(), [SERVICE_BYTES_MAX]);
    let shown = metrics.encode();
    assert!(shown.contains("logsink_rule_dropped_total{rule=\"d\"} 3"), "{shown}");
}
