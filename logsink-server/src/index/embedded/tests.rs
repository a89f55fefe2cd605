//! The store against simpler things: a plain `Vec` of records filtered by the matcher, and a log that is read again after
//! every crash.

mod crash;
mod damage;
mod events;
mod oracle;

use std::{collections::HashSet, sync::Arc, time::Duration};

use logsink::filter::expr::Expr;

use self::events::{Event, message, messages};
use super::*;
use crate::{query::Hit, queue::DeadLetters};

/// A store with blocks of this many events.
fn open(dir: &std::path::Path, block_rows: usize) -> Arc<Embedded> {
    Embedded::open(EmbeddedOptions { block_rows, ..EmbeddedOptions::new(dir) }).unwrap()
}

fn query(expr: &str) -> Query {
    Query { from_ns: i64::MIN, to_ns: i64::MAX, expr: Expr::parse(expr).unwrap(), limit: 1_000, cursor: None }
}

async fn ids(store: &Embedded, expr: &str) -> Vec<String> {
    store.search(&query(expr)).await.unwrap().hits.into_iter().map(|hit| hit.id).collect()
}

/// Every page, a few hits each.
async fn pages(store: &Embedded, mut query: Query, limit: usize) -> Vec<Hit> {
    query.limit = limit;
    let mut hits = Vec::new();
    loop {
        let page = store.search(&query).await.unwrap();
        assert!(page.hits.len() <= limit);
        hits.extend(page.hits);
        match page.cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return hits,
        }
    }
}

#[tokio::test]
async fn what_is_written_is_found_at_once_and_after_publishing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1_000);
    let event = Event { message: "connection refused by peer".into(), ..Event::at(5) };
    let written = store.write(&[message(0, &[event, Event::at(6)])]).await.unwrap();
    assert_eq!(written, Written { stored: 2, dead: 0, dropped: 0 });
    assert_eq!(store.durable(0), Some(0));
    assert_eq!(store.resume_at(), 0);
    let found = store.search(&query("\"connection refused\"")).await.unwrap();
    assert_eq!(found.hits.len(), 1);

    store.close().await.unwrap();
    assert_eq!(store.durable(0), Some(1));
    assert_eq!(store.resume_at(), 1);
    assert_eq!(store.search(&query("\"connection refused\"")).await.unwrap(), found);
    assert_eq!(ids(&store, "").await, ["0-0-1", "0-0-0"]);
    assert_eq!((store.stats().blocks, store.stats().events, store.stats().events_open), (1, 2, 0));

    drop(store);
    let store = open(dir.path(), 1_000);
    assert_eq!(store.search(&query("\"connection refused\"")).await.unwrap(), found);
}

#[tokio::test]
async fn records_that_rules_dropped_are_not_stored_and_keep_the_others_ids() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1_000);
    let mut message = message(0, &[Event::at(1), Event::at(2), Event::at(3)]);
    message.dropped = vec![0, 2];
    let written = store.write(&[message]).await.unwrap();
    assert_eq!(written, Written { stored: 1, dead: 0, dropped: 2 });
    assert_eq!(ids(&store, "").await, ["0-0-1"]);
}

#[tokio::test]
async fn a_batch_sent_twice_is_stored_once_also_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1_000);
    let again = |offset| events::from("a", 1, message(offset, &[Event::at(1)]));
    store.write(&[again(0), again(1)]).await.unwrap();
    assert_eq!(ids(&store, "").await, ["0-0-0"]);
    store.close().await.unwrap();
    drop(store);

    let store = open(dir.path(), 1_000);
    store.write(&[again(2), again(0)]).await.unwrap();
    assert_eq!(ids(&store, "").await, ["0-0-0"]);
    assert_eq!((store.stats().resent, store.stats().replayed), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn publishing_never_doubles_nor_misses_an_event() {
    const MESSAGES: i64 = 240;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 25);
    let acked = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let writer = tokio::spawn({
        let (store, acked) = (store.clone(), acked.clone());
        async move {
            for offset in 0..MESSAGES {
                // Out of time order, so that blocks overlap.
                store.write(&[message(offset, &[Event::at(offset * 37 % 101), Event::at(offset)])]).await.unwrap();
                acked.store(offset + 1, Ordering::Release);
            }
        }
    });
    let mut searches = 0;
    while !writer.is_finished() || searches == 0 {
        let before = acked.load(Ordering::Acquire);
        let found = ids(&store, "").await;
        let unique: HashSet<&String> = found.iter().collect();
        assert_eq!(unique.len(), found.len(), "an event twice");
        for offset in 0..before {
            assert!(unique.contains(&format!("0-{offset}-1")), "message {offset} of {before} is missing");
        }
        searches += 1;
    }
    writer.await.unwrap();
    assert_eq!(ids(&store, "").await.len(), 2 * MESSAGES as usize);
    assert!(store.stats().blocks_published >= 15);
}

