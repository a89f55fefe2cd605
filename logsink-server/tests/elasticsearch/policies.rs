//! ILM and ISM, against an HTTP server that only records what it is asked and answers as the documentation of the two says:
//! neither is in the builds of Elasticsearch and OpenSearch that these tests run. It shows which requests are made, not that
//! a cluster acts on them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{Method, StatusCode, Uri},
};
use logsink_server::{
    config::{LayoutChoice, RetentionBy},
    index::{
        IndexReader, IndexWriter,
        elasticsearch::{Elasticsearch, ElasticsearchOptions, RetentionOptions},
    },
    metrics::Metrics,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    Buried,
    indices::{batch, now_ns},
};

/// What it is, what it was asked to keep, and every request in order.
#[derive(Default)]
struct Recorder {
    about: Value,
    has_policies: bool,
    kept: BTreeMap<String, Value>,
    requests: Vec<(Method, String, Value)>,
    /// What the next rollovers are answered with.
    rollovers: Vec<(StatusCode, Value)>,
    /// What there is under the stream's name.
    indices: Value,
}

type Shared = Arc<Mutex<Recorder>>;

async fn record(State(shared): State<Shared>, method: Method, uri: Uri, body: Bytes) -> (StatusCode, String) {
    let mut recorder = shared.lock().unwrap();
    let path = uri.path().to_owned();
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    recorder.requests.push((method.clone(), uri.to_string(), body.clone()));
    let not_found = (StatusCode::NOT_FOUND, json!({"error": "not found"}));
    let (status, answer) = match (method, path.as_str()) {
        (Method::GET, "/") => (StatusCode::OK, recorder.about.clone()),
        (Method::GET, "/_ilm/status" | "/_plugins/_ism/policies") if !recorder.has_policies => {
            (StatusCode::BAD_REQUEST, json!({"error": "no handler found for uri"}))
        }
        (Method::GET, path) if path.ends_with("/_search") => (StatusCode::OK, json!({})),
        (Method::GET, "/_ilm/status") => (StatusCode::OK, json!({"operation_mode": "RUNNING"})),
        (Method::GET, "/_plugins/_ism/policies") => (StatusCode::OK, json!({"policies": [], "total_policies": 0})),
        (Method::PUT, _) => {
            recorder.kept.insert(path, body);
            (StatusCode::OK, json!({"acknowledged": true}))
        }
        (Method::GET, path) if path.starts_with("/logs-") && recorder.indices.is_object() => {
            (StatusCode::OK, recorder.indices.clone())
        }
        (Method::GET, path) => match (recorder.kept.get(path), path.rsplit('/').next()) {
            (Some(kept), Some(name)) if path.starts_with("/_ilm/") => {
                (StatusCode::OK, json!({name: {"version": 1, "policy": kept["policy"]}}))
            }
            (Some(kept), _) if path.starts_with("/_plugins/") => {
                (StatusCode::OK, json!({"_seq_no": 7, "_primary_term": 2, "policy": kept["policy"]}))
            }
            (Some(kept), Some(name)) => {
                (StatusCode::OK, json!({"index_templates": [{"name": name, "index_template": kept}]}))
            }
            _ => not_found,
        },
        (Method::POST, path) if path.ends_with("/_rollover") => {
            recorder.rollovers.pop().unwrap_or((StatusCode::OK, json!({"rolled_over": true})))
        }
        (Method::POST, path) if path.ends_with("/_bulk") => {
            let items = vec![json!({"create": {"status": 201}}); lines / 2];
            (StatusCode::OK, json!({"errors": false, "items": items}))
        }
        _ => (StatusCode::OK, json!({})),
    };
    (status, answer.to_string())
}

struct Cluster {
    shared: Shared,
    url: String,
}

