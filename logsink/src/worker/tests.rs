//! Stories of the whole way from an event to a sink in memory that fails on demand.

mod recorder;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{collector::logs::v1::ExportLogsServiceRequest, common::v1::any_value::Value};
use prost::Message;
use tracing_subscriber::layer::SubscriberExt;

use crate::{
    Builder, Guard,
    metrics::Reason,
    transport::{
        Accepted, Batch, SendError, header,
        memory::{Answer, Memory},
    },
};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);

fn builder(sink: &Arc<Memory>) -> Builder {
    crate::builder().alone().service("test").rules("none").transport(sink.clone()).configure(|config| {
        config.batch.age_ms_max = 5;
        config.retry.delay_ms_min = 1;
        config.retry.delay_ms_max = 10;
    })
}

/// Runs `body` with a pipeline into the sink.
pub(super) fn with(builder: Builder, body: impl FnOnce(&Guard)) -> Guard {
    let (layer, guard) = builder.layer().unwrap();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || body(&guard));
    guard
}

/// The field `n` of each record of a batch.
pub(super) fn numbers(batch: &Batch) -> Vec<i64> {
    let request = ExportLogsServiceRequest::decode(batch.payload.clone()).unwrap();
    let records = request.resource_logs.into_iter().flat_map(|r| r.scope_logs).flat_map(|s| s.log_records);
    let numbers: Vec<_> = records
        .map(|record| {
            let number = record.attributes.into_iter().find(|pair| pair.key == "n").and_then(|pair| pair.value);
            let Some(Value::IntValue(number)) = number.and_then(|any| any.value) else { panic!("no number") };
            number
        })
        .collect();
    assert_eq!(numbers.len(), batch.records as usize);
    numbers
}

fn all_numbers(sink: &Memory) -> Vec<i64> {
    let mut numbers: Vec<_> = sink.taken().iter().flat_map(numbers).collect();
    numbers.sort_unstable();
    numbers
}

pub(super) fn emit(range: std::ops::Range<i64>) {
    range.for_each(|n| tracing::info!(n, "event"));
}

pub(super) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn retryable() -> SendError {
    SendError::Retryable { message: "not now".to_owned(), after: None }
}

#[test]
fn every_event_arrives_once_without_a_flush() {
    let sink = Arc::new(Memory::new());
    let _guard = with(builder(&sink), |_| {
        emit(0..1000);
        wait_until("all events", || all_numbers(&sink).len() >= 1000);
    });
    assert_eq!(all_numbers(&sink), (0..1000).collect::<Vec<_>>());
}

#[test]
fn a_flush_covers_what_was_emitted_before_it() {
    let sink = Arc::new(Memory::new());
    let slow = builder(&sink).configure(|config| config.batch.age_ms_max = 60_000);
    let _guard = with(slow, |guard| {
        for round in 1..=20 {
            emit(0..7);
            guard.flush(PATIENCE).unwrap();
            assert_eq!(all_numbers(&sink).len(), round * 7);
        }
        let counts = guard.metrics();
        assert_eq!((counts.drained, counts.sent, counts.batches, counts.lost()), (140, 140, 20, 0), "{counts}");
    });
}

#[test]
fn a_flush_does_not_wait_longer_than_told() {
    let sink = Arc::new(Memory::new());
    sink.set_held(true);
    let _guard = with(builder(&sink), |guard| {
        emit(0..1);
        assert!(guard.flush(Duration::from_millis(20)).is_err());
        sink.set_held(false);
        guard.flush(PATIENCE).unwrap();
        assert_eq!(all_numbers(&sink), [0]);
    });
}

#[test]
fn a_retried_batch_keeps_its_sequence_number() {
    let sink = Arc::new(Memory::new());
    let lost_ack = Answer::TakeButFail(retryable());
    sink.answer([Answer::Refuse(retryable()), lost_ack.clone(), lost_ack]);
    let guard = with(builder(&sink), |guard| {
        emit(0..3);
        guard.flush(PATIENCE).unwrap();
    });
    let taken = sink.taken();
    assert_eq!(taken.len(), 3, "two acknowledgements were lost");
    for batch in &taken {
        assert_eq!(numbers(batch), [0, 1, 2]);
        assert_eq!(batch.sequence, 1);
        assert_eq!(batch.header(header::SEQUENCE), Some("1"));
        assert_eq!(batch.header(header::INSTANCE), Some(guard.instance()));
        assert_eq!(batch.header(header::RULES), None, "no rules from a source");
    }
    assert_eq!((guard.metrics().retries, guard.metrics().sent), (3, 3));
}

