//! Every counter of the server, named once.
//!
//! A record that does not end in the index is counted by reason: refused at ingest, dropped by a rule, or dead-lettered.
//! Shared as `Arc<Metrics>`; `GET /metrics` shows all of it in the OpenMetrics text form, where a counter's name gets
//! `_total` at its end and every name begins with `logsink_`.

mod labels;
mod register;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use self::labels::{Closed, Door, Item, ItemResult, Node, Partition, Reason, Refusal, Refused, Rule, Service};
use self::{
    labels::{CLIENTS, DEAD},
    register::{bytes, counter, family, gauge, seconds, seconds_by},
};

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Services that have figures of their own: what a page can show and a time-series database bears. Further ones are counted
/// together.
const SERVICES_MAX: usize = 100;

/// The longest name of a service in a label, in characters.
const SERVICE_CHARS_MAX: usize = 64;

/// What services without figures of their own are called.
const OTHER_SERVICES: &str = "(other)";
type Source = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Every counter of the server. The fields stand in the order of the flow.
pub struct Metrics {
    registry: Registry,
    /// Steps that count by themselves and bring their numbers when they are asked for.
    sources: Mutex<Vec<Source>>,
    /// Services with figures of their own.
    services: Mutex<BTreeSet<String>>,

    // === doors ===
    /// Connections that are open, by door.
    pub connections: Family<Door, Gauge>,
    /// Connections that the server closed of itself, by door and reason.
    pub connections_closed: Family<Closed, Counter>,

    // === ingest ===
    /// Export requests that came in, whatever became of them.
    pub ingest_requests: Counter,
    /// Records acknowledged: they are durable in the queue.
    pub ingest_records: Counter,
    /// Bytes of the acknowledged requests, decompressed.
    pub ingest_bytes: Counter,
    /// Requests refused; see [`Metrics::refused`].
    pub ingest_refused: Family<Refused, Counter>,
    /// From a request's last byte to its answer.
    pub ingest_seconds: Histogram,
    /// Bytes of requests under way, reserved before they are read.
    pub ingest_pending_bytes: Gauge,
    /// What may be under way.
    pub ingest_pending_bytes_max: Gauge,
    /// Records acknowledged, by service; see [`Metrics::service_counters`].
    pub ingest_service_records: Family<Service, Counter>,
    /// Bytes of the acknowledged requests, by service.
    pub ingest_service_bytes: Family<Service, Counter>,
    /// Requests refused since the service was over its rate or had its share, by service.
    pub ingest_service_refused: Family<Service, Counter>,

    // === queue ===
    /// Requests appended to the queue.
    pub queue_appended: Counter,
    /// Bytes appended to the queue.
    pub queue_bytes: Counter,
    /// Appends that failed.
    pub queue_failed: Counter,
    /// From an append's begin to the queue's answer.
    pub queue_append_seconds: Histogram,
    /// Bytes that the queue holds on disk; only the disk log knows.
    pub queue_disk_bytes: Gauge,
    /// Messages that the disk damaged or that were deleted before they were read.
    pub queue_lost: Counter,
    /// Requests that were too large for one message and were split.
    pub queue_split: Counter,
    /// Records that were too large for a message by themselves and were truncated.
    pub queue_truncated: Counter,
    /// Kafka clients that did not work any more and were replaced.
    pub queue_replaced: Family<Reason, Counter>,

    // === drain ===
    /// Messages read from the queue.
    pub drain_messages: Counter,
    /// Messages whose headers did not become attributes, because they have too many resources.
    pub drain_headers_left_out: Counter,
    /// Records of the messages that the index is done with.
    pub drain_records: Counter,
    /// Writes to the index that failed and were tried again.
    pub drain_retries: Counter,
    /// Bytes read and not yet indexed.
    pub drain_pending_bytes: Gauge,
    /// What may be read and not yet indexed: above it, reading pauses.
    pub drain_pending_bytes_max: Gauge,
    /// Commits of positions.
    pub drain_commits: Counter,
    /// One commit of positions.
    pub drain_commit_seconds: Histogram,
    /// From the queue's taking a message to its commit.
    pub drain_delay_seconds: Histogram,
    /// The age of the oldest message that was read and is not committed.
    pub drain_lag_seconds: Family<Partition, Gauge<f64, AtomicU64>>,
    /// Partitions taken away by a rebalance.
    pub drain_revoked: Counter,
    /// Kafka records, or frames of the disk log, after the last one that was committed. Of the disk log, events are found
    /// before they are committed: the lag is what a restart reads again.
    pub drain_lag: Family<Partition, Gauge>,

