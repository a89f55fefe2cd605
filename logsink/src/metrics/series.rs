//! A snapshot as other systems of metrics want it: every counter with its name, its unit and what it means, in one table.
//!
//! The table is all that the bridges know: [`super::prometheus`] and [`super::otel`].

use super::{KafkaBroker, KafkaStatistics, Reason, Snapshot};

/// One counter, with a value for every set of labels.
pub(super) struct Series {
    /// Without prefix and suffix: `logsink_<name>_total` in Prometheus, `logsink.<name>` in OpenTelemetry.
    pub(super) name: &'static str,
    /// A UCUM unit, as OpenTelemetry wants it.
    #[cfg_attr(not(feature = "opentelemetry"), allow(dead_code, reason = "Prometheus has it in the name"))]
    pub(super) unit: &'static str,
    /// What it counts.
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    /// Whether each sink has one: then those beside the main one are shown as `sink_<name>`, labelled by `sink`.
    of_sinks: bool,
    /// The main sink's values, or those of the way to all sinks.
    points: fn(&Snapshot) -> Vec<Point>,
}

/// A counter under a name of its own.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) series: &'static Series,
    /// Of the sinks beside the main one.
    beside: bool,
}

impl Named {
    /// Its values at the moment of the snapshot.
    pub(super) fn points(&self, snapshot: &Snapshot) -> Vec<Point> {
        let points = self.series.points;
        if !self.beside {
            return points(snapshot);
        }
        let of_sink = |sink: &super::SinkSnapshot| {
            let label = ("sink", sink.sink.clone());
            points(&sink.counts)
                .into_iter()
                .map(move |Point { labels, value }| Point { labels: [vec![label.clone()], labels].concat(), value })
        };
        snapshot.sinks.iter().flat_map(of_sink).collect()
    }
}

/// Every counter, first those of the main sink.
pub(super) fn all() -> impl Iterator<Item = Named> {
    let main = ALL.iter().map(|series| Named { name: series.name.to_owned(), series, beside: false });
    let of_sinks = ALL.iter().filter(|series| series.of_sinks);
    main.chain(of_sinks.map(|series| Named { name: format!("sink_{}", series.name), series, beside: true }))
}

/// What may become of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is at the moment.
    Gauge,
}

/// One value and its labels.
pub(super) struct Point {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: u64,
}

