//! Rules before the queue.

use tokio::sync::watch;

use super::*;
use crate::control::{Scope, Snapshot, Stored};

type Rules = Option<Arc<Snapshot>>;

fn rules(text: &str) -> Rules {
    let stored = Stored { text: text.to_owned(), revision: "1".to_owned() };
    Some(Arc::new(Snapshot { documents: [(Scope::Global, stored)].into() }))
}

/// A way in with these rules, and who can change them.
fn with_rules(rules: Rules) -> (Door, watch::Sender<Rules>) {
    let mut door = door(1 << 20);
    let (change, rules) = watch::channel(rules);
    let sift = Sift::new(rules, door.metrics.clone());
    door.ingest = Ingest::new(door.memory.clone(), Some(sift), Options::default(), door.metrics.clone());
    (door, change)
}

#[tokio::test]
async fn nothing_of_others_is_taken_before_the_rules_are_read() {
    let (door, change) = with_rules(None);
    let foreign = || door.ingest.accept(payload(3).into(), Headers::default());
    let refused = foreign().await.unwrap_err();
    assert!(refused == IngestError::RulesUnread && refused.retry_after().is_some());
    assert_eq!(status::code(&refused), tonic::Code::Unavailable);
    assert_eq!(door.refused(Refusal::RulesUnread), 1);
    assert_eq!(
        door.post("application/x-protobuf", "identity", payload(3)).await.0,
        200,
        "the library's is the drain's"
    );
    change.send_replace(Some(Arc::default()));
    assert_eq!(foreign().await.unwrap().records, 3);
    assert_eq!(door.memory.batches.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_the_queue_did_not_take_is_taken_when_it_comes_again() {
    for then in
        ["{ dedup = { window_ms = 3600000, by = \"x\" } }", "{ rate_limit = { per_second = 0.001 } }", "\"keep\""]
    {
        let (door, _change) = with_rules(rules(&format!("[[rule]]\nname = \"r\"\nthen = {then}")));
        *door.memory.error.lock().unwrap() = Some(QueueError::Unavailable("the broker is away".to_owned()));
        let send = || door.ingest.accept(payload(1).into(), Headers::default());
        assert!(matches!(send().await, Err(IngestError::QueueUnavailable(_))));
        assert_eq!(send().await.unwrap().records, 1);
        assert_eq!(door.memory.batches.lock().unwrap().len(), 1, "{then}");
    }
}

#[tokio::test]
async fn what_is_dropped_is_acknowledged_and_never_appended() {
    let off = rules("[[rule]]\nname = \"all\"\nthen = \"drop\"");
    let (door, _change) = with_rules(off);
    // One that is sifted at once, and one beside the tasks of others.
    for records in [3, 1_000] {
        let ack = door.ingest.accept(payload(records).into(), Headers::default()).await.unwrap();
        assert_eq!(ack.records as usize, records);
    }
    assert!(door.memory.batches.lock().unwrap().is_empty());
    assert_eq!((door.metrics.ingest_records.get(), door.metrics.queue_appended.get()), (1_003, 0));
    assert!(door.metrics.encode().contains("logsink_rule_dropped_total{rule=\"all\"} 1003"));
}