    // === sift ===
    /// Records that each of the server's rules matched.
    pub rule_matched: Family<Rule, Counter>,
    /// Records that each of the server's rules dropped: by drop, sample or rate limit.
    pub rule_dropped: Family<Rule, Counter>,
    /// Records that the base filter of the server's rules dropped.
    pub filter_dropped: Counter,

    // === index ===
    /// Records stored, or there already.
    pub index_stored: Counter,
    /// Records that were there already: a batch sent again, or a message read again.
    pub index_duplicates: Counter,
    /// Records that went to the dead letters, by reason.
    pub index_dead: Family<Reason, Counter>,
    /// Records dropped by the server's rules.
    pub index_dropped: Counter,
    /// Requests to the index that were tried again, by reason.
    pub index_retries: Family<Reason, Counter>,
    /// Records looked up in older indices, because they may have been stored before a rollover.
    pub index_looked_up: Counter,
    /// Records that went to the overflow stream, because there are as many streams as may be.
    pub index_overflowed: Counter,
    /// Data streams rolled over by our retention.
    pub index_rollovers: Counter,
    /// Indices removed by our retention.
    pub index_indices_removed: Counter,
    /// Looks after old indices that failed and are done again later.
    pub index_retention_failed: Counter,
    /// One write to the index, retries included.
    pub index_write_seconds: Histogram,
    /// Documents of answered requests to the index, by what became of them.
    pub index_items: Family<Item, Counter>,
    /// Bytes of each `_bulk`, before compression.
    pub index_request_bytes: Histogram,
    /// From sending a `_bulk` to its answer, by node.
    pub index_request_seconds: Family<Node, Histogram, fn() -> Histogram>,
    /// `_bulk` requests under way, by node.
    pub index_requests: Family<Node, Gauge>,
    /// `_bulk` requests that may be under way just now, by node: it follows latency and refusals.
    pub index_requests_max: Family<Node, Gauge>,
    /// Bytes that a `_bulk` may have just now, by node.
    pub index_request_bytes_max: Family<Node, Gauge>,
    /// 1, or 0 for a node that is left out because it failed.
    pub index_node_up: Family<Node, Gauge>,
    /// Bytes of bodies in memory.
    pub index_body_bytes: Gauge,
    /// Blocks of the embedded store published.
    pub index_blocks_published: Counter,
    /// Blocks of the embedded store removed by retention.
    pub index_blocks_removed: Counter,
    /// Blocks of the embedded store found damaged: searches do without them.
    pub index_blocks_damaged: Counter,
    /// Bytes of the embedded store's blocks.
    pub index_disk_bytes: Gauge,
    /// Events that the embedded store holds.
    pub index_events: Gauge,
    /// Events removed by retention.
    pub index_expired: Counter,

    // === query ===
    /// Searches.
    pub query_requests: Counter,
    /// Searches refused because they are wrong.
    pub query_refused: Counter,
    /// Searches that the index could not answer.
    pub query_failed: Counter,
    /// From a search's arrival to its answer.
    pub query_seconds: Histogram,

    // === control ===
    /// Rule documents stored.
    pub rules_stored: Counter,
    /// Rule documents refused.
    pub rules_refused: Counter,
    /// Instances subscribed to rules.
    pub rules_subscribers: Gauge,
}

/// The counters of one service, to be kept beside what is known of it.
#[derive(Debug, Clone)]
pub struct ServiceCounters {
    /// See [`Metrics::ingest_service_records`].
    pub records: Counter,
    /// See [`Metrics::ingest_service_bytes`].
    pub bytes: Counter,
    /// See [`Metrics::ingest_service_refused`].
    pub refused: Counter,
}

