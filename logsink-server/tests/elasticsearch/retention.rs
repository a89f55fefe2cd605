//! Our own retention on a real cluster: what is removed, and what stays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use logsink_server::{
    config::{LayoutChoice, RetentionBy},
    index::{
        IndexWriter,
        elasticsearch::{Elasticsearch, ElasticsearchOptions, Retention, RetentionOptions},
    },
    metrics::Metrics,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Buried,
    indices::{DAY_NS, batch, count, names, now_ns, request},
    options,
};

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

struct Running {
    index: Arc<Elasticsearch>,
    metrics: Arc<Metrics>,
    _stop: watch::Sender<bool>,
}

fn run(options: ElasticsearchOptions) -> Running {
    let metrics = Metrics::new();
    let index = Arc::new(Elasticsearch::connect(options, Arc::<Buried>::default(), metrics.clone()).unwrap());
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(Retention::new(index.clone(), Vec::new(), None).run(stopping));
    Running { index, metrics, _stop: stop }
}

fn retention(retention: RetentionOptions) -> ElasticsearchOptions {
    let every = Duration::from_millis(200);
    ElasticsearchOptions { retention: RetentionOptions { by: RetentionBy::Logsink, every, ..retention }, ..options() }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what} did not come to be");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An index made by hand, with one document.
async fn make(name: &str, meta: Value) {
    let (status, answer) = request(Method::PUT, &format!("/{name}"), Some(json!({"mappings": {"_meta": meta}}))).await;
    assert_eq!(status, 200, "{name}: {answer}");
    let (status, answer) =
        request(Method::PUT, &format!("/{name}/_doc/1"), Some(json!({"message": "somebody else's"}))).await;
    assert_eq!(status, 201, "{name}: {answer}");
}

#[tokio::test]
async fn old_days_are_removed_and_what_only_looks_like_ours_stays() {
    let options = retention(RetentionOptions { age: Some(48 * HOUR), ..RetentionOptions::default() });
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..options };
    let name = options.data_stream.clone();
    let ours = json!({"managed_by": "logsink", "stream": name});
    // Made before there is a template; the last as a restored copy of an index of ours would be.
    let lookalikes = [
        (format!("{name}-2020.01.01"), json!({})),
        (format!("{name}-2020.01.02"), json!({"managed_by": "logsink", "stream": "logs-other"})),
        (format!("{name}-2020.01.03"), json!({"managed_by": "logsink", "stream": name, "uuid": "of another"})),
        (format!("{name}-2020.01.04-copy"), ours.clone()),
        (format!("{name}-eu-2020.01.05"), ours.clone()),
        (format!("{name}x-2020.01.06"), ours),
        (name.replace("logs-", "other-"), json!({})),
    ];
    for (name, meta) in &lookalikes {
        make(name, meta.clone()).await;
    }
    let running = run(options);
    // A backlog of three days ago: its index is made and is too old at once.
    let then = now_ns() - 3 * DAY_NS;
    let messages = [batch(1, 5, "shop", then - DAY_NS, then), batch(2, 7, "shop", now_ns(), now_ns())];
    assert_eq!(running.index.write(&messages).await.unwrap().stored, 12);
    until("the old day's removal", async || running.metrics.index_indices_removed.get() == 1).await;
    // Several looks more.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(running.metrics.index_indices_removed.get(), 1);
    assert_eq!(running.metrics.index_retention_failed.get(), 0);
    for (lookalike, _) in &lookalikes {
        assert_eq!(count(lookalike).await, 1, "{lookalike}");
    }
    let left = names(&format!("{name}-2*.*.*")).await;
    assert_eq!(left.iter().filter(|left| lookalikes.iter().all(|(name, _)| name != *left)).count(), 1, "{left:?}");
    assert_eq!(count(left.iter().max().unwrap()).await, 7, "today's");
}

#[tokio::test]
async fn a_day_is_removed_only_when_it_was_seen_before() {
    let options = retention(RetentionOptions { bytes: Some(1), ..RetentionOptions::default() });
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..options };
    let name = options.data_stream.clone();
    let running = run(options);
    let yesterday = now_ns() - DAY_NS;
    running
        .index
        .write(&[batch(1, 5, "shop", yesterday, now_ns()), batch(2, 7, "shop", now_ns(), now_ns())])
        .await
        .unwrap();
    until("a removal", async || running.metrics.index_indices_removed.get() == 1).await;
    let left = names(&format!("{name}-*")).await;
    assert_eq!(left.len(), 1, "today's stays, whatever its size: {left:?}");
    let (_, mapping) = request(Method::GET, &format!("/{}/_mapping", left[0]), None).await;
    let (_, settings) = request(Method::GET, &format!("/{}/_settings", left[0]), None).await;
    let recorded = &mapping[&left[0]]["mappings"]["_meta"]["uuid"];
    assert!(recorded.is_string(), "{mapping}");
    assert_eq!(*recorded, settings[&left[0]]["settings"]["index"]["uuid"]);
}

