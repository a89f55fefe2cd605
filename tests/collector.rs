//! A real OpenTelemetry Collector between the library and the server, as many a company has one: built from its modules by
//! `dev/stack/stack install collector`, with OTLP and Kafka in and out.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use logsink_tests::{
    App, Server,
    process::{Process, free_port},
    server::Space,
    stack, unique, until,
};
use serde_json::Value;

/// Kafka's groups, a bulk request and a refresh are in it.
const FOUND: Duration = Duration::from_secs(60);
/// Events of an application.
const COUNT: u64 = 200;

/// A running Collector.
struct Collector {
    _process: Process,
}

impl Collector {
    /// With this configuration, which has it listen on these ports.
    fn start(dir: &Path, config: &str, ports: &[u16]) -> Self {
        let file = dir.join("collector.yaml");
        fs::write(&file, config).expect("the configuration is written");
        let mut command = Command::new(stack::program("collector/otelcol"));
        command.arg("--config").arg(file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command, &dir.join("collector.log"));
        until("the collector listens", FOUND, || {
            for port in ports {
                TcpStream::connect(("127.0.0.1", *port)).map_err(|error| format!("{error}\n{}", process.stderr()))?;
            }
            Ok(())
        });
        Self { _process: process }
    }
}

/// What every configuration ends with.
fn service(pipelines: &str) -> String {
    format!("service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n{pipelines}")
}

/// An application that has sent its events to this endpoint, all of them acknowledged.
fn sent(dir: &Path, name: &str, endpoint: &str, compression: &str) -> String {
    let service = unique(name);
    let mut app = App::build(dir, &service, endpoint)
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=blue,deployment.environment.name=test")
        .env("LOGSINK_SEND_COMPRESSION", compression)
        .start();
    app.emit("through", COUNT, 10_000);
    until("all is out", FOUND, || if app.emitted() == COUNT { Ok(()) } else { Err(app.emitted().to_string()) });
    app.flush(FOUND);
    let counts = app.metrics();
    assert_eq!((&counts["sent"], &counts["lost"]), (&COUNT.into(), &0.into()), "{name}: {counts}");
    // Rules are not pushed by a collector, and nobody need hear of it.
    let said = app.quit();
    assert_eq!(said, "", "{name}");
    service
}

/// Each event once, found by its attributes; returns them by their number, without what differs between processes.
fn arrived(server: &Server, service: &str) -> BTreeMap<u64, Value> {
    let hits = server.await_hits(&format!("service={service}"), COUNT as usize, FOUND);
    crate::numbers::exactly_once(&hits, COUNT);
    let found = server.query(&format!("service={service} n=7 team=blue deployment.environment.name=test run=through"));
    assert_eq!(found.len(), 1, "{service}: searched for by its attributes");
    hits.into_iter().map(|hit| (hit["attributes"]["n"].as_u64().unwrap(), without_names(hit))).collect()
}

#[test]
fn every_attribute_survives_a_collector_on_either_protocol() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let (grpc, http) = (free_port(), free_port());
    let config = format!(
        "receivers:\n  \
           otlp/grpc: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{grpc}\"}}}}}}\n  \
           otlp/http: {{protocols: {{http: {{endpoint: \"127.0.0.1:{http}\"}}}}}}\n\
         exporters:\n  \
           otlp_grpc: {{endpoint: \"{}\", tls: {{insecure: true}}}}\n  \
           otlp_http: {{endpoint: \"{}\"}}\n{}",
        server.grpc_url(),
        server.http_url(""),
        service(
            "    logs/grpc: {receivers: [otlp/grpc], exporters: [otlp_grpc]}\n    \
             logs/http: {receivers: [otlp/http], exporters: [otlp_http]}\n"
        )
    );
    let _collector = Collector::start(dir.path(), &config, &[grpc, http]);
    // What arrives without a collector in between is what must arrive with one.
    let mut seen = Vec::new();
    for (name, endpoint, compression) in [
        ("direct", server.grpc_url(), "none"),
        ("grpc", format!("http://127.0.0.1:{grpc}"), "gzip"),
        ("grpc-zstd", format!("http://127.0.0.1:{grpc}"), "zstd"),
        ("http", format!("otlphttp://127.0.0.1:{http}"), "gzip"),
        ("http-zstd", format!("http://127.0.0.1:{http}/v1/logs"), "zstd"),
    ] {
        seen.push(arrived(&server, &sent(dir.path(), name, &endpoint, compression)));
    }
    for others in &seen[1..] {
        assert_eq!(others, &seen[0]);
    }
}

