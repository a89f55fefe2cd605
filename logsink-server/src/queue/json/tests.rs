//! Lines as the shippers write them, and what becomes of a topic with bad ones between them.

use std::sync::{
    Mutex,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message as _;
use serde_json::{Value as Tree, json};

use super::{line::to_otlp, *};
use crate::queue::Headers;

/// What a line became: the record, its attributes and its resource's.
struct Found {
    record: LogRecord,
    attributes: Tree,
    resource: Tree,
}

fn found(line: &str) -> Found {
    found_with(line, &[])
}

fn found_with(line: &str, headers: &[(String, Bytes)]) -> Found {
    let bytes = to_otlp(line.as_bytes(), &JsonFields::default(), headers).unwrap();
    let summary = crate::otlp::check(&bytes, &crate::otlp::Limits::default()).unwrap();
    assert_eq!(summary.records, 1, "what is made is what ingest would take");
    let mut request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
    let mut logs = request.resource_logs.remove(0);
    let record = logs.scope_logs.remove(0).log_records.remove(0);
    let attributes = tree(&record.attributes);
    Found { record, attributes, resource: tree(&logs.resource.unwrap().attributes) }
}

fn tree(pairs: &[KeyValue]) -> Tree {
    let value = |pair: &KeyValue| value(pair.value.clone().and_then(|value| value.value));
    pairs.iter().map(|pair| (pair.key.clone(), value(pair))).collect::<serde_json::Map<_, _>>().into()
}

fn value(found: Option<Value>) -> Tree {
    match found {
        None => Tree::Null,
        Some(Value::StringValue(text)) => json!(text),
        Some(Value::IntValue(number)) => json!(number),
        Some(Value::DoubleValue(number)) => json!(number),
        Some(Value::BoolValue(flag)) => json!(flag),
        Some(Value::ArrayValue(array)) => array.values.into_iter().map(|item| value(item.value)).collect(),
        Some(Value::KvlistValue(list)) => tree(&list.values),
        Some(other) => panic!("{other:?}"),
    }
}

fn body(record: &LogRecord) -> Tree {
    value(record.body.clone().and_then(|body| body.value))
}

/// 2026-11-26T14:13:02 in nanoseconds.
const AT: u64 = 1_795_702_382_000_000_000;

#[test]
fn filebeats_ecs_document() {
    let found = found(
        r#"{"@timestamp":"2026-11-26T14:13:02.123Z","@metadata":{"beat":"filebeat","type":"_doc","version":"9.2.0"},
            "message":"request finished","log":{"level":"warn","offset":1234,"file":{"path":"/var/log/app.log"}},
            "service":{"name":"checkout","version":"1.2"},"trace":{"id":"0af7651916cd43dd8448eb211c80319c"},
            "span":{"id":"b7ad6b7169203331"},"host":{"name":"web-1","architecture":"x86_64"},"ecs":{"version":"8.0.0"},
            "http":{"request":{"method":"GET"},"response":{"status_code":200}},"tags":["a","b"]}"#,
    );
    assert_eq!(found.record.time_unix_nano, AT + 123_000_000);
    assert_eq!((found.record.severity_number, found.record.severity_text.as_str()), (13, "warn"));
    assert_eq!(body(&found.record), json!("request finished"));
    assert_eq!(found.record.trace_id.len() + found.record.span_id.len(), 24);
    assert_eq!(found.resource, json!({"service.name": "checkout", "host.name": "web-1"}));
    assert_eq!(
        found.attributes,
        json!({
            "@metadata.beat": "filebeat", "@metadata.type": "_doc", "@metadata.version": "9.2.0",
            "log.offset": 1234, "log.file.path": "/var/log/app.log", "service.version": "1.2",
            "host.architecture": "x86_64", "ecs.version": "8.0.0",
            "http.request.method": "GET", "http.response.status_code": 200, "tags": ["a", "b"],
        })
    );
}

#[test]
fn ecs_with_dotted_keys_as_the_logging_libraries_write_it() {
    let found = found(
        r#"{"@timestamp":"2026-11-26T14:13:02.000000005Z","log.level":"ERROR","message":"no","ecs.version":"1.6.0",
            "service.name":"pay","trace.id":"0af7651916cd43dd8448eb211c80319c","span.id":"b7ad6b7169203331"}"#,
    );
    assert_eq!((found.record.time_unix_nano, found.record.severity_number), (AT + 5, 17));
    assert_eq!(found.resource, json!({"service.name": "pay"}));
    assert_eq!(found.attributes, json!({"ecs.version": "1.6.0"}));
}

