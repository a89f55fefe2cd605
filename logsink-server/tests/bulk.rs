//! What becomes of events when `_bulk` goes wrong: a real Elasticsearch, where it can be made to show the fault, and a proxy
//! in front of it where it cannot. In each story every event is found once in the end, or is a dead letter with its reason.
//!
//! `ELASTICSEARCH_URL` names the server (`dev/stack/stack start elasticsearch`).

#[path = "bulk/login.rs"]
mod login;
#[path = "bulk/proxy.rs"]
mod proxy;
#[path = "bulk/tight.rs"]
mod tight;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use logsink_server::{
    index::{
        IndexReader, IndexWriter, Written,
        elasticsearch::{Compression, Elasticsearch, ElasticsearchOptions},
    },
    metrics::Metrics,
    queue::{BoxFuture, DeadLetters, Headers, Message, Position, QueueError},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message as _;
use serde_json::{Value, json};

use self::proxy::{Fault, Proxy};

/// Longer than any fault here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A dead letter: partition, offset, record, reason, bytes.
type Letter = (i32, i64, Option<u32>, String, Vec<u8>);

#[derive(Default)]
struct Buried(Mutex<Vec<Letter>>);

impl DeadLetters for Buried {
    fn put(
        &self,
        message: &Message,
        record: Option<u32>,
        reason: &str,
        bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let Position { partition, offset } = message.position;
        self.0.lock().unwrap().push((partition, offset, record, reason.to_owned(), bytes.to_vec()));
        Box::pin(async { Ok(()) })
    }
}

/// An index of its own behind `url`.
struct Story {
    index: Arc<Elasticsearch>,
    buried: Arc<Buried>,
    metrics: Arc<Metrics>,
    data_stream: String,
    /// The server itself.
    server: String,
}

fn real() -> String {
    std::env::var("ELASTICSEARCH_URL").expect("ELASTICSEARCH_URL names the server to test against")
}

fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{prefix}-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn options(url: &str) -> ElasticsearchOptions {
    ElasticsearchOptions {
        urls: vec![url.to_owned()],
        data_stream: unique("logs-bulk"),
        refresh_interval: "100ms".into(),
        replicas: Some(0),
        ..ElasticsearchOptions::default()
    }
}

fn story(url: &str) -> Story {
    story_with(options(url), &real())
}

fn story_with(options: ElasticsearchOptions, server: &str) -> Story {
    let (buried, metrics) = (Arc::<Buried>::default(), Metrics::new());
    let data_stream = options.data_stream.clone();
    let index = Arc::new(Elasticsearch::connect(options, buried.clone(), metrics.clone()).unwrap());
    Story { index, buried, metrics, data_stream, server: server.to_owned() }
}

/// A message of so many records, each with a body of so many bytes.
fn message(offset: i64, records: usize, bytes: usize) -> Message {
    let record = |n: usize| LogRecord {
        time_unix_nano: 1_767_225_600_000_000_000 + n as u64,
        body: Some(AnyValue { value: Some(Any::StringValue(format!("{n} {}", "x".repeat(bytes)))) }),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs { log_records: (0..records).map(record).collect(), ..ScopeLogs::default() }];
    let logs = ResourceLogs { scope_logs, ..ResourceLogs::default() };
    Message {
        position: Position { partition: 3, offset },
        epoch: 1,
        payload: ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into(),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

impl Story {
    async fn write(&self, messages: Vec<Message>) -> Written {
        tokio::time::timeout(PATIENCE, self.index.write(&messages)).await.expect("the write ends").unwrap()
    }

    /// A write that goes on beside the test.
    fn writing(&self, messages: Vec<Message>) -> tokio::task::JoinHandle<Written> {
        let index = Arc::clone(&self.index);
        tokio::spawn(async move {
            tokio::time::timeout(PATIENCE, index.write(&messages)).await.expect("the write ends").unwrap()
        })
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.request(method.parse().unwrap(), format!("{}{path}", self.server));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn stored(&self) -> u64 {
        self.call("POST", &format!("/{}/_refresh", self.data_stream), None).await;
        let (_, count) = self.call("GET", &format!("/{}/_count", self.data_stream), None).await;
        count["count"].as_u64().unwrap_or_default()
    }

    fn retries(&self, reason: &str) -> u64 {
        let text = self.metrics.encode();
        let begins = format!("logsink_index_retries_total{{reason=\"{reason}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&begins)?.parse().ok()).unwrap_or_default()
    }

    /// Waits until all is well: the cluster may take a moment for the shards of a data stream that has just been made.
    async fn until_ready(&self) {
        let start = Instant::now();
        while let Err(error) = self.index.ready().await {
            assert!(start.elapsed() < PATIENCE, "never ready: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until readiness says something like this.
    async fn until_unready(&self, words: &str) {
        let start = Instant::now();
        loop {
            let ready = self.index.ready().await;
            match &ready {
                Err(error) if error.to_string().contains(words) => return,
                _ => assert!(start.elapsed() < PATIENCE, "never `{words}`: {ready:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_on_the_way_each_event_is_stored_once() {
    let proxy = Proxy::start(&real());
    let story = story_with(ElasticsearchOptions { timeout: Duration::from_secs(3), ..options(&proxy.url()) }, &real());
    for (fault, reason) in [
        (Fault::LostRequest, "connection"),
        (Fault::LostAnswer, "connection"),
        (Fault::HalfAnswer, "connection"),
        (Fault::Nonsense("<html>Please log in</html>"), "garbage"),
        (Fault::Nonsense("{}"), "garbage"),
        (Fault::Nonsense(r#"{"errors":false,"items":[{"create":{"status":201}}]}"#), "garbage"),
        (Fault::Silence(Duration::from_secs(20)), "timeout"),
        (Fault::Answer(502, "<html>bad gateway</html>"), "http_502"),
        (Fault::Answer(503, ""), "http_503"),
        (Fault::Answer(429, "{}"), "http_429"),
    ] {
        let (before, stored) = (story.retries(reason), story.stored().await);
        proxy.next([fault.clone()]);
        let offset = i64::try_from(stored).unwrap();
        let written = story.write(vec![message(offset, 10, 20)]).await;
        assert_eq!((written.stored, written.dead), (10, 0), "{fault:?}");
        assert_eq!(story.stored().await, stored + 10, "{fault:?}");
        assert!(story.retries(reason) > before, "{fault:?} is counted as {reason}:\n{}", story.metrics.encode());
    }
    assert_eq!(*story.buried.0.lock().unwrap(), []);
    assert!(story.metrics.index_duplicates.get() >= 40, "what was carried out and not answered was there already");
    story.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_the_mapping_refuses_is_a_dead_letter_with_its_bytes() {
    let story = story(&real());
    story.write(vec![message(1, 1, 5)]).await;
    // Someone has added a field to the mapping that not every event fits.
    let (status, answer) = story
        .call(
            "PUT",
            &format!("/{}/_mapping", story.data_stream),
            Some(json!({"properties": {"flags": {"type": "byte"}}})),
        )
        .await;
    if status != 200 {
        // The field is there with another type: then this is the mapping to come into conflict with.
        assert!(answer.to_string().contains("flags"), "{answer}");
    }
    let mut odd = ExportLogsServiceRequest::decode(&message(2, 3, 5).payload[..]).unwrap();
    odd.resource_logs[0].scope_logs[0].log_records[1].flags = u32::MAX;
    let raw = odd.resource_logs[0].scope_logs[0].log_records[1].encode_to_vec();
    let odd = Message { payload: odd.encode_to_vec().into(), ..message(2, 0, 0) };
    let written = story.write(vec![odd]).await;
    assert_eq!((written.stored, written.dead), (2, 1));
    let buried = story.buried.0.lock().unwrap().clone();
    let [(partition, offset, record, reason, bytes)] = &buried[..] else { panic!("{buried:?}") };
    assert_eq!((*partition, *offset, *record), (3, 2, Some(1)));
    assert!(reason.starts_with("refused: ") && reason.contains("flags"), "{reason}");
    assert_eq!(*bytes, raw);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_has_to_mend_stops_the_line_and_goes_on_by_itself() {
    let story = story(&real());
    story.write(vec![message(1, 2, 5)]).await;
    let block = format!("/{}/_settings", story.data_stream);
    let set = |is_blocked: bool| json!({"index.blocks.write": is_blocked});
    assert_eq!(story.call("PUT", &block, Some(set(true))).await.0, 200);
    let writing = story.writing(vec![message(2, 3, 5)]);
    story.until_unready("cluster_block_exception").await;
    assert!(!writing.is_finished());
    assert_eq!((story.stored().await, story.metrics.index_dead.get_or_create(&dead("refused")).get()), (2, 0));
    assert_eq!(story.call("PUT", &block, Some(set(false))).await.0, 200);
    let written = writing.await.unwrap();
    assert_eq!((written.stored, story.stored().await), (3, 5));
    story.until_ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_is_refused_stops_the_line_until_it_is_taken() {
    for (status, text) in [
        (401, r#"{"error":{"type":"security_exception","reason":"unable to authenticate"},"status":401}"#),
        (403, r#"{"error":{"type":"security_exception","reason":"is unauthorized"},"status":403}"#),
        (404, r#"{"error":{"type":"index_not_found_exception","reason":"no such index"},"status":404}"#),
        (400, "<html>a proxy's own opinion</html>"),
    ] {
        let proxy = Proxy::start(&real());
        let story = story(&proxy.url());
        proxy.always(Some(Fault::Answer(status, text)));
        let writing = story.writing(vec![message(1, 4, 5)]);
        story.until_unready(&status.to_string()).await;
        assert!(!writing.is_finished());
        proxy.always(None);
        assert_eq!(writing.await.unwrap(), Written { stored: 4, dead: 0, dropped: 0 }, "{status}");
        story.until_ready().await;
        assert_eq!(*story.buried.0.lock().unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_is_left_out_while_another_works() {
    let (ill, well) = (Proxy::start(&real()), Proxy::start(&real()));
    let urls = vec![ill.url(), well.url()];
    let story = story_with(ElasticsearchOptions { urls, ..options("") }, &real());
    ill.always(Some(Fault::LostRequest));
    let start = Instant::now();
    for offset in 0..20 {
        assert_eq!(story.write(vec![message(offset, 5, 20)]).await.stored, 5);
    }
    assert_eq!(story.stored().await, 100);
    assert!(well.bulks() >= 20);
    // Tried now and then: the first pauses are 0.2, 0.4, 0.8 s.
    let tried = ill.bulks();
    assert!(tried >= 1 && tried <= 4 + start.elapsed().as_secs() as usize, "{tried} in {:?}", start.elapsed());
    // Mended, it gets its share again.
    ill.always(None);
    let start = Instant::now();
    let mut offset = 20;
    while ill.bulks() < tried + 5 {
        assert!(start.elapsed() < PATIENCE, "the node never comes back");
        story.write(vec![message(offset, 1, 5)]).await;
        offset += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_asked_once_more_when_its_connection_breaks() {
    let proxy = Proxy::start(&real());
    let story = story(&proxy.url());
    story.write(vec![message(1, 2, 5)]).await;
    story.until_ready().await;
    proxy.lose_questions(1);
    story.index.ready().await.unwrap();
    proxy.lose_questions(2);
    let error = story.index.ready().await.unwrap_err().to_string();
    assert!(error.contains("connection"), "{error}");
    story.index.ready().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_are_taken() {
    // Elasticsearch does not decode zstd: then the same body goes plain, and no event is taken for unstorable.
    for (compression, encoding) in [
        (Compression::Gzip, Some("gzip")),
        (Compression::None, None),
        (Compression::Auto, None),
        (Compression::Zstd, None),
    ] {
        let proxy = Proxy::start(&real());
        let story = story_with(ElasticsearchOptions { compression, ..options(&proxy.url()) }, &real());
        assert_eq!(story.write(vec![message(1, 500, 200)]).await.stored, 500);
        assert_eq!((story.stored().await, proxy.encoding().as_deref()), (500, encoding), "{compression:?}");
        assert!(proxy.bulks() >= if compression == Compression::Zstd { 2 } else { 1 });
        assert_eq!(*story.buried.0.lock().unwrap(), []);
    }
}

fn dead(reason: &'static str) -> logsink_server::metrics::Reason {
    logsink_server::metrics::Reason { reason }
}