impl Metrics {
    /// All counters at zero.
    pub fn new() -> Arc<Self> {
        let mut r = Registry::with_prefix("logsink");
        let r = &mut r;
        let metrics = Self {
            connections: family(r, "connections", "Connections that are open, by door"),
            connections_closed: family(r, "connections_closed", "Connections that the server closed, by reason"),
            ingest_requests: counter(r, "ingest_requests", "Export requests that came in"),
            ingest_records: counter(r, "ingest_records", "Records acknowledged"),
            ingest_bytes: counter(r, "ingest_bytes", "Bytes of the acknowledged requests, decompressed"),
            ingest_refused: family(r, "ingest_refused", "Export requests refused, by reason"),
            ingest_seconds: seconds(r, "ingest_duration", "From a request's last byte to its answer"),
            ingest_pending_bytes: gauge(r, "ingest_pending_bytes", "Bytes of requests under way"),
            ingest_pending_bytes_max: gauge(r, "ingest_pending_bytes_max", "Bytes of requests that may be under way"),
            ingest_service_records: family(r, "ingest_service_records", "Records acknowledged, by service"),
            ingest_service_bytes: family(r, "ingest_service_bytes", "Bytes of the acknowledged requests, by service"),
            ingest_service_refused: family(r, "ingest_service_refused", "Requests over a service's rate or share"),
            queue_appended: counter(r, "queue_appended", "Requests appended to the queue"),
            queue_bytes: counter(r, "queue_appended_bytes", "Bytes appended to the queue"),
            queue_failed: counter(r, "queue_failed", "Appends that failed"),
            queue_append_seconds: seconds(r, "queue_append_duration", "From an append's begin to the queue's answer"),
            queue_disk_bytes: gauge(r, "queue_disk_bytes", "Bytes that the disk log holds"),
            queue_lost: counter(r, "queue_lost", "Messages damaged on disk, or deleted from the queue unread"),
            queue_split: counter(r, "queue_split", "Requests too large for one message, which were split"),
            queue_truncated: counter(r, "queue_truncated", "Records too large for a message, which were truncated"),
            queue_replaced: family(r, "queue_clients_replaced", "Kafka clients that were replaced, by what they were"),
            drain_messages: counter(r, "drain_messages", "Messages read from the queue"),
            drain_headers_left_out: counter(r, "drain_headers_left_out", "Messages whose headers are no attributes"),
            drain_records: counter(r, "drain_records", "Records that the index is done with"),
            drain_retries: counter(r, "drain_retries", "Writes to the index that were tried again"),
            drain_pending_bytes: gauge(r, "drain_pending_bytes", "Bytes read and not yet indexed"),
            drain_pending_bytes_max: gauge(r, "drain_pending_bytes_max", "Bytes that may be read and not yet indexed"),
            drain_commit_seconds: seconds(r, "drain_commit_duration", "One commit of positions"),
            drain_delay_seconds: seconds(r, "drain_delay", "From the queue's taking a message to its commit"),
            drain_lag_seconds: family(r, "drain_lag_seconds", "Age of the oldest message not committed, by partition"),
            drain_commits: counter(r, "drain_commits", "Commits of positions"),
            drain_revoked: counter(r, "drain_revoked", "Partitions taken away by a rebalance"),
            drain_lag: family(r, "drain_lag_records", "The queue's records after the last one committed, by partition"),
            rule_matched: family(r, "rule_matched", "Records that each of the server's rules matched"),
            rule_dropped: family(r, "rule_dropped", "Records that each of the server's rules dropped"),
            filter_dropped: counter(r, "filter_dropped", "Records that the base filter of the server's rules dropped"),
            index_stored: counter(r, "index_stored", "Records stored, or there already"),
            index_duplicates: counter(r, "index_duplicates", "Records that were there already"),
            index_dead: family(r, "index_dead", "Records that went to the dead letters, by reason"),
            index_dropped: counter(r, "index_dropped", "Records dropped by the server's rules"),
            index_retries: family(r, "index_retries", "Requests to the index tried again, by reason"),
            index_looked_up: counter(r, "index_looked_up", "Records looked up in indices before a rollover"),
            index_overflowed: counter(r, "index_overflowed", "Records that went to the overflow stream"),
            index_rollovers: counter(r, "index_rollovers", "Data streams rolled over by our retention"),
            index_indices_removed: counter(r, "index_indices_removed", "Indices removed by our retention"),
            index_retention_failed: counter(r, "index_retention_failed", "Looks after old indices that failed"),
            index_write_seconds: seconds(r, "index_write_duration", "One write to the index, retries included"),
            index_items: family(r, "index_items", "Documents of answered requests to the index, by result"),
            index_request_bytes: bytes(r, "index_request", "Requests to the index, before compression"),
            index_request_seconds: seconds_by(r, "index_request_duration", "Requests to the index, by node"),
            index_requests: family(r, "index_requests", "Requests to the index under way, by node"),
            index_requests_max: family(r, "index_requests_max", "Requests that may be under way now, by node"),
            index_request_bytes_max: family(r, "index_request_bytes_max", "Bytes that a request may have now, by node"),
            index_node_up: family(r, "index_node_up", "1, or 0 for a node that is left out because it failed"),
            index_body_bytes: gauge(r, "index_body_bytes", "Bytes of bodies in memory"),
            index_blocks_published: counter(r, "index_blocks_published", "Blocks of the embedded store published"),
            index_blocks_removed: counter(r, "index_blocks_removed", "Blocks removed by retention"),
            index_blocks_damaged: counter(r, "index_blocks_damaged", "Blocks found damaged"),
            index_disk_bytes: gauge(r, "index_disk_bytes", "Bytes of the embedded store's blocks"),
            index_events: gauge(r, "index_events", "Events that the embedded store holds"),
            index_expired: counter(r, "index_expired", "Events removed by retention"),
            query_requests: counter(r, "query_requests", "Searches"),
            query_refused: counter(r, "query_refused", "Searches refused because they are wrong"),
            query_failed: counter(r, "query_failed", "Searches that the index could not answer"),
            query_seconds: seconds(r, "query_duration", "From a search's arrival to its answer"),
            rules_stored: counter(r, "rules_stored", "Rule documents stored"),
            rules_refused: counter(r, "rules_refused", "Rule documents refused"),
            rules_subscribers: gauge(r, "rules_subscribers", "Instances subscribed to rules"),
            registry: Registry::default(),
            sources: Mutex::default(),
            services: Mutex::default(),
        };
        metrics.show_zeros();
        Arc::new(Self { registry: std::mem::take(r), ..metrics })
    }

