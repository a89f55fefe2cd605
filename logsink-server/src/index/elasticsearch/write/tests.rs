//! The sending loop against a server that answers as each story wants: faults that a real one cannot be made to show.

use std::{
    io::Read as _,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method as HttpMethod, StatusCode},
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message as _;
use tokio::net::TcpListener;

use super::{
    super::{ElasticsearchOptions, body::Shape, compress::Compression, route::Routes},
    *,
};
use crate::{
    index::{IndexReader, IndexWriter},
    metrics::{Metrics, Reason},
    queue::{BoxFuture, DeadLetters, Headers, Position, QueueError},
};

/// Answers to `_bulk` in turn; when they are used up, everything is stored.
type Script = Arc<Mutex<Server>>;

#[derive(Default)]
struct Server {
    answers: VecDeque<(u16, String)>,
    /// The ids of each `_bulk` request.
    requests: Vec<Vec<String>>,
    /// Their `content-encoding`.
    encodings: Vec<Option<String>>,
}

async fn serve(
    State(script): State<Script>,
    method: HttpMethod,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if method != HttpMethod::POST {
        return (StatusCode::OK, r#"{"version":{"number":"9.5.3"}}"#.into());
    }
    let encoding = headers.get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
    let body = match encoding.as_deref() {
        None => body.to_vec(),
        Some("gzip") => {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            plain
        }
        Some(other) => panic!("{other}"),
    };
    let ids: Vec<String> = body
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok())
        .filter_map(|line| Some(line["create"]["_id"].as_str()?.to_owned()))
        .collect();
    let mut script = script.lock().unwrap();
    let created = items(&vec![created(); ids.len()]);
    script.requests.push(ids);
    script.encodings.push(encoding);
    let (status, answer) = script.answers.pop_front().unwrap_or((200, created));
    (StatusCode::from_u16(status).unwrap(), answer)
}

fn created() -> &'static str {
    r#"{"create":{"status":201}}"#
}

