//! Many threads, ending threads, our own threads, a full queue.

use std::cell::RefCell;

use tracing::{Level, error, info, info_span, warn};

use super::*;

#[test]
fn every_event_of_every_thread_arrives_once_and_in_order() {
    const THREADS: u64 = 8;
    const EVENTS: u64 = 20_000;
    let (bench, layer) = Bench::with("filter = \"info\"", 64, Capture::default());
    let dispatch = dispatch(layer);
    let mut delivered = Vec::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let dispatch = &dispatch;
                let bench = &bench;
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        for number in 0..EVENTS {
                            let _span = (number % 3 == 0).then(|| info_span!("third", third = number).entered());
                            // The consumer is slower than eight threads: hold back rather than lose.
                            while bench.consumer_is_behind() {
                                std::thread::yield_now();
                            }
                            info!(thread, number, text = &"abcdefgh"[..(number % 9) as usize], "numbered {number}");
                        }
                    });
                })
            })
            .collect();
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            delivered.extend(bench.records());
        }
    });
    delivered.extend(bench.records());
    assert_eq!(bench.metrics.snapshot().lost(), 0);
    let mut next = vec![0; THREADS as usize];
    for record in &delivered {
        let (thread, number) = (record.int("thread") as usize, record.int("number"));
        assert_eq!(number, next[thread], "thread {thread}");
        next[thread] += 1;
        assert_eq!(record.message(), format!("numbered {number}"));
        assert_eq!(record.text("text").len() as i64, number % 9);
        assert_eq!(record.get("third").is_some(), number % 3 == 0);
    }
    assert_eq!(next, vec![EVENTS as i64; THREADS as usize]);
}

impl Bench {
    fn consumer_is_behind(&self) -> bool {
        self.consumer.lock().unwrap().chunks_free() < 16
    }
}

#[test]
fn delivered_and_counted_make_up_what_was_emitted() {
    const THREADS: u64 = 4;
    const EVENTS: u64 = 10_000;
    let (bench, layer) = Bench::with("filter = \"info\"", 4, Capture::default());
    let dispatch = dispatch(layer);
    let mut delivered = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let dispatch = &dispatch;
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        (0..EVENTS).for_each(|number| warn!(thread, number, "numbered"));
                    });
                })
            })
            .collect();
        let mut take = || {
            for record in bench.records() {
                *delivered.entry((record.int("thread"), record.int("number"))).or_insert(0) += 1;
            }
        };
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            take();
        }
        take();
    });
    assert!(delivered.values().all(|times| *times == 1), "nothing twice");
    assert_eq!(delivered.len() as u64 + bench.dropped(Reason::QueueFull), THREADS * EVENTS);
}

#[test]
fn a_full_queue_refuses_the_newest_and_counts_by_level() {
    let (bench, layer) = Bench::with("filter = \"info\"", 2, Capture::default());
    let dispatch = dispatch(layer);
    let emitted = 2_000;
    tracing::dispatcher::with_default(&dispatch, || {
        for number in 0..emitted {
            info!(number, "filling");
        }
        error!("too late");
        let records = bench.records();
        let numbers: Vec<_> = records.iter().map(|record| record.int("number")).collect();
        assert!(numbers.iter().copied().eq(0..records.len() as i64), "the oldest are kept, in order");
        let snapshot = bench.metrics.snapshot();
        let full: Vec<_> =
            snapshot.dropped.iter().map(|dropped| (dropped.reason, dropped.severity.0, dropped.count)).collect();
        assert_eq!(full, [(Reason::QueueFull, 9, emitted - records.len() as u64), (Reason::QueueFull, 17, 1)]);
        // What was drained is free again.
        info!(number = 1, "room again");
        assert_eq!(bench.records().len(), 1);
    });
}

#[test]
fn more_threads_than_chunks_can_still_log() {
    let (bench, layer) = Bench::with("filter = \"info\"", 2, Capture::default());
    let dispatch = dispatch(layer);
    let barrier = std::sync::Barrier::new(10);
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let (dispatch, barrier) = (&dispatch, &barrier);
            scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || info!(thread, "one"));
                // Nobody ends, so nobody gives a chunk back.
                barrier.wait();
                tracing::dispatcher::with_default(dispatch, || info!(thread, "two"));
            });
        }
    });
    assert_eq!(bench.records().len(), 20);
    assert_eq!(bench.metrics.snapshot().lost(), 0);
}

#[test]
fn short_threads_leave_their_events_behind() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    let mut numbers = Vec::new();
    for number in 0..100 {
        let dispatch = dispatch.clone();
        std::thread::spawn(move || tracing::dispatcher::with_default(&dispatch, || info!(number, "short")))
            .join()
            .unwrap();
        numbers.extend(bench.records().iter().map(|record| record.int("number")));
    }
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_thread_may_log_while_it_ends() {
    /// Logs when the thread's variables are dropped, those of the layer possibly before it.
    struct Last(Option<Dispatch>);
    impl Drop for Last {
        fn drop(&mut self) {
            if let Some(dispatch) = self.0.take() {
                tracing::dispatcher::with_default(&dispatch, || info!("last words"));
                std::mem::forget(dispatch);
            }
        }
    }
    thread_local! {
        static EARLY: RefCell<Last> = const { RefCell::new(Last(None)) };
        static LATE: RefCell<Last> = const { RefCell::new(Last(None)) };
    }
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    let inner = dispatch.clone();
    std::thread::spawn(move || {
        // Registered before and after the layer's own variables: one of them is dropped after those.
        EARLY.with(|last| last.borrow_mut().0 = Some(inner.clone()));
        tracing::dispatcher::with_default(&inner, || info!("alive"));
        LATE.with(|last| last.borrow_mut().0 = Some(inner.clone()));
    })
    .join()
    .unwrap();
    let mut messages: Vec<_> = bench.records().iter().map(|record| record.message().to_owned()).collect();
    messages.sort_unstable();
    assert_eq!(messages[0], "alive");
    assert!(messages.len() as u64 + bench.metrics.snapshot().lost() >= 1);
    assert!(messages[1..].iter().all(|message| message == "last words"), "{messages:?}");
}

#[test]
fn a_thread_of_our_own_is_not_listened_to() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    let own = dispatch.clone();
    std::thread::spawn(move || {
        queue::mark_own_thread();
        tracing::dispatcher::with_default(&own, || {
            let _span = info_span!("sending").entered();
            warn!("about sending");
        });
    })
    .join()
    .unwrap();
    tracing::dispatcher::with_default(&dispatch, || info!("about the application"));
    assert_eq!(bench.records().iter().map(Record::message).collect::<Vec<_>>(), ["about the application"]);
    assert_eq!(bench.dropped(Reason::OwnThread), 1);
}

#[test]
fn after_the_end_events_are_counted() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        info!("before");
        let mut records = 0;
        bench.consumer.lock().unwrap().close_and_drain(&mut |run| records += queue::records(run).count());
        assert_eq!(records, 1);
        tracing::event!(Level::ERROR, "after");
    });
    assert_eq!(bench.records().len(), 0);
    assert_eq!(bench.dropped(Reason::Shutdown), 1);
}
