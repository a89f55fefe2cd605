//! Losses, said in the stream itself: once the sink takes batches again, a record of the library's own tells how many events
//! are missing, since when, and why. One record tells of all that was lost within an interval, and one at the shutdown of
//! what was not told of yet. A record that is lost itself is no reason for another one.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    Severity,
    encode::{FRAME_BYTES, Scalar, padded, push_attribute, push_delimited, push_text, tag},
    metrics::{Metrics, Reason, Snapshot},
    queue::FRAME_TAG,
    transport::lines::put_time,
};

/// The target of such a record, as events of this crate would have it.
const TARGET: &str = "logsink";

/// What was lost, and what was said of it.
#[derive(Debug)]
pub(super) struct Losses {
    interval: Duration,
    /// The counters when the last record was made.
    said: Snapshot,
    /// Records of this kind that were lost themselves.
    own: Arc<AtomicU64>,
    own_said: u64,
    unsaid: Option<Unsaid>,
}

/// Losses that nobody was told of.
#[derive(Debug)]
struct Unsaid {
    noticed: Instant,
    /// The same as Unix time.
    since_ns: u64,
    /// Batches that the sink had taken then.
    batches: u64,
}

impl Losses {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, said: Snapshot::default(), own: Arc::default(), own_said: 0, unsaid: None }
    }

    /// What a lost record of this kind adds to.
    pub(super) fn own(&self) -> Arc<AtomicU64> {
        self.own.clone()
    }

    /// The framed record to send, when it is time for one: the interval has passed and the sink has taken a batch since the
    /// losses were noticed; or, `last`, in any case.
    pub(super) fn due(&mut self, now: Instant, now_ns: u64, metrics: &Metrics, last: bool) -> Option<Vec<u8>> {
        let own = self.own.load(Relaxed);
        let count = metrics.lost().saturating_sub(self.said.lost() + (own - self.own_said));
        if count == 0 {
            return None;
        }
        let batches = metrics.batches();
        let unsaid = self.unsaid.get_or_insert(Unsaid { noticed: now, since_ns: now_ns, batches });
        let waited = now.duration_since(unsaid.noticed) >= self.interval && batches > unsaid.batches;
        if !waited && !last {
            return None;
        }
        let counts = metrics.snapshot();
        let record = encode(count, unsaid.since_ns, now_ns, &grown(&self.said, &counts));
        (self.said, self.own_said, self.unsaid) = (counts, own, None);
        Some(record)
    }
}

/// By how much each reason and each level has grown.
struct Grown {
    reasons: Vec<(Reason, u64)>,
    levels: Vec<(Severity, u64)>,
}

fn grown(before: &Snapshot, after: &Snapshot) -> Grown {
    let of_reason = |counts: &Snapshot, reason| counts.dropped_for(reason);
    let of_level = |counts: &Snapshot, level: Severity| -> u64 {
        let lost = counts.dropped.iter().filter(|dropped| dropped.reason.is_loss() && dropped.severity == level);
        lost.map(|dropped| dropped.count).sum()
    };
    let reasons = Reason::ALL.into_iter().filter(|reason| reason.is_loss());
    let reasons = reasons.map(|reason| (reason, of_reason(after, reason) - of_reason(before, reason)));
    let levels = [Severity::UNSPECIFIED].into_iter().chain(Severity::LEVELS);
    let levels = levels.map(|level| (level, of_level(after, level) - of_level(before, level)));
    Grown {
        reasons: reasons.filter(|(_, count)| *count > 0).collect(),
        levels: levels.filter(|(_, count)| *count > 0).collect(),
    }
}

