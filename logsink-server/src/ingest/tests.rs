//! Both doors on a queue that remembers and can be told to fail.

use std::{io::Write, sync::Mutex};

use axum::{
    body::{Body, HttpBody},
    http::Request,
};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use prost::Message;
use tonic::codegen::Service;

use super::*;
use crate::queue::BoxFuture;

mod rules;

#[derive(Default)]
struct Memory {
    batches: Mutex<Vec<Batch>>,
    error: Mutex<Option<QueueError>>,
}

impl QueueWriter for Memory {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        let error = self.error.lock().unwrap().take();
        Box::pin(async move {
            match error {
                Some(error) => Err(error),
                None => {
                    self.batches.lock().unwrap().push(batch);
                    Ok(())
                }
            }
        })
    }
}

struct Door {
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    ingest: Arc<Ingest>,
}

fn door(request_bytes_max: usize) -> Door {
    let (memory, metrics) = (Arc::new(Memory::default()), Metrics::new());
    let options = Options { request_bytes_max, ..Options::default() };
    let ingest = Ingest::new(Arc::clone(&memory) as Arc<dyn QueueWriter>, None, options, Arc::clone(&metrics));
    Door { memory, metrics, ingest }
}

fn payload(records: usize) -> Vec<u8> {
    let record = LogRecord { severity_text: "x".repeat(100), ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record; records], ..ScopeLogs::default() }];
    let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

impl Door {
    async fn post(&self, content_type: &str, encoding: &str, body: impl Into<Body>) -> (u16, HeaderMap, Bytes) {
        let request = Request::post("/v1/logs")
            .header("content-type", content_type)
            .header("content-encoding", encoding)
            .header("logsink-instance", "i-1")
            .header("logsink-sequence", "7")
            .body(body.into())
            .unwrap();
        let response = http::router(Arc::clone(&self.ingest)).call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), parts.headers, axum::body::to_bytes(body, usize::MAX).await.unwrap())
    }

    /// The status and the bytes of `grpc-status-details-bin`.
    async fn call(&self, encoding: Option<&str>, message: &[u8]) -> (i32, Option<tonic::Status>) {
        let mut frame = vec![u8::from(encoding.is_some())];
        frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
        frame.extend_from_slice(message);
        let mut request = Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
            .header("content-type", "application/grpc")
            .header("logsink-instance", "i-2");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let request = request.body(tonic::body::Body::new(http_body_util::Full::new(Bytes::from(frame)))).unwrap();
        let response = grpc::export(&self.ingest, request).await;
        let (parts, body) = response.into_parts();
        let collected = http_body_util::BodyExt::collect(body).await.unwrap();
        let headers = collected.trailers().cloned().unwrap_or(parts.headers);
        let status = tonic::Status::from_header_map(&headers);
        (status.as_ref().map_or(-1, |status| status.code() as i32), status)
    }

    /// The status of a call with this body.
    async fn call_with<B>(&self, body: B) -> i32
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<tonic::codegen::StdError>,
    {
        let request = Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
        let request = request.body(tonic::body::Body::new(body)).unwrap();
        let response = grpc::export(&self.ingest, request).await;
        let (parts, body) = response.into_parts();
        let collected = http_body_util::BodyExt::collect(body).await.unwrap();
        let headers = collected.trailers().cloned().unwrap_or(parts.headers);
        tonic::Status::from_header_map(&headers).map_or(-1, |status| status.code() as i32)
    }

    fn refused(&self, reason: Refusal) -> u64 {
        self.metrics.ingest_refused.get_or_create(&crate::metrics::Refused { reason }).get()
    }
}