async fn cluster(version: Value, has_policies: bool) -> Cluster {
    let shared =
        Arc::new(Mutex::new(Recorder { about: json!({"version": version}), has_policies, ..Recorder::default() }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(record).with_state(shared.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    Cluster { shared, url }
}

impl Cluster {
    fn options(&self) -> ElasticsearchOptions {
        ElasticsearchOptions {
            urls: vec![self.url.clone()],
            data_stream: "logs-shop-default".into(),
            retention: RetentionOptions {
                age: Some(Duration::from_secs(30 * 86_400)),
                bytes: Some(400 << 30),
                ..RetentionOptions::default()
            },
            ..ElasticsearchOptions::default()
        }
    }

    /// Starts a process that writes one batch, and answers with the requests that it made.
    async fn start(&self, options: ElasticsearchOptions) -> Vec<(Method, String, Value)> {
        let index = Elasticsearch::connect(options, Arc::<Buried>::default(), Metrics::new()).unwrap();
        let message = batch(1, 3, "shop", now_ns(), now_ns());
        let written = tokio::time::timeout(Duration::from_secs(30), index.write(&[message])).await;
        assert_eq!(written.expect("the write ends").unwrap().stored, 3);
        std::mem::take(&mut self.shared.lock().unwrap().requests)
    }
}

/// The only request with this method whose path begins so, with its body.
fn only<'r>(requests: &'r [(Method, String, Value)], method: &Method, path: &str) -> &'r (Method, String, Value) {
    let mut found = requests.iter().filter(|(m, uri, _)| m == method && uri.starts_with(path));
    let first = found.next().unwrap_or_else(|| panic!("no {method} {path} in {requests:#?}"));
    assert!(found.next().is_none(), "{method} {path} twice");
    first
}

#[tokio::test]
async fn an_ilm_policy_is_put_once_and_named_in_the_template() {
    let cluster = cluster(json!({"number": "9.5.3"}), true).await;
    let requests = cluster.start(cluster.options()).await;
    let (.., policy) = only(&requests, &Method::PUT, "/_ilm/policy/logsink-logs-shop-default");
    let phases = &policy["policy"]["phases"];
    assert_eq!(phases["hot"]["actions"]["rollover"], json!({"max_age": "86400s", "max_size": "53687091200b"}));
    assert_eq!(phases["delete"], json!({"min_age": "2592000s", "actions": {"delete": {}}}));
    assert_eq!(policy["policy"]["_meta"]["managed_by"], "logsink");
    let (.., template) = only(&requests, &Method::PUT, "/_index_template/logsink-logs-shop-default");
    assert_eq!(template["template"]["settings"]["index.lifecycle.name"], "logsink-logs-shop-default");
    let (.., settings) = only(&requests, &Method::PUT, "/logs-shop-default/_settings");
    assert_eq!(*settings, json!({"index.lifecycle.name": "logsink-logs-shop-default"}), "what is there is attached");

    // The next start finds all in place.
    let requests = cluster.start(cluster.options()).await;
    assert!(requests.iter().all(|(method, ..)| method != Method::PUT), "{requests:#?}");
    // Other settings make another policy, and leave the indices' attachment.
    let mut options = cluster.options();
    options.retention.age = None;
    let requests = cluster.start(options).await;
    let (.., policy) = only(&requests, &Method::PUT, "/_ilm/policy/");
    assert_eq!(policy["policy"]["phases"]["delete"], Value::Null);
    assert!(!requests.iter().any(|(_, uri, _)| uri.contains("_settings") && !uri.contains("creation_date")));
}

#[tokio::test]
async fn an_ism_policy_is_put_and_changed_in_its_place() {
    let cluster = cluster(json!({"number": "3.8.0", "distribution": "opensearch"}), true).await;
    // Indices of ours from before there were policies.
    let ours = json!({"mappings": {"_meta": {"managed_by": "logsink"}}});
    cluster.shared.lock().unwrap().indices =
        json!({".ds-logs-shop-default-000001": ours, ".ds-logs-shop-default-000002": ours});
    let requests = cluster.start(cluster.options()).await;
    let (.., policy) = only(&requests, &Method::PUT, "/_plugins/_ism/policies/logsink-logs-shop-default");
    let policy = &policy["policy"];
    assert_eq!(policy["default_state"], "hot");
    let rollover = json!([{"rollover": {"min_index_age": "86400s", "min_size": "53687091200b"}}]);
    assert_eq!(policy["states"][0]["actions"], rollover);
    assert_eq!(
        policy["states"][0]["transitions"],
        json!([{"state_name": "delete", "conditions": {"min_rollover_age": "2592000s"}}])
    );
    assert_eq!(policy["states"][1]["actions"], json!([{"delete": {}}]));
    assert_eq!(policy["ism_template"][0]["index_patterns"], json!(["logs-shop-default"]));
    only(&requests, &Method::POST, "/_plugins/_ism/add/.ds-logs-shop-default-000001,.ds-logs-shop-default-000002");

    let requests = cluster.start(cluster.options()).await;
    assert!(requests.iter().all(|(method, ..)| method != Method::PUT), "{requests:#?}");
    let mut options = cluster.options();
    options.retention.rollover_age = Duration::from_secs(3_600);
    let requests = cluster.start(options).await;
    let (_, uri, _) = only(&requests, &Method::PUT, "/_plugins/_ism/policies/");
    assert!(uri.ends_with("?if_seq_no=7&if_primary_term=2"), "{uri}");
    let (_, uri, body) = only(&requests, &Method::POST, "/_plugins/_ism/change_policy/.ds-logs-shop-default-000001,");
    assert!(uri.ends_with(",.ds-logs-shop-default-000002"), "{uri}");
    assert_eq!(body["policy_id"], "logsink-logs-shop-default");
}

#[tokio::test]
async fn a_policy_or_template_of_somebody_elses_is_left_alone() {
    let cluster = cluster(json!({"number": "8.19.21"}), true).await;
    {
        let mut recorder = cluster.shared.lock().unwrap();
        let theirs = json!({"policy": {"phases": {"hot": {}}}});
        recorder.kept.insert("/_ilm/policy/logsink-logs-shop-default".into(), theirs);
        let theirs = json!({"version": 1, "index_patterns": ["logs-shop-default"], "data_stream": {}});
        recorder.kept.insert("/_index_template/logsink-logs-shop-default".into(), theirs);
    }
    let requests = cluster.start(cluster.options()).await;
    assert!(requests.iter().all(|(method, ..)| method != Method::PUT), "{requests:#?}");
}

#[tokio::test]
async fn without_policies_or_without_the_wish_none_is_put() {
    for (number, distribution) in [("9.5.3", None), ("7.17.29", None), ("3.8.0", Some("opensearch"))] {
        for (has_policies, by) in
            [(false, RetentionBy::Auto), (true, RetentionBy::Logsink), (true, RetentionBy::Nobody)]
        {
            let mut version = json!({"number": number});
            if let Some(distribution) = distribution {
                version["distribution"] = distribution.into();
            }
            let cluster = cluster(version, has_policies).await;
            let mut options = cluster.options();
            options.retention.by = by;
            let requests = cluster.start(options).await;
            assert!(
                requests.iter().all(|(method, uri, _)| {
                    method == Method::GET || !(uri.contains("_ilm") || uri.contains("_ism"))
                })
            );
            let (.., template) = only(&requests, &Method::PUT, "/_index_template/");
            assert_eq!(template["template"]["settings"]["index.lifecycle.name"], Value::Null);
        }
    }
}

#[tokio::test]
async fn a_rollover_that_fails_is_done_by_whoever_comes_next() {
    let cluster = cluster(json!({"number": "9.5.3"}), false).await;
    cluster.start(cluster.options()).await;
    let changed = || ElasticsearchOptions { refresh_interval: "7s".into(), ..cluster.options() };
    let rollovers = |requests: &[(Method, String, Value)]| {
        requests.iter().filter(|(_, uri, _)| uri.starts_with("/logs-shop-default/_rollover")).count()
    };
    let answer = |status, text: &str| {
        cluster.shared.lock().unwrap().rollovers.push((status, json!({"error": {"type": "x", "reason": text}})));
    };
    // The cluster is busy: at once again.
    answer(StatusCode::SERVICE_UNAVAILABLE, "busy");
    // It has as many shards as it may have: events go on, and the next process tries.
    answer(StatusCode::BAD_REQUEST, "this action would add [2] shards");
    assert_eq!(rollovers(&cluster.start(changed()).await), 1);
    assert_eq!(rollovers(&cluster.start(changed()).await), 2);
    assert_eq!(rollovers(&cluster.start(changed()).await), 0, "it is done");
    // A data stream that is not there yet needs none.
    answer(StatusCode::BAD_REQUEST, "rollover target [logs-shop-default] does not exist");
    assert_eq!(rollovers(&cluster.start(cluster.options()).await), 1);
    assert_eq!(rollovers(&cluster.start(cluster.options()).await), 0);
}

#[tokio::test]
async fn daily_indices_have_a_policy_that_only_deletes() {
    let cluster = cluster(json!({"number": "9.5.3"}), true).await;
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..cluster.options() };
    let requests = cluster.start(options).await;
    let (.., policy) = only(&requests, &Method::PUT, "/_ilm/policy/");
    assert_eq!(policy["policy"]["phases"]["hot"]["actions"], json!({}));
    assert_eq!(policy["policy"]["phases"]["delete"]["min_age"], "2592000s");
}

