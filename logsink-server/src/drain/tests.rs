//! The drain between a reader in memory and an index that fails, waits or answers as each story wants.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Mutex,
};

use bytes::Bytes;
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use super::*;
use crate::queue::{BoxFuture, Headers};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a test and its reader share.
#[derive(Default)]
struct Shared {
    coming: Mutex<VecDeque<Result<Fetched, QueueError>>>,
    commits: Mutex<Vec<Position>>,
    reads: Mutex<usize>,
    closed: Mutex<bool>,
    changed: Notify,
}

struct MemoryReader(Arc<Shared>);

impl QueueReader for MemoryReader {
    fn next(&mut self, _bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        Box::pin(async move {
            loop {
                let changed = self.0.changed.notified();
                if let Some(fetched) = self.0.coming.lock().unwrap().pop_front() {
                    *self.0.reads.lock().unwrap() += 1;
                    self.0.changed.notify_waiters();
                    return fetched;
                }
                changed.await;
            }
        })
    }

    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError> {
        self.0.commits.lock().unwrap().extend(next);
        self.0.changed.notify_waiters();
        Ok(())
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        Box::pin(async move {
            *self.0.closed.lock().unwrap() = true;
            Ok(())
        })
    }
}

impl Shared {
    fn send(&self, fetched: Fetched) {
        self.coming.lock().unwrap().push_back(Ok(fetched));
        self.changed.notify_waiters();
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                if holds(self) {
                    return;
                }
                // A notification between the two lines above would be missed: look again soon.
                let _ = timeout(Duration::from_millis(20), changed).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn committed(&self, partition: i32) -> Option<i64> {
        self.commits.lock().unwrap().iter().rev().find(|at| at.partition == partition).map(|at| at.offset)
    }
}

/// An index that a test holds up.
#[derive(Default)]
struct Held {
    /// Offsets whose write may not end.
    held: Mutex<BTreeSet<i64>>,
    /// Writes that fail before any succeeds.
    failures: Mutex<usize>,
    written: Mutex<Vec<Position>>,
    started: Mutex<usize>,
    durable: Mutex<Option<i64>>,
    closed: Mutex<bool>,
    changed: Notify,
}

impl Held {
    fn hold(&self, offsets: impl IntoIterator<Item = i64>) {
        *self.held.lock().unwrap() = offsets.into_iter().collect();
        self.changed.notify_waiters();
    }

    fn written(&self) -> Vec<i64> {
        self.written.lock().unwrap().iter().map(|at| at.offset).collect()
    }
}

impl IndexWriter for Held {
    fn write<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<Written, IndexError>> {
        Box::pin(async move {
            *self.started.lock().unwrap() += 1;
            {
                let mut failures = self.failures.lock().unwrap();
                if *failures > 0 {
                    *failures -= 1;
                    return Err(IndexError::Failed("disk full".into()));
                }
            }
            loop {
                let changed = self.changed.notified();
                let held = messages.iter().any(|message| self.held.lock().unwrap().contains(&message.position.offset));
                if !held {
                    break;
                }
                let _ = timeout(Duration::from_millis(20), changed).await;
            }
            self.written.lock().unwrap().extend(messages.iter().map(|message| message.position));
            Ok(Written { stored: messages.len() as u64, ..Written::default() })
        })
    }

    fn durable(&self, _partition: i32) -> Option<i64> {
        *self.durable.lock().unwrap()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            *self.closed.lock().unwrap() = true;
            *self.durable.lock().unwrap() = None;
            Ok(())
        })
    }
}

struct Story {
    queue: Arc<Shared>,
    index: Arc<Held>,
    metrics: Arc<Metrics>,
    shutdown: watch::Sender<bool>,
    running: JoinHandle<Result<(), DrainError>>,
}

/// One message a write, so that a test can hold up a single one.
fn one_by_one() -> DrainOptions {
    DrainOptions { write_bytes_max: 1, linger: Duration::ZERO, ..DrainOptions::default() }
}

fn start(options: DrainOptions, index: Held) -> Story {
    let (queue, index, metrics) = (Arc::<Shared>::default(), Arc::new(index), Metrics::new());
    let (shutdown, stop) = watch::channel(false);
    let reader = Box::new(MemoryReader(Arc::clone(&queue)));
    let drain = Drain::new(reader, Arc::new(|message| message), index.clone(), Arc::clone(&metrics), options);
    Story { queue, index, metrics, shutdown, running: tokio::spawn(drain.run(stop)) }
}

impl Story {
    async fn stop(self) -> Result<(), DrainError> {
        self.shutdown.send_replace(true);
        timeout(PATIENCE, self.running).await.expect("the drain stops").expect("the drain does not panic")
    }
}

fn message(partition: i32, offset: i64, epoch: u32) -> Message {
    Message {
        position: Position { partition, offset },
        epoch,
        payload: Bytes::from_static(&[0; 1_000]),
        headers: Headers::default(),
        dropped: Vec::new(),
    }
}

fn messages(partition: i32, offsets: std::ops::Range<i64>) -> Fetched {
    Fetched::Messages(offsets.map(|offset| message(partition, offset, 1)).collect())
}

#[tokio::test]
async fn commits_only_what_is_written_without_a_gap() {
    let index = Held::default();
    index.hold([2]);
    let story = start(one_by_one(), index);
    story.queue.send(messages(0, 0..5));
    story.queue.until("0 and 1 are committed", |queue| queue.committed(0) == Some(2)).await;
    story.queue.until("3 and 4 are written", |_| story.index.written().len() == 4).await;
    assert_eq!(story.queue.committed(0), Some(2), "2 holds back what comes after it");
    story.index.hold([]);
    story.queue.until("all is committed", |queue| queue.committed(0) == Some(5)).await;
    assert_eq!(story.metrics.drain_records.get(), 5);
    story.stop().await.unwrap();
}

