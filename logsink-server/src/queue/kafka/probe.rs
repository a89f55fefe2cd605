//! A fresh client's word on whether the brokers answer: the proof that an old one is the trouble, and not they.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
};

/// How long a fresh client may take: it has to connect, with TLS and SASL perhaps.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Says nothing: the old client's complaints are in the log.
struct Mute;

impl ClientContext for Mute {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ConsumerContext for Mute {}

/// A client with these settings, and no member of the group.
fn fresh(config: &ClientConfig) -> Option<BaseConsumer<Mute>> {
    let mut config = config.clone();
    config.remove("group.instance.id");
    config.create_with_context(Mute).ok()
}

/// Whether a fresh client is told how the cluster is and, with a group in `config`, where the group stands. Blocks.
pub(super) fn answers(config: &ClientConfig, topic: &str) -> bool {
    let Some(client) = fresh(config) else { return false };
    // The topic by its name only when it is known to be there: asking for a missing one may create it.
    let Ok(metadata) = client.fetch_metadata(None, TIMEOUT) else { return false };
    if metadata.brokers().is_empty() || config.get("group.id").is_none() {
        return !metadata.brokers().is_empty();
    }
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    client.committed_offsets(list, TIMEOUT).is_ok()
}

/// Whether a fresh client finds a message at `offset` or behind it. Blocks.
pub(super) fn reads(config: &ClientConfig, topic: &str, partition: i32, offset: i64) -> bool {
    let Some(client) = fresh(config) else { return false };
    let mut list = TopicPartitionList::new();
    if list.add_partition_offset(topic, partition, Offset::Offset(offset)).is_err() || client.assign(&list).is_err() {
        return false;
    }
    let started = Instant::now();
    while let Some(left) = TIMEOUT.checked_sub(started.elapsed()) {
        // An error may be of a connection that is tried again.
        if matches!(client.poll(left), Some(Ok(_))) {
            return true;
        }
    }
    false
}
