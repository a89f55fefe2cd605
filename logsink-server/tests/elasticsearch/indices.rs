//! The cluster as its operator sees it: plain requests, and messages whose times are given.

use std::time::{SystemTime, UNIX_EPOCH};

use logsink_server::queue::Message;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use reqwest::{Client, Method};
use serde_json::Value;

use super::{
    events::{message, text},
    url,
};

pub(super) const SECOND_NS: u64 = 1_000_000_000;
pub(super) const DAY_NS: u64 = 86_400 * SECOND_NS;

pub(super) fn now_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Any request; status and answer.
pub(super) async fn request(method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = Client::new().request(method, format!("{}{path}", url()));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

pub(super) async fn get(path: &str) -> Value {
    let (status, answer) = request(Method::GET, path, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

pub(super) async fn post(path: &str) -> Value {
    let (status, answer) = request(Method::POST, path, None).await;
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Documents that the cluster counts: our search would show a double once.
pub(super) async fn count(indices: &str) -> u64 {
    post(&format!("/{indices}/_refresh")).await;
    get(&format!("/{indices}/_count")).await["count"].as_u64().unwrap()
}

/// Names of the indices that there are, hidden ones too.
pub(super) async fn names(indices: &str) -> Vec<String> {
    let found = get(&format!("/{indices}/_settings/index.uuid?expand_wildcards=all&allow_no_indices=true")).await;
    found.as_object().unwrap().keys().cloned().collect()
}

pub(super) async fn roll_over(stream: &str) {
    assert_eq!(post(&format!("/{stream}/_rollover")).await["rolled_over"], true);
}

/// A batch of `records` records of a service, that happened at `time_ns` and came into the queue at `appended_ns`.
pub(super) fn batch(sequence: u64, records: u64, service: &str, time_ns: u64, appended_ns: u64) -> Message {
    let record = |n: u64| LogRecord {
        time_unix_nano: time_ns.saturating_add(n),
        body: Some(text(&format!("event {n}"))),
        ..LogRecord::default()
    };
    let mut message = message(sequence, &[("service.name", text(service))], "", (0..records).map(record).collect());
    message.headers.appended_ms = Some(i64::try_from(appended_ns / 1_000_000).unwrap());
    message
}