/// The table.
static ALL: [Series; 24] = [
    Series {
        name: "records_drained",
        unit: "{record}",
        help: "Records that were taken out of the queue for the sink.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.drained),
    },
    Series {
        name: "records_sent",
        unit: "{record}",
        help: "Records that the sink acknowledged.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.sent),
    },
    Series {
        name: "records_lost",
        unit: "{record}",
        help: "Records that somebody wanted and nobody got, of all reasons: alert on its increase.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.lost()),
    },
    Series {
        name: "records_dropped",
        unit: "{record}",
        help: "Records that did not arrive, filtered ones among them, by reason and level.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| {
            let labels = |reason: Reason, level: String| vec![("reason", reason.name().to_owned()), ("level", level)];
            let point = |dropped: &super::Dropped| Point {
                labels: labels(dropped.reason, dropped.severity.to_string()),
                value: dropped.count,
            };
            snapshot.dropped.iter().map(point).collect()
        },
    },
    Series {
        name: "values_truncated",
        unit: "{value}",
        help: "Values that were cut short or left out for want of room.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.truncated),
    },
    Series {
        name: "batches_sent",
        unit: "{batch}",
        help: "Batches that the sink acknowledged.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.batches),
    },
    Series {
        name: "bytes_sent",
        unit: "By",
        help: "Payload bytes that the sink acknowledged, before compression.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.bytes),
    },
    Series {
        name: "retries",
        unit: "{batch}",
        help: "Sends after a failed one.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.retries),
    },
    Series {
        name: "splits",
        unit: "{batch}",
        help: "Batches that were cut in two because the sink found them too large.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.splits),
    },
    Series {
        name: "records_spooled",
        unit: "{record}",
        help: "Records that went to the spool on disk.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| plain(snapshot.spooled),
    },
    Series {
        name: "client_lines",
        unit: "{line}",
        help: "Lines that client libraries below a transport wanted to log.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.client_lines),
    },
    Series {
        name: "recorder_recorded",
        unit: "{event}",
        help: "Events that the flight recorder kept, whatever became of them.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.recorder.recorded),
    },
    Series {
        name: "recorder_released",
        unit: "{event}",
        help: "Kept events that were handed on to be sent.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.recorder.released),
    },
    Series {
        name: "recorder_refused",
        unit: "{event}",
        help: "Events that were not kept because their ring was being read, or because of where they were made.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.recorder.refused),
    },
    Series {
        name: "recorder_no_room",
        unit: "{event}",
        help: "Events that were not kept because every ring belonged to another thread.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.recorder.no_room),
    },
    Series {
        name: "recorder_unanswered",
        unit: "{event}",
        help: "Errors whose span trees were not looked for: there were too many at a time.",
        kind: Kind::Counter,
        of_sinks: false,
        points: |snapshot| plain(snapshot.recorder.unanswered),
    },
    Series {
        name: "kafka_queue_batches",
        unit: "{batch}",
        help: "Batches that wait in the Kafka client, not answered for yet.",
        kind: Kind::Gauge,
        of_sinks: true,
        points: |snapshot| of_kafka(snapshot, |kafka| kafka.queue_batches),
    },
    Series {
        name: "kafka_queue_bytes",
        unit: "By",
        help: "Bytes of the batches that wait in the Kafka client.",
        kind: Kind::Gauge,
        of_sinks: true,
        points: |snapshot| of_kafka(snapshot, |kafka| kafka.queue_bytes),
    },
    Series {
        name: "kafka_bytes_sent",
        unit: "By",
        help: "Bytes that Kafka's brokers acknowledged, after compression and with all framing.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| of_kafka(snapshot, |kafka| kafka.sent_bytes),
    },
    Series {
        name: "kafka_trouble",
        unit: "{trouble}",
        help: "1 for what keeps the Kafka client from sending.",
        kind: Kind::Gauge,
        of_sinks: true,
        points: |snapshot| {
            let trouble = snapshot.kafka.iter().filter_map(|kafka| kafka.trouble);
            trouble.map(|trouble| Point { labels: vec![("trouble", trouble.name().to_owned())], value: 1 }).collect()
        },
    },
    Series {
        name: "kafka_broker_in_flight",
        unit: "{request}",
        help: "Requests on their way to a broker or in its hands.",
        kind: Kind::Gauge,
        of_sinks: true,
        points: |snapshot| of_brokers(snapshot, |broker| broker.in_flight),
    },
    Series {
        name: "kafka_broker_round_trip_microseconds",
        unit: "us",
        help: "From a request to the broker's answer, on average since the client's last report.",
        kind: Kind::Gauge,
        of_sinks: true,
        points: |snapshot| of_brokers(snapshot, |broker| broker.round_trip_us_avg),
    },
    Series {
        name: "kafka_broker_errors",
        unit: "{request}",
        help: "Requests to a broker that failed.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| of_brokers(snapshot, |broker| broker.errors),
    },
    Series {
        name: "kafka_broker_timeouts",
        unit: "{request}",
        help: "Requests that a broker did not answer in time.",
        kind: Kind::Counter,
        of_sinks: true,
        points: |snapshot| of_brokers(snapshot, |broker| broker.timeouts),
    },
];

fn plain(value: u64) -> Vec<Point> {
    vec![Point { labels: Vec::new(), value }]
}

/// Nothing where there is no Kafka client.
fn of_kafka(snapshot: &Snapshot, value: fn(&KafkaStatistics) -> u64) -> Vec<Point> {
    snapshot.kafka.iter().flat_map(|kafka| plain(value(kafka))).collect()
}

fn of_brokers(snapshot: &Snapshot, value: fn(&KafkaBroker) -> u64) -> Vec<Point> {
    let brokers = snapshot.kafka.iter().flat_map(|kafka| &kafka.brokers);
    brokers.map(|broker| Point { labels: vec![("broker", broker.name.clone())], value: value(broker) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter that is added to the snapshot must be shown.
    #[test]
    fn every_number_of_a_snapshot_is_shown() {
        // The debug form of a snapshot in which all is zero, field by field.
        let fields = format!("{:#?}", Snapshot::default());
        let numbers: Vec<_> =
            fields.lines().filter(|line| line.starts_with("    ") && line.ends_with(": 0,")).collect();
        let own = ALL.iter().filter(|series| !series.name.starts_with("kafka_")).count();
        // `records_lost` is the sum of drops, and those are a list.
        assert_eq!(numbers.len(), own - 2, "{numbers:?}");
    }
}
