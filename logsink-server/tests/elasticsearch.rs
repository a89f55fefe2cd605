//! The Elasticsearch index against a real server: what it answers is what `Expr::matches` says about the same events.
//!
//! `ELASTICSEARCH_URL` names the server (`dev/stack/stack start elasticsearch`). Each test has a data stream of its own.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use logsink::filter::expr::Expr;
use logsink_server::{
    index::{
        IndexReader, IndexWriter, Written,
        elasticsearch::{Elasticsearch, ElasticsearchOptions},
    },
    metrics::Metrics,
    otlp,
    query::{Hit, Query},
    queue::{BoxFuture, DeadLetters, Headers, Message, Position, QueueError},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message as _;

/// 2026-01-01T00:00:00Z
const NEW_YEAR_NS: u64 = 1_767_225_600_000_000_000;
/// An event is found at the latest so long after its write: refreshes come every second.
const REFRESH_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Buried(Mutex<Vec<(Option<u32>, String)>>);

impl DeadLetters for Buried {
    fn put(&self, _: &Message, record: Option<u32>, reason: &str, _: &[u8]) -> BoxFuture<'_, Result<(), QueueError>> {
        self.0.lock().unwrap().push((record, reason.to_owned()));
        Box::pin(async { Ok(()) })
    }
}

struct Server {
    index: Elasticsearch,
    buried: Arc<Buried>,
    metrics: Arc<Metrics>,
}

