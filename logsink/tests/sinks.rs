//! Several sinks at once; one that is down or slow; and what a full queue does to events, to threads and to the stream.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    thread,
    time::{Duration, Instant},
};

use logsink::{
    Builder, Guard,
    config::{Level, LevelOverflow, Overflow, Sink, Threshold},
    metrics::Reason,
};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};
use otlp_server::{Options, OtlpServer, PATIENCE, number, records, wait_until};
use tracing_subscriber::layer::SubscriberExt;

fn builder(url: String) -> Builder {
    logsink::builder().alone().service("sinks").endpoint(url).rules("none").configure(|config| {
        config.batch.age_ms_max = 5;
        config.retry.delay_ms_min = 5;
        config.retry.delay_ms_max = 50;
    })
}

/// As [`builder`], with the least memory that there may be.
fn small(url: String, overflow: Overflow) -> Builder {
    builder(url).overflow(overflow).configure(|config| {
        config.queue.bytes_max = 1 << 20;
        config.batch.bytes_max = 64 << 10;
    })
}

fn with(builder: Builder, body: impl FnOnce(&Guard)) -> Guard {
    let (layer, guard) = builder.layer().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || body(&guard));
    guard
}

fn emit(range: std::ops::Range<i64>) {
    range.for_each(|n| tracing::info!(n, "event"));
}

fn all(server: &OtlpServer) -> Vec<LogRecord> {
    server.calls().iter().flat_map(|call| records(&call.request)).collect()
}

fn text(record: &LogRecord) -> &str {
    match record.body.as_ref().and_then(|body| body.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// The records by which the library tells what it lost.
fn told(server: &OtlpServer) -> Vec<LogRecord> {
    all(server).into_iter().filter(|record| text(record).contains(" events dropped since ")).collect()
}

#[test]
fn one_sink_that_is_down_holds_up_no_other_and_each_has_its_filter() {
    let address = OtlpServer::free_address();
    let (everything, errors) = (OtlpServer::start(), OtlpServer::start());
    let only_errors = Sink::new(errors.url());
    let builder = builder(format!("http://{address}")).sink(Sink::new(everything.url())).configure(|config| {
        config.queue.bytes_max = 4 << 20;
        config.sink.push({
            let mut sink = only_errors;
            sink.filter = Some("off,sinks=error".to_owned());
            sink
        })
    });
    let guard = with(builder, |guard| {
        // More than the main sink's share of the memory.
        for n in 0..20_000 {
            if n % 1_000 == 0 {
                tracing::error!(n, "an error");
                wait_until("the others to keep up", || guard.metrics().sinks[0].counts.sent as i64 >= n);
            } else {
                tracing::info!(n, "event");
            }
        }
        wait_until("everything", || all(&everything).len() == 20_000);
        wait_until("the errors", || all(&errors).len() == 20);
        assert!(guard.flush(Duration::from_millis(20)).is_err(), "the main sink has taken nothing");
        let late = OtlpServer::start_at(address, Options::default());
        guard.flush(PATIENCE).unwrap();
        assert_eq!(all(&late).len() as u64, guard.metrics().sent);
        let instances = [&late, &everything, &errors]
            .map(|server| server.calls()[0].metadata.get("logsink-instance").unwrap().to_str().unwrap().to_owned());
        assert!(instances[0] != instances[1] && instances[1] != instances[2], "each counts its batches by itself");
    });
    let counts = guard.metrics();
    assert_eq!(counts.sent + counts.dropped_for(Reason::QueueFull), 20_000, "{counts}");
    assert!(counts.lost() > 0, "the main sink's share was spent");
    let figures: Vec<_> =
        counts.sinks.iter().map(|sink| (sink.sink.as_str(), sink.counts.sent, sink.counts.lost())).collect();
    assert_eq!(figures, [(everything.url().as_str(), 20_000, 0), (errors.url().as_str(), 20, 0)]);
}

#[test]
fn drops_are_told_in_the_stream_once_the_sink_is_back() {
    let address = OtlpServer::free_address();
    let builder =
        small(format!("http://{address}"), Overflow::DropNewest).configure(|config| config.send.losses_ms = 50);
    let guard = with(builder, |guard| {
        let mut emitted = 0;
        wait_until("the memory to be spent", || {
            emit(emitted..emitted + 1000);
            emitted += 1000;
            guard.metrics().dropped_for(Reason::QueueFull) > 1000
        });
        let server = OtlpServer::start_at(address, Options::default());
        let count = |record: &LogRecord| -> u64 { text(record).split(' ').next().unwrap().parse().unwrap() };
        // Once for all, unless the last of them were lost after the sink had come back.
        wait_until("all to be told", || {
            emit(emitted..emitted + 1);
            emitted += 1;
            told(&server).iter().map(count).sum::<u64>() == guard.metrics().lost()
        });
        for record in told(&server) {
            let count = count(&record);
            assert!(text(&record).starts_with(&format!("{count} events dropped since 20")), "{}", text(&record));
            assert!(text(&record).ends_with(&format!("Z because queue_full={count}")), "{}", text(&record));
            assert_eq!((record.severity_number, record.severity_text.as_str()), (13, "WARN"));
            let attributes: Vec<_> = record.attributes.iter().map(|pair| pair.key.as_str()).collect();
            let expected =
                ["target", "dropped.count", "dropped.since", "dropped.reason.queue_full", "dropped.level.info"];
            assert_eq!(attributes, expected);
        }
        // Nothing was lost since, so nothing more is told.
        let before = (told(&server).len(), guard.metrics().lost());
        emit(emitted..emitted + 100);
        guard.flush(PATIENCE).unwrap();
        assert_eq!((told(&server).len(), guard.metrics().lost()), before);
    });
    drop(guard);
}

#[test]
fn what_was_lost_last_is_told_at_the_end() {
    let server = OtlpServer::start();
    let guard = with(builder(server.url()), |guard| {
        server.answer([otlp_server::Answer::TakeInPart(3)]);
        emit(0..10);
        guard.flush(PATIENCE).unwrap();
    });
    assert!(told(&server).is_empty(), "more may be lost within the interval");
    guard.shutdown(PATIENCE).unwrap();
    assert_eq!(told(&server).len(), 1);
    assert!(text(&told(&server)[0]).ends_with(" because rejected=3"));
}

#[test]
fn who_may_block_loses_nothing_while_the_sink_comes_back_in_time() {
    let address = OtlpServer::free_address();
    let patient =
        small(format!("http://{address}"), Overflow::Block).configure(|config| config.queue.block_ms_max = 60_000);
    let guard = with(patient, |guard| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let emitting = thread::spawn(move || tracing::dispatcher::with_default(&dispatch, || emit(0..30_000)));
        // It cannot end before there is a sink: the memory holds a third of it.
        wait_until("the sink to be tried", || guard.metrics().retries > 0);
        let server = OtlpServer::start_at(address, Options::default());
        emitting.join().unwrap();
        guard.flush(PATIENCE).unwrap();
        assert_eq!(server.numbers(), (0..30_000).collect::<Vec<_>>());
    });
    assert_eq!(guard.metrics().lost(), 0);
}

#[test]
fn who_may_block_waits_no_longer_than_told() {
    let wait = Duration::from_millis(50);
    let down = format!("http://{}", OtlpServer::free_address());
    let builder = small(down, Overflow::Block).configure(move |config| config.queue.block_ms_max = 50);
    let guard = with(builder.flush_timeout(Duration::ZERO), |guard| {
        let (mut emitted, mut longest) = (0, Duration::ZERO);
        wait_until("an event to wait", || {
            for _ in 0..1000 {
                let start = Instant::now();
                emit(emitted..emitted + 1);
                emitted += 1;
                longest = longest.max(start.elapsed());
            }
            // The worker waits as long for room, then drops a batch and frees what the thread waits for.
            longest >= wait / 2 && guard.metrics().dropped_for(Reason::QueueFull) > 0
        });
        assert!(longest < wait * 20, "{longest:?}");
    });
    drop(guard);
}

#[test]
fn errors_wait_while_the_rest_is_dropped() {
    let address = OtlpServer::free_address();
    let builder = small(format!("http://{address}"), Overflow::DropNewest).configure(|config| {
        config.queue.level.insert(Level::Error, LevelOverflow::Block);
        config.queue.block_ms_max = 60_000;
    });
    let guard = with(builder, |guard| {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let emitting = thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || {
                for n in 0..40_000 {
                    if n % 20 == 0 { tracing::error!(n, "an error") } else { tracing::info!(n, "event") }
                }
            });
        });
        wait_until("the rest to be dropped", || guard.metrics().dropped_for(Reason::QueueFull) > 0);
        let server = OtlpServer::start_at(address, Options::default());
        emitting.join().unwrap();
        guard.flush(PATIENCE).unwrap();
        let errors = all(&server).into_iter().filter(|record| record.severity_number == 17);
        let mut errors: Vec<_> = errors.filter_map(|record| number(&record.attributes)).collect();
        errors.sort_unstable();
        assert_eq!(errors, (0..40_000).step_by(20).collect::<Vec<_>>());
    });
    assert!(guard.metrics().lost() > 0);
}

