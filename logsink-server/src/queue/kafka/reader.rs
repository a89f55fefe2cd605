//! The reading end: a member of a consumer group, on a thread of its own.
//!
//! The thread polls all the time, whether or not `next` is called: a group throws out a member that does not, and a rebalance
//! waits for it. What it reads stands in a bounded buffer; when drain does not take it for a while, the partitions are paused.
//! Offsets are committed only as drain says. A second thread watches: how far behind the reader is, what retention has taken
//! from it, and whether the client is still alive (`watch`); whatever waits for a broker's answer waits there.
//!
//! All partitions share librdkafka's one queue: split queues lose messages at a rebalance (rust-rdkafka#840).

mod buffer;
mod client;
mod lag;
mod poller;
mod pulse;
mod rebalance;
mod watch;

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};

use self::{buffer::State, poller::Poller};
use super::{KafkaOptions, Topic};
use crate::{
    metrics::Metrics,
    queue::{BoxFuture, Fetched, Position, QueueError, QueueReader},
};

/// - no commits and no positions but ours;
/// - `auto.offset.reset`: a group that has no position, or one that is gone, begins at the oldest message: rather twice than never;
/// - `isolation.level`: what a transactional producer took back was never acknowledged to anyone;
/// - `session.timeout.ms`: how long the partitions of a dead member lie idle;
/// - `topic.metadata.refresh.interval.ms`: how late new partitions are noticed (the default is five minutes);
/// - `fetch.queue.backoff.ms`: at librdkafka's second, a full queue idles the drain (153,000 records/s instead of 600,000);
/// - `queued.max.messages.kbytes`: bytes read ahead inside librdkafka, of all partitions together; a fifth of a second's worth at
///   600,000 records/s, and an answer of each broker may come on top of it;
/// - `fetch.max.bytes`: one such answer (a message that is larger comes alone).
const PROPERTIES: [(&str, &str); 10] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "earliest"),
    ("isolation.level", "read_committed"),
    ("session.timeout.ms", "10000"),
    ("topic.metadata.refresh.interval.ms", "60000"),
    ("fetch.queue.backoff.ms", "10"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.max.bytes", "8388608"),
    ("allow.auto.create.topics", "false"),
];

/// A message that is no larger is read whole, however small the server's own requests are to be.
const MESSAGE_BYTES_MIN: usize = 17 << 20;

/// Between attempts to create the topic; each one takes some seconds by itself.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The reading end.
pub struct KafkaReader {
    shared: Arc<Shared>,
    stage: Stage,
}

enum Stage {
    /// Nothing was asked for.
    New(Box<(Topic, Poller)>),
    /// The thread runs, or has ended with this answer.
    Running(oneshot::Receiver<Result<(), QueueError>>),
    /// The thread did not start.
    Failed,
}

struct Shared {
    metrics: Arc<Metrics>,
    topic: String,
    state: Mutex<State>,
    /// Something stands in the buffer, or the thread has ended.
    ready: Notify,
    /// Something was taken from the buffer, or the reader is closing.
    room: Condvar,
    /// The watching thread has something to do before its time.
    alarm: Condvar,
}

impl Shared {
    // A panic while the lock is held leaves plain values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a partition's lag, if it is still ours: under the lock, so that what has gone in the meantime does not come back.
    fn show_lag(&self, partition: i32, lag: i64) {
        let state = self.state();
        if state.assigned(partition).is_some() {
            self.metrics.lag(partition, Some(lag));
        }
    }

    fn close(&self) {
        self.state().closing = true;
        self.room.notify_all();
        self.alarm.notify_all();
    }
}

// === impl KafkaReader ===

impl KafkaReader {
    /// A member of the group, from the first `next` on; the topic is created when it is missing. Does not wait for the
    /// brokers: while they are away, `next` waits.
    ///
    /// # Errors
    /// When a property is wrong.
    pub fn connect(options: &KafkaOptions, group: &str, metrics: Arc<Metrics>) -> Result<Self, QueueError> {
        let shared = Arc::new(Shared {
            metrics,
            topic: options.topic.clone(),
            state: Mutex::default(),
            ready: Notify::new(),
            room: Condvar::new(),
            alarm: Condvar::new(),
        });
        let mut own = vec![("group.id", group), ("partition.assignment.strategy", options.assignment.name())];
        own.extend(options.instance.as_deref().map(|instance| ("group.instance.id", instance)));
        own.extend(PROPERTIES);
        let config = options.client(&own);
        let poller = Poller::new(Arc::clone(&shared), config, options.message_bytes_max.max(MESSAGE_BYTES_MIN))?;
        Ok(Self { shared, stage: Stage::New(Box::new((Topic::new(options.clone()), poller))) })
    }

    /// Bytes that wait for `next`.
    #[cfg(all(test, feature = "real-servers"))]
    pub(super) fn buffered(&self) -> usize {
        self.shared.state().bytes()
    }

    /// What goes when the client does.
    #[cfg(all(test, feature = "real-servers"))]
    pub(super) fn client(&self) -> std::sync::Weak<impl Sized + use<>> {
        Arc::downgrade(&self.shared)
    }

    /// Whether brokers have told which topic of this name it is.
    #[cfg(all(test, feature = "real-servers"))]
    pub(super) fn knows_topic(&self) -> bool {
        self.shared.state().topic_id.is_some()
    }

    /// The client stops fetching, as if of itself.
    #[cfg(all(test, feature = "real-servers"))]
    pub(super) async fn stall(&self) {
        self.shared.state().stall = true;
        while self.shared.state().stall {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn fetch(&mut self, bytes_max: usize) -> Result<Fetched, QueueError> {
        if let Stage::New(new) = &self.stage {
            while let Err(error) = new.0.ready().await {
                match error {
                    QueueError::Unavailable(message) => tracing::warn!("{message}: trying again"),
                    error => return Err(error),
                }
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
        self.stage = match mem::replace(&mut self.stage, Stage::Failed) {
            Stage::New(new) => Stage::Running(new.1.start()?),
            stage => stage,
        };
        loop {
            let taken = self.shared.state().take(bytes_max);
            if let Some(fetched) = taken {
                self.shared.room.notify_all();
                return fetched;
            }
            self.shared.ready.notified().await;
        }
    }
}

impl QueueReader for KafkaReader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        Box::pin(self.fetch(bytes_max))
    }

    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError> {
        self.shared.state().commit(next);
        Ok(())
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        self.shared.close();
        Box::pin(async move {
            match &mut self.stage {
                Stage::New(..) | Stage::Failed => Ok(()),
                Stage::Running(ended) => {
                    let failed = || QueueError::Failed("the Kafka reader's thread has failed".into());
                    ended.await.unwrap_or_else(|_| Err(failed()))
                }
            }
        })
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.shared.close();
        // What nobody has taken holds the client, which holds what it stands in.
        self.shared.state().forget();
    }
}