#[tokio::test]
async fn bytes_reach_the_queue_as_they_came_with_their_headers() {
    let door = door(1 << 20);
    let sent = payload(3);
    assert_eq!(door.post("application/x-protobuf", "identity", sent.clone()).await.0, 200);
    assert_eq!(door.post("application/x-protobuf; x=y", "gzip", gzip(&sent)).await.0, 200);
    assert_eq!(door.post("application/x-protobuf", "zstd", zstd::encode_all(&*sent, 3).unwrap()).await.0, 200);
    assert_eq!(door.call(None, &sent).await.0, 0);
    assert_eq!(door.call(Some("gzip"), &gzip(&sent)).await.0, 0);
    assert_eq!(door.call(Some("zstd"), &zstd::encode_all(&*sent, 3).unwrap()).await.0, 0);
    let batches = door.memory.batches.lock().unwrap();
    assert_eq!(batches.len(), 6);
    for batch in &*batches {
        assert_eq!(batch.payload, Bytes::from(sent.clone()));
    }
    assert_eq!(batches[0].headers.sequence, Some(7));
    assert_eq!(batches[0].headers.instance.as_deref(), Some("i-1"));
    assert_eq!(batches[5].headers.instance.as_deref(), Some("i-2"));
    assert_eq!((door.metrics.ingest_requests.get(), door.metrics.ingest_records.get()), (6, 18));
}

#[test]
fn a_trace_context_goes_on_beside_the_message_when_it_is_one() {
    let of = |value: &str| headers(&HeaderMap::from_iter([("traceparent".parse().unwrap(), value.parse().unwrap())]));
    let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(of(good).others, [("traceparent".to_owned(), Bytes::from_static(good.as_bytes()))]);
    assert_eq!(of(good).trace(), Some((0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331)));
    assert_eq!(of("00-0af7651916cd43dd8448eb211c80319c-01").others, []);
    assert_eq!(headers(&HeaderMap::new()), Headers::default());
}

#[tokio::test]
async fn json_is_taken_and_answered_in_json() {
    let door = door(1 << 20);
    let text = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hi"}}]}]}]}"#;
    let (code, headers, body) = door.post("application/json", "gzip", gzip(text.as_bytes())).await;
    assert_eq!((code, &*body), (200, b"{}".as_slice()));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(door.metrics.ingest_records.get(), 1);
    let (code, _, body) = door.post("application/json", "identity", "{\"resourceLogs\":1}").await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, &body["code"]), (400, &3.into()));
    assert!(body["message"].as_str().unwrap().contains("line 1 column 17"), "{body}");
}