#[test]
fn errors_have_a_reserve() {
    for (protect, kept) in [(Threshold::Error, true), (Threshold::Off, false)] {
        let address = OtlpServer::free_address();
        let builder = small(format!("http://{address}"), Overflow::DropNewest);
        let guard = with(builder.configure(move |config| config.queue.protect = protect), |guard| {
            let mut emitted = 0;
            wait_until("the memory to be spent", || {
                emit(emitted..emitted + 1000);
                emitted += 1000;
                guard.metrics().dropped_for(Reason::QueueFull) > 5_000
            });
            (0..20).for_each(|n| tracing::error!(n = 1_000_000 + n, "an error"));
            emit(emitted..emitted + 1000);
            let server = OtlpServer::start_at(address, Options::default());
            guard.flush(PATIENCE).unwrap();
            let errors = all(&server).iter().filter(|record| record.severity_number == 17).count();
            assert_eq!(errors == 20, kept, "{protect:?}: {errors}");
        });
        drop(guard);
    }
}

#[test]
fn the_oldest_may_go_instead_of_the_newest() {
    let address = OtlpServer::free_address();
    let guard = with(small(format!("http://{address}"), Overflow::DropOldest), |guard| {
        let mut emitted = 0;
        wait_until("the memory to be spent", || {
            emit(emitted..emitted + 100);
            emitted += 100;
            // At the worker's pace: a thread that is faster drops its newest.
            wait_until("the worker", || {
                let counts = guard.metrics();
                counts.drained + counts.dropped_for(Reason::QueueFull) >= emitted as u64
            });
            guard.metrics().dropped_for(Reason::QueueFull) > 5_000
        });
        let server = OtlpServer::start_at(address, Options::default());
        guard.flush(PATIENCE).unwrap();
        let numbers = server.numbers();
        assert_eq!(numbers.last(), Some(&(emitted - 1)), "the newest is there");
        let counts = guard.metrics();
        assert_eq!(counts.sent + counts.lost(), emitted as u64, "{counts}");
    });
    drop(guard);
}
