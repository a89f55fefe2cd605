//! Streams by service, dataset and namespace.

use logsink_server::index::{IndexWriter, elasticsearch::ElasticsearchOptions};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use reqwest::Method;
use serde_json::json;

use super::{
    events::{message, text},
    indices::{batch, count, get, names, now_ns, request},
    options, server_with,
};

/// The pattern, and what its streams begin with.
fn routed() -> (ElasticsearchOptions, String) {
    let mut options = options();
    let prefix = std::mem::take(&mut options.data_stream).replace("logs-logsink-", "logs-");
    options.data_stream = format!("{prefix}-{{service}}-{{namespace}}");
    (options, prefix)
}

fn of(sequence: u64, service: &str, namespace: Option<&str>) -> logsink_server::queue::Message {
    let mut resource = vec![("service.name", text(service))];
    resource.extend(namespace.map(|namespace| ("service.namespace", text(namespace))));
    let record = LogRecord { time_unix_nano: now_ns(), body: Some(text("routed")), ..LogRecord::default() };
    let mut message = message(sequence, &resource, "", vec![record]);
    message.headers.appended_ms = Some(i64::try_from(now_ns() / 1_000_000).unwrap());
    message
}

#[tokio::test]
async fn each_service_has_its_stream_and_searches_cover_all() {
    let (options, prefix) = routed();
    let server = server_with(options.clone());
    let messages = [
        of(1, "checkout", Some("eu")),
        of(2, "cart", None),
        of(3, "checkout", Some("eu")),
        of(4, "../Evil Name,*\"", Some("x-y")),
        of(5, "", None),
    ];
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 5);
    assert_eq!(*server.buried.0.lock().unwrap(), []);
    server.until_found(5).await;
    for (stream, documents) in
        [("checkout-eu", 2), ("cart-default", 1), (".._evil_name___-x_y", 1), ("unknown-default", 1)]
    {
        assert_eq!(count(&format!("{prefix}-{stream}*")).await, documents, "{stream}");
    }
    // Another process writes the same to the same places.
    let again = server_with(options);
    assert_eq!(again.index.write(&messages).await.unwrap().stored, 5);
    assert_eq!(again.metrics.index_duplicates.get(), 5);
    assert_eq!(again.all("service=checkout", 10).await.len(), 2);
}

#[tokio::test]
async fn beyond_the_cap_events_share_a_stream_for_good() {
    let (options, prefix) = routed();
    let options = ElasticsearchOptions { streams_max: 3, ..options };
    let server = server_with(options.clone());
    server.index.write(&[of(1, "a", None)]).await.unwrap();
    let many: Vec<_> = (0..40).map(|n| of(2 + n, &format!("s{n:02}"), None)).collect();
    assert_eq!(server.index.write(&many).await.unwrap().stored, 40);
    assert_eq!(server.metrics.index_overflowed.get(), 38);
    assert_eq!(count(&format!("{prefix}-overflow-overflow*")).await, 38);
    // A process that starts later finds the same streams made, and makes no more.
    let later = server_with(options);
    later.index.write(&many).await.unwrap();
    assert_eq!(later.metrics.index_duplicates.get(), 40);
    later.index.write(&[of(90, "late", None), of(91, "a", None)]).await.unwrap();
    assert_eq!(count(&format!("{prefix}-overflow-overflow*")).await, 39);
    assert_eq!(count(&format!("{prefix}-*")).await, 43);
    server.until_found(43).await;
    let templates = get(&format!("/_index_template/logsink-{prefix}-*?filter_path=index_templates.name")).await;
    assert_eq!(templates["index_templates"].as_array().unwrap().len(), 4, "{templates}");
}

