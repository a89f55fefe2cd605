//! The counters as Prometheus' text format 0.0.4.

use std::fmt::Write as _;

use super::{
    Snapshot,
    series::{self, Kind, Point},
};

impl Snapshot {
    /// All counters in Prometheus' text format 0.0.4 (`text/plain; version=0.0.4`): what a `/metrics` route answers, by
    /// itself or after the application's own metrics.
    ///
    /// Names are `logsink_…_total`, without the ending where a value may fall. `logsink_records_dropped_total` has the labels `reason` and `level`, and only the pairs that have
    /// been counted; `logsink_records_lost_total` is always there, for alerts. The sinks beside the main one have theirs as
    /// `logsink_sink_…`, labelled by `sink`; a Kafka client's own figures are `logsink_kafka_…`.
    ///
    /// ```
    /// let text = logsink::Snapshot::default().to_prometheus();
    /// assert!(text.contains("# TYPE logsink_records_sent_total counter\nlogsink_records_sent_total 0\n"));
    /// ```
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for named in series::all() {
            let (total, kind) = match named.series.kind {
                Kind::Counter => ("_total", "counter"),
                Kind::Gauge => ("", "gauge"),
            };
            let name = format!("logsink_{}{total}", named.name);
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {}", escaped(named.series.help, false));
            let _ = writeln!(text, "# TYPE {name} {kind}");
            for Point { labels, value } in named.points(self) {
                let _ = write!(text, "{name}");
                for (index, (label, of)) in labels.iter().enumerate() {
                    let open = if index == 0 { '{' } else { ',' };
                    let _ = write!(text, "{open}{label}=\"{}\"", escaped(of, true));
                }
                let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
            }
        }
        text
    }
}

/// As the format wants it: backslashes and line feeds everywhere, quotes in the values of labels.
fn escaped(text: &str, quoted: bool) -> String {
    let text = text.replace('\\', r"\\").replace('\n', r"\n");
    if quoted { text.replace('"', "\\\"") } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        Severity,
        metrics::{KafkaBroker, KafkaStatistics, KafkaTrouble, Metrics, Reason, SinkSnapshot},
    };

    /// Reads the text format, strictly: every sample stands below its own HELP and TYPE.
    fn parsed(text: &str) -> BTreeMap<String, u64> {
        let (mut samples, mut of) = (BTreeMap::new(), String::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, meaning) = help.split_once(' ').unwrap();
                assert!(!meaning.is_empty());
                let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
                assert_eq!(lines.next().unwrap(), format!("# TYPE {name} {kind}"));
                of = name.to_owned();
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert_eq!(name, of, "a sample of another metric");
            assert!(name.starts_with("logsink_"));
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            assert_eq!(samples.insert(sample.to_owned(), value.parse().unwrap()), None, "{sample} twice");
        }
        assert!(text.ends_with('\n'));
        samples
    }

    #[test]
    fn prometheus_reads_every_counter() {
        let metrics = Metrics::new();
        metrics.drained(10);
        metrics.sent(7, 700);
        metrics.retried();
        metrics.split();
        metrics.truncated();
        metrics.client_line();
        metrics.dropped_many(Reason::QueueFull, Severity::ERROR, 2);
        metrics.dropped_many(Reason::QueueFull, Severity::DEBUG, 3);
        metrics.dropped_many(Reason::FilteredByRule, Severity::INFO, 9);
        let samples = parsed(&metrics.snapshot().to_prometheus());
        let expected = [
            ("logsink_batches_sent_total", 1),
            ("logsink_bytes_sent_total", 700),
            ("logsink_client_lines_total", 1),
            ("logsink_records_drained_total", 10),
            (r#"logsink_records_dropped_total{reason="filtered_by_rule",level="info"}"#, 9),
            (r#"logsink_records_dropped_total{reason="queue_full",level="debug"}"#, 3),
            (r#"logsink_records_dropped_total{reason="queue_full",level="error"}"#, 2),
            ("logsink_records_lost_total", 5),
            ("logsink_records_sent_total", 7),
            ("logsink_records_spooled_total", 0),
            ("logsink_recorder_no_room_total", 0),
            ("logsink_recorder_recorded_total", 0),
            ("logsink_recorder_refused_total", 0),
            ("logsink_recorder_released_total", 0),
            ("logsink_recorder_unanswered_total", 0),
            ("logsink_retries_total", 1),
            ("logsink_splits_total", 1),
            ("logsink_values_truncated_total", 1),
        ];
        assert_eq!(samples, expected.map(|(name, value)| (name.to_owned(), value)).into());
    }

    #[test]
    fn counters_at_zero_are_there_too() {
        let samples = parsed(&Snapshot::default().to_prometheus());
        assert_eq!(
            samples.get("logsink_records_lost_total"),
            Some(&0),
            "an alert needs the series before the first loss"
        );
        let own = series::all().filter(|named| !named.name.starts_with("kafka_") && !named.name.starts_with("sink_"));
        assert_eq!(samples.len(), own.count() - 1, "all but the drops, of which no reason is known: {samples:?}");
    }

    #[test]
    fn every_sink_has_its_own_series() {
        let beside = Metrics::new();
        beside.sent(3, 300);
        beside.dropped(Reason::Rejected, Severity::WARN);
        let sink = SinkSnapshot { sink: "file:/a\"b".to_owned(), counts: beside.snapshot() };
        let snapshot = Snapshot { sent: 5, sinks: vec![sink], ..Snapshot::default() };
        let samples = parsed(&snapshot.to_prometheus());
        assert_eq!(samples["logsink_records_sent_total"], 5);
        assert_eq!(samples[r#"logsink_sink_records_sent_total{sink="file:/a\"b"}"#], 3);
        let dropped = r#"logsink_sink_records_dropped_total{sink="file:/a\"b",reason="rejected",level="warn"}"#;
        assert_eq!(samples[dropped], 1);
    }

    #[test]
    fn a_kafka_client_shows_its_brokers_and_its_trouble() {
        let broker = KafkaBroker { name: "b1:9092/1".to_owned(), timeouts: 4, ..KafkaBroker::default() };
        let kafka = KafkaStatistics {
            queue_batches: 2,
            brokers: vec![broker],
            trouble: Some(KafkaTrouble::TopicMissing),
            ..KafkaStatistics::default()
        };
        let samples = parsed(&Snapshot { kafka: Some(kafka), ..Snapshot::default() }.to_prometheus());
        assert_eq!(samples["logsink_kafka_queue_batches"], 2);
        assert_eq!(samples[r#"logsink_kafka_trouble{trouble="topic_missing"}"#], 1);
        assert_eq!(samples[r#"logsink_kafka_broker_timeouts_total{broker="b1:9092/1"}"#], 4);
    }

    #[test]
    fn values_are_escaped() {
        assert_eq!(escaped("a\\b\n\"c\"", true), r#"a\\b\n\"c\""#);
        assert_eq!(escaped("a\\b\n\"c\"", false), r#"a\\b\n"c""#);
    }
}
