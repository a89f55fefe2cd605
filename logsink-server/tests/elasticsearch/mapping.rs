//! What senders may write under any key, and the field names that Kibana and Grafana ask for.

use logsink_server::{
    index::{
        IndexReader, IndexWriter,
        elasticsearch::{ElasticsearchOptions, FieldNames},
    },
    query::Query,
};
use opentelemetry_proto::tonic::{common::v1::AnyValue, logs::v1::LogRecord};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    Expr, NEW_YEAR_NS, Server,
    events::{double, int, list, map, message, pairs, record, text},
    indices::{get, request},
    options, server_with,
};

const NAMES: [FieldNames; 2] = [FieldNames::Otel, FieldNames::Ecs];

fn server(field_names: FieldNames) -> (Server, String) {
    let options = ElasticsearchOptions { field_names, ..options() };
    let stream = options.data_stream.clone();
    (server_with(options), stream)
}

impl Server {
    /// The messages of the events that a search finds, newest first.
    async fn found(&self, text: &str) -> Vec<String> {
        self.all(text, 1_000).await.into_iter().map(|hit| hit.message).collect()
    }
}

#[tokio::test]
async fn whatever_stands_under_a_key_is_stored_and_found() {
    for names in NAMES {
        let (server, _) = server(names);
        let with = |name: &str, attributes: &[(&str, AnyValue)]| record(9, text(name), attributes);
        let long_key = "k".repeat(40_000);
        let below = "b".repeat(5_000);
        let keys: Vec<(String, AnyValue)> = (0..5_000).map(|n| (format!("key_{n}"), text(&format!("v{n}")))).collect();
        let mut records = vec![
            with("a number", &[("n", int(1)), ("http.response.status_code", int(200))]),
            with("a text", &[("n", text("one")), ("http.response.status_code", text("OK"))]),
            with("a fraction", &[("n", double(1.5)), ("http.response.status_code", double(200.5))]),
            with("a map", &[("n", map(&[("m", int(1))])), ("http.response.status_code", map(&[("m", int(1))]))]),
            with("a list", &[("n", list(vec![int(1)])), ("http.response.status_code", list(vec![int(200)]))]),
            with("a number for a text", &[("url.path", int(7)), ("user.id", double(f64::NAN))]),
            with("dots", &[("a.b.c", int(1)), ("a", map(&[("b.c", int(2))])), ("..", int(3)), ("a.", int(4))]),
            with(
                "twice",
                &[("url.path", text("/first")), ("url.path", text("/last")), ("t", int(1)), ("t", text("x"))],
            ),
            with("no key", &[("", text("empty"))]),
            with("a long key", &[(&long_key, text("v")), ("beside", int(5))]),
            with("a long path", &[(&below, map(&[(&below, int(1))])), ("beside", int(6))]),
            with("a long path in a list", &[("l", list(vec![map(&[(&long_key, int(1))])])), ("beside", int(7))]),
        ];
        for (index, keys) in keys.chunks(100).enumerate() {
            let keys: Vec<(&str, AnyValue)> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            records.push(with(&format!("keys {index}"), &keys));
        }
        let crowd: Vec<(String, AnyValue)> = (0..10_000).map(|n| (format!("crowd_{n}"), int(n))).collect();
        let crowd: Vec<(&str, AnyValue)> = crowd.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        records.push(with("a crowd", &crowd));
        let resource = [("host.name", int(3)), ("process.pid", text("none")), (&long_key, text("v"))];
        let events = records.len();
        let messages = [
            message(1, &[], "", records),
            message(2, &resource, "", vec![with("an odd resource", &[("beside", int(8))])]),
        ];
        let written = server.index.write(&messages).await.unwrap();
        assert_eq!(*server.buried.0.lock().unwrap(), [], "nothing is refused");
        assert_eq!(written.stored as usize, events + 1);
        server.until_found(events + 1).await;
        for (expression, message) in [
            ("n=1 http.response.status_code=200", "a number"),
            ("http.response.status_code=OK", "a text"),
            ("http.response.status_code>200", "a fraction"),
            ("http.response.status_code.m=1", "a map"),
            ("http.response.status_code=\"[200]\"", "a list"),
            ("url.path=7", "a number for a text"),
            ("a.b.c=1", "dots"),
            ("url.path=/last", "twice"),
            ("beside=5", "a long key"),
            ("beside=6", "a long path"),
            ("beside=7", "a long path in a list"),
            ("host.name=3 process.pid=none", "an odd resource"),
            ("key_1234=v1234", "keys 12"),
            ("key_4999=v4999", "keys 49"),
            ("crowd_9999>=9999", "a crowd"),
        ] {
            assert_eq!(server.found(expression).await, [message], "{expression}");
        }
        assert!(server.found("url.path=/first").await.is_empty());
        let hit = server.all("\"a long key\"", 10).await.remove(0);
        assert_eq!(hit.attributes[&long_key], "v");
        let hit = server.all("\"no key\"", 10).await.remove(0);
        assert_eq!(hit.attributes[""], "empty");
    }
}