fn server() -> Server {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("ELASTICSEARCH_URL").expect("ELASTICSEARCH_URL names the server to test against");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let options = ElasticsearchOptions {
        urls: vec![url],
        data_stream: format!("logs-logsink-test-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        refresh_interval: "100ms".into(),
        replicas: Some(0),
        ..ElasticsearchOptions::default()
    };
    let (buried, metrics) = (Arc::<Buried>::default(), Metrics::new());
    let index = Elasticsearch::connect(options, buried.clone(), Arc::clone(&metrics)).unwrap();
    Server { index, buried, metrics }
}

impl Server {
    /// One page.
    async fn page(&self, text: &str, limit: usize, cursor: Option<String>) -> (Vec<Hit>, Option<String>) {
        let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let query = Query { from_ns: 0, to_ns: i64::MAX, expr, limit, cursor };
        let page = self.index.search(&query).await.unwrap_or_else(|error| panic!("{text}: {error}"));
        (page.hits, page.cursor)
    }

    /// All pages.
    async fn all(&self, text: &str, limit: usize) -> Vec<Hit> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let (hits, next) = self.page(text, limit, cursor).await;
            assert!(hits.len() <= limit);
            all.extend(hits);
            match next {
                Some(next) => cursor = Some(next),
                None => return all,
            }
        }
    }

    async fn until_found(&self, events: usize) {
        let start = Instant::now();
        loop {
            let found = self.all("", 1_000).await.len();
            if found >= events {
                assert_eq!(found, events);
                return;
            }
            assert!(start.elapsed() < REFRESH_PATIENCE, "{found} of {events} events are found");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn wire(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn text(text: &str) -> AnyValue {
    wire(Any::StringValue(text.into()))
}

fn int(value: i64) -> AnyValue {
    wire(Any::IntValue(value))
}

fn double(value: f64) -> AnyValue {
    wire(Any::DoubleValue(value))
}

fn list(values: Vec<AnyValue>) -> AnyValue {
    wire(Any::ArrayValue(ArrayValue { values }))
}

fn map(pairs: &[(&str, AnyValue)]) -> AnyValue {
    wire(Any::KvlistValue(KeyValueList { values: self::pairs(pairs) }))
}

fn pairs(pairs: &[(&str, AnyValue)]) -> Vec<KeyValue> {
    let pair = |(key, value): &(&str, AnyValue)| KeyValue {
        key: (*key).into(),
        value: Some(value.clone()),
        ..KeyValue::default()
    };
    pairs.iter().map(pair).collect()
}

fn record(severity: i32, body: AnyValue, attributes: &[(&str, AnyValue)]) -> LogRecord {
    LogRecord {
        severity_number: severity,
        body: Some(body),
        attributes: pairs(attributes),
        time_unix_nano: NEW_YEAR_NS,
        ..LogRecord::default()
    }
}

fn message(sequence: u64, resource: &[(&str, AnyValue)], scope: &str, records: Vec<LogRecord>) -> Message {
    let scope = InstrumentationScope { name: scope.into(), ..InstrumentationScope::default() };
    let scope_logs = ScopeLogs { scope: Some(scope), log_records: records, ..ScopeLogs::default() };
    let resource = Resource { attributes: pairs(resource), ..Resource::default() };
    let logs = ResourceLogs { resource: Some(resource), scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    Message {
        position: Position { partition: 0, offset: i64::try_from(sequence).unwrap() },
        epoch: 1,
        payload: ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into(),
        headers: Headers { instance: Some("test".into()), sequence: Some(sequence), ..Headers::default() },
        dropped: Vec::new(),
    }
}

/// Events in every shape that the expression language can tell apart.
fn odd_events() -> Vec<Message> {
    let long = "long ".repeat(8_000);
    let deep = (0..40).fold(int(1), |inner, _| map(&[("d", inner)]));
    let mut traced = record(9, text("traced"), &[]);
    traced.trace_id = (1..=16).collect();
    traced.span_id = (1..=8).collect();
    vec![
        message(
            1,
            &[("service.name", text("checkout")), ("host.name", text("web-1")), ("process.pid", int(42))],
            "scope::name",
            vec![
                record(
                    9,
                    text("connection refused by peer"),
                    &[("target", text("shop::pay")), ("latency_ms", int(251))],
                ),
                record(10, text("Connection REFUSED"), &[("latency_ms", double(250.0)), ("user", text("ann"))]),
                record(13, text("refused connection"), &[("latency_ms", int(250)), ("user", text("5"))]),
                record(
                    17,
                    text("a.b a_b a-b 3.14 don't é É 日本語"),
                    &[("latency_ms", text("fast")), ("user", int(5))],
                ),
                record(21, text(""), &[("latency_ms", int(-3)), ("user", double(5.0))]),
                record(
                    0,
                    text("path /api/v1"),
                    &[("path", text("/api/v1/items")), ("user", wire(Any::BoolValue(true)))],
                ),
                record(1, text("no path"), &[("path", text("/static")), ("user", text("true"))]),
                record(
                    5,
                    int(7),
                    &[("tags", list(vec![text("a"), int(5)])), ("m", map(&[("n", int(5)), ("s", text("x"))]))],
                ),
                record(
                    9,
                    map(&[("k", text("in a body"))]),
                    &[("m.n", int(6)), ("raw", wire(Any::BytesValue(vec![1, 2, 3])))],
                ),
                record(9, list(vec![text("one"), text("two")]), &[("l", list(vec![map(&[("z", int(2))])]))]),
                record(9, text("amb"), &[("m", map(&[("n", int(1))])), ("m.n", int(2))]),
                record(
                    9,
                    text("nulls"),
                    &[("host.name", AnyValue { value: None }), ("user", AnyValue { value: None })],
                ),
                record(9, text("shadow"), &[("host.name", text("other")), ("process.pid", text("none"))]),
                record(9, text("empties"), &[("tags", list(vec![])), ("m", map(&[])), ("user", text(""))]),
                record(9, text(&long), &[("path", text(&long)), ("target", text(&long))]),
                record(9, text("not finite"), &[("latency_ms", double(f64::INFINITY)), ("user", double(f64::NAN))]),
                record(9, text("minus"), &[("latency_ms", double(f64::NEG_INFINITY)), ("user", double(-0.0))]),
                record(9, text("big"), &[("latency_ms", int(i64::MAX)), ("user", int(9_007_199_254_740_993))]),
                record(9, text("small"), &[("latency_ms", double(1e-300)), ("user", double(0.1 + 0.2))]),
                record(9, text("nul \0 in it"), &[("a\0b", int(1)), ("path", text("x\0y"))]),
                record(9, text("twice"), &[("user", text("ann")), ("user", text("bob"))]),
                record(9, text("deep"), &[("deep", deep)]),
                record(
                    9,
                    text("odd keys"),
                    &[("", int(1)), ("a..b", int(2)), (".x", int(3)), ("a b", int(4)), ("x*", int(5))],
                ),
                traced,
            ],
        ),
        message(2, &[], "", vec![record(12, text("no service at all"), &[]), LogRecord::default()]),
        message(
            3,
            &[("service.name", text("Checkout")), ("m", map(&[("n", int(5))]))],
            "",
            vec![record(14, text("other service connection"), &[]), record(9, text("own m"), &[("m", text("mine"))])],
        ),
    ]
}

const EXPRESSIONS: &[&str] = &[
    "",
    "level>=warn",
    "level=info",
    "level!=info",
    "level<debug",
    "level<=trace",
    "not level>=trace",
    "service=checkout",
    "service!=checkout",
    "service~\"(?i)^check\"",
    "exists(service)",
    "target=shop::pay",
    "target=scope::name",
    "exists(target)",
    "not exists(target)",
    "\"connection refused\"",
    "not \"connection refused\"",
    "\"refused\"",
    "\"a.b\"",
    "\"a_b\"",
    "\"a b\"",
    "\"don't\"",
    "\"3.14\"",
    "\"É\"",
    "\"日本\"",
    "\"...\"",
    "\"in a body\"",
    "message=\"connection refused by peer\"",
    "message=\"Connection Refused\"",
    "message=\"\"",
    "message~\"^Conn\"",
    "not message~\"o\"",
    "exists(message)",
    "not exists(message)",
    "latency_ms>250",
    "latency_ms>=250",
    "latency_ms<250",
    "latency_ms<=250",
    "latency_ms=250",
    "latency_ms=250.0",
    "latency_ms!=250",
    "latency_ms=fast",
    "latency_ms<0",
    "latency_ms>-1e308",
    "latency_ms>1e308",
    "not latency_ms>250",
    "not latency_ms<=250",
    "user=5",
    "user=5.0",
    "user!=5",
    "user=true",
    "user=ann",
    "user=bob",
    "user=\"\"",
    "not user=\"\"",
    "user=0",
    "user=0.30000000000000004",
    "user=9007199254740993",
    "user=9007199254740992",
    "user~\"5\"",
    "not user~\"5\"",
    "user=NaN",
    "not user>0",
    "exists(user)",
    "not exists(user)",
    "path~\"^/api/\"",
    "path=/static",
    "not path=/static",
    "exists(path)",
    "tags=5",
    "not tags=5",
    "tags=a",
    "exists(tags)",
    "tags~\"a\"",
    "m.n=5",
    "not m.n=5",
    "m.n>=5",
    "m.n=2",
    "m.n=1",
    "not m.n=1",
    "m.s=x",
    "m=mine",
    "exists(m)",
    "not exists(m)",
    "exists(m.n)",
    "l.z=2",
    "not l.z=2",
    "exists(l.z)",
    "raw=\"AQID\"",
    "host.name=web-1",
    "host.name!=web-1",
    "exists(host.name)",
    "not exists(host.name)",
    "process.pid=42",
    "not process.pid=42",
    "process.pid>1",
    "process.pid=none",
    "service.name=checkout",
    "trace_id=0102030405060708090a0b0c0d0e0f10",
    "span_id=0102030405060708",
    "exists(trace_id)",
    "not exists(span_id)",
    "trace_id~\"^01\"",
    "level=info (user=ann or latency_ms>250)",
    "not (level=info or not service=checkout)",
    "not (user=5 or path~\"x\") level<error",
    "exists(nothing)",
    "not exists(nothing)",
];

#[tokio::test]
async fn answers_as_the_expression_says() {
    let server = server();
    let messages = odd_events();
    let written = server.index.write(&messages).await.unwrap();
    assert_eq!(*server.buried.0.lock().unwrap(), [], "nothing is refused");
    let events = usize::try_from(written.stored).unwrap();
    assert_eq!(events, 28);
    server.until_found(events).await;
    let mut wrong = Vec::new();
    for text in EXPRESSIONS {
        let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut expected = BTreeSet::new();
        for message in &messages {
            otlp::for_each_record(&message.payload, &mut |record| {
                if expr.matches(&record) {
                    let sequence = message.headers.sequence.unwrap();
                    expected.insert(format!("test:{sequence:016x}:{:06x}", record.index));
                }
            })
            .unwrap();
        }
        for limit in [1_000, 7] {
            let found = server.all(text, limit).await;
            let ids: BTreeSet<String> = found.iter().map(|hit| hit.id.clone()).collect();
            assert_eq!(ids.len(), found.len(), "`{text}` finds no event twice, {limit} a page");
            if ids != expected {
                let (missing, more): (Vec<_>, Vec<_>) =
                    (expected.difference(&ids).collect(), ids.difference(&expected).collect());
                wrong.push(format!("`{text}`, {limit} a page: misses {missing:?}, finds besides {more:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_hit_shows_what_was_sent() {
    let server = server();
    server.index.write(&odd_events()[..1]).await.unwrap();
    server.until_found(24).await;
    let hit = server.all("\"connection refused by peer\"", 10).await.remove(0);
    assert_eq!((hit.time.as_str(), hit.time_ns), ("2026-01-01T00:00:00.000000000Z", NEW_YEAR_NS as i64));
    assert_eq!((hit.severity, hit.level.as_str(), hit.service.as_str()), (9, "info", "checkout"));
    assert_eq!(hit.target, "shop::pay");
    assert_eq!(serde_json::json!(hit.attributes), serde_json::json!({"latency_ms": 251}));
    assert_eq!(serde_json::json!(hit.resource)["process.pid"], 42);
    let hit = server.all("\"small\"", 10).await.remove(0);
    assert_eq!(hit.attributes["user"].as_f64(), Some(0.1 + 0.2));
    let hit = server.all("exists(trace_id)", 10).await.remove(0);
    assert_eq!((hit.trace_id.as_str(), hit.span_id.as_str()), ("0102030405060708090a0b0c0d0e0f10", "0102030405060708"));
}

#[tokio::test]
async fn pages_keep_their_place_while_events_arrive_and_replays_double_nothing() {
    let server = server();
    // Five events in each nanosecond: the tie-break has work to do.
    let batch = |sequence: u64| {
        let records = (0..50).map(|n| LogRecord {
            time_unix_nano: NEW_YEAR_NS + sequence * 10 + n / 5,
            body: Some(text(&format!("event {n}"))),
            ..LogRecord::default()
        });
        message(sequence, &[("service.name", text("paged"))], "", records.collect())
    };
    assert_eq!(server.index.write(&[batch(1)]).await.unwrap(), Written { stored: 50, dead: 0, dropped: 0 });
    assert_eq!(server.index.write(&[batch(1)]).await.unwrap().stored, 50);
    assert_eq!(server.metrics.index_duplicates.get(), 50);
    server.until_found(50).await;
    let (first, cursor) = server.page("service=paged", 20, None).await;
    server.index.write(&[batch(2)]).await.unwrap();
    server.until_found(100).await;
    let (second, cursor) = server.page("service=paged", 20, cursor).await;
    let (third, cursor) = server.page("service=paged", 20, cursor).await;
    assert_eq!(cursor, None);
    let all: Vec<Hit> = [first, second, third].concat();
    assert_eq!(all.iter().map(|hit| &hit.id).collect::<BTreeSet<_>>().len(), 50);
    assert!(all.windows(2).all(|two| (two[0].time_ns, &two[0].id) > (two[1].time_ns, &two[1].id)));
    assert!(all.iter().all(|hit| hit.id.starts_with("test:0000000000000001:")), "what came later is not among them");
}

#[tokio::test]
async fn the_time_range_is_exact_to_the_nanosecond() {
    let server = server();
    let at = |ns: u64| LogRecord { time_unix_nano: ns, ..LogRecord::default() };
    let times = [0, 1, NEW_YEAR_NS - 1, NEW_YEAR_NS, NEW_YEAR_NS + 1, i64::MAX as u64, u64::MAX];
    server.index.write(&[message(1, &[], "", times.map(at).to_vec())]).await.unwrap();
    assert_eq!(*server.buried.0.lock().unwrap(), []);
    // The last two are the end of the range that a search cannot reach.
    server.until_found(5).await;
    let new_year = NEW_YEAR_NS as i64;
    let query =
        Query { from_ns: new_year, to_ns: new_year + 1, expr: Expr::parse("").unwrap(), limit: 10, cursor: None };
    let page = server.index.search(&query).await.unwrap();
    assert_eq!(page.hits.iter().map(|hit| hit.time_ns).collect::<Vec<_>>(), [new_year]);
}

#[tokio::test]
async fn before_the_first_event_it_is_ready_and_finds_nothing() {
    let server = server();
    server.index.ready().await.unwrap();
    assert!(server.all("service=x", 10).await.is_empty());
}
