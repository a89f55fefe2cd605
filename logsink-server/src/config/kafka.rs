//! `[kafka]`: the queue of cluster mode.

use std::collections::BTreeMap;

use logsink::ConfigError;
use serde::Deserialize;

use super::validate::ensure;

/// `[kafka]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port` of some of the brokers.
    pub brokers: Vec<String>,
    /// Default: `otlp_logs`, the OpenTelemetry Collector's.
    pub topic: String,
    /// The consumer group of all drains. Default: `logsink`.
    pub group: String,
    /// Partitions of the topic when the server has to create it. Default: 6.
    pub partitions: i32,
    /// Copies of each partition when the server has to create the topic. Default: the brokers' own.
    pub replication: Option<i32>,
    /// Further properties of librdkafka, such as `security.protocol`; they win over the server's own.
    pub properties: BTreeMap<String, String>,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "otlp_logs".into(),
            group: "logsink".into(),
            partitions: 6,
            replication: None,
            properties: BTreeMap::new(),
        }
    }
}

impl Kafka {
    /// What the types cannot say.
    ///
    /// # Errors
    /// The first key that cannot be used, by its path, with what to write instead.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        ensure(!self.brokers.is_empty(), "kafka.brokers", || {
            "is empty: write the address of a broker, such as brokers = [\"127.0.0.1:9092\"]".into()
        })?;
        for broker in &self.brokers {
            let port = broker.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
            ensure(port.is_some_and(|port| port.parse::<u16>().is_ok()), "kafka.brokers", || {
                format!("`{broker}` is not host:port: write it like 127.0.0.1:9092")
            })?;
        }
        ensure(!self.topic.is_empty(), "kafka.topic", || "is empty".into())?;
        ensure(!self.group.is_empty(), "kafka.group", || "is empty".into())?;
        ensure((1..=10_000).contains(&self.partitions), "kafka.partitions", || "is not between 1 and 10000".into())?;
        ensure(self.replication.is_none_or(|copies| (1..=32).contains(&copies)), "kafka.replication", || {
            "is not between 1 and 32".into()
        })?;
        Ok(())
    }
}