#[tokio::test]
async fn a_policy_for_days_takes_no_days_of_others() {
    let cluster = cluster(json!({"number": "3.8.0", "distribution": "opensearch"}), true).await;
    let ours = json!({"mappings": {"_meta": {"managed_by": "logsink"}}});
    cluster.shared.lock().unwrap().indices = json!({
        "logs-shop-default-2026.01.01": ours,
        "logs-shop-default-2026.01.02": {"settings": {"index": {"uuid": "u"}}},
        "logs-shop-default-2fa-2026.01.01": ours,
    });
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..cluster.options() };
    let requests = cluster.start(options).await;
    let (_, uri, _) = only(&requests, &Method::POST, "/_plugins/_ism/add/");
    assert_eq!(uri, "/_plugins/_ism/add/logs-shop-default-2026.01.01");
    let (.., policy) = only(&requests, &Method::PUT, "/_plugins/_ism/policies/");
    let (.., template) = only(&requests, &Method::PUT, "/_index_template/");
    for patterns in [&policy["policy"]["ism_template"][0]["index_patterns"], &template["index_patterns"]] {
        let patterns: Vec<&str> =
            patterns.as_array().unwrap().iter().map(|pattern| pattern.as_str().unwrap()).collect();
        assert!(patterns.contains(&"logs-shop-default-2026.*") && patterns.contains(&"logs-shop-default-outside"));
        assert!(!patterns.iter().any(|pattern| pattern.starts_with("logs-shop-default-2*")), "{patterns:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_a_sentence() {
    let cluster = cluster(json!({"number": "7.10.2"}), false).await;
    let index = Arc::new(Elasticsearch::connect(cluster.options(), Arc::<Buried>::default(), Metrics::new()).unwrap());
    let writing = tokio::spawn({
        let index = index.clone();
        async move { index.write(&[batch(1, 3, "shop", now_ns(), now_ns())]).await }
    });
    let start = Instant::now();
    let message = loop {
        match index.ready().await {
            Err(error) => break error.to_string(),
            Ok(()) => assert!(start.elapsed() < Duration::from_secs(30), "it is taken for good"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let wanted = "the server is Elasticsearch 7.10.2: Elasticsearch 7.17 or later or OpenSearch 2 or later is needed";
    assert!(message.contains(wanted), "{message}");
    writing.abort();
    let requests = std::mem::take(&mut cluster.shared.lock().unwrap().requests);
    assert!(
        requests.iter().all(|(method, uri, _)| method == Method::GET || uri.contains("_search")),
        "nothing is written"
    );
}
