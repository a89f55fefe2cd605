//! `traceparent` beside a request or a message: its records that name no trace themselves are found by it.

use std::time::Duration;

use logsink_tests::{Server, load, otlp::Door, server::Space, unique};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;

const FOUND: Duration = Duration::from_secs(60);
const OWN: [u8; 16] = [0x5b; 16];
/// What [`load::TRACEPARENT`] says.
const AROUND: &str = "0af7651916cd43dd8448eb211c80319c";

/// Two events, of which the second has a trace of its own.
fn request(service: &str) -> ExportLogsServiceRequest {
    let mut request = load::request(service, [0, 1]);
    request.resource_logs[0].scope_logs[0].log_records[1].trace_id = OWN.to_vec();
    request
}

/// The one event is found by the trace around it, the other by its own.
fn found(server: &Server, service: &str) {
    let own = "5b".repeat(16);
    for (trace, n) in [(AROUND, 0), (own.as_str(), 1)] {
        let hits = server.await_hits(&format!("service={service} trace_id={trace}"), 1, FOUND);
        assert_eq!((hits.len(), &hits[0]["attributes"]["n"]), (1, &n.into()), "{hits:?}");
        let span = if n == 0 { "b7ad6b7169203331" } else { "" };
        assert_eq!(hits[0]["span_id"].as_str().unwrap_or_default(), span, "{}", hits[0]);
    }
}

#[test]
fn the_trace_of_a_request_is_that_of_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let cluster_dir = tempfile::tempdir().unwrap();
    let mut standalone = Server::standalone(dir.path());
    let space = Space::new("trace");
    let cluster = Server::cluster(cluster_dir.path(), "all", &["ingest", "drain", "query"], &space);
    for door in [Door::Grpc, Door::Http] {
        for server in [&standalone, &cluster] {
            let service = unique("traced");
            let headers = [("traceparent", load::TRACEPARENT)];
            door.export_with(server, &request(&service), &headers).unwrap();
            found(server, &service);
        }
    }
    // Read again from the log on disk, where it stands beside the message.
    let service = unique("again");
    Door::Http.export_with(&standalone, &request(&service), &[("traceparent", load::TRACEPARENT)]).unwrap();
    standalone.kill();
    standalone.restart();
    found(&standalone, &service);
}
