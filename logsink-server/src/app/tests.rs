//! A whole standalone server in this process, over its real doors.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::http::uri::PathAndQuery;
use logsink::transport::header;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    common::v1::{AnyValue, any_value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, runtime::Runtime, sync::watch, task::JoinHandle};
use tonic::transport::Channel;

use super::{Addresses, App, rules_read};
use crate::{
    config::{
        Config,
        units::{Address, Bytes, Span},
    },
    error::Error,
};

/// Far more than anything here takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// A gRPC call with a request of logs.
async fn call(
    channel: Channel,
    path: &'static str,
    request: tonic::Request<ExportLogsServiceRequest>,
) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<_, ExportLogsServiceResponse>::default();
    client.unary(request, PathAndQuery::from_static(path), codec).await.map(drop)
}

struct Server {
    http: SocketAddr,
    grpc: SocketAddr,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), Error>>,
    client: reqwest::Client,
}

fn config(dir: &tempfile::TempDir) -> Config {
    let mut config = Config { data_dir: Some(dir.path().join("data")), ..Config::default() };
    let any = Address((std::net::Ipv4Addr::LOCALHOST, 0).into());
    (config.listen.grpc, config.listen.http) = (Some(any), Some(any));
    // The events below are of a fixed day.
    config.retention.age = Span::days(36_500);
    config
}

impl Server {
    async fn start(dir: &tempfile::TempDir) -> Self {
        Self::start_as(&config(dir)).await
    }

    async fn start_as(config: &Config) -> Self {
        let app = App::start(config).await.unwrap();
        let Addresses { http, grpc } = app.addresses();
        let (stop, stopped) = watch::channel(false);
        let grpc = grpc.unwrap();
        Self { http, grpc, stop, running: tokio::spawn(app.run(stopped)), client: reqwest::Client::new() }
    }

    async fn send(&self, message: &str) {
        let response = self.post(message, None).await;
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    }

    /// One event, with the instance and the sequence number of a batch.
    async fn post(&self, message: &str, batch: Option<(&str, u64)>) -> reqwest::Response {
        let body = json!({ "resourceLogs": [{
            "resource": { "attributes": [{ "key": "service.name", "value": { "stringValue": "shop" } }] },
            "scopeLogs": [{ "logRecords": [{
                "timeUnixNano": "1772368200000000000", "severityNumber": 13, "body": { "stringValue": message },
                "attributes": [{ "key": "latency_ms", "value": { "intValue": "250" } }],
            }] }],
        }] });
        let mut request = self.client.post(format!("http://{}/v1/logs", self.http)).json(&body);
        if let Some((instance, sequence)) = batch {
            request = request.header(header::INSTANCE, instance).header(header::SEQUENCE, sequence);
        }
        request.send().await.unwrap()
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    /// The same over gRPC.
    async fn export(&self, message: &str, (instance, sequence): (&str, u64)) {
        let channel = self.channel().await;
        let record = LogRecord {
            time_unix_nano: 1_772_368_200_000_000_000,
            body: Some(AnyValue { value: Some(any_value::Value::StringValue(message.to_owned())) }),
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        let mut request = tonic::Request::new(ExportLogsServiceRequest { resource_logs });
        request.metadata_mut().insert(header::INSTANCE, instance.parse().unwrap());
        request.metadata_mut().insert(header::SEQUENCE, sequence.to_string().parse().unwrap());
        call(channel, EXPORT, request).await.unwrap();
    }

    /// Waits until readiness is as wanted; answers what it says.
    async fn until_ready(&self, wanted: bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.get("/readyz").await;
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(status == 200, body["ready"] == true);
            if body["ready"] == wanted {
                return body;
            }
            assert!(Instant::now() < deadline, "{body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("http://{}{path}", self.http)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Searches until there are as many hits as wanted.
    async fn find(&self, expression: &str, wanted: usize) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/api/v1/search?from=2026-03-01&to=2026-03-02&q={expression}");
            let (status, body) = self.get(&path).await;
            assert_eq!(status, 200, "{body}");
            let hits = serde_json::from_str::<Value>(&body).unwrap()["hits"].as_array().unwrap().clone();
            if hits.len() == wanted {
                return hits;
            }
            assert!(Instant::now() < deadline, "{} of {wanted} hits", hits.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_found_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir).await;
    server.send("connection refused").await;
    server.send("all is well").await;
    let hits = server.find("level>=warn%20service=shop%20latency_ms>=250", 2).await;
    assert_eq!(hits[0]["time"], "2026-03-01T12:30:00.000000000Z");
    server.stop().await;

    let server = Server::start(&dir).await;
    let hits = server.find("%22connection%20refused%22", 1).await;
    assert_eq!(hits[0]["message"], "connection refused");
    server.send("once more").await;
    server.find("", 3).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doors_answer() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir).await;
    server.send("hello").await;
    server.find("", 1).await;
    let (status, ready) = server.get("/readyz").await;
    assert_eq!(
        (status, serde_json::from_str::<Value>(&ready).unwrap()["ready"].as_bool()),
        (200, Some(true)),
        "{ready}"
    );
    assert_eq!(server.get("/livez").await.0, 200);
    let (_, metrics) = server.get("/metrics").await;
    assert!(metrics.contains("logsink_ingest_records_total 1"), "{metrics}");
    assert!(metrics.contains("logsink_query_requests_total"), "{metrics}");
    let page = server.client.get(format!("http://{}/", server.http)).send().await.unwrap();
    assert!(page.headers()["content-security-policy"].to_str().unwrap().contains("script-src 'self'"));
    assert_eq!(server.get("/nothing/here").await.0, 404);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_what_there_is_not_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir).await;
    let channel = server.channel().await;
    for path in ["/opentelemetry.proto.collector.trace.v1.TraceService/Export", "/logsink.v1.RulesService/Other", "/"] {
        let request = tonic::Request::new(ExportLogsServiceRequest::default());
        let status = call(channel.clone(), path, request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{path}: {status}");
    }
    call(channel, EXPORT, tonic::Request::new(ExportLogsServiceRequest::default())).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir).await;
    let idle = TcpStream::connect(server.http).await.unwrap();
    tokio::time::timeout(PATIENCE, server.stop()).await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_port_in_use_is_said_with_its_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(&dir);
    config.listen.http = Some(Address(taken.local_addr().unwrap()));
    let message = App::start(&config).await.err().unwrap().to_string();
    let address = taken.local_addr().unwrap();
    assert!(message.starts_with(&format!("cannot listen on {address} (listen.http): another program")), "{message}");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), "a file").unwrap();
    let message = App::start(&config(&dir)).await.err().unwrap().to_string();
    assert!(message.starts_with("cannot create the data directory"), "{message}");
}