#[test]
fn rsyslogs_jsonmesg() {
    let found = found(
        r#"{"msg":" session opened","rawmsg":"<86>Nov 26 14:13:02 web-1 sshd[77]: session opened","timereported":"2026-11-26T14:13:02.5+00:00",
            "hostname":"web-1","syslogtag":"sshd[77]:","inputname":"imuxsock","pri":"86","syslogfacility":"10","syslogseverity":"6",
            "timegenerated":"2026-11-26T14:13:02.6+00:00","programname":"sshd","app-name":"sshd","procid":"77","$!":null}"#,
    );
    assert_eq!(found.record.time_unix_nano, AT + 500_000_000);
    assert_eq!((found.record.severity_number, found.record.severity_text.as_str()), (9, "info"));
    assert_eq!(body(&found.record), json!(" session opened"));
    assert_eq!(found.resource, json!({"service.name": "sshd", "host.name": "web-1"}));
    assert_eq!(found.attributes["procid"], "77");
    assert_eq!(found.attributes["$!"], Tree::Null);
    assert_eq!(found.attributes["timegenerated"], "2026-11-26T14:13:02.6+00:00");
    // A second name for what was found is kept as it is.
    assert_eq!((&found.attributes["programname"], &found.attributes["pri"]), (&json!("sshd"), &json!("86")));
}

#[test]
fn vectors_syslog_source() {
    let found = found(
        r#"{"appname":"nginx","facility":"daemon","host":"web-1","hostname":"web-1","message":"upstream timed out","msgid":"ID1",
            "procid":4711,"severity":"err","source_ip":"10.0.0.1","source_type":"syslog","timestamp":"2026-11-26T14:13:02Z","version":1}"#,
    );
    assert_eq!((found.record.time_unix_nano, found.record.severity_number), (AT, 17));
    assert_eq!(found.resource, json!({"service.name": "nginx", "host.name": "web-1"}));
    assert_eq!(found.attributes["procid"], 4711);
    assert_eq!(found.attributes["host"], "web-1");
}

#[test]
fn fluent_bits_kubernetes_record() {
    let found = found(
        r#"{"@timestamp":1795702382.250001,"log":"GET / 200","stream":"stdout","time":"2026-11-26T14:13:02.25Z",
            "kubernetes":{"pod_name":"web-6f","namespace_name":"shop","container_name":"web","labels":{"app.kubernetes.io/name":"web"},"host":"node-3"}}"#,
    );
    assert_eq!(found.record.time_unix_nano, AT + 250_001_000);
    assert_eq!(body(&found.record), json!("GET / 200"));
    assert_eq!(found.resource, json!({"service.name": "web", "host.name": "node-3"}));
    assert_eq!(found.attributes["kubernetes.labels.app.kubernetes.io/name"], "web");
    assert_eq!(found.record.severity_number, 0);
}

#[test]
fn what_a_name_takes_and_cannot_be_read_stays_an_attribute() {
    let found = found(
        r#"{"time":"Nov 26 14:13:02","level":"loud","trace_id":"abc","message":{"a":1},"n":18446744073709551615,"x":1.5,"x":"again"}"#,
    );
    assert_eq!((found.record.time_unix_nano, found.record.severity_number, found.record.body), (0, 0, None));
    assert_eq!(
        found.attributes,
        json!({"time": "Nov 26 14:13:02", "level": "loud", "trace_id": "abc", "message.a": 1, "n": "18446744073709551615", "x": "again"})
    );
    assert_eq!(found.record.attributes.len(), 7, "a repeated key is there twice");
}