    /// Shows what an alert asks for before there is something to count: Prometheus sees no increase in a series that begins with it.
    fn show_zeros(&self) {
        for reason in Refusal::ALL {
            self.ingest_refused.get_or_create(&Refused { reason }).inc_by(0);
        }
        for reason in DEAD {
            self.index_dead.get_or_create(&Reason { reason }).inc_by(0);
        }
        for reason in CLIENTS {
            self.queue_replaced.get_or_create(&Reason { reason }).inc_by(0);
        }
    }

    /// The connections that are open at a door, `grpc` or `http`.
    pub fn connections(&self, door: &'static str) -> Gauge {
        self.connections.get_or_create_owned(&Door { door })
    }

    /// The connections that the server closed of itself at a door; `reason` is `full`, `handshake` or `late`.
    pub fn connections_closed(&self, door: &'static str, reason: &'static str) -> Counter {
        self.connections_closed.get_or_create_owned(&Closed { door, reason })
    }

    /// Counts a request that ingest refused.
    pub fn refused(&self, reason: Refusal) {
        self.ingest_refused.get_or_create(&Refused { reason }).inc();
    }

    /// Counts records that went to the dead letters; `reason` is one of [`DEAD`].
    pub fn dead(&self, reason: &'static str, records: u64) {
        debug_assert!(DEAD.contains(&reason), "{reason}");
        self.index_dead.get_or_create(&Reason { reason }).inc_by(records);
    }

    /// Counts a Kafka client that was replaced; `client` is one of [`CLIENTS`].
    pub fn kafka_replaced(&self, client: &'static str) {
        debug_assert!(CLIENTS.contains(&client), "{client}");
        self.queue_replaced.get_or_create(&Reason { reason: client }).inc();
    }

    /// Counts documents of an answered request.
    pub fn items(&self, result: ItemResult, documents: usize) {
        if documents > 0 {
            self.index_items.get_or_create(&Item { result }).inc_by(documents as u64);
        }
    }

    /// Counts a request to the index that is tried again; `reason` is a short static name such as `http_429`.
    pub fn retried(&self, reason: &'static str) {
        self.index_retries.get_or_create(&Reason { reason }).inc();
    }

    /// Sets how many messages of a partition are not committed yet; none for a partition that went to another reader.
    pub fn lag(&self, partition: i32, messages: Option<i64>) {
        let label = Partition { partition };
        match messages {
            Some(messages) => _ = self.drain_lag.get_or_create(&label).set(messages),
            None => _ = self.drain_lag.remove(&label),
        }
    }

    /// Counts records that a rule of this name has matched and dropped.
    pub fn ruled(&self, rule: &str, matched: u64, dropped: u64) {
        let label = Rule { rule: rule.to_owned() };
        self.rule_matched.get_or_create(&label).inc_by(matched);
        self.rule_dropped.get_or_create(&label).inc_by(dropped);
    }

    /// The counters of a service that sends; those of all further ones for none, and beyond [`SERVICES_MAX`].
    pub fn service_counters(&self, name: Option<&str>) -> ServiceCounters {
        let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
        let own = name.map(|name| name.chars().take(SERVICE_CHARS_MAX).map(clean).collect::<String>());
        let mut shown = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own.filter(|name| shown.contains(name) || shown.len() < SERVICES_MAX && shown.insert(name.clone()));
        let label = Service { service: own.unwrap_or_else(|| OTHER_SERVICES.to_owned()) };
        ServiceCounters {
            records: self.ingest_service_records.get_or_create_owned(&label),
            bytes: self.ingest_service_bytes.get_or_create_owned(&label),
            refused: self.ingest_service_refused.get_or_create_owned(&label),
        }
    }

    /// Has `source` set its counters each time before they are shown: for numbers that a step keeps anyway.
    pub fn ask_before_showing(&self, source: impl Fn(&Self) + Send + Sync + 'static) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// All counters in the OpenMetrics text form; see [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        for source in self.sources.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(self);
        }
        let mut out = String::new();
        // Writing to a String does not fail, and the labels above escape what they write.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