#[tokio::test]
async fn an_empty_request_is_fine_and_appends_nothing() {
    let door = door(1 << 20);
    assert_eq!(door.post("application/x-protobuf", "identity", Body::empty()).await.0, 200);
    assert_eq!(door.call(None, &payload(0)).await.0, 0);
    assert!(door.memory.batches.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_its_status() {
    let door = door(10_000);
    let big = payload(200);
    let zst = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
    let proto = "application/x-protobuf";
    assert_eq!(door.post(proto, "identity", "rubbish").await.0, 400);
    assert_eq!(door.post(proto, "identity", big.clone()).await.0, 413);
    assert_eq!(door.post(proto, "gzip", gzip(&big)).await.0, 413, "a bomb is stopped at the limit");
    assert_eq!(door.post(proto, "zstd", zst(&big)).await.0, 413);
    assert_eq!(door.post(proto, "br", big.clone()).await.0, 415);
    assert_eq!(door.post(proto, "gzip", "not gzip").await.0, 415);
    assert_eq!(door.post("text/plain", "identity", "x").await.0, 415);
    assert_eq!(door.call(None, b"rubbish").await.0, tonic::Code::InvalidArgument as i32);
    assert_eq!(door.call(None, &big).await.0, tonic::Code::ResourceExhausted as i32);
    assert_eq!(door.call(Some("zstd"), &zst(&big)).await.0, tonic::Code::ResourceExhausted as i32);
    assert!(door.memory.batches.lock().unwrap().is_empty());
    assert_eq!((door.refused(Refusal::Malformed), door.refused(Refusal::TooLarge)), (2, 5));
    assert_eq!((door.refused(Refusal::Encoding), door.refused(Refusal::MediaType)), (2, 1));
    assert_eq!(door.metrics.ingest_requests.get(), 10);
}

#[tokio::test]
async fn a_queue_that_is_away_asks_to_try_again() {
    let door = door(1 << 20);
    let fail = |error| *door.memory.error.lock().unwrap() = Some(error);
    fail(QueueError::Unavailable("away".into()));
    let (code, headers, body) = door.post("application/x-protobuf", "identity", payload(1)).await;
    assert_eq!((code, &headers["retry-after"]), (503, &"1".parse().unwrap()));
    let status = status::Status::decode(body).unwrap();
    assert_eq!((status.code, &*status.message), (14, "away"));

    fail(QueueError::Unavailable("away".into()));
    let (code, status) = door.call(None, &payload(1)).await;
    assert_eq!(code, 14);
    let details = status::Status::decode(status.unwrap().details()).unwrap();
    assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(details.details[0].value, [0x0a, 2, 8, 1], "one second");

    fail(QueueError::TooLarge { bytes: 9, bytes_max: 8 });
    assert_eq!(door.post("application/x-protobuf", "identity", payload(1)).await.0, 413);
    assert_eq!(door.call(None, &payload(1)).await.0, 0);
    assert_eq!((door.metrics.queue_failed.get(), door.metrics.queue_appended.get()), (3, 1));
}

#[tokio::test]
async fn more_than_the_server_takes_at_a_time_is_told_to_try_again() {
    let memory = Arc::new(Memory::default());
    let options = Options { pending_bytes_max: 200, ..Options::default() };
    let ingest = Ingest::new(memory, None, options, Metrics::new());
    let error = ingest.accept(payload(2).into(), Headers::default()).await.unwrap_err();
    assert_eq!(error, IngestError::Overload);
    ingest.accept(payload(1).into(), Headers::default()).await.unwrap();
    ingest.accept(payload(1).into(), Headers::default()).await.unwrap();
}

#[tokio::test]
async fn a_service_over_its_rate_is_told_when_to_come_again() {
    let mut door = door(1 << 20);
    let each = Allowance { records: Some(Rate { per_second: 10, burst: Duration::from_secs(1) }), bytes: None };
    let options = Options { allowances: Allowances { each, ..Default::default() }, ..Options::default() };
    door.ingest = Ingest::new(door.memory.clone(), None, options, door.metrics.clone());
    assert_eq!(door.call(None, &payload(35)).await.0, 0, "a batch larger than the burst");
    let (code, status) = door.call(None, &payload(1)).await;
    assert_eq!(code, tonic::Code::ResourceExhausted as i32);
    let status = status.unwrap();
    assert!(status.message().starts_with("this service is over its rate: come again in 2"), "{}", status.message());
    let details = status::Status::decode(status.details()).unwrap();
    assert_eq!(details.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    assert_eq!(details.details[0].value[2..4], [8, 2], "two seconds and a bit");
    let (code, headers, _) = door.post("application/x-protobuf", "identity", payload(1)).await;
    assert_eq!((code, &headers["retry-after"]), (429, &"3".parse().unwrap()));
    assert_eq!(door.refused(Refusal::Rate), 2);
    let shown = door.metrics.encode();
    assert!(shown.contains("logsink_ingest_service_refused_total{service=\"\"} 2"), "{shown}");
    assert!(shown.contains("logsink_ingest_service_records_total{service=\"\"} 35"), "{shown}");
}

/// A queue that does not answer.
struct Stuck;

impl QueueWriter for Stuck {
    fn append(&self, _: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(std::future::pending())
    }
}

/// A request of this service, of about so many bytes.
fn of_service(name: &str, bytes: usize) -> Vec<u8> {
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, any_value},
        resource::v1::Resource,
    };
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(name.to_owned())) });
    let attributes = vec![KeyValue { key: "service.name".to_owned(), value, ..KeyValue::default() }];
    let record = LogRecord { severity_text: "x".repeat(bytes), ..LogRecord::default() };
    let resource_logs = vec![ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

#[tokio::test]
async fn a_flood_before_a_slow_queue_leaves_room_for_others() {
    let metrics = Metrics::new();
    let options = Options { pending_bytes_max: 100_000, request_bytes_max: 50_000, ..Options::default() };
    let ingest = Ingest::new(Arc::new(Stuck), None, options, Arc::clone(&metrics));
    let send = |service: &str| {
        let (ingest, payload) = (Arc::clone(&ingest), of_service(service, 1_000));
        tokio::spawn(async move { ingest.accept(payload.into(), Headers::default()).await })
    };
    let flood: Vec<_> = (0..500).map(|_| send("flood")).collect();
    let small = send("small");
    // All that can end have ended.
    let deadline = Instant::now() + Duration::from_secs(30);
    while flood.iter().filter(|task| task.is_finished()).count() < 440 {
        assert!(Instant::now() < deadline, "the flood is refused");
        tokio::task::yield_now().await;
    }
    assert!(!small.is_finished(), "the small one is in, and waits for the queue");
    let mut held = 0;
    for task in flood {
        match task.is_finished() {
            true => assert!(matches!(task.await.unwrap(), Err(IngestError::Share { .. } | IngestError::Overload))),
            false => {
                held += 1;
                task.abort();
            }
        }
    }
    assert!((40..=50).contains(&held), "half of the room, and not more: {held}");
    let shown = metrics.encode();
    assert!(shown.contains("logsink_ingest_refused_total{reason=\"fair_share\"}"), "{shown}");
}

#[tokio::test]
async fn no_more_is_read_than_there_is_room_for() {
    let mut door = door(1 << 20);
    let options = Options { request_bytes_max: 1_000, pending_bytes_max: 1_000, ..Options::default() };
    door.ingest = Ingest::new(door.memory.clone(), None, options, door.metrics.clone());
    let message = payload(5);
    // Says how long it is, and sends nothing of it.
    let (begun, silent) = (vec![0, 0, 0, 3, 0x84], futures_util::stream::pending());
    let begun = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from(begun)) });
    let body = Body::from_stream(futures_util::StreamExt::chain(begun, silent));
    let request = Request::post("/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    let request = request.body(tonic::body::Body::new(body)).unwrap();
    let ingest = Arc::clone(&door.ingest);
    let held = tokio::spawn(async move { grpc::export(&ingest, request).await });
    while door.ingest.pending.available_permits() == 1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(door.call(None, &message).await.0, tonic::Code::Unavailable as i32);
    assert_eq!(door.refused(Refusal::Overload), 1);
    held.abort();
    assert!(held.await.unwrap_err().is_cancelled());
    assert_eq!(door.call(None, &message).await.0, 0, "its room is given back");
    assert_eq!(door.ingest.pending.available_permits(), 1_000);
}

