//! The queue's writing end, seen by readiness: whether appends succeed, and whether the queue thinks that they would.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::queue::{Batch, BoxFuture, QueueError, QueueWriter};

/// How long a failure counts when nothing was appended since. It must end by itself: a server that is not ready is sent
/// nothing that could show that it is well again.
const FAILURE_COUNTS: Duration = Duration::from_secs(10);

/// Passes appends on and remembers the last failure. That appends fail is logged once, and once that they succeed again: senders
/// are told of each, and `logsink_queue_failed_total` counts them.
pub(super) struct WatchedQueue {
    queue: Arc<dyn QueueWriter>,
    failure: Mutex<Option<Failure>>,
    /// Appends succeed, as far as the log says: read without a lock.
    well: AtomicBool,
}

struct Failure {
    since: Instant,
    last: Instant,
    message: String,
}

impl WatchedQueue {
    pub(super) fn new(queue: Arc<dyn QueueWriter>) -> Self {
        Self { queue, failure: Mutex::default(), well: AtomicBool::new(true) }
    }

    fn recent_failure(&self) -> Option<QueueError> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Failure { last, message, .. }) if last.elapsed() < FAILURE_COUNTS => {
                Some(QueueError::Unavailable(message.clone()))
            }
            _ => None,
        }
    }

    fn failed(&self, error: &QueueError) {
        let (now, message) = (Instant::now(), error.to_string());
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let since = failure.as_ref().map_or(now, |failure| failure.since);
        *failure = Some(Failure { since, last: now, message });
        if self.well.swap(false, Ordering::Relaxed) {
            tracing::error!(%error, "the queue does not take batches: senders are told to try again");
        }
    }

    fn succeeded(&self) {
        // Nearly always: nothing to do, and no lock.
        if self.well.load(Ordering::Relaxed) {
            return;
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !self.well.swap(true, Ordering::Relaxed) {
            let after = failure.map(|failure| failure.since.elapsed());
            tracing::info!(?after, "the queue takes batches again");
        }
    }
}

impl QueueWriter for WatchedQueue {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let appended = self.queue.append(batch).await;
            match &appended {
                Ok(()) => self.succeeded(),
                // The batch is at fault and not the queue.
                Err(QueueError::TooLarge { .. }) => {}
                Err(error) => self.failed(error),
            }
            appended
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        match self.recent_failure() {
            Some(failure) => Box::pin(std::future::ready(Err(failure))),
            None => self.queue.ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the next append with what stands in it.
    struct Fake(Mutex<Option<QueueError>>, AtomicBool);

    impl QueueWriter for Fake {
        fn append(&self, _: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
            Box::pin(async { self.0.lock().unwrap().take().map_or(Ok(()), Err) })
        }

        fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
            let full = self.1.load(Ordering::Relaxed);
            Box::pin(async move { if full { Err(QueueError::Unavailable("full".into())) } else { Ok(()) } })
        }
    }

    async fn ready(queue: &WatchedQueue) -> Result<(), String> {
        queue.ready().await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_failure_shows_until_an_append_succeeds() {
        let fake = Arc::new(Fake(Mutex::default(), AtomicBool::default()));
        let queue = WatchedQueue::new(fake.clone());
        let batch = || Batch { payload: Default::default(), headers: Default::default() };
        queue.append(batch()).await.unwrap();
        assert_eq!(ready(&queue).await, Ok(()));
        *fake.0.lock().unwrap() = Some(QueueError::Unavailable("no broker answers".into()));
        queue.append(batch()).await.unwrap_err();
        assert_eq!(ready(&queue).await, Err("no broker answers".into()));
        *fake.0.lock().unwrap() = Some(QueueError::TooLarge { bytes: 2, bytes_max: 1 });
        queue.append(batch()).await.unwrap_err();
        assert_eq!(ready(&queue).await, Err("no broker answers".into()));
        queue.append(batch()).await.unwrap();
        assert_eq!(ready(&queue).await, Ok(()));
        // Without an append, the queue's own word counts.
        fake.1.store(true, Ordering::Relaxed);
        assert_eq!(ready(&queue).await, Err("full".into()));
    }
}
