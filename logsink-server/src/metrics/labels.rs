//! What counters are told apart by. Every label has a bounded set of values: never text that came from outside as it came.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// Why ingest refused a request or the records in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// Not an `ExportLogsServiceRequest`, or JSON that is not OTLP.
    Malformed,
    /// Compressed in a way that does not decompress, or not in a supported one.
    Encoding,
    /// A media type other than protobuf and JSON.
    MediaType,
    /// Over the limit of bytes, before or after decompression.
    TooLarge,
    /// Over a limit within the records: depth, attributes, length of a value.
    Limit,
    /// The queue is away or full; the sender is told to try again.
    QueueUnavailable,
    /// The queue failed for good; the sender is told to try again, someone has to act.
    QueueFailed,
    /// More under way than the server takes at a time; the sender is told to try again.
    Overload,
    /// The service is over its rate; the sender is told when to try again.
    Rate,
    /// The service has its share of what is under way; the sender is told when to try again.
    Share,
    /// The rules that are applied before the queue have not been read; the sender is told to try again.
    RulesUnread,
    /// The body did not arrive in time; the sender is told to try again.
    TooSlow,
}

impl Refusal {
    /// All of them.
    pub(super) const ALL: [Self; 12] = [
        Self::Malformed,
        Self::Encoding,
        Self::MediaType,
        Self::TooLarge,
        Self::Limit,
        Self::QueueUnavailable,
        Self::QueueFailed,
        Self::Overload,
        Self::Rate,
        Self::Share,
        Self::RulesUnread,
        Self::TooSlow,
    ];

    /// The value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Encoding => "encoding",
            Self::MediaType => "media_type",
            Self::TooLarge => "too_large",
            Self::Limit => "limit",
            Self::QueueUnavailable => "queue_unavailable",
            Self::QueueFailed => "queue_failed",
            Self::Overload => "overload",
            Self::Rate => "rate_limit",
            Self::Share => "fair_share",
            Self::RulesUnread => "rules_unread",
            Self::TooSlow => "too_slow",
        }
    }
}

impl EncodeLabelValue for Refusal {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.name())
    }
}

/// The label of [`super::Metrics::ingest_refused`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
}

/// The label of what is measured for each listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Door {
    /// `grpc` or `http`.
    pub door: &'static str,
}

/// The label of [`super::Metrics::connections_closed`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Closed {
    /// `grpc` or `http`.
    pub door: &'static str,
    /// `full`, `handshake` or `late`.
    pub reason: &'static str,
}

/// A label `reason` whose values are static names: used by [`super::Metrics::index_dead`] and [`super::Metrics::index_retries`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// A short name in snake case, from a fixed set: never text that came from outside.
    pub reason: &'static str,
}

/// Why a record goes to the dead letters: the message is not OTLP, or no JSON line; it is too large for the queue or for the index; or
/// the index refuses it, by itself or as what spoils a request.
pub(super) const DEAD: [&str; 5] = ["not_otlp", "not_json", "too_large", "refused", "malformed"];

/// Clients of Kafka that are replaced when they do not work any more.
pub(super) const CLIENTS: [&str; 2] = ["consumer", "producer"];

/// The label of what is measured for each partition of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Partition {
    /// The partition's number; the disk log has only 0.
    pub partition: i32,
}

/// The label of what is measured for each node of the index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Node {
    /// Its host and port, as the settings name it.
    pub node: String,
}

/// What became of a document that was sent to the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ItemResult {
    /// Stored.
    Created,
    /// There already.
    Duplicate,
    /// Refused for now; it is sent again.
    Retry,
    /// Never storable; it goes to the dead letters.
    Dead,
    /// Refused until a person has acted; it is sent again.
    Stopped,
}

impl EncodeLabelValue for ItemResult {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Created => "created",
            Self::Duplicate => "duplicate",
            Self::Retry => "retry",
            Self::Dead => "dead",
            Self::Stopped => "stopped",
        })
    }
}

/// The label of [`super::Metrics::index_items`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Item {
    /// What became of it.
    pub result: ItemResult,
}

/// The label of what is counted for each rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Rule {
    /// Its name, as its document has it: as many as people have written. Rules of one name are counted together.
    pub rule: String,
}

/// The label of what is counted for each service that sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Service {
    /// Its name, cut and without control characters; of the first so many services only, `(other)` for all further ones.
    pub service: String,
}