#[test]
fn a_batch_that_is_too_large_is_halved_under_new_numbers() {
    let sink = Arc::new(Memory::new());
    sink.set_payload_bytes_max(2_000);
    let guard = with(builder(&sink), |guard| {
        emit(0..100);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(all_numbers(&sink), (0..100).collect::<Vec<_>>());
    let sequences: BTreeSet<_> = sink.taken().iter().map(|batch| batch.sequence).collect();
    assert_eq!(sequences.len(), sink.taken().len(), "no number twice");
    assert!(!sequences.contains(&1), "the whole was refused");
    assert!(guard.metrics().splits > 0);
    assert_eq!((guard.metrics().sent, guard.metrics().lost()), (100, 0));
}

#[test]
fn a_single_record_that_is_too_large_is_cut_and_goes_on() {
    let sink = Arc::new(Memory::new());
    sink.set_payload_bytes_max(2_000);
    let guard = with(builder(&sink), |guard| {
        tracing::error!(n = 1, blob = "x".repeat(5_000), "event");
        emit(2..4);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(all_numbers(&sink), [1, 2, 3]);
    let counts = guard.metrics();
    assert_eq!((counts.lost(), counts.truncated, counts.drained), (0, 1, counts.sent), "{counts}");
    let sequences: BTreeSet<_> = sink.taken().iter().map(|batch| batch.sequence).collect();
    assert_eq!(sequences.len(), sink.taken().len(), "no number twice");
    let marked = |batch: &Batch| {
        let text = String::from_utf8_lossy(&batch.payload).into_owned();
        text.contains("…[truncated, ") && text.contains("logsink.truncated.original_bytes")
    };
    assert_eq!(sink.taken().iter().filter(|batch| marked(batch)).count(), 1);
}

#[test]
fn a_record_of_a_sink_that_takes_next_to_nothing_is_lost_and_counted() {
    let sink = Arc::new(Memory::new());
    sink.set_payload_bytes_max(300);
    let guard = with(builder(&sink), |guard| {
        tracing::error!(n = 1, blob = "x".repeat(50_000), "event");
        guard.flush(PATIENCE).unwrap();
    });
    assert!(sink.taken().is_empty());
    let counts = guard.metrics();
    assert_eq!((counts.dropped_for(Reason::Oversize), counts.drained), (1, 1));
    assert_eq!(counts.dropped[0].severity, crate::Severity::ERROR, "by level");
    assert!(sink.attempts() < 10, "halved each time: {}", sink.attempts());
}

#[test]
fn a_limit_that_the_sink_has_told_is_kept_before_sending() {
    let sink = Arc::new(Memory::new());
    sink.set_payload_bytes_max(2_000);
    sink.tell_payload_bytes_max();
    let guard = with(builder(&sink), |guard| {
        emit(0..100);
        tracing::error!(n = 100, blob = "x".repeat(5_000), "event");
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(all_numbers(&sink), (0..101).collect::<Vec<_>>());
    assert_eq!(sink.attempts() as usize, sink.taken().len(), "nothing was sent in vain");
    let largest = sink.taken().iter().map(|batch| batch.payload.len()).max().unwrap();
    assert!((1_900..=2_000).contains(&largest), "cut to what the sink takes: {largest}");
    assert_eq!((guard.metrics().lost(), guard.metrics().truncated), (0, 1));
}

#[test]
fn refused_records_are_counted() {
    let sink = Arc::new(Memory::new());
    let in_part = Accepted { rejected: 2, message: "too old".to_owned() };
    let never = SendError::Permanent { message: "unauthenticated".to_owned() };
    sink.answer([Answer::Take(in_part), Answer::Refuse(never)]);
    let guard = with(builder(&sink), |guard| {
        emit(0..5);
        guard.flush(PATIENCE).unwrap();
        emit(5..8);
        guard.flush(PATIENCE).unwrap();
        emit(8..9);
        guard.flush(PATIENCE).unwrap();
    });
    let counts = guard.metrics();
    assert_eq!(counts.dropped_for(Reason::Rejected), 2);
    assert_eq!(counts.dropped_for(Reason::Permanent), 3);
    assert_eq!((counts.drained, counts.sent, counts.lost()), (9, 4, 5));
    let last = sink.taken().pop().unwrap();
    assert_eq!(last.header(header::LOST), Some("rejected=2,permanent=3"));
}

#[test]
fn what_is_not_sent_at_the_deadline_is_counted() {
    let sink = Arc::new(Memory::new());
    sink.set_down(true);
    let small = builder(&sink).flush_timeout(Duration::from_millis(50)).configure(|config| {
        config.batch.records_max = 10;
        config.send.in_flight_max = 2;
    });
    let (layer, guard) = small.layer().unwrap();
    let metrics = guard.metrics_shared();
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        emit(0..1000);
        let start = Instant::now();
        drop(guard);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        emit(1000..1010);
    });
    let counts = metrics.snapshot();
    assert_eq!(counts.sent, 0);
    assert_eq!(counts.lost(), 1010, "{counts}");
    assert!(sink.taken().is_empty());
}

#[test]
fn while_the_sink_is_down_memory_is_bounded_and_the_newest_events_are_dropped() {
    let sink = Arc::new(Memory::new());
    sink.set_down(true);
    let small = builder(&sink).configure(|config| {
        config.queue.bytes_max = 1 << 20;
        config.batch.bytes_max = 64 << 10;
    });
    let guard = with(small, |guard| {
        let mut emitted = 0;
        wait_until("the queue to fill", || {
            emit(emitted..emitted + 1000);
            emitted += 1000;
            guard.metrics().dropped_for(Reason::QueueFull) > 1000
        });
        sink.set_down(false);
        guard.flush(PATIENCE).unwrap();
        let counts = guard.metrics();
        assert_eq!(counts.sent + counts.lost(), emitted as u64, "{counts}");
        let taken = all_numbers(&sink);
        assert_eq!(taken.len() as u64, counts.sent);
        assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len(), "none twice");
        assert_eq!(taken[..1000], (0..1000).collect::<Vec<_>>(), "the oldest are kept");
        // The queue and what may be under way beside it.
        let bytes: usize = sink.taken().iter().map(|batch| batch.payload.len()).sum();
        assert!(bytes < (1 << 20) * 2, "{bytes}");
    });
    assert!(guard.metrics().retries > 0);
}

#[test]
fn a_batch_is_given_up_only_when_told_so() {
    let sink = Arc::new(Memory::new());
    sink.set_down(true);
    let impatient = builder(&sink).configure(|config| config.retry.elapsed_ms_max = Some(20));
    let guard = with(impatient, |guard| {
        emit(0..3);
        guard.flush(PATIENCE).unwrap();
    });
    assert_eq!(guard.metrics().dropped_for(Reason::RetriesExhausted), 3);
    assert!(sink.attempts() > 1);
}

#[test]
fn the_sink_s_wish_is_obeyed_even_by_a_flush() {
    let sink = Arc::new(Memory::new());
    let after = Duration::from_millis(150);
    sink.answer([Answer::Refuse(SendError::Retryable { message: "later".to_owned(), after: Some(after) })]);
    let _guard = with(builder(&sink), |guard| {
        emit(0..1);
        wait_until("the first try", || sink.attempts() == 1);
        let start = Instant::now();
        guard.flush(PATIENCE).unwrap();
        assert!(start.elapsed() > after / 2, "{:?}", start.elapsed());
    });
    assert_eq!(sink.attempts(), 2);
}

#[test]
fn batches_of_one_process_never_drift_far_apart() {
    let sink = Arc::new(Memory::new());
    let after = Duration::from_millis(300);
    sink.answer([Answer::Refuse(SendError::Retryable { message: "later".to_owned(), after: Some(after) })]);
    let small = builder(&sink).configure(|config| config.batch.records_max = 1);
    let _guard = with(small, |guard| {
        emit(0..500);
        guard.flush(PATIENCE).unwrap();
    });
    let order: Vec<_> = sink.taken().iter().map(|batch| batch.sequence).collect();
    let first = order.iter().position(|sequence| *sequence == 1).unwrap();
    assert!(first > 0, "it was late");
    assert!(order[..first].iter().all(|sequence| *sequence <= 65), "{:?}", &order[..=first]);
    assert_eq!(all_numbers(&sink), (0..500).collect::<Vec<_>>());
}