#[tokio::test]
async fn two_servers_do_not_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = App::start(&config(&dir)).await.unwrap();
    assert!(App::start(&config(&dir)).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_said_and_is_over_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    // Far below what `validate` allows: a log that is full within a second.
    config.queue.disk_bytes_max = Bytes::kib(256);
    let server = Server::start_as(&config).await;
    // The store cannot publish: a file stands where the day's directory should be.
    let day = dir.path().join("data/index/2026-03-01");
    std::fs::write(&day, "").unwrap();
    let text = |index: usize| format!("n{index} {}", "x".repeat(2_000));
    let mut acked = 0;
    let refused = loop {
        let response = server.post(&text(acked), None).await;
        if response.status() != 200 {
            break response;
        }
        acked += 1;
        assert!(acked < 1_000);
    };
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let sentence = refused.text().await.unwrap();
    assert!(sentence.contains("the log on disk is full (262144 bytes)"), "{sentence}");
    let ready = server.until_ready(false).await;
    assert_eq!(ready["checks"]["queue"]["error"], "the log on disk is full (262144 bytes)");
    let index = ready["checks"]["index"]["error"].as_str().unwrap();
    assert!(index.contains("takes no more events"), "{index}");

    std::fs::remove_file(&day).unwrap();
    server.until_ready(true).await;
    assert_eq!(server.post("room again", None).await.status(), 200);
    // Once each, and nothing that was refused.
    assert_eq!(server.find("&limit=1000", acked + 1).await.len(), acked + 1);
    server.stop().await;
    let server = Server::start_as(&config).await;
    server.find("&limit=1000", acked + 1).await;
    server.stop().await;
}

/// Three batches, each over both doors, as a client does whose answers were lost.
async fn send_twice(server: &Server) {
    for (sequence, message) in ["one", "two", "three"].into_iter().enumerate() {
        let batch = ("i-1", sequence as u64);
        assert_eq!(server.post(message, Some(batch)).await.status(), 200);
        server.export(message, batch).await;
    }
}

/// Waits until the index is done with so many records since the server's start; then exactly these three are found.
async fn three_are_found(server: &Server, records: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_, metrics) = server.get("/metrics").await;
        if metrics.lines().any(|line| line == format!("logsink_drain_records_total {records}")) {
            break;
        }
        assert!(Instant::now() < deadline, "{metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, found) = server.get("/api/v1/search?from=2026-03-01&to=2026-03-02").await;
    let found: Value = serde_json::from_str(&found).unwrap();
    let mut found: Vec<_> =
        found["hits"].as_array().unwrap().iter().map(|hit| hit["message"].as_str().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, ["one", "three", "two"]);
}

#[test]
fn a_batch_sent_again_is_found_once_also_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new().unwrap();
    let crashed = runtime.block_on(async {
        let server = Server::start(&dir).await;
        send_twice(&server).await;
        three_are_found(&server, 6).await;
        server
    });
    // Nothing is told to stop: all that is left is what is on the disk.
    runtime.shutdown_timeout(PATIENCE);
    drop(crashed);
    assert!(!dir.path().join("data/index/MANIFEST").exists());

    Runtime::new().unwrap().block_on(async {
        let server = Server::start(&dir).await;
        send_twice(&server).await;
        // Six are read again.
        three_are_found(&server, 12).await;
        server.stop().await;
        assert!(dir.path().join("data/index/MANIFEST").exists());
        let server = Server::start(&dir).await;
        send_twice(&server).await;
        three_are_found(&server, 6).await;
        server.stop().await;
    });
}

#[tokio::test]
async fn the_drain_waits_for_the_rules_and_no_longer_than_the_server_runs() {
    let (rules, are_read) = watch::channel(None);
    let (stop, stopping) = watch::channel(false);
    let waiting = [(); 2].map(|()| tokio::spawn(rules_read(are_read.clone(), stopping.clone())));
    // On the one thread here both have had their turn, and would have ended in it.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    rules.send_replace(Some(()));
    for waiting in waiting {
        let stopping = tokio::time::timeout(PATIENCE, waiting).await.expect("the rules are read").unwrap();
        assert!(!*stopping.borrow());
    }
    rules.send_replace(None);
    let waiting = tokio::spawn(rules_read(are_read, stopping));
    stop.send_replace(true);
    let stopping = tokio::time::timeout(PATIENCE, waiting).await.expect("the server stops").unwrap();
    assert!(*stopping.borrow(), "and the drain hears of it");
}
