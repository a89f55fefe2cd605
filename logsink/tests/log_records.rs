//! Records of the `log` crate with `init()`: their key-values arrive, each with its own record only.

#![cfg(all(feature = "grpc", feature = "log"))]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use otlp_server::{OtlpServer, PATIENCE, attribute, text};

#[test]
fn key_values_arrive_with_their_own_record_only() {
    let server = OtlpServer::start();
    let guard = logsink::builder().alone().rules("none").endpoint(server.url()).init().unwrap();
    log::warn!(target: "shop", user = "alice", items = 3, ratio = 0.5, paid = true; "cart of {}", "alice");
    log::info!("no key-values");
    tracing::info!("no record");
    log::debug!(user = "bob"; "not wanted");
    guard.flush(PATIENCE).unwrap();

    let records = server.records();
    let message = |record: &opentelemetry_proto::tonic::logs::v1::LogRecord| match &record.body.as_ref()?.value {
        Some(Value::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    let cart = records.iter().find(|record| message(record).as_deref() == Some("cart of alice")).unwrap();
    let shown = |key| attribute(&cart.attributes, key);
    assert_eq!((cart.severity_number, text(&cart.attributes, "target").as_deref()), (13, Some("shop")));
    assert_eq!(text(&cart.attributes, "user").as_deref(), Some("alice"));
    assert_eq!(shown("items"), Some(&Value::IntValue(3)));
    assert_eq!(shown("ratio"), Some(&Value::DoubleValue(0.5)));
    assert_eq!(shown("paid"), Some(&Value::BoolValue(true)));
    assert!(text(&cart.attributes, "code.file.path").unwrap().ends_with("log_records.rs"));

    let with_user = records.iter().filter(|record| attribute(&record.attributes, "user").is_some()).count();
    assert_eq!((records.len(), with_user), (3, 1));
}
