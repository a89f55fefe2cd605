//! The queue's writing end, seen by readiness: whether appends succeed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::queue::{Batch, BoxFuture, QueueError, QueueWriter};

/// How long a failure counts when nothing was appended since. It must end by itself: a server that is not ready is sent
/// nothing that could show that it is well again.
const FAILURE_COUNTS: Duration = Duration::from_secs(10);

/// Passes appends on and remembers the last failure.
pub(super) struct WatchedQueue {
    queue: Arc<dyn QueueWriter>,
    failure: Mutex<Option<(Instant, String)>>,
}

impl WatchedQueue {
    pub(super) fn new(queue: Arc<dyn QueueWriter>) -> Self {
        Self { queue, failure: Mutex::default() }
    }

    pub(super) fn ready(&self) -> Result<(), String> {
        match &*self.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, message)) if at.elapsed() < FAILURE_COUNTS => Err(message.clone()),
            _ => Ok(()),
        }
    }
}

impl QueueWriter for WatchedQueue {
    fn append(&self, batch: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let appended = self.queue.append(batch).await;
            let failure = match &appended {
                Ok(()) => None,
                // The batch is at fault and not the queue.
                Err(QueueError::TooLarge { .. }) => return appended,
                Err(error) => Some((Instant::now(), error.to_string())),
            };
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
            appended
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers with what stands in it.
    struct Fake(Mutex<Option<QueueError>>);

    impl QueueWriter for Fake {
        fn append(&self, _: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
            Box::pin(async { self.0.lock().unwrap().take().map_or(Ok(()), Err) })
        }
    }

    #[tokio::test]
    async fn a_failure_shows_until_an_append_succeeds() {
        let fake = Arc::new(Fake(Mutex::default()));
        let queue = WatchedQueue::new(fake.clone());
        let batch =
            || Batch { payload: Default::default(), records: 1, service: String::new(), headers: Default::default() };
        queue.append(batch()).await.unwrap();
        assert_eq!(queue.ready(), Ok(()));
        *fake.0.lock().unwrap() = Some(QueueError::Unavailable("no broker answers".into()));
        queue.append(batch()).await.unwrap_err();
        assert_eq!(queue.ready(), Err("no broker answers".into()));
        *fake.0.lock().unwrap() = Some(QueueError::TooLarge { bytes: 2, bytes_max: 1 });
        queue.append(batch()).await.unwrap_err();
        assert_eq!(queue.ready(), Err("no broker answers".into()));
        queue.append(batch()).await.unwrap();
        assert_eq!(queue.ready(), Ok(()));
    }
}