#[tokio::test]
async fn pages_hold_every_hit_once_while_new_events_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 30);
    // Many of the same nanosecond: the tie-break has to carry the cursor.
    for message in messages(0, 40, 3, |n| Event::at(n / 10)) {
        store.write(&[message]).await.unwrap();
    }
    let expected = ids(&store, "").await;
    assert_eq!(expected.len(), 120);

    let mut query = Query { limit: 7, ..query("") };
    let (mut found, mut offset) = (Vec::new(), 1_000);
    loop {
        let page = store.search(&query).await.unwrap();
        found.extend(page.hits.into_iter().map(|hit| hit.id));
        // Newer than every page: not part of what the first page began.
        store.write(&messages(offset, 2, 5, |_| Event::at(9_999)).collect::<Vec<_>>()).await.unwrap();
        offset += 2;
        match page.cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => break,
        }
    }
    // The first page was read before any of them came.
    assert_eq!(found, expected);
    assert!(store.stats().blocks > 3);
}

#[tokio::test]
async fn a_cursor_of_another_index_is_a_bad_request() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 30);
    let query = Query { cursor: Some("[1,2]".into()), ..query("") };
    assert!(matches!(store.search(&query).await, Err(IndexError::BadRequest(_))));
}

#[test]
fn a_directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 30);
    let error = Embedded::open(EmbeddedOptions::new(dir.path())).unwrap_err().to_string();
    assert!(error.contains("another process uses it"), "{error}");
    drop(store);
    open(dir.path(), 30);
}

#[tokio::test]
async fn retention_deletes_whole_blocks_by_age() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        EmbeddedOptions { retention_age: Some(Duration::from_secs(86_400)), ..EmbeddedOptions::new(dir.path()) };
    let store = Embedded::open(options).unwrap();
    let now = now_ns();
    let day = 86_400_000_000_000;
    let old = [Event::at_ns(now - 3 * day), Event::at_ns(now - 2 * day)];
    // A clock in the future does not keep a block beyond its time, nor is it deleted before.
    store.write(&[message(0, &old), message(1, &[Event::at_ns(now), Event::at_ns(now + 30 * day)])]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(ids(&store, "").await, ["0-1-1", "0-1-0"]);
    let stats = store.stats();
    assert_eq!((stats.blocks_published, stats.blocks_expired, stats.events_expired), (4, 2, 2));
    store.store.expire(now + 2 * day).unwrap();
    assert!(ids(&store, "").await.is_empty());
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.len() == 2 && left.iter().all(|name| name == "MANIFEST" || name == LOCK), "{left:?}");
    assert_eq!(store.resume_at(), 2);
}

#[tokio::test]
async fn retention_deletes_the_oldest_blocks_above_a_size() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 50);
    for message in messages(0, 6, 50, Event::at) {
        store.write(&[message]).await.unwrap();
    }
    let before = store.stats();
    assert_eq!(before.blocks, 6);
    drop(store);
    let half = Some(before.bytes / 2 + 1);
    let store = Embedded::open(EmbeddedOptions { retention_bytes: half, ..EmbeddedOptions::new(dir.path()) }).unwrap();
    store.store.expire(now_ns()).unwrap();
    let after = store.stats();
    assert!(after.bytes <= before.bytes / 2 + 1 && (2..=4).contains(&after.blocks), "{after:?}");
    let newest = ids(&store, "").await;
    assert_eq!(newest.len() as u64, after.blocks * 50);
    assert_eq!(newest[0], "0-5-49");
}