fn items(items: &[&str]) -> String {
    let errors = items.iter().any(|item| *item != created());
    format!(r#"{{"errors":{errors},"items":[{}]}}"#, items.join(","))
}

#[derive(Default)]
struct Buried(Mutex<Vec<(Option<u32>, String)>>);

impl DeadLetters for Buried {
    fn put(
        &self,
        _message: &Message,
        record: Option<u32>,
        reason: &str,
        _bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        self.0.lock().unwrap().push((record, reason.to_owned()));
        Box::pin(async { Ok(()) })
    }
}

struct Story {
    script: Script,
    buried: Arc<Buried>,
    elasticsearch: Elasticsearch,
}

async fn story(answers: impl IntoIterator<Item = (u16, String)>) -> Story {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let story = story_at(listener.local_addr().unwrap(), answers);
    story.serve(listener);
    story
}

fn story_at(address: SocketAddr, answers: impl IntoIterator<Item = (u16, String)>) -> Story {
    story_with(address, answers, Compression::None)
}

fn story_with(
    address: SocketAddr,
    answers: impl IntoIterator<Item = (u16, String)>,
    compression: Compression,
) -> Story {
    let server = Server { answers: answers.into_iter().collect(), ..Server::default() };
    let script: Script = Arc::new(Mutex::new(server));
    let url = format!("http://{address}");
    let buried = Arc::<Buried>::default();
    let options = ElasticsearchOptions { urls: vec![url], compression, ..ElasticsearchOptions::default() };
    let elasticsearch = Elasticsearch::connect(options, buried.clone(), Metrics::new()).unwrap();
    Story { script, buried, elasticsearch }
}

fn message(records: usize) -> Message {
    let scope_logs = ScopeLogs { log_records: vec![LogRecord::default(); records], ..ScopeLogs::default() };
    let logs = ResourceLogs { scope_logs: vec![scope_logs], ..ResourceLogs::default() };
    Message {
        position: Position { partition: 0, offset: 1 },
        epoch: 1,
        payload: ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into(),
        headers: Headers { instance: Some("i".into()), sequence: Some(1), ..Headers::default() },
        dropped: Vec::new(),
    }
}

impl Story {
    fn serve(&self, listener: TcpListener) {
        let app = Router::new().fallback(serve).with_state(Arc::clone(&self.script));
        tokio::spawn(async move { axum::serve(listener, app).await });
    }

    async fn trouble(&self) -> String {
        loop {
            if let Some(trouble) = self.elasticsearch.trouble.message() {
                return trouble;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn write(&self, messages: &[Message]) -> Written {
        let write = self.elasticsearch.write(messages);
        tokio::time::timeout(Duration::from_secs(30), write).await.expect("the write ends").unwrap()
    }

    /// The records' indexes, of which the last signs of their ids are those: `-` is none, and then come the digits.
    fn requests(&self) -> Vec<String> {
        let server = self.script.lock().unwrap();
        let index = |id: &String| id.bytes().last().and_then(|last| "-012345678".find(char::from(last)));
        let indexes = |ids: &Vec<String>| ids.iter().map(|id| index(id).expect("few records").to_string()).collect();
        server.requests.iter().map(indexes).collect()
    }
}

#[tokio::test]
async fn sends_again_only_what_was_refused_for_now() {
    let busy = r#"{"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}}"#;
    let bad = r#"{"create":{"status":400,"error":{"type":"document_parsing_exception","reason":"no date"}}}"#;
    let there = r#"{"create":{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"there"}}}"#;
    let story = story([(200, items(&[created(), busy, bad, busy, there]))]).await;
    let written = story.write(&[message(5)]).await;
    assert_eq!(written, Written { stored: 4, dead: 1, dropped: 0 });
    assert_eq!(story.requests(), ["01234", "13"]);
    assert_eq!(*story.buried.0.lock().unwrap(), [(Some(2), "refused: document_parsing_exception: no date".to_owned())]);
    assert_eq!(story.elasticsearch.metrics.index_duplicates.get(), 1);
}

#[tokio::test]
async fn whole_bodies_and_what_is_left_of_them_are_compressed() {
    let busy = r#"{"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"full"}}}"#;
    let some = items(&[[created(); 100], [busy; 100], [created(); 100]].concat());
    let answers = [(503, "full".into()), (200, some)];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let story = story_with(listener.local_addr().unwrap(), answers, Compression::Gzip);
    story.serve(listener);
    assert_eq!(story.write(&[message(300)]).await.stored, 300);
    let server = story.script.lock().unwrap();
    let [first, again, rest] = &server.requests[..] else { panic!("{} requests", server.requests.len()) };
    assert!(first.len() == 300 && first == again && rest[..] == first[100..200]);
    assert_eq!(server.encodings, vec![Some("gzip".to_owned()); 3]);
}

#[tokio::test]
async fn an_answer_without_sense_is_asked_for_again() {
    let torn = items(&[created(), created()]);
    let story = story([
        (200, torn[..torn.len() - 3].to_owned()),
        (200, "<html>hello</html>".into()),
        (502, "bad gateway".into()),
    ])
    .await;
    assert_eq!(story.write(&[message(2)]).await.stored, 2);
    assert_eq!(story.requests(), ["01"; 4]);
}

#[tokio::test]
async fn too_large_a_request_is_halved_down_to_the_one() {
    let large = || (413, "too large".to_owned());
    // 0123 → 01, 23; 01 → 0, 1; 1 alone is too large.
    let story = story([large(), large(), (200, items(&[created()])), large()]).await;
    let written = story.write(&[message(4)]).await;
    assert_eq!(story.requests(), ["0123", "01", "0", "1", "23"]);
    assert_eq!(written, Written { stored: 3, dead: 1, dropped: 0 });
    assert_eq!(story.buried.0.lock().unwrap()[0], (Some(1), "too_large: 413: too large".into()));
}

#[tokio::test]
async fn a_missing_permission_stops_the_line_until_it_is_given() {
    let refused = r#"{"error":{"type":"security_exception","reason":"unauthorized"},"status":403}"#;
    let story = story([(403, refused.to_owned())]).await;
    let messages = [message(1)];
    let write = story.write(&messages);
    let watch = async {
        story.trouble().await;
        story.elasticsearch.ready().await.unwrap_err().to_string()
    };
    let (written, trouble) = tokio::join!(write, watch);
    assert_eq!(trouble, "cannot write to the index: 403: security_exception: unauthorized");
    assert_eq!((written.stored, story.requests().len()), (1, 2));
    assert_eq!(story.elasticsearch.trouble.message(), None);
    assert!(story.buried.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_index_that_was_rolled_over_and_closed_meanwhile_stops_nothing() {
    let closed = r#"{"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"index [.ds-x-000001] blocked by: [FORBIDDEN/8/index write (api)];"}}}"#;
    let story = story([(200, items(&[closed, created()]))]).await;
    let written = story.write(&[message(2)]).await;
    assert_eq!(written.stored, 2);
    let retries = |reason| story.elasticsearch.metrics.index_retries.get_or_create(&Reason { reason }).get();
    assert_eq!((retries("closed"), retries("stopped")), (1, 0));
}

#[tokio::test]
async fn a_cluster_that_is_away_is_waited_for() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let story = story_at(address, []);
    let messages = [message(1)];
    let write = story.write(&messages);
    let come_back = async {
        let trouble = story.trouble().await;
        assert!(trouble.starts_with("cannot set up the index: "), "{trouble}");
        assert!(story.elasticsearch.ready().await.is_err());
        story.serve(TcpListener::bind(address).await.unwrap());
    };
    let (written, ()) = tokio::join!(write, come_back);
    assert_eq!((written.stored, story.elasticsearch.trouble.message()), (1, None));
}

#[tokio::test]
async fn a_set_up_that_fails_at_first_leaves_no_trouble_before_anything_is_written() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let story = story_at(address, []);
    let come_back = async {
        story.trouble().await;
        story.serve(TcpListener::bind(address).await.unwrap());
    };
    tokio::join!(story.elasticsearch.set_up(), come_back);
    assert_eq!(story.elasticsearch.trouble.message(), None);
    story.elasticsearch.ready().await.unwrap();
}

#[tokio::test]
async fn what_is_not_otlp_goes_to_the_dead_letters_whole() {
    let story = story([]).await;
    let mut bad = message(1);
    bad.payload = bytes::Bytes::from_static(b"\xff\xff");
    let written = story.write(&[bad, message(1)]).await;
    assert_eq!(written, Written { stored: 1, dead: 1, dropped: 0 });
    let buried = story.buried.0.lock().unwrap();
    assert!(buried[0].0.is_none() && buried[0].1.starts_with("not_otlp: "), "{buried:?}");
}

#[test]
fn pauses_grow_and_keep_to_the_servers_wish() {
    let mut backoff = Backoff::default();
    let busy = Failed::retry("http_429", String::new());
    let pauses: Vec<Duration> = (0..20).map(|_| backoff.next(&busy)).collect();
    assert!(pauses[0] <= PAUSE_MIN && pauses[0] >= PAUSE_MIN / 2);
    assert!(pauses[19] <= PAUSE_MAX && pauses[19] >= PAUSE_MAX / 2);
    let after = Some(Duration::from_secs(30));
    let told = Failed::Retry { reason: "http_503", message: String::new(), after };
    assert_eq!(Backoff::default().next(&told), Duration::from_secs(30));
}

#[test]
fn bodies_in_parts_are_the_whole_and_each_has_its_bound() {
    let mut bad = message(40);
    bad.payload = [&bad.payload[..], b"\xff\xff"].concat().into();
    let messages = [message(3), bad, message(1), message(0), message(50)];
    let (shape, routes) = (Shape::default(), Routes::fixed("logs-logsink-default"));
    let whole = Body::write(&messages, 7, shape);
    let longest = whole.items.iter().map(|item| item.lines.len()).max().unwrap();
    for bytes_max in [1, 400, 1_000, 5_000, whole.bytes.len() / 2, whole.bytes.len(), usize::MAX] {
        let (mut part, mut buffers) = (Some(Part::first(bytes_max)), Default::default());
        let (mut bytes, mut items, mut bad, mut bodies) = (Vec::new(), Vec::new(), 0, 0);
        while let Some(wanted) = part {
            let body = Body::write_into(buffers, &messages, 7, shape, &routes, wanted);
            assert!(body.bytes.len() < bytes_max.saturating_add(longest), "{bytes_max}");
            bytes.extend_from_slice(&body.bytes);
            items.extend(body.items.iter().map(|item| (item.message, item.record)));
            bad += body.bad.len();
            bodies += 1;
            part = body.rest(bytes_max);
            buffers = body.into_buffers();
        }
        assert!(bytes == whole.bytes, "{bytes_max}");
        assert_eq!(items, whole.items.iter().map(|item| (item.message, item.record)).collect::<Vec<_>>());
        assert_eq!(bad, 1, "{bytes_max}");
        assert_eq!(bodies > 1, bytes_max < whole.bytes.len(), "{bytes_max}");
    }
}