#[tokio::test]
async fn a_grpc_message_may_come_in_any_pieces() {
    let door = door(1 << 20);
    let sent = payload(3);
    let mut framed = vec![0];
    framed.extend_from_slice(&(sent.len() as u32).to_be_bytes());
    framed.extend_from_slice(&sent);
    for size in [1, 2, 5, 7, 100, framed.len()] {
        let pieces: Vec<_> = framed.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = Body::from_stream(futures_util::stream::iter::<Vec<std::io::Result<_>>>(pieces));
        assert_eq!(door.call_with(body).await, 0, "{size}");
    }
    assert!(door.memory.batches.lock().unwrap().iter().all(|batch| batch.payload == sent));
    let whole = |bytes: &[u8]| http_body_util::Full::new(Bytes::copy_from_slice(bytes));
    let wrong = tonic::Code::InvalidArgument as i32;
    assert_eq!(door.call_with(whole(&framed[..3])).await, wrong, "half a prefix");
    assert_eq!(door.call_with(whole(&framed[..50])).await, wrong, "half a message");
    assert_eq!(door.call_with(whole(&[&framed[..], &framed[..]].concat())).await, wrong, "two messages");
    assert_eq!(door.call_with(whole(&[&[7], &framed[1..]].concat())).await, wrong, "an unknown flag");
    assert_eq!(door.call_with(whole(&[&[1], &framed[1..]].concat())).await, wrong, "compressed, and nobody knows how");
    assert_eq!(door.call(Some("br"), &sent).await.0, tonic::Code::Unimplemented as i32);
}

