//! The Elasticsearch index against a real server: what it answers is what `Expr::matches` says about the same events.
//!
//! `ELASTICSEARCH_URL` names the server (`dev/stack/stack start elasticsearch`), which may be an OpenSearch. Each test has a data
//! stream of its own. Modules that need a data stream say so in their name: `--skip data_stream` for a server without.

#[path = "elasticsearch/daily.rs"]
mod daily;
#[path = "elasticsearch/election.rs"]
mod election;
#[path = "elasticsearch/events.rs"]
mod events;
#[path = "elasticsearch/indices.rs"]
mod indices;
#[path = "elasticsearch/mapping.rs"]
mod mapping;
#[path = "elasticsearch/policies.rs"]
mod policies;
#[path = "elasticsearch/repeats.rs"]
mod repeats;
#[path = "elasticsearch/retention.rs"]
mod retention;
#[path = "elasticsearch/routing.rs"]
mod routing;

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
        elasticsearch::{Elasticsearch, ElasticsearchOptions, FieldNames},
    },
    metrics::Metrics,
    otlp,
    query::{Hit, Query},
    queue::{BoxFuture, DeadLetters, Message, QueueError},
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;

use self::events::{EXPRESSIONS, message, odd_events, text};

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

fn url() -> String {
    std::env::var("ELASTICSEARCH_URL").expect("ELASTICSEARCH_URL names the server to test against")
}

/// Options with a data stream of their own.
fn options() -> ElasticsearchOptions {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    ElasticsearchOptions {
        urls: vec![url()],
        data_stream: format!("logs-logsink-test-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        refresh_interval: "100ms".into(),
        replicas: Some(0),
        ..ElasticsearchOptions::default()
    }
}

fn server() -> Server {
    server_with(options())
}

/// A process of its own, as far as the cluster can tell.
fn server_with(options: ElasticsearchOptions) -> Server {
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

#[tokio::test]
async fn answers_as_the_expression_says() {
    answers_under(FieldNames::Otel).await;
}

#[tokio::test]
async fn answers_as_the_expression_says_under_ecs_names() {
    answers_under(FieldNames::Ecs).await;
}

async fn answers_under(field_names: FieldNames) {
    let server = server_with(ElasticsearchOptions { field_names, ..options() });
    let messages = odd_events();
    let written = server.index.write(&messages).await.unwrap();
    assert_eq!(*server.buried.0.lock().unwrap(), [], "nothing is refused");
    let events = usize::try_from(written.stored).unwrap();
    assert_eq!(events, 37);
    server.until_found(events).await;
    let mut wrong = Vec::new();
    for text in EXPRESSIONS {
        let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let mut expected = BTreeSet::new();
        for message in &messages {
            otlp::for_each_record(&message.payload, &mut |record| {
                if expr.matches(&record) {
                    let sequence = message.headers.sequence.unwrap();
                    expected.insert(id(sequence, record.index));
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

/// The id of a record in a numbered batch: 96 bits in signs of six, which sort.
fn id(sequence: u64, index: u32) -> String {
    let all = ['-', '_'].into_iter().chain('0'..='9').chain('A'..='Z').chain('a'..='z');
    let sorted: Vec<char> = all.collect::<BTreeSet<char>>().into_iter().collect();
    let number = u128::from(sequence) << 32 | u128::from(index);
    let signs: String = (0..16).rev().map(|at| sorted[(number >> (6 * at) & 63) as usize]).collect();
    format!("test:{signs}")
}

#[tokio::test]
async fn a_hit_shows_what_was_sent() {
    let server = server();
    let written = server.index.write(&odd_events()[..1]).await.unwrap();
    server.until_found(usize::try_from(written.stored).unwrap()).await;
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
    let ids: BTreeSet<String> = all.iter().map(|hit| hit.id.clone()).collect();
    assert_eq!(
        (all.len(), ids),
        (50, (0..50).map(|index| id(1, index)).collect()),
        "what came later is not among them"
    );
    assert!(all.windows(2).all(|two| (two[0].time_ns, &two[0].id) > (two[1].time_ns, &two[1].id)));
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
