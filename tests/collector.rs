//! A real OpenTelemetry Collector between the library and the server, as many a company has one: built from its modules by
//! `dev/stack/stack install collector`, with OTLP in and OTLP out.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use logsink_tests::{
    App, Server,
    process::{Process, free_port},
    unique, until,
};
use serde_json::Value;

const FOUND: Duration = Duration::from_secs(20);

/// A running Collector that passes on to a server, over the protocol that it got the events by.
struct Collector {
    _process: Process,
    grpc: u16,
    http: u16,
}

impl Collector {
    fn start(dir: &Path, server: &Server) -> Self {
        let home = std::env::var_os("STACK_HOME").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("$HOME is set")).join(".cache/logsink-stack"),
            PathBuf::from,
        );
        let program = home.join("collector/otelcol");
        assert!(program.exists(), "{} is missing: run `dev/stack/stack install collector`", program.display());
        let (grpc, http) = (free_port(), free_port());
        let config = dir.join("collector.yaml");
        let text = format!(
            "receivers:\n  \
               otlp/grpc: {{protocols: {{grpc: {{endpoint: \"127.0.0.1:{grpc}\"}}}}}}\n  \
               otlp/http: {{protocols: {{http: {{endpoint: \"127.0.0.1:{http}\"}}}}}}\n\
             exporters:\n  \
               otlp_grpc: {{endpoint: \"{}\", tls: {{insecure: true}}}}\n  \
               otlp_http: {{endpoint: \"{}\"}}\n\
             service:\n  \
               telemetry: {{metrics: {{level: none}}}}\n  \
               pipelines:\n    \
                 logs/grpc: {{receivers: [otlp/grpc], exporters: [otlp_grpc]}}\n    \
                 logs/http: {{receivers: [otlp/http], exporters: [otlp_http]}}\n",
            server.grpc_url(),
            server.http_url("")
        );
        fs::write(&config, text).expect("the configuration is written");
        let mut command = Command::new(program);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command, &dir.join("collector.log"));
        until("the collector listens", FOUND, || {
            for port in [grpc, http] {
                TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("{error}\n{}", process.stderr()))?;
            }
            Ok(())
        });
        Self { _process: process, grpc, http }
    }
}

#[test]
fn every_attribute_survives_a_collector_on_either_protocol() {
    const COUNT: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let collector = Collector::start(dir.path(), &server);
    // What arrives without a collector in between is what must arrive with one.
    let mut seen: Vec<BTreeMap<u64, Value>> = Vec::new();
    for (name, endpoint, compression) in [
        ("direct", server.grpc_url(), "none"),
        ("grpc", format!("http://127.0.0.1:{}", collector.grpc), "gzip"),
        ("grpc-zstd", format!("http://127.0.0.1:{}", collector.grpc), "zstd"),
        ("http", format!("otlphttp://127.0.0.1:{}", collector.http), "gzip"),
        ("http-zstd", format!("http://127.0.0.1:{}/v1/logs", collector.http), "zstd"),
    ] {
        let service = unique(name);
        let mut app = App::build(dir.path(), &service, &endpoint)
            .env("OTEL_RESOURCE_ATTRIBUTES", "team=blue,deployment.environment.name=test")
            .env("LOGSINK_SEND_COMPRESSION", compression)
            .start();
        app.emit("through", COUNT, 10_000);
        let hits = server.await_hits(&format!("service={service}"), COUNT as usize, FOUND);
        crate::numbers::exactly_once(&hits, COUNT);
        app.flush(FOUND);
        let counts = app.metrics();
        assert_eq!((&counts["sent"], &counts["lost"]), (&COUNT.into(), &0.into()), "{name}: {counts}");
        // Rules are not pushed by a collector, and nobody need hear of it.
        let said = app.quit();
        assert_eq!(said, "", "{name}");
        let found =
            server.query(&format!("service={service} n=7 team=blue deployment.environment.name=test run=through"));
        assert_eq!(found.len(), 1, "{name}: searched for by its attributes");
        seen.push(hits.into_iter().map(|hit| (hit["attributes"]["n"].as_u64().unwrap(), without_names(hit))).collect());
    }
    for others in &seen[1..] {
        for (n, hit) in others {
            assert_eq!(hit, &seen[0][n]);
        }
    }
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