#[tokio::test]
async fn what_others_keep_under_like_names_is_neither_touched_nor_found() {
    let (options, prefix) = routed();
    let server = server_with(options);
    server.index.write(&[of(1, "mine", None)]).await.unwrap();
    let foreign = format!("/{prefix}-theirs-default/_doc/1?refresh=true");
    let document = json!({"@timestamp": "2026-01-01T00:00:00Z", "message": "not ours"});
    let (status, answer) = request(Method::PUT, &foreign, Some(document)).await;
    assert_eq!(status, 201, "{answer}");
    server.until_found(1).await;
    assert_eq!(server.all("\"not ours\"", 10).await.len(), 0);
    let mapping = get(&format!("/{prefix}-theirs-default/_mapping")).await;
    assert_eq!(
        mapping[format!("{prefix}-theirs-default")]["mappings"]["_meta"],
        serde_json::Value::Null,
        "no template of ours"
    );
}

#[tokio::test]
async fn a_data_stream_of_others_is_not_taken_over_by_a_service_of_its_name() {
    let (options, prefix) = routed();
    let theirs = format!("{prefix}-theirs-default");
    let template = json!({"index_patterns": [theirs], "data_stream": {}, "priority": 200});
    let (status, answer) = request(Method::PUT, &format!("/_index_template/{theirs}"), Some(template)).await;
    assert_eq!(status, 200, "{answer}");
    let document = json!({"@timestamp": "2026-01-01T00:00:00Z", "message": "not ours"});
    let (status, answer) = request(Method::POST, &format!("/{theirs}/_doc?op_type=create"), Some(document)).await;
    assert_eq!(status, 201, "{answer}");
    // And a name for which they have a template that is as good as ours.
    let rival = json!({"index_patterns": [format!("{prefix}-rival-*")], "priority": 500});
    let (status, answer) = request(Method::PUT, &format!("/_index_template/{prefix}-rival"), Some(rival)).await;
    assert_eq!(status, 200, "{answer}");

    let server = server_with(options);
    let messages = [of(1, "theirs", None), of(2, "mine", None), of(3, "rival", None), of(4, "theirs", None)];
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 4);
    assert_eq!(server.metrics.index_overflowed.get(), 3);
    server.until_found(4).await;
    assert_eq!(count(&theirs).await, 1);
    assert_eq!(count(&format!("{prefix}-overflow-overflow")).await, 3);
    let templates = get(&format!("/_index_template/logsink-{prefix}-*?filter_path=index_templates.name")).await;
    assert_eq!(templates["index_templates"].as_array().unwrap().len(), 2, "{templates}");
}

#[tokio::test]
async fn streams_of_a_data_stream_pattern_follow_the_settings() {
    let (options, prefix) = routed();
    server_with(options.clone()).index.write(&[of(1, "early", None)]).await.unwrap();
    let options = ElasticsearchOptions { refresh_interval: "7s".into(), ..options };
    server_with(options).index.write(&[of(2, "late", None)]).await.unwrap();
    for service in ["early", "late"] {
        let path = format!("/_index_template/logsink-{prefix}-{service}-default");
        let template = &get(&path).await["index_templates"][0]["index_template"]["template"];
        assert_eq!(template["settings"]["index"]["refresh_interval"], "7s", "{service}");
    }
    assert_eq!(names(&format!(".ds-{prefix}-early-default-*")).await.len(), 2, "it has rolled over");
}

#[tokio::test]
async fn a_batch_of_several_services_is_there_once_after_a_rollover_of_one_data_stream() {
    let (options, prefix) = routed();
    let server = server_with(options);
    let messages: Vec<_> =
        (1..=4).map(|n| batch(n, 50, if n % 2 == 0 { "even" } else { "odd" }, now_ns(), now_ns())).collect();
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 200);
    let (status, _) = request(Method::POST, &format!("/{prefix}-even-default/_rollover"), None).await;
    let is_stream = status == 200;
    assert_eq!(server.index.write(&messages).await.unwrap().stored, 200);
    assert_eq!(server.metrics.index_duplicates.get(), 200, "a data stream: {is_stream}");
    assert_eq!(count(&format!("{prefix}-*")).await, 200);
}
