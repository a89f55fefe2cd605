//! What the Kafka client tells of itself: its useful figures, typed, and what its trouble is.

use std::fmt;

/// What keeps a Kafka client from sending: who has to do something about it differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KafkaTrouble {
    /// No broker can be reached: it is down, its name is unknown, or a network is in between.
    Unreachable,
    /// A partition is moving to another broker; that passes by itself.
    LeaderChange,
    /// Too few replicas are in sync for acks=all.
    Replicas,
    /// The topic does not exist, and the brokers do not make it.
    TopicMissing,
    /// The brokers do not accept who we are, or TLS with them fails.
    Authentication,
    /// The brokers know who we are, and do not let us write.
    Authorization,
    /// Something else.
    Other,
}

impl KafkaTrouble {
    /// Its name in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::LeaderChange => "leader_change",
            Self::Replicas => "replicas",
            Self::TopicMissing => "topic_missing",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for KafkaTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The figures of a Kafka client, a few seconds old at most. All are zero before it has reported for the first time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaStatistics {
    /// Batches that wait in the client, not answered for yet.
    pub queue_batches: u64,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Bytes that brokers have acknowledged, after compression and with all framing.
    pub sent_bytes: u64,
    /// Brokers, as far as the client talks to them.
    pub brokers: Vec<KafkaBroker>,
    /// The largest batch that the topic takes, as its brokers say (`max.message.bytes`); `None` while they have not.
    pub topic_bytes_max: Option<usize>,
    /// Why the last batch was not taken; `None` when it was.
    pub trouble: Option<KafkaTrouble>,
}

/// One broker, as the client sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KafkaBroker {
    /// `host:port/id`
    pub name: String,
    /// `UP`, `DOWN`, `CONNECT`, `AUTH_REQ` and the other states of librdkafka.
    pub state: String,
    /// Requests on their way to it or in its hands.
    pub in_flight: u64,
    /// Microseconds from a request to its answer, on average over the last interval of reports with an answer in it.
    pub round_trip_us_avg: u64,
    /// The same for the slowest hundredth.
    pub round_trip_us_p99: u64,
    /// Requests that failed, that were sent again and that were not answered in time, since the start.
    pub errors: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Requests that were not answered in time.
    pub timeouts: u64,
}