#[tokio::test]
async fn times_from_the_first_to_the_last_keep_their_order() {
    let (server, _) = server(FieldNames::Otel);
    // 2262-04-11
    let last = i64::MAX as u64 - 1_000;
    let at = |name: &str, ns: u64| LogRecord { time_unix_nano: ns, body: Some(text(name)), ..LogRecord::default() };
    let mut records = vec![at("first", 1), at("last", last), at("missing", 0), at("after the last", last + 1)];
    // Several in each nanosecond, and the nanoseconds not in order.
    records
        .extend([2, 0, 1].into_iter().flat_map(|ns| (0..4).map(move |n| at(&format!("{ns}.{n}"), NEW_YEAR_NS + ns))));
    let mut message = message(1, &[], "", records);
    message.headers.appended_ms = Some(1_000);
    server.index.write(&[message]).await.unwrap();
    assert_eq!(*server.buried.0.lock().unwrap(), []);
    server.until_found(16).await;
    let newest_first = [
        "after the last",
        "last",
        "2.3",
        "2.2",
        "2.1",
        "2.0",
        "1.3",
        "1.2",
        "1.1",
        "1.0",
        "0.3",
        "0.2",
        "0.1",
        "0.0",
        "missing",
        "first",
    ];
    assert_eq!(server.found("").await, newest_first);
    let range = Query { from_ns: 1, to_ns: 2, expr: Expr::parse("").unwrap(), limit: 10, cursor: None };
    let hit = server.index.search(&range).await.unwrap().hits.remove(0);
    assert_eq!((hit.time.as_str(), hit.message.as_str()), ("1970-01-01T00:00:00.000000001Z", "first"));
    let hit = server.all("\"missing\"", 10).await.remove(0);
    assert_eq!(hit.time, "1970-01-01T00:00:01.000000000Z");
}

