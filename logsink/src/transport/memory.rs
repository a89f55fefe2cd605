//! Keeps batches in memory, and fails on demand: for tests of what is built on the library.

use std::{collections::VecDeque, sync::Mutex};

use tokio::sync::Notify;

use super::{Accepted, Batch, SendError, Sending, Transport};

/// A sink in memory. Takes every batch unless told otherwise.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    taken: Vec<Batch>,
    attempts: u64,
    answers: VecDeque<Answer>,
    down: bool,
    held: bool,
    payload_bytes_max: Option<usize>,
    tells_bytes_max: bool,
}

/// How one send ends.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The batch is kept and acknowledged, perhaps in part.
    Take(Accepted),
    /// The batch is kept, but the sender is told that it failed: an acknowledgement that got lost.
    TakeButFail(SendError),
    /// The batch is refused.
    Refuse(SendError),
}

impl Memory {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues answers for the next sends, in this order; after them batches are taken again.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.lock().answers.extend(answers);
    }

    /// While down, every send fails as [`SendError::Retryable`].
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
        self.changed.notify_waiters();
    }

    /// While held, sends wait without an answer.
    pub fn set_held(&self, held: bool) {
        self.lock().held = held;
        self.changed.notify_waiters();
    }

    /// Refuses larger payloads as [`SendError::TooLarge`].
    pub fn set_payload_bytes_max(&self, bytes: usize) {
        self.lock().payload_bytes_max = Some(bytes);
    }

    /// Tells that limit, as a broker does that is asked for it.
    pub fn tell_payload_bytes_max(&self) {
        self.lock().tells_bytes_max = true;
    }

    /// The batches taken so far, in the order of their arrival.
    pub fn taken(&self) -> Vec<Batch> {
        self.lock().taken.clone()
    }

    /// Sends so far, failed ones included.
    pub fn attempts(&self) -> u64 {
        self.lock().attempts
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn released(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.lock().held {
                return;
            }
            changed.await;
        }
    }
}

impl Transport for Memory {
    fn bytes_max(&self) -> Option<usize> {
        let state = self.lock();
        state.payload_bytes_max.filter(|_| state.tells_bytes_max)
    }

    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(async move {
            self.lock().attempts += 1;
            self.released().await;
            let mut state = self.lock();
            if state.down {
                return Err(SendError::Retryable { message: "the sink is down".to_owned(), after: None });
            }
            if state.payload_bytes_max.is_some_and(|max| batch.payload.len() > max) {
                return Err(SendError::TooLarge { message: "the payload is too large".to_owned() });
            }
            match state.answers.pop_front().unwrap_or(Answer::Take(Accepted::default())) {
                Answer::Take(accepted) => {
                    state.taken.push(batch);
                    Ok(accepted)
                }
                Answer::TakeButFail(error) => {
                    state.taken.push(batch);
                    Err(error)
                }
                Answer::Refuse(error) => Err(error),
            }
        })
    }
}