#[tokio::test]
async fn a_message_that_is_not_otlp_stops_the_line_unless_it_can_be_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 30);
    let mut bad = message(0, &[]);
    bad.payload = bytes::Bytes::from_static(&[0xff; 9]);
    let error = store.write(&[bad]).await.unwrap_err().to_string();
    assert!(error.contains("the message at 0 is not OTLP"), "{error}");
}

/// Keeps dead letters, once it may.
#[derive(Default)]
struct Letters {
    open: std::sync::atomic::AtomicBool,
    kept: Mutex<Vec<(i64, String)>>,
}

impl DeadLetters for Letters {
    fn put(
        &self,
        message: &Message,
        _record: Option<u32>,
        reason: &str,
        _bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), crate::queue::QueueError>> {
        let kept = self.open.load(Ordering::Relaxed);
        if kept {
            lock(&self.kept).push((message.position.offset, reason.to_owned()));
        }
        Box::pin(
            async move { if kept { Ok(()) } else { Err(crate::queue::QueueError::Unavailable("away".to_owned())) } },
        )
    }
}

#[tokio::test]
async fn a_message_that_is_not_otlp_is_kept_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let letters = Arc::new(Letters::default());
    let options = EmbeddedOptions { dead_letters: Some(letters.clone()), ..EmbeddedOptions::new(dir.path()) };
    let store = Embedded::open(options).unwrap();
    let mut bad = message(1, &[]);
    bad.payload = bytes::Bytes::from_static(&[0xff; 9]);
    let all = [message(0, &[Event::at(0)]), bad, message(2, &[Event::at(2)])];
    assert!(store.write(&all).await.is_err());
    assert_eq!(ids(&store, "").await.len(), 2, "the others are not held up");
    letters.open.store(true, Ordering::Relaxed);
    assert_eq!(store.write(&all).await.unwrap(), Written { stored: 2, dead: 1, dropped: 0 });
    let kept = lock(&letters.kept).clone();
    assert!(kept.len() == 1 && kept[0].0 == 1 && kept[0].1.starts_with("is not OTLP: byte 0"), "{kept:?}");
    assert_eq!(store.durable(0), Some(0));
    store.close().await.unwrap();
    assert_eq!((store.durable(0), store.resume_at()), (Some(3), 3));
    assert_eq!(store.write(&all).await.unwrap().dead, 0);
    assert_eq!(lock(&letters.kept).len(), 1);
}

#[tokio::test]
async fn a_log_of_messages_without_events_to_store_is_let_go_of() {
    let dir = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { block_bytes: 16 << 10, ..EmbeddedOptions::new(dir.path()) };
    let store = Embedded::open(options).unwrap();
    let large = || Event { message: "x".repeat(4 << 10), ..Event::at(1) };
    // A batch that its sender repeats again and again.
    for offset in 0..8 {
        store.write(&[events::from("a", 1, message(offset, &[large()]))]).await.unwrap();
    }
    assert!(store.resume_at() >= 4, "{}", store.resume_at());
    // Events that a rule drops.
    for offset in 8..16 {
        let dropped = Message { dropped: vec![0], ..message(offset, &[large()]) };
        store.write(&[dropped]).await.unwrap();
    }
    assert!(store.resume_at() >= 12, "{}", store.resume_at());
    assert_eq!(ids(&store, "").await, ["0-0-0"]);
}

#[tokio::test]
async fn a_full_disk_stops_writes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 10);
    // A file where the day's directory should be: publishing fails until it is gone.
    let day = dir.path().join("1970-01-01");
    std::fs::write(&day, "").unwrap();
    let mut refused = 0;
    let all: Vec<_> = messages(0, 30, 1, Event::at).collect();
    for message in &all {
        refused += usize::from(store.write(std::slice::from_ref(message)).await.is_err());
    }
    assert!(refused >= 10, "{refused}");
    assert!(store.ready().await.is_err());
    assert_eq!(store.resume_at(), 0);
    assert!(ids(&store, "").await.len() <= 20);
    std::fs::remove_file(&day).unwrap();
    for message in &all {
        store.write(std::slice::from_ref(message)).await.unwrap();
    }
    store.ready().await.unwrap();
    assert_eq!(ids(&store, "").await.len(), 30);
}
