//! How large a message the topic takes: told by the brokers, or found out.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use rdkafka::admin::{AdminOptions, ResourceSpecifier};
use tokio::task::spawn_blocking;

use super::{BATCH_BYTES, Producer};
use crate::queue::{QueueError, kafka::Admin};

/// The least that a topic is taken to hold, whatever brokers say: a record of a few words and its resource.
const LIMIT_MIN: usize = 1 << 10;
/// How long the brokers may take to tell.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what is under way with the old limit may take to arrive.
const FINISH_TIMEOUT: Duration = Duration::from_secs(20);

impl Producer {
    /// Bytes of a message that the topic takes, as far as is known.
    pub(in super::super) fn limit(&self) -> usize {
        self.0.limit.load(Relaxed)
    }

    /// A message of so many bytes was too large though the limit was `known`: finds the topic's limit, or else tries with half.
    pub(in super::super) async fn learn(&self, bytes: usize, known: usize) -> Result<(), QueueError> {
        let _learning = self.0.learning.lock().await;
        if self.limit() < known {
            // Another one has learnt it.
            return Ok(());
        }
        let told = self.topic_limit().await;
        let limit = match told {
            Some(told) if told < known => told,
            // Messages that were sent as one were too large together.
            Some(told) if bytes <= known / 2 => told.min(known),
            _ => bytes.min(known) / 2,
        };
        let limit = limit.max(LIMIT_MIN);
        let topic = &self.options().topic;
        tracing::warn!(topic, limit, "the Kafka topic takes smaller messages: splitting larger batches");
        self.0.limit.store(limit, Relaxed);
        let old = {
            let mut current = self.0.current();
            current.config.set("batch.size", limit.min(BATCH_BYTES).to_string());
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
