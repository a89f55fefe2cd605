//! Programs that are not ours send to our server.

use std::{collections::HashSet, process::Command, time::Duration};

use logsink_tests::{Server, http, now_ns, process, python, stack, unique};
use serde_json::json;

#[test]
fn the_opentelemetry_sdk_for_python_exports_over_grpc_and_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let sdk = python::with_sdk();
    for (protocol, endpoint, gzip) in [
        ("grpc", server.grpc_url(), "identity"),
        ("grpc", server.grpc_url(), "gzip"),
        ("http", server.http_url(""), "identity"),
        ("http", server.http_url(""), "gzip"),
    ] {
        let service = unique(&format!("python-{protocol}"));
        python::export(&sdk, &[protocol, &endpoint, &service, "50", gzip]);
        let hits = server.await_hits(&format!("service={service}"), 51, Duration::from_secs(20));
        assert_eq!(hits.len(), 51, "{protocol} {gzip}");
        let warnings = server.query(&format!(
            "service={service} level=warn \"was refused\" amount>12 currency=EUR deployment.environment=test"
        ));
        let numbers: HashSet<_> = warnings.iter().map(|hit| hit["attributes"]["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..50).collect(), "{protocol} {gzip}: each record, its number a number");
        let errors = server.query(&format!("service={service} level>=error exception.type=ValueError"));
        assert_eq!(errors.len(), 1, "{protocol} {gzip}");
        assert_eq!(errors[0]["target"], "shop.checkout", "the scope's name stands for the target: {}", errors[0]);
    }
}

#[test]
fn the_opentelemetry_sdk_for_go_exports_over_grpc_and_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let export = stack::program("gosdk/export");
    for (protocol, endpoint, compression) in [
        ("grpc", server.grpc_url(), "identity"),
        ("grpc", server.grpc_url(), "gzip"),
        ("http", server.http_url(""), "identity"),
        ("http", server.http_url(""), "gzip"),
    ] {
        let service = unique(&format!("go-{protocol}"));
        process::succeed(Command::new(&export).args([protocol, &endpoint, &service, "50", compression]));
        let expression = format!(
            "service={service} level=warn \"was refused\" amount>12 amount<13 currency=EUR retry=true big=9007199254740993 \
             deployment.environment.name=test shard=7 trace_id=5b8efff798038103d269b633813fc60c"
        );
        let hits = server.await_hits(&expression, 50, Duration::from_secs(20));
        let numbers: HashSet<_> = hits.iter().map(|hit| hit["attributes"]["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (0..50).collect(), "{protocol} {compression}: each record, its number a number");
        let hit = &hits[0];
        assert_eq!(hit["attributes"]["tags"], json!(["a", 2]), "{protocol} {compression}: {hit}");
        assert_eq!(hit["attributes"]["card"], json!({"brand": "visa", "tries": 3}), "{protocol} {compression}: {hit}");
        assert_eq!((&hit["target"], &hit["span_id"]), (&json!("shop.checkout"), &json!("eee19b7ec3c1b174")), "{hit}");
        assert_eq!(server.query(&format!("service={service}")).len(), 50, "each once");
    }
}

#[test]
fn otlp_json_by_hand_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::standalone(dir.path());
    let service = unique("json");
    let body = format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},
        "scopeLogs":[{{"logRecords":[{{"timeUnixNano":"{}","severityNumber":17,"severityText":"ERROR",
        "body":{{"stringValue":"by hand"}},"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",
        "attributes":[{{"key":"big","value":{{"intValue":"9007199254740993"}}}}]}}]}}]}}]}}"#,
        now_ns()
    );
    let answer = http::post(&server.http_url("/v1/logs"), "application/json", body.into()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let expression = format!("service={service} level=error \"by hand\" trace_id=5b8efff798038103d269b633813fc60c");
    let hits = server.await_hits(&expression, 1, Duration::from_secs(20));
    assert_eq!(hits[0]["span_id"], "eee19b7ec3c1b174");
    assert_eq!(hits[0]["attributes"]["big"], 9_007_199_254_740_993_u64, "exact above 2^53: {}", hits[0]);

    let refused =
        http::post(&server.http_url("/v1/logs"), "application/json", b"{\"resourceLogs\":7}".to_vec()).unwrap();
    assert_eq!(refused.status, 400, "{}", refused.body);
    let refused = http::post(&server.http_url("/v1/logs"), "text/plain", b"hello".to_vec()).unwrap();
    assert_eq!(refused.status, 415, "{}", refused.body);
}