#[tokio::test]
async fn an_index_that_cannot_be_removed_keeps_no_other() {
    let options = retention(RetentionOptions { age: Some(2 * DAY), ..RetentionOptions::default() });
    let options = ElasticsearchOptions { layout: LayoutChoice::Daily, ..options };
    let name = options.data_stream.clone();
    // Of three days that are all too old by a day and more; nobody looks after them yet.
    let patient = ElasticsearchOptions { retention: RetentionOptions::default(), ..options.clone() };
    let index = Elasticsearch::connect(patient, Arc::<Buried>::default(), Metrics::new()).unwrap();
    let then = |days: u64| now_ns() - days * DAY_NS;
    let messages: Vec<_> = [6, 5, 4].map(|days| batch(days, 5, "shop", then(days), now_ns())).into();
    assert_eq!(index.write(&messages).await.unwrap().stored, 15);
    let mut days = names(&format!("{name}-2*")).await;
    days.sort();
    let blocked = |is_blocked: bool| json!({"index.blocks.read_only": is_blocked});
    let settings = format!("/{}/_settings", days[0]);
    // Its mark is there: only its removal fails.
    let (_, about) = request(Method::GET, &format!("/{}", days[0]), None).await;
    let uuid = about[&days[0]]["settings"]["index"]["uuid"].clone();
    let meta = json!({"_meta": {"managed_by": "logsink", "stream": name, "uuid": uuid}});
    assert_eq!(request(Method::PUT, &format!("/{}/_mapping", days[0]), Some(meta)).await.0, 200);
    assert_eq!(request(Method::PUT, &settings, Some(blocked(true))).await.0, 200);
    let running = run(options);
    until("the others' removal", async || running.metrics.index_indices_removed.get() == 2).await;
    assert!(running.metrics.index_retention_failed.get() > 0);
    assert_eq!(names(&format!("{name}-2*")).await, days[..1]);
    assert_eq!(request(Method::PUT, &settings, Some(blocked(false))).await.0, 200);
    until("its removal", async || running.metrics.index_indices_removed.get() == 3).await;
}

mod data_stream {
    use super::*;

    #[tokio::test]
    async fn it_rolls_over_and_old_indices_go_by_age() {
        let options = retention(RetentionOptions {
            rollover_age: Duration::from_secs(2),
            age: Some(Duration::from_secs(3)),
            ..RetentionOptions::default()
        });
        let stream = options.data_stream.clone();
        let lookalike = format!("{stream}-000001");
        make(&lookalike, json!({"managed_by": "logsink", "stream": stream})).await;
        let running = run(options);
        running.index.write(&[batch(1, 5, "shop", now_ns(), now_ns())]).await.unwrap();
        until("a rollover", async || running.metrics.index_rollovers.get() == 1).await;
        until("the removal of the first", async || running.metrics.index_indices_removed.get() == 1).await;
        assert_eq!(count(&stream).await, 0);
        // An empty index is not rolled over.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(running.metrics.index_rollovers.get(), 1);
        assert_eq!(names(&stream).await.len(), 1);
        assert_eq!(count(&lookalike).await, 1);
        running.index.write(&[batch(2, 5, "shop", now_ns(), now_ns())]).await.unwrap();
        until("the next", async || running.metrics.index_rollovers.get() == 2).await;
        assert_eq!(running.metrics.index_retention_failed.get(), 0);
    }

    #[tokio::test]
    async fn two_that_do_it_at_a_time_remove_by_bytes_what_one_would() {
        let options = retention(RetentionOptions { bytes: Some(400_000), ..RetentionOptions::default() });
        let stream = options.data_stream.clone();
        let both = [run(options.clone()), run(options)];
        let mut stored = 0;
        for sequence in 0..14 {
            let message = batch(sequence, 2_000, "shop", now_ns(), now_ns());
            stored += both[0].index.write(&[message]).await.unwrap().stored;
            // Sizes are known of what was flushed. An index may be removed meanwhile.
            request(Method::POST, &format!("/{stream}/_flush"), None).await;
        }
        let sum = |counter: fn(&Metrics) -> u64| both.iter().map(|running| counter(&running.metrics)).sum::<u64>();
        until("a removal", async || sum(|metrics| metrics.index_indices_removed.get()) > 0).await;
        until("the bound", async || {
            let (_, stats) = request(Method::GET, &format!("/{stream}/_stats/store"), None).await;
            stats["_all"]["total"]["store"]["size_in_bytes"].as_u64().unwrap() <= 400_000
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let left = count(&stream).await;
        assert!(left > 0 && left < stored, "{left} of {stored} are left");
        assert_eq!(sum(|metrics| metrics.index_retention_failed.get()), 0);
    }
}