#[test]
fn a_trace_context_comes_from_the_line_before_the_header() {
    let header = |trace: &str| vec![("traceparent".to_owned(), Bytes::from(format!("00-{trace}-b7ad6b7169203331-01")))];
    let of_header = header("0af7651916cd43dd8448eb211c80319c");
    let found = found_with(r#"{"message":"m"}"#, &of_header);
    assert_eq!((found.record.trace_id[0], found.record.span_id[0]), (0x0a, 0xb7));
    assert_eq!(found.attributes["kafka.header.traceparent"], std::str::from_utf8(&of_header[0].1).unwrap());
    let line = r#"{"message":"m","traceparent":"00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"}"#;
    let found = found_with(line, &of_header);
    assert_eq!((found.record.trace_id[0], found.record.span_id[0]), (0x1a, 0xc7));
    let line = r#"{"message":"m","trace_id":"2af7651916cd43dd8448eb211c80319c"}"#;
    let found = found_with(line, &of_header);
    assert_eq!((found.record.trace_id[0], found.record.span_id.len()), (0x2a, 0));
    assert!(found_with(r#"{"message":"m"}"#, &header("00000000000000000000000000000000")).record.trace_id.is_empty());
}

#[test]
fn hostile_lines_are_bounded() {
    // A long key over many short ones: flattened, it would be a gigabyte.
    let many: Vec<_> = (0..20_000).map(|n| format!("\"{n}\":1")).collect();
    let line = format!("{{\"{}\":{{{}}}}}", "k".repeat(50_000), many.join(","));
    let bytes = to_otlp(line.as_bytes(), &JsonFields::default(), &[]).unwrap();
    assert!(bytes.len() < 8 * line.len(), "{} of {}", bytes.len(), line.len());
    // Deep ones: as far as OTLP goes, then as text; deeper than the parser goes, refused.
    let deep = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(found(&deep(100)).attributes["a"].is_array());
    assert!(to_otlp(deep(1_000).as_bytes(), &JsonFields::default(), &[]).unwrap_err().contains("recursion"));
}

#[test]
fn what_is_no_line_says_why() {
    for (line, why) in [
        (&b""[..], "the message is empty"),
        (b"  \n", "the message is empty"),
        (b"[1]", "the message is JSON and not an object"),
        (b"\"text\"", "the message is JSON and not an object"),
        (b"plain text", "expected value at line 1 column 1"),
        (b"{\"a\":1", "EOF while parsing an object at line 1 column 6"),
        (b"{\"a\":1}{\"b\":2}", "trailing characters at line 1 column 8"),
        (b"{\"a\":\"\xff\"}", "invalid unicode code point at line 1 column 7"),
    ] {
        let error = to_otlp(line, &JsonFields::default(), &[]).unwrap_err();
        assert_eq!(error, why, "{}", String::from_utf8_lossy(line));
    }
}

/// Hands out one batch, then waits for ever.
struct Once(Option<Vec<Message>>);

impl QueueReader for Once {
    fn next(&mut self, _: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        let messages = self.0.take();
        Box::pin(async move {
            match messages {
                Some(messages) => Ok(Fetched::Messages(messages)),
                None => std::future::pending().await,
            }
        })
    }

    fn commit(&mut self, _: &[Position]) -> Result<(), QueueError> {
        Ok(())
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        Box::pin(async { Ok(()) })
    }
}

/// Fails at first.
#[derive(Default)]
struct Letters {
    failures: AtomicU32,
    kept: Mutex<Vec<(i64, String, Vec<u8>)>>,
}

impl DeadLetters for Letters {
    fn put(
        &self,
        message: &Message,
        _: Option<u32>,
        reason: &str,
        bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let letter = (message.position.offset, reason.to_owned(), bytes.to_vec());
        Box::pin(async move {
            sleep(Duration::from_millis(5)).await;
            if self.failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                return Err(QueueError::Unavailable("away".into()));
            }
            self.kept.lock().unwrap().push(letter);
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_bad_line_is_a_dead_letter_once_and_the_others_go_on() {
    let message = |offset, payload: &'static str| Message {
        position: Position { partition: 2, offset },
        epoch: 1,
        payload: payload.into(),
        headers: Headers::default(),
        dropped: Vec::new(),
    };
    let batch = vec![
        message(7, r#"{"message":"a"}"#),
        message(8, "garbage"),
        message(9, r#"{"message":"b"}"#),
        message(10, "[]"),
    ];
    let letters = Arc::new(Letters { failures: AtomicU32::new(3), ..Letters::default() });
    let metrics = Metrics::new();
    let mut reader =
        JsonReader::new(Box::new(Once(Some(batch))), JsonFields::default(), letters.clone(), Arc::clone(&metrics));
    // As the drain does when something else is to be done: calls are dropped half way.
    let fetched = loop {
        match tokio::time::timeout(Duration::from_millis(3), reader.next(1 << 20)).await {
            Ok(fetched) => break fetched.unwrap(),
            Err(_elapsed) => {}
        }
    };
    let Fetched::Messages(messages) = fetched else { panic!("{fetched:?}") };
    let records =
        |message: &Message| crate::otlp::check(&message.payload, &crate::otlp::Limits::default()).unwrap().records;
    let seen: Vec<_> = messages.iter().map(|message| (message.position.offset, records(message))).collect();
    assert_eq!(seen, [(7, 1), (8, 0), (9, 1), (10, 0)]);
    let kept = letters.kept.lock().unwrap().clone();
    let said: Vec<_> = kept.iter().map(|(offset, reason, bytes)| (*offset, reason.as_str(), &bytes[..])).collect();
    assert_eq!(
        said,
        [
            (8, "not_json: expected value at line 1 column 1", &b"garbage"[..]),
            (10, "not_json: the message is JSON and not an object", b"[]"),
        ]
    );
}
