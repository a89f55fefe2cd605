//! `[kafka]`: the queue of cluster mode.

use std::collections::BTreeMap;

use logsink::ConfigError;
use serde::Deserialize;

use super::{
    json::{Format, JsonFields},
    validate::ensure,
};

/// Headers that may become attributes: each is looked for beside each message.
const HEADER_ATTRIBUTES_MAX: usize = 64;

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
    /// A name of its own for each drain (static membership), such as the pod's: one that comes back under its name within
    /// `session.timeout.ms` has its partitions still, and nothing is handed about meanwhile. Default: none; a drain that stops
    /// gives its partitions back at once.
    pub instance: Option<String>,
    /// How the drains share the partitions; the same for all of a group. Default: `cooperative-sticky`.
    pub assignment: Assignment,
    /// What becomes of a record that is too large for a Kafka message by itself. Default: `truncate`.
    pub oversize: Oversize,
    /// How the server compresses what it writes: `none`, `lz4`, `zstd` or `gzip`. Default: `none`, which costs a third of the CPU
    /// that lz4 does; lz4 and zstd make the topic four to eight times smaller, on the network and on the brokers' disks.
    pub compression: Compression,
    /// What the messages of the topic are: `otlp`, or `json` for lines that other shippers write. Default: `otlp`.
    pub format: Format,
    /// Headers of OTLP messages that become attributes of their events, as `kafka.header.<name>`. Of JSON lines all do. Default:
    /// none; `traceparent` needs not be named to give its trace to events without one.
    pub header_attributes: Vec<String>,
    /// Where the fields of JSON lines are found.
    pub json: JsonFields,
    /// Further properties of librdkafka, such as `security.protocol`; they win over the server's own.
    pub properties: BTreeMap<String, String>,
}

/// How a group shares its partitions. Kafka refuses a member that has none in common with the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assignment {
    /// A member that comes or goes does not stop the others: only what changes hands rests.
    #[default]
    CooperativeSticky,
    /// Runs of partitions; all members rest while they are handed out anew.
    Range,
    /// One after the other; all members rest while they are handed out anew.
    Roundrobin,
}

impl Assignment {
    /// Its name in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::CooperativeSticky => "cooperative-sticky",
            Self::Range => "range",
            Self::Roundrobin => "roundrobin",
        }
    }
}

/// How messages are compressed on their way to the brokers, and on their disks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Fast.
    Lz4,
    /// Small.
    Zstd,
    /// For readers that know nothing else.
    Gzip,
}

impl Compression {
    /// Its name in Kafka.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
        }
    }
}

/// What becomes of a record that no message can hold. (A batch that is too large is split between its records; it is refused when
/// its parts, which repeat its resources, would be more than twice as large.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    /// Its texts are cut, the longest first, and marked; the size it had is in `logsink.truncated.original_bytes`.
    #[default]
    Truncate,
    /// It goes to the dead letters, whole. A record that is too large for these as well is refused.
    DeadLetter,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: Vec::new(),
            topic: "otlp_logs".into(),
            group: "logsink".into(),
            partitions: 6,
            replication: None,
            instance: None,
            assignment: Assignment::default(),
            oversize: Oversize::default(),
            compression: Compression::default(),
            format: Format::default(),
            header_attributes: Vec::new(),
            json: JsonFields::default(),
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
        ensure(self.instance.as_ref().is_none_or(|name| is_name(name)), "kafka.instance", || {
            "is not a name: write 1 to 249 letters, digits, `.`, `_` or `-`, different for each drain".into()
        })?;
        ensure((1..=10_000).contains(&self.partitions), "kafka.partitions", || "is not between 1 and 10000".into())?;
        ensure(self.replication.is_none_or(|copies| (1..=32).contains(&copies)), "kafka.replication", || {
            "is not between 1 and 32".into()
        })?;
        ensure(self.header_attributes.iter().all(|name| !name.is_empty()), "kafka.header_attributes", || {
            "has a name that is empty: write the headers' names".into()
        })?;
        ensure(self.header_attributes.len() <= HEADER_ATTRIBUTES_MAX, "kafka.header_attributes", || {
            format!("has {} names: write {HEADER_ATTRIBUTES_MAX} at most", self.header_attributes.len())
        })?;
        ensure(self.header_attributes.is_empty() || self.format == Format::Otlp, "kafka.header_attributes", || {
            "is for OTLP, and of JSON lines all headers are attributes: take it out".into()
        })?;
        self.json.validate()?;
        Ok(())
    }
}

/// What Kafka takes as the name of a member.
fn is_name(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        && !matches!(text, "." | "..")
}