/// The documents that a query of another program finds, by their messages.
async fn asked(stream: &str, query: Value) -> Vec<String> {
    let body = json!({"query": query, "size": 100, "sort": [{"@timestamp": "asc"}]});
    let (status, answer) = request(Method::POST, &format!("/{stream}/_search"), Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    let hits = answer["hits"]["hits"].as_array().unwrap().iter();
    hits.map(|hit| hit["_source"]["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn kibana_and_grafana_find_events_under_the_names_that_they_know() {
    for names in NAMES {
        let (server, stream) = server(names);
        let mut failed = record(
            17,
            text("failed"),
            &[
                ("target", text("shop::pay")),
                ("http.response.status_code", int(503)),
                ("http.request.method", text("POST")),
                ("url.path", text("/pay")),
                ("exception.type", text("Broken")),
                ("exception.message", text("pipe")),
                ("code.line.number", int(12)),
            ],
        );
        (failed.trace_id, failed.span_id) = ((1..=16).collect(), (1..=8).collect());
        let mut fine = record(9, text("fine"), &[("http.response.status_code", int(200))]);
        fine.time_unix_nano += 1;
        let resource = [
            ("service.name", text("checkout")),
            ("service.version", text("1.2")),
            ("host.name", text("web-1")),
            ("k8s.pod.name", text("pod-1")),
            ("deployment.environment.name", text("production")),
        ];
        server.index.write(&[message(1, &resource, "", vec![failed, fine])]).await.unwrap();
        server.until_found(2).await;
        let term = |field: &str, value: Value| json!({"term": {field: value}});
        for query in [
            term("log.level", json!("error")),
            term("level", json!("error")),
            term("log.logger", json!("shop::pay")),
            term("event.severity", json!(17)),
            term("trace.id", json!("0102030405060708090a0b0c0d0e0f10")),
            term("trace_id", json!("0102030405060708090a0b0c0d0e0f10")),
            term("span.id", json!("0102030405060708")),
            term("error.type", json!("Broken")),
            term("exception.type", json!("Broken")),
            term("error.message", json!("pipe")),
            term("log.origin.file.line", json!(12)),
            term("http.request.method", json!("POST")),
            json!({"range": {"http.response.status_code": {"gte": 500, "lt": 600}}}),
            json!({"exists": {"field": "trace.id"}}),
            json!({"exists": {"field": "error.type"}}),
            json!({"match_phrase": {"message": "failed"}}),
            json!({"query_string": {"query": "log.level:error AND service.name:checkout AND url.path:\"/pay\""}}),
        ] {
            assert_eq!(asked(&stream, query.clone()).await, ["failed"], "{names:?}: {query}");
        }
        for query in [
            term("service.name", json!("checkout")),
            term("service.environment", json!("production")),
            term("deployment.environment.name", json!("production")),
            term("host.name", json!("web-1")),
            term("kubernetes.pod.name", json!("pod-1")),
            term("k8s.pod.name", json!("pod-1")),
            json!({"exists": {"field": "service.name"}}),
            json!({"range": {"@timestamp": {"gte": "2026-01-01T00:00:00Z", "lte": "2026-01-01T00:00:01Z"}}}),
        ] {
            assert_eq!(asked(&stream, query.clone()).await, ["failed", "fine"], "{names:?}: {query}");
        }
        let histogram = json!({
            "size": 1,
            "sort": [{"@timestamp": "asc"}],
            "fields": ["log.level", "service.name", "http.response.status_code"],
            "aggs": {
                "time": {
                    "date_histogram": {"field": "@timestamp", "fixed_interval": "1m"},
                    "aggs": {"level": {"terms": {"field": "log.level"}}},
                },
                "service": {"terms": {"field": "service.name"}},
                "status": {"max": {"field": "http.response.status_code"}},
            },
        });
        let (status, answer) = request(Method::POST, &format!("/{stream}/_search"), Some(histogram)).await;
        assert_eq!(status, 200, "{answer}");
        let aggregations = &answer["aggregations"];
        let minute = &aggregations["time"]["buckets"][0];
        assert_eq!((&minute["doc_count"], &minute["key_as_string"]), (&json!(2), &json!("2026-01-01T00:00:00.000Z")));
        let levels: Vec<&Value> =
            minute["level"]["buckets"].as_array().unwrap().iter().map(|bucket| &bucket["key"]).collect();
        assert_eq!(levels, [&json!("error"), &json!("info")]);
        assert_eq!(aggregations["service"]["buckets"][0], json!({"key": "checkout", "doc_count": 2}));
        assert_eq!(aggregations["status"]["value"], 503.0);
        let fields = &answer["hits"]["hits"][0]["fields"];
        assert_eq!((&fields["log.level"], &fields["service.name"]), (&json!(["error"]), &json!(["checkout"])));
        assert_eq!(fields["http.response.status_code"], json!([503]));
    }
}

/// The template that the first version put.
fn first_template(stream: &str) -> Value {
    let keyword = json!({"type": "keyword", "ignore_above": 8_191});
    json!({
        "index_patterns": [stream],
        "data_stream": {},
        "priority": 500,
        "version": 1,
        "_meta": {"managed_by": "logsink"},
        "template": {
            "settings": {"number_of_replicas": 0, "refresh_interval": "100ms"},
            "mappings": {
                "dynamic": false,
                "date_detection": false,
                "properties": {
                    "@timestamp": {"type": "date_nanos"},
                    "tie": {"type": "keyword"},
                    "severity_number": {"type": "byte"},
                    "severity_text": keyword, "level": keyword, "service": keyword, "target": keyword,
                    "event_name": keyword, "trace_id": keyword, "span_id": keyword,
                    "message": {"type": "text", "analyzer": "standard"},
                    "opaque": {"type": "keyword"},
                },
            },
        },
    })
}

#[tokio::test]
async fn events_of_the_first_template_are_found_beside_new_ones() {
    for names in NAMES {
        let (server, stream) = server(names);
        let mut template = first_template(&stream);
        let about = get("/").await;
        let flat = match about["version"]["distribution"] == "opensearch" {
            true => json!({"type": "flat_object"}),
            false => json!({"type": "flattened", "ignore_above": 8_191}),
        };
        for field in ["attributes", "resource", "numbers"] {
            template["template"]["mappings"]["properties"][field] = flat.clone();
        }
        let path = format!("/_index_template/logsink-{stream}");
        let (status, answer) = request(Method::PUT, &path, Some(template)).await;
        assert_eq!(status, 200, "{answer}");
        let old = json!({
            "@timestamp": "2026-01-01T00:00:00.000000000Z", "tie": "old:0000000000000001:000000",
            "severity_number": 17, "level": "error", "service": "checkout", "target": "shop::pay", "message": "old",
            "trace_id": "0102030405060708090a0b0c0d0e0f10", "span_id": "0102030405060708",
            "attributes": {"http.response.status_code": 503, "url.path": "/pay", "user": "ann"},
            "resource": {"service.name": "checkout", "host.name": "web-1", "process.pid": 42},
            "numbers": {"http.response.status_code": "c07f7", "process.pid": "c045"},
        });
        let (status, answer) =
            request(Method::PUT, &format!("/{stream}/_create/old:0000000000000001:000000"), Some(old)).await;
        assert_eq!(status, 201, "{answer}");
        let attributes = [("http.response.status_code", int(503)), ("url.path", text("/pay")), ("user", text("ann"))];
        let mut new = record(17, text("new"), &attributes);
        (new.trace_id, new.span_id) = ((1..=16).collect(), (1..=8).collect());
        new.attributes.extend(pairs(&[("target", text("shop::pay"))]));
        new.time_unix_nano += 1;
        let resource = [("service.name", text("checkout")), ("host.name", text("web-1")), ("process.pid", int(42))];
        let written = server.index.write(&[message(2, &resource, "", vec![new])]).await.unwrap();
        assert_eq!((written.stored, server.buried.0.lock().unwrap().len()), (1, 0));
        server.until_found(2).await;
        for expression in [
            "service=checkout",
            "exists(service)",
            "target=shop::pay",
            "level=error",
            "trace_id=0102030405060708090a0b0c0d0e0f10",
            "http.response.status_code=503",
            "http.response.status_code>500",
            "not http.response.status_code<=500",
            "url.path=/pay",
            "not url.path=/other",
            "exists(url.path)",
            "host.name=web-1",
            "process.pid>=42",
            "not process.pid=1",
            "user=ann",
        ] {
            assert_eq!(server.found(expression).await, ["new", "old"], "{names:?}: {expression}");
        }
        for expression in ["not service=checkout", "not exists(service)", "url.path=/other", "process.pid<42"] {
            assert!(server.found(expression).await.is_empty(), "{names:?}: {expression}");
        }
        let hits = server.all("", 10).await;
        assert_eq!((&hits[0].attributes, &hits[0].resource), (&hits[1].attributes, &hits[1].resource));
    }
}