#[test]
fn a_collector_writes_the_topic_that_we_drain() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("collector-writes");
    let server = Server::cluster(dir.path(), "all", &["ingest", "drain", "query"], &space);
    let grpc = free_port();
    let config = format!(
        "receivers:\n  otlp: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{grpc}\"}}}}}}\n\
         exporters:\n  kafka:\n    brokers: [{:?}]\n    logs: {{topic: {}, encoding: otlp_proto}}\n    \
         producer: {{required_acks: -1}}\n{}",
        stack::kafka(),
        space.topic,
        service("    logs: {receivers: [otlp], exporters: [kafka]}\n")
    );
    let _collector = Collector::start(dir.path(), &config, &[grpc]);
    let direct = arrived(&server, &sent(dir.path(), "direct", &server.grpc_url(), "none"));
    let through = arrived(&server, &sent(dir.path(), "written", &format!("http://127.0.0.1:{grpc}"), "gzip"));
    assert_eq!(through, direct);
}

#[test]
fn a_collector_reads_the_topic_that_we_write() {
    let dir = tempfile::tempdir().unwrap();
    let space = Space::new("collector-reads");
    let ingest = Server::cluster(dir.path(), "ingest", &["ingest"], &space);
    let beyond = dir.path().join("beyond");
    fs::create_dir(&beyond).unwrap();
    let server = Server::standalone(&beyond);
    let config = format!(
        "receivers:\n  kafka:\n    brokers: [{:?}]\n    group_id: {1}-collector\n    initial_offset: earliest\n    \
         logs: {{topics: [{1}], encoding: otlp_proto}}\n\
         exporters:\n  otlp_grpc: {{endpoint: \"{2}\", tls: {{insecure: true}}}}\n{3}",
        stack::kafka(),
        space.topic,
        server.grpc_url(),
        service("    logs: {receivers: [kafka], exporters: [otlp_grpc]}\n")
    );
    // The topic has to be there: a Collector that finds none looks again only after minutes.
    let through_ingest = sent(dir.path(), "ingest", &ingest.grpc_url(), "zstd");
    let _collector = Collector::start(dir.path(), &config, &[]);
    let of_library = sent(dir.path(), "library", &space.kafka_url(), "none");
    let direct = arrived(&server, &sent(dir.path(), "direct", &server.grpc_url(), "none"));
    assert_eq!(arrived(&server, &through_ingest), direct, "what ingest wrote");
    assert_eq!(arrived(&server, &of_library), direct, "what the library wrote itself");
}

/// The hit without what differs from one process to the next.
fn without_names(mut hit: Value) -> Value {
    const OWN: [&str; 7] = ["time", "time_ns", "id", "service", "service.instance.id", "process.pid", "thread.id"];
    assert!(hit["time_ns"].is_u64() && hit["attributes"]["thread.id"].is_u64(), "{hit}");
    for name in OWN {
        for place in ["", "/attributes", "/resource"] {
            if let Some(object) = hit.pointer_mut(place).and_then(Value::as_object_mut) {
                object.remove(name);
            }
        }
    }
    if let Some(resource) = hit.pointer_mut("/resource").and_then(Value::as_object_mut) {
        resource.remove("service.name");
    }
    hit
}
