//! Partitions that come and go.

use std::{collections::BTreeMap, mem, sync::Arc};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
};

use super::{Event, Shared, poller::positions};
use crate::queue::kafka::{Logged, config_error, log};

/// What librdkafka calls back, on the thread that polls.
pub(super) struct Context(pub(super) Arc<Shared>);

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
        let mut state = self.0.state();
        match rebalance {
            Rebalance::Assign(list) => {
                for partition in list.elements().iter().map(|element| element.partition()) {
                    *state.epochs.entry(partition).or_default() += 1;
                    state.assigned.push(partition);
                }
                state.rebalances += 1;
            }
            Rebalance::Revoke(list) => {
                let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
                let revoked = |partition: &i32| partitions.contains(partition);
                state.assigned.retain(|partition| !revoked(partition));
                let (last, kept): (BTreeMap<_, _>, _) =
                    mem::take(&mut state.positions).into_iter().partition(|(partition, _)| revoked(partition));
                state.positions = kept;
                state.rebalances += 1;
                let buffer = mem::take(&mut state.buffer).into_iter();
                state.buffer = buffer
                    .filter(|event| !matches!(event, Event::Message(message) if revoked(&message.position.partition)))
                    .collect();
                let bytes = |event: &Event| match event {
                    Event::Message(message) => message.payload.len(),
                    Event::Revoked(_) | Event::Error(_) => 0,
                };
                state.bytes = state.buffer.iter().map(bytes).sum();
                drop(state);
                if let (Some(element), false) = (list.elements().first(), last.is_empty()) {
                    // The next reader begins where this one ended; when it fails, it reads a little again.
                    let commit = |list| consumer.commit(&list, CommitMode::Async).map_err(config_error);
                    if let Err(error) = positions(element.topic(), &last).and_then(commit) {
                        tracing::warn!(%error, "cannot commit the positions of partitions that go to another reader");
                    }
                }
                for partition in &partitions {
                    self.0.metrics.lag(*partition, None);
                }
                if !partitions.is_empty() {
                    self.0.push(Event::Revoked(partitions));
                }
            }
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance in Kafka failed"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // The positions are kept and committed again with the next ones, and at the end.
            tracing::warn!(%error, "Kafka refused a commit of positions");
        }
    }
}
