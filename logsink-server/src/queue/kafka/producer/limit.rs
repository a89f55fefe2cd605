//! How large a message the topic takes: told by the brokers, or found out.

use std::{sync::PoisonError, time::Duration};

use rdkafka::{
    ClientConfig,
    admin::{AdminOptions, ResourceSpecifier},
};
use tokio::task::spawn_blocking;

use super::{BATCH_BYTES, Producer};
use crate::queue::{QueueError, kafka::Admin};

/// The least that a topic is taken to hold, whatever brokers say: a record of a few words and its resource.
const LIMIT_MIN: usize = 1 << 10;
/// How long the brokers may take to tell.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is under way with the old limit may take to arrive.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);

/// What the topic takes, as far as is known. It only shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Limit {
    /// Bytes of a message.
    pub(in super::super) message: usize,
    /// Bytes of several messages that librdkafka sends as one (`batch.size`). A larger message is sent alone.
    batch: usize,
}

impl Limit {
    pub(super) fn new(message: usize, config: &ClientConfig) -> Self {
        let batch = config.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_BYTES);
        Self { message, batch }
    }

    /// What is left when a message of so many bytes was too large for it and the brokers have told the topic's limit, or have not.
    fn lowered(self, bytes: usize, told: Option<usize>) -> Self {
        let (message, batch) = match told {
            Some(told) if told < self.message => (told, self.batch),
            // It was sent with others: all of them were too large together, and it may be far below what the topic takes.
            _ if bytes < self.batch && self.batch > LIMIT_MIN => (self.message, self.batch / 2),
            _ => (bytes.min(self.message) / 2, self.batch),
        };
        let message = message.max(LIMIT_MIN);
        Self { message, batch: batch.min(message).max(LIMIT_MIN) }
    }
}

impl Producer {
    /// What the topic takes, as far as is known.
    pub(in super::super) fn limit(&self) -> Limit {
        *self.0.limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A message of so many bytes was too large though the limit was `known`: finds the topic's limit, or else tries with half, of what
    /// is sent as one first.
    pub(in super::super) async fn learn(&self, bytes: usize, known: Limit) -> Result<(), QueueError> {
        let _learning = self.0.learning.lock().await;
        if self.limit() != known {
            // Another one has learnt it.
            return Ok(());
        }
        let limit = known.lowered(bytes, self.topic_limit().await);
        let topic = &self.options().topic;
        let Limit { message, batch } = limit;
        tracing::warn!(topic, message, batch, "the Kafka topic takes fewer bytes at a time: splitting larger batches");
        *self.0.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
        let old = {
            let mut current = self.0.current();
            current.config.set("batch.size", batch.to_string());
            current.renew(topic)?
        };
        // What is under way in it may yet arrive.
        drop(spawn_blocking(move || old.finish(FINISH_TIMEOUT)));
        Ok(())
    }

    /// The topic's `max.message.bytes`, when the brokers tell it.
    async fn topic_limit(&self) -> Option<usize> {
        let admin = Admin::connect(self.options()).ok()?;
        let options = AdminOptions::new().request_timeout(Some(TELL_TIMEOUT));
        let topic = ResourceSpecifier::Topic(&self.options().topic);
        let answers = admin.describe_configs([&topic], &options).await;
        let told = answers.ok()?.into_iter().next()?.ok()?;
        told.entry_map().get("max.message.bytes")?.value.as_ref()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_that_were_too_large_together_do_not_lower_what_one_may_have() {
        let known = |message, batch| Limit { message, batch };
        let start = Limit::new(16 << 20, &ClientConfig::new());
        assert_eq!(start, known(16 << 20, BATCH_BYTES));
        for (limit, bytes, told, lowered) in [
            (start, 4_000, None, known(16 << 20, BATCH_BYTES / 2)),
            (start, 4_000, Some(30_000), known(30_000, 30_000)),
            (start, 2_000_000, None, known(1_000_000, 1_000_000)),
            (start, 2_000_000, Some(1_500_000), known(1_500_000, BATCH_BYTES)),
            (known(30_000, 30_000), 14_000, Some(30_000), known(30_000, 15_000)),
            (known(30_000, 15_000), 20_000, None, known(10_000, 10_000)),
            (known(30_000, 1_500), 600, None, known(30_000, LIMIT_MIN)),
            (known(30_000, LIMIT_MIN), 600, None, known(LIMIT_MIN, LIMIT_MIN)),
        ] {
            assert_eq!(limit.lowered(bytes, told), lowered, "{limit:?} {bytes} {told:?}");
        }
    }
}