#[tokio::test]
async fn large_bodies_are_decompressed_elsewhere_and_bombs_nowhere() {
    let door = door(4 << 20);
    // 2.2 MB: too much where it arrived, though its compressed form is small; and one that is large compressed too.
    let (smooth, rough) = (payload(20_000), {
        let mut random = fastrand::Rng::with_seed(1);
        let texts = (0..8_000).map(|_| (0..40).map(|_| random.alphanumeric()).collect::<String>());
        let log_records = texts.map(|severity_text| LogRecord { severity_text, ..LogRecord::default() }).collect();
        let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
            .encode_to_vec()
    });
    for sent in [smooth, rough] {
        assert_eq!(door.call(Some("gzip"), &gzip(&sent)).await.0, 0);
        assert_eq!(door.call(Some("zstd"), &zstd::encode_all(&*sent, 1).unwrap()).await.0, 0);
        let known = zstd::bulk::compress(&sent, 1).unwrap();
        assert_eq!(door.post("application/x-protobuf", "zstd", known.clone()).await.0, 200, "its length is known");
        // Two frames are one body.
        let (one, two) = sent.split_at(sent.len() / 2);
        let frames = [zstd::bulk::compress(one, 1).unwrap(), zstd::bulk::compress(two, 1).unwrap()].concat();
        assert_eq!(door.post("application/x-protobuf", "zstd", frames).await.0, 200);
        let batches = std::mem::take(&mut *door.memory.batches.lock().unwrap());
        assert!(batches.len() == 4 && batches.iter().all(|batch| batch.payload == sent));
    }
    let bomb = vec![0; 64 << 20];
    let (code, ..) = door.post("application/x-protobuf", "gzip", gzip(&bomb)).await;
    assert_eq!(code, 413);
    assert_eq!(door.post("application/x-protobuf", "zstd", zstd::encode_all(&*bomb, 1).unwrap()).await.0, 413);
    assert_eq!(door.post("application/x-protobuf", "zstd", zstd::bulk::compress(&bomb, 1).unwrap()).await.0, 413);
    assert_eq!(door.ingest.pending.available_permits(), Options::default().pending_bytes_max);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_given_up() {
    let mut door = door(1 << 20);
    let options = Options { body_timeout: std::time::Duration::from_millis(20), ..Options::default() };
    door.ingest = Ingest::new(door.memory.clone(), None, options, door.metrics.clone());
    let begun = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"\n")) });
    let silent = Body::from_stream(futures_util::StreamExt::chain(begun, futures_util::stream::pending()));
    let (code, headers, _) = door.post("application/x-protobuf", "identity", silent).await;
    assert_eq!((code, &headers["retry-after"]), (503, &"1".parse().unwrap()));
    assert_eq!(door.refused(Refusal::TooSlow), 1);
}

#[tokio::test]
async fn a_body_that_comes_slowly_holds_room_for_what_has_come() {
    let mut door = door(1 << 20);
    let options = Options { request_bytes_max: 1 << 20, pending_bytes_max: 1 << 20, ..Options::default() };
    door.ingest = Ingest::new(door.memory.clone(), None, options, door.metrics.clone());
    let (slow, other) = (Bytes::from(payload(7_000)), Bytes::from(payload(6_000)));
    assert!(slow.len() + other.len() > 1 << 20 && slow.len() < 1 << 20);
    let (send, rest) = tokio::sync::mpsc::unbounded_channel::<std::io::Result<Bytes>>();
    let rest = tokio_stream::wrappers::UnboundedReceiverStream::new(rest);
    send.send(Ok(slow.slice(..100_000))).unwrap();
    let request = Request::post("/v1/logs")
        .header("content-type", "application/x-protobuf")
        .header("content-length", slow.len())
        .body(Body::from_stream(rest))
        .unwrap();
    let ingest = Arc::clone(&door.ingest);
    let coming = tokio::spawn(async move { http::router(ingest).call(request).await.unwrap().status() });
    let until_load = async |is_so: fn(u8) -> bool| {
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        while !is_so(door.ingest.load_percent()) {
            assert!(Instant::now() < deadline, "{} %", door.ingest.load_percent());
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    until_load(|load| load > 60).await;
    until_load(|load| load < 20).await;
    door.ingest.accept(other.clone(), Headers::default()).await.unwrap();
    // What is still to come takes room as any other.
    send.send(Ok(slow.slice(100_000..200_000))).unwrap();
    until_load(|load| load > 15).await;
    send.send(Ok(slow.slice(200_000..))).unwrap();
    assert_eq!(coming.await.unwrap(), 200);
    assert_eq!(
        door.memory.batches.lock().unwrap().iter().map(|batch| batch.payload.clone()).collect::<Vec<_>>(),
        [other, slow]
    );
}
