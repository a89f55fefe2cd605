//! Names, and the action lines of bodies.

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    super::body::{Body, Shape},
    *,
};
use crate::queue::{Headers, Message, Position};

const NOW_NS: u64 = 1_795_703_042_000_000_000;
const DAY_NS: u64 = 86_400_000_000_000;

fn pair(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..KeyValue::default() }
}

/// A message with resources of these attributes, and a record of each of these times in each.
fn message(resources: &[&[(&str, &str)]], times: &[u64], numbered: bool) -> Message {
    let records: Vec<_> =
        times.iter().map(|&time_unix_nano| LogRecord { time_unix_nano, ..LogRecord::default() }).collect();
    let resource_logs = resources.iter().map(|attributes| ResourceLogs {
        resource: Some(Resource {
            attributes: attributes.iter().map(|(key, value)| pair(key, value)).collect(),
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs { log_records: records.clone(), ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    });
    Message {
        position: Position { partition: 0, offset: 1 },
        epoch: 1,
        payload: ExportLogsServiceRequest { resource_logs: resource_logs.collect() }.encode_to_vec().into(),
        headers: Headers {
            instance: Some("i".into()),
            sequence: numbered.then_some(1),
            appended_ms: Some((NOW_NS / 1_000_000) as i64),
            ..Headers::default()
        },
        dropped: Vec::new(),
    }
}

fn routes(pattern: &str, layout: Layout) -> Routes {
    Routes {
        pattern: Arc::new(Pattern::parse(pattern).unwrap()),
        layout,
        known: Arc::default(),
        taken: Arc::default(),
        is_full: false,
        streams_max: 10,
        now_ns: NOW_NS as i64,
        kept_days: None,
    }
}

/// What each action line says of the index.
fn indices(body: &Body<'_>) -> Vec<Option<String>> {
    let lines = body.bytes.split(|&byte| byte == b'\n').step_by(2).filter(|line| !line.is_empty());
    let action = |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).unwrap();
    lines.map(|line| action(line)["create"]["_index"].as_str().map(str::to_owned)).collect()
}

#[test]
fn one_data_stream_is_named_by_the_path() {
    let messages = [message(&[&[("service.name", "a")], &[("service.name", "b")]], &[1], true)];
    let body = Body::routed(&messages, 0, Shape::default(), &routes("logs-x", Layout::DataStream));
    assert_eq!(indices(&body), [None, None]);
    assert_eq!(body.streams.iter().map(|stream| stream.name.as_str()).collect::<Vec<_>>(), ["logs-x"]);
}

#[test]
fn each_resource_has_its_stream() {
    let resources: [&[(&str, &str)]; 4] = [
        &[("service.name", "a"), ("service.namespace", "shop")],
        &[("service.name", "b"), ("deployment.environment.name", "Prod")],
        &[("service.name", "a"), ("data_stream.namespace", "n"), ("service.namespace", "shop")],
        &[],
    ];
    // The same message twice: what was cached of one must hold for the next.
    let messages = [message(&resources, &[1, 2], true), message(&resources, &[1, 2], true)];
    let body = Body::routed(&messages, 0, Shape::default(), &routes("logs-{service}-{namespace}", Layout::DataStream));
    let once = ["logs-a-shop", "logs-b-prod", "logs-a-n", "logs-unknown-default"].map(|name| Some(name.to_owned()));
    let twice: Vec<_> = once.iter().flat_map(|name| [name.clone(), name.clone()]).collect();
    assert_eq!(indices(&body), [twice.clone(), twice].concat());
    assert_eq!(body.streams.len(), 4);
    assert!(body.streams.iter().all(|stream| stream.is_new && stream.overflowed == 0));
    let dataset = [message(&[&[("service.name", "a"), ("data_stream.dataset", "nginx-access")], &[]], &[1], true)];
    let body = Body::routed(&dataset, 0, Shape::default(), &routes("logs-{dataset}", Layout::DataStream));
    assert_eq!(indices(&body), [Some("logs-nginx_access".into()), Some("logs-generic".into())]);
}

#[test]
fn each_day_has_its_index() {
    let times = [NOW_NS, NOW_NS - DAY_NS, NOW_NS + 1, 1, u64::MAX];
    let messages = [message(&[&[("service.name", "a")]], &times, true)];
    let wanted = ["2026.11.26", "2026.11.25", "2026.11.26", "outside", "outside"];
    for (pattern, stream) in [("logs-x", "logs-x"), ("logs-{service}", "logs-a")] {
        let body = Body::routed(&messages, 0, Shape::default(), &routes(pattern, Layout::Daily));
        assert_eq!(indices(&body), wanted.map(|day| Some(format!("{stream}-{day}"))));
    }
}

#[test]
fn a_full_list_sends_what_is_new_to_one_stream() {
    let mut routes = routes("logs-{service}", Layout::DataStream);
    routes.known = Arc::new(BTreeSet::from(["logs-a".to_owned()]));
    routes.is_full = true;
    let messages =
        [message(&[&[("service.name", "b")], &[("service.name", "a")], &[("service.name", "c")]], &[1, 2], true)];
    let body = Body::routed(&messages, 0, Shape::default(), &routes);
    let wanted = ["logs-overflow", "logs-overflow", "logs-a", "logs-a", "logs-overflow", "logs-overflow"];
    assert_eq!(indices(&body), wanted.map(|name| Some(name.to_owned())));
    let streams: Vec<_> =
        body.streams.iter().map(|stream| (stream.name.as_str(), stream.is_new, stream.overflowed)).collect();
    assert_eq!(streams, [("logs-overflow", false, 4), ("logs-a", false, 0)]);
}

#[test]
fn hostile_senders_name_no_more_streams_than_may_be_made() {
    let names: Vec<String> = (0..500).map(|n| format!("s{n}")).collect();
    let attributes: Vec<[(&str, &str); 1]> = names.iter().map(|name| [("service.name", name.as_str())]).collect();
    let resources: Vec<&[(&str, &str)]> = attributes.iter().map(|pairs| &pairs[..]).collect();
    let messages = [message(&resources, &[1], true)];
    let body = Body::routed(&messages, 0, Shape::default(), &routes("logs-{service}", Layout::DataStream));
    assert!(body.streams.len() <= 12, "{}", body.streams.len());
}

#[test]
fn a_message_was_not_stored_before_it_happened_or_came() {
    let times = [NOW_NS - 7, NOW_NS - 5 * DAY_NS, NOW_NS + DAY_NS];
    let messages =
        [message(&[&[]], &times, true), message(&[&[]], &times, false), message(&[&[]], &[NOW_NS + DAY_NS, 0], true)];
    let body = Body::routed(&messages, 0, Shape::default(), &Routes::fixed("logs-x"));
    assert_eq!(body.since_ns, [NOW_NS - 5 * DAY_NS, NOW_NS, NOW_NS]);
}

fn filled(pattern: &str, value: &'static str) -> String {
    Pattern::parse(pattern).unwrap().fill(|_| value)
}

#[test]
fn a_pattern_is_text_and_placeholders() {
    let pattern = Pattern::parse("logs-{service}-{namespace}").unwrap();
    assert_eq!((pattern.fixed(), pattern.wildcard().as_str()), (None, "logs-*-*"));
    assert_eq!(pattern.overflow(), "logs-overflow-overflow");
    assert_eq!(Pattern::parse("logs-logsink-default").unwrap().fixed(), Some("logs-logsink-default"));
    for text in ["", "Logs", "-x", "{service}", "logs-{svc}", "logs-{service", "a b", "a,b", "a*", "lögs", "a/b"] {
        let error = Pattern::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("data_stream: "), "{text}: {error}");
    }
    assert!(Pattern::parse(&"a".repeat(200)).is_ok() && Pattern::parse(&"a".repeat(201)).is_err());
}

#[test]
fn hostile_values_become_names() {
    for (value, name) in [
        ("checkout", "logs-checkout"),
        ("Check-Out API", "logs-check_out_api"),
        ("../../_all", "logs-.._..__all"),
        ("*", "logs-_"),
        ("a,b\"\\\n<x>|#:?", "logs-a_b____x_____"),
        ("zahlung-süd", "logs-zahlung_s_d"),
    ] {
        assert_eq!(filled("logs-{service}", value), name);
    }
    let long: &'static str = Box::leak("x".repeat(10_000).into_boxed_str());
    assert_eq!(filled("logs-{service}", long).len(), 5 + VALUE_BYTES_MAX);
    assert!(filled("logs-{service}-{dataset}-{namespace}", long).len() <= NAME_BYTES_MAX);
}