fn encode(count: u64, since_ns: u64, now_ns: u64, grown: &Grown) -> Vec<u8> {
    let mut since = String::new();
    put_time(&mut since, since_ns, 3);
    let mut text = format!("{count} events dropped since {since} because");
    let mut separator = ' ';
    for (reason, count) in &grown.reasons {
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{reason}={count}");
        separator = ',';
    }
    let mut body = Vec::new();
    push_delimited(&mut body, tag::STRING, text.as_bytes());

    let int = |count: u64| Scalar::int(i64::try_from(count).unwrap_or(i64::MAX));
    let mut record = vec![FRAME_TAG, 0, 0, 0];
    for time in [tag::TIME, tag::OBSERVED_TIME] {
        record.push(time);
        record.extend_from_slice(&now_ns.to_le_bytes());
    }
    record.extend_from_slice(&[tag::SEVERITY_NUMBER, Severity::WARN.0]);
    push_delimited(&mut record, tag::SEVERITY_TEXT, b"WARN");
    push_text(&mut record, "target", TARGET);
    push_delimited(&mut record, tag::BODY, &body);
    push_attribute(&mut record, "dropped.count", int(count).as_bytes());
    push_text(&mut record, "dropped.since", &since);
    for (reason, count) in &grown.reasons {
        push_attribute(&mut record, &format!("dropped.reason.{reason}"), int(*count).as_bytes());
    }
    for (level, count) in &grown.levels {
        push_attribute(&mut record, &format!("dropped.level.{level}"), int(*count).as_bytes());
    }
    let length = record.len() - FRAME_BYTES;
    record[1..FRAME_BYTES].copy_from_slice(&padded(length));
    record
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::ScopeLogs};
    use prost::Message;

    use super::*;

    /// The record's text, and its attributes as text.
    fn read(record: &[u8]) -> (String, Vec<(String, String)>) {
        // A framed record is the field of `ScopeLogs` that it becomes.
        let record = ScopeLogs::decode(record).unwrap().log_records.remove(0);
        assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
        let text = |value: Value| match value {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        let attributes = record.attributes.into_iter().map(|pair| (pair.key, text(pair.value.unwrap().value.unwrap())));
        (text(record.body.unwrap().value.unwrap()), attributes.collect())
    }

    #[test]
    fn losses_are_told_once_the_sink_takes_batches_again() {
        let metrics = Metrics::new();
        let start = Instant::now();
        let mut losses = Losses::new(Duration::from_secs(10));
        let mut due = |seconds: u64, last| {
            let now_ns = 1_709_251_199_000_000_000 + seconds * 1_000_000_000;
            losses.due(start + Duration::from_secs(seconds), now_ns, &metrics, last)
        };
        metrics.dropped(Reason::FilteredByRule, Severity::INFO);
        assert_eq!(due(0, true), None, "nothing was lost");
        metrics.dropped_many(Reason::QueueFull, Severity::INFO, 5);
        assert_eq!(due(0, false), None, "more may come");
        metrics.dropped_many(Reason::QueueFull, Severity::ERROR, 2);
        metrics.dropped_many(Reason::Permanent, Severity::INFO, 3);
        assert_eq!(due(10, false), None, "the sink has taken nothing since");
        metrics.sent(1, 1);
        let (text, attributes) = read(&due(11, false).unwrap());
        assert_eq!(text, "10 events dropped since 2024-02-29T23:59:59.000Z because queue_full=7,permanent=3");
        let attributes: Vec<_> = attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(
            attributes.join(" "),
            "target=logsink dropped.count=10 dropped.since=2024-02-29T23:59:59.000Z dropped.reason.queue_full=7 \
             dropped.reason.permanent=3 dropped.level.info=8 dropped.level.error=2"
        );
        assert_eq!(due(30, true), None, "once");

        metrics.dropped(Reason::QueueFull, Severity::INFO);
        assert!(read(&due(31, true).unwrap()).0.starts_with("1 events dropped since 2024-03-01T00:00:30.000Z"));
    }

    #[test]
    fn what_tells_of_losses_is_no_loss_to_tell_of() {
        let metrics = Metrics::new();
        let now = Instant::now();
        let mut losses = Losses::new(Duration::ZERO);
        metrics.dropped(Reason::QueueFull, Severity::INFO);
        assert!(losses.due(now, 0, &metrics, true).is_some());
        // As a batch counts that holds such a record.
        metrics.dropped(Reason::Permanent, Severity::WARN);
        losses.own().fetch_add(1, Relaxed);
        assert_eq!(losses.due(now, 0, &metrics, true), None);
        metrics.dropped(Reason::QueueFull, Severity::INFO);
        let (text, _) = read(&losses.due(now, 0, &metrics, true).unwrap());
        assert!(text.starts_with("1 events dropped"), "{text}");
    }
}
