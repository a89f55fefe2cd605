//! Spans whose fields are looked at, closed and created again at the same time, and more of them than have a place.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use tracing::{Span, dispatcher::with_default, field::Empty, info, info_span, span::Id};
use tracing_subscriber::layer::Context;

use super::*;

/// More than [`crate::span::Spans`] has places for: most of those beyond are kept by the registry.
const LIVE: u64 = 6_000;

#[test]
fn any_number_of_spans_may_be_live() {
    let (bench, layer) = Bench::with("filter = \"trace\"", 128, Capture::default());
    with_default(&dispatch(layer), || {
        let spans: Vec<_> = (0..LIVE).map(|number| info_span!("many", number, later = Empty)).collect();
        for (number, span) in spans.iter().enumerate() {
            span.record("later", number);
        }
        for (number, span) in spans.iter().enumerate() {
            span.in_scope(|| info!(expected = number, "inside"));
        }
        drop(spans);
        let again = info_span!("many", number = LIVE, later = LIVE);
        again.in_scope(|| info!(expected = LIVE, "inside"));
    });
    let records = bench.records();
    assert_eq!(records.len() as u64, LIVE + 1);
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.int("expected"), number as i64);
        assert_eq!((record.int("number"), record.int("later")), (number as i64, number as i64));
    }
}

#[test]
fn spans_that_threads_hand_on_keep_their_fields() {
    const THREADS: u64 = 4;
    const TURNS: u64 = 2_000;
    let (bench, layer) = Bench::with("filter = \"trace\"", 256, Capture::default());
    let dispatch = dispatch(layer);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::sync_channel::<(u64, Span)>(8)).unzip();
    thread::scope(|scope| {
        for (at, received) in receivers.into_iter().enumerate() {
            let (next, dispatch) = (senders[(at + 1) % senders.len()].clone(), dispatch.clone());
            scope.spawn(move || {
                with_default(&dispatch, || {
                    for turn in 0..TURNS {
                        let number = at as u64 * TURNS + turn;
                        let span = info_span!("handed", number);
                        span.in_scope(|| info!(expected = number, "here"));
                        next.send((number, span)).unwrap();
                        // It closes here, and the thread that created it uses its id again.
                        let (number, span) = received.recv().unwrap();
                        span.in_scope(|| info!(expected = number, "there"));
                    }
                });
            });
        }
    });
    let records = bench.records();
    let lost: Vec<_> =
        Reason::ALL.into_iter().map(|reason| (reason, bench.dropped(reason))).filter(|lost| lost.1 > 0).collect();
    assert_eq!(records.len() as u64, 2 * THREADS * TURNS, "{lost:?}");
    for record in &records {
        assert_eq!(record.int("number"), record.int("expected"), "{record:?}");
    }
}

#[test]
fn a_span_that_closes_while_it_is_looked_at_shows_its_own_fields_or_none() {
    // Fewer than the registry has generations of an id: an old id must not name a new span.
    const SPANS: u64 = 3_000;
    const EACH: u64 = 4;
    let (bench, layer) = Bench::with("filter = \"trace\"", 256, Capture::default());
    let dispatch = dispatch(layer);
    let newest: Mutex<Option<(u64, Id)>> = Mutex::new(None);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                with_default(&dispatch, || {
                    let mut last = None;
                    while !is_over.load(Ordering::Acquire) {
                        let seen = newest.lock().unwrap().clone();
                        if let Some((expected, id)) = seen.filter(|seen| last.as_ref() != Some(seen)) {
                            (0..EACH).for_each(|_| info!(parent: id.clone(), expected, "by id"));
                            last = Some((expected, id));
                        } else {
                            thread::yield_now();
                        }
                    }
                });
            });
        }
        with_default(&dispatch, || {
            for number in 0..SPANS {
                let span = info_span!("short", number, later = Empty);
                *newest.lock().unwrap() = span.id().map(|id| (number, id));
                span.record("later", number);
                span.in_scope(|| info!(expected = number, "inside"));
            }
        });
        is_over.store(true, Ordering::Release);
    });
    let records = bench.records();
    let (mut inside, mut by_id) = (0, 0);
    for record in &records {
        let shown = record.get("number").map(|_| record.int("number"));
        if record.message() == "inside" {
            inside += 1;
            assert_eq!((shown, record.int("later")), (Some(record.int("expected")), record.int("expected")));
        } else if shown.is_some() {
            by_id += 1;
            assert_eq!(shown, Some(record.int("expected")), "{record:?}");
        }
    }
    assert_eq!((inside, bench.dropped(Reason::QueueFull)), (SPANS, 0));
    assert!(by_id > 0, "no span was still open: the test shows nothing");
}

/// Logs in every span that closes, after the layers below have seen it close.
struct SaysClosed;

impl<S> tracing_subscriber::Layer<S> for SaysClosed
where
    S: tracing_core::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_close(&self, id: Id, _: Context<'_, S>) {
        info!(parent: id, "closed");
    }
}

#[test]
fn another_layer_may_log_in_a_span_that_closes() {
    let (bench, layer) = Bench::new();
    with_default(&Dispatch::new(Registry::default().with(layer.filtered()).with(SaysClosed)), || {
        for number in 0..100 {
            drop(info_span!("short", number));
        }
    });
    let numbers: Vec<_> = bench.records().iter().map(|record| record.int("number")).collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}