#[tokio::test]
async fn a_failing_index_is_tried_again_and_nothing_is_committed_before() {
    let index = Held { failures: Mutex::new(2), ..Held::default() };
    let story = start(one_by_one(), index);
    story.queue.send(messages(0, 7..8));
    story.queue.until("the write is committed", |queue| queue.committed(0) == Some(8)).await;
    assert_eq!((story.metrics.drain_retries.get(), story.index.written()), (2, vec![7]));
    assert_eq!(story.queue.commits.lock().unwrap().len(), 1);
    story.stop().await.unwrap();
}

#[tokio::test]
async fn stops_reading_at_the_budget() {
    let index = Held::default();
    index.hold(0..100);
    let options = DrainOptions { pending_bytes_max: 3_000, ..one_by_one() };
    let story = start(options, index);
    for offset in 0..10 {
        story.queue.send(messages(0, offset..offset + 1));
    }
    let reads = |queue: &Shared| *queue.reads.lock().unwrap();
    story.queue.until("the budget is spent", |queue| reads(queue) >= 3).await;
    // Nothing else is to happen: give what should not happen the time to.
    sleep(Duration::from_millis(100)).await;
    assert_eq!(reads(&story.queue), 3);
    story.index.hold([]);
    story.queue.until("the rest is read and committed", |queue| queue.committed(0) == Some(10)).await;
    assert_eq!(story.metrics.drain_pending_bytes.get(), 0);
    story.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_partition_is_forgotten() {
    let index = Held::default();
    index.hold([5, 6]);
    let story = start(one_by_one(), index);
    story.queue.send(messages(0, 5..6));
    story.queue.send(messages(1, 6..7));
    story.queue.until("both are under way", |_| *story.index.started.lock().unwrap() == 2).await;
    story.queue.send(Fetched::Revoked(vec![0]));
    story.queue.until("the revocation is read", |queue| *queue.reads.lock().unwrap() == 3).await;
    story.index.hold([]);
    story.queue.until("the other partition is committed", |queue| queue.committed(1) == Some(7)).await;
    assert_eq!(story.queue.committed(0), None, "its new owner commits");
    // It comes back, from the start, in a new epoch.
    story.queue.send(Fetched::Messages(vec![message(0, 5, 2)]));
    story.queue.until("it is committed in its new epoch", |queue| queue.committed(0) == Some(6)).await;
    story.stop().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_finishes_what_is_under_way() {
    let index = Held::default();
    index.hold([1]);
    let story = start(one_by_one(), index);
    story.queue.send(messages(0, 0..2));
    story.queue.until("both are under way", |_| *story.index.started.lock().unwrap() == 2).await;
    story.shutdown.send_replace(true);
    let (queue, index) = (Arc::clone(&story.queue), Arc::clone(&story.index));
    index.hold([]);
    story.stop().await.unwrap();
    assert_eq!(queue.committed(0), Some(2));
    assert!(*queue.closed.lock().unwrap() && *index.closed.lock().unwrap());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever_and_commits_no_unwritten_message() {
    let index = Held::default();
    index.hold([1]);
    let story = start(DrainOptions { grace: Duration::from_millis(50), ..one_by_one() }, index);
    story.queue.send(messages(0, 0..3));
    story.queue.until("the others are written", |_| story.index.written().len() == 2).await;
    let queue = Arc::clone(&story.queue);
    story.stop().await.unwrap();
    assert_eq!(queue.committed(0), Some(1));
}

#[tokio::test]
async fn what_is_not_durable_yet_stays_in_the_queue() {
    let index = Held { durable: Mutex::new(Some(3)), ..Held::default() };
    let story = start(one_by_one(), index);
    story.queue.send(messages(0, 0..5));
    story.queue.until("what is durable is committed", |queue| queue.committed(0) == Some(3)).await;
    let queue = Arc::clone(&story.queue);
    story.stop().await.unwrap();
    assert_eq!(queue.committed(0), Some(5), "closing the index published the rest");
}

#[tokio::test]
async fn a_closed_queue_ends_the_drain() {
    let story = start(DrainOptions::default(), Held::default());
    story.queue.send(messages(0, 0..3));
    story.queue.send(Fetched::Closed);
    let queue = Arc::clone(&story.queue);
    timeout(PATIENCE, story.running).await.expect("it ends").unwrap().unwrap();
    assert_eq!(queue.committed(0), Some(3));
}

#[tokio::test]
async fn a_failing_queue_is_read_again() {
    let story = start(one_by_one(), Held::default());
    story.queue.coming.lock().unwrap().push_back(Err(QueueError::Unavailable("broker away".into())));
    story.queue.send(messages(0, 0..1));
    story.queue.until("the message is committed", |queue| queue.committed(0) == Some(1)).await;
    story.stop().await.unwrap();
}

#[test]
fn a_write_takes_whole_messages_up_to_its_bytes() {
    let mut waiting = Waiting::default();
    for offset in 0..5 {
        waiting.push(message(offset % 2, i64::from(offset), 1));
    }
    let (taken, bytes) = waiting.split(2_500);
    assert_eq!((taken.len(), bytes), (2, taken.iter().map(weight).sum::<usize>()));
    assert_eq!(waiting.forget(0), 2 * weight(&taken[0]), "offsets 2 and 4");
    let (taken, _) = waiting.split(1);
    assert_eq!(taken.iter().map(|message| message.position.offset).collect::<Vec<_>>(), [3]);
    assert!(waiting.since.is_none() && waiting.bytes == 0);
}
