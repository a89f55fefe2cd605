//! A topic of JSON log lines, read as if it held OTLP: each message is one line, and becomes one request of one record.
//!
//! Stands between a queue's reader and drain. A message that is no such line goes to the dead letters with its bytes and the
//! reason, before anything behind it is handed on; what drain sees in its place is a request without records, so that its
//! position is committed with the others.
//!
//! While the dead letters cannot be written, nothing more is read: no message is passed over in silence.

mod level;
mod line;
mod time;
mod tree;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinHandle, time::sleep};

use super::{BoxFuture, DeadLetters, Fetched, Message, Position, QueueError, QueueReader};
use crate::{config::JsonFields, metrics::Metrics};

/// The first pause when the dead letters cannot be written; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest: a broker that comes back is noticed by then.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A reader of lines.
pub struct JsonReader {
    inner: Box<dyn QueueReader>,
    fields: Arc<JsonFields>,
    dead: Arc<dyn DeadLetters>,
    metrics: Arc<Metrics>,
    /// Read and translated; not handed on while a dead letter is being written. A call of `next` that is dropped leaves them.
    translated: Vec<Message>,
    /// Of these, those that are no lines, with the reason.
    bad: VecDeque<(Message, String)>,
    /// The dead letter that is being written. A task of its own, because a call of `next` may be dropped at any time, and
    /// the letter would be written twice.
    burying: Option<JoinHandle<()>>,
}

impl JsonReader {
    /// Reads `inner`'s messages as lines whose fields are found as `fields` says.
    pub fn new(
        inner: Box<dyn QueueReader>,
        fields: JsonFields,
        dead: Arc<dyn DeadLetters>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (translated, bad) = (Vec::new(), VecDeque::new());
        Self { inner, fields: Arc::new(fields), dead, metrics, translated, bad, burying: None }
    }

    fn translate(&mut self, mut message: Message) {
        match line::to_otlp(&message.payload, &self.fields, &message.headers.others) {
            Ok(payload) => message.payload = payload.into(),
            Err(reason) => {
                self.bad.push_back((message.clone(), reason));
                message.payload = Bytes::new();
            }
        }
        self.translated.push(message);
    }

    /// Until the dead letters hold every message that is no line. Cancel-safe.
    async fn bury(&mut self) -> Result<(), QueueError> {
        loop {
            if let Some(burying) = &mut self.burying {
                let ended = burying.await;
                self.burying = None;
                ended.map_err(|error| QueueError::Failed(format!("writing a dead letter: {error}")))?;
            }
            let Some((message, reason)) = self.bad.pop_front() else { return Ok(()) };
            let (dead, metrics) = (Arc::clone(&self.dead), Arc::clone(&self.metrics));
            self.burying = Some(tokio::spawn(put(dead, metrics, message, reason)));
        }
    }
}

/// Puts a message among the dead letters, however often it takes.
async fn put(dead: Arc<dyn DeadLetters>, metrics: Arc<Metrics>, message: Message, reason: String) {
    let reason = format!("not_json: {reason}");
    let mut pause = PAUSE_MIN;
    while let Err(error) = dead.put(&message, None, &reason, &message.payload).await {
        metrics.retried("dead_letters");
        tracing::warn!(%error, retry_in = ?pause, "cannot write to the dead letters");
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    metrics.dead("not_json", 1);
    let at = message.position;
    tracing::warn!(partition = at.partition, offset = at.offset, %reason, "put a message among the dead letters");
}

impl QueueReader for JsonReader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        Box::pin(async move {
            if self.translated.is_empty() {
                match self.inner.next(bytes_max).await? {
                    Fetched::Messages(messages) => messages.into_iter().for_each(|message| self.translate(message)),
                    other => return Ok(other),
                }
            }
            self.bury().await?;
            Ok(Fetched::Messages(std::mem::take(&mut self.translated)))
        })
    }

    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError> {
        self.inner.commit(next)
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        // What was not handed on is not committed: it is read again. A letter that is written meanwhile may come twice.
        if let Some(burying) = &self.burying {
            burying.abort();
        }
        self.inner.close()
    }
}
