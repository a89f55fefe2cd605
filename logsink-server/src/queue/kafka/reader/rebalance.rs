//! Partitions that come and go.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};

use super::{Shared, poller::positions};
use crate::queue::kafka::{Logged, config_error, log};

/// What librdkafka calls back, on the thread that polls.
pub(super) struct Context {
    shared: Arc<Shared>,
    /// Counts changes of the assignment.
    pub(super) rebalances: AtomicU64,
    /// Another client has taken the place of this one: what it still has to say is not about our partitions.
    pub(super) is_retired: AtomicBool,
}

impl Context {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, rebalances: AtomicU64::new(0), is_retired: AtomicBool::new(false) }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Logged.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if self.is_retired.load(Relaxed) {
            return;
        }
        self.rebalances.fetch_add(1, Relaxed);
        match rebalance {
            Rebalance::Assign(list) => {
                let partitions = numbers(list);
                if !partitions.is_empty() {
                    tracing::info!(topic = self.shared.topic, ?partitions, "partitions came");
                }
                self.shared.state().assign(&partitions);
                self.shared.alarm.notify_all();
            }
            Rebalance::Revoke(list) => {
                let partitions = numbers(list);
                let last = self.shared.state().revoke(&partitions);
                if !last.is_empty() {
                    // The next reader begins where this one ended; when it fails, it reads a little again.
                    let commit = |list| consumer.commit(&list, CommitMode::Async).map_err(config_error);
                    if let Err(error) = positions(&self.shared.topic, &last).and_then(commit) {
                        tracing::warn!(%error, "cannot commit the positions of partitions that go to another reader");
                    }
                }
                for partition in &partitions {
                    self.shared.metrics.lag(*partition, None);
                }
                if !partitions.is_empty() {
                    tracing::info!(topic = self.shared.topic, ?partitions, "partitions went");
                    self.shared.ready.notify_one();
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance in Kafka failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if self.is_retired.load(Relaxed) {
            return;
        }
        self.shared.state().committed(result.is_ok());
        if let Err(error) = result {
            // The positions are kept and committed again soon, and at the end.
            tracing::warn!(%error, "Kafka refused a commit of positions");
        }
    }
}

fn numbers(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}
