//! The flight recorder, from the event to what it hands out; how that is sent is told in `worker/tests/recorder.rs`.

use std::time::{Duration, Instant};

use tracing::{Instrument as _, debug, debug_span, error, info, info_span, trace, warn};

use super::*;
use crate::{
    Severity,
    filter::recording::Recording,
    metrics,
    queue::Waker,
    recorder::{Recorder, Releaser},
};

const RING_BYTES: usize = 2 * CHUNK_BYTES;

/// A pipeline without a worker, and its recorder.
struct Recorded {
    bench: Bench,
    recorder: Arc<Recorder>,
    releaser: Mutex<Releaser>,
}

impl Recorded {
    fn new(rules: &str, recorded: &str, rings: usize) -> (Self, Dispatch) {
        let (recorded, layer) = Self::layer(rules, recorded, rings);
        (recorded, dispatch(layer))
    }

    fn layer(rules: &str, recorded: &str, rings: usize) -> (Self, LogsinkLayer) {
        let (producer, consumer) = queue::channel(16 * CHUNK_BYTES);
        let rules = RuleSet::compile(&[document(rules)], "checkout").unwrap();
        let filter = Document::of_filter(recorded).unwrap().filter.unwrap();
        let reload = Reload::beside(rules, None, Some(Recording { filter, trigger: Severity::ERROR }));
        let bench = Bench { consumer: Mutex::new(consumer), reload, metrics: Arc::new(Metrics::new()) };
        let recorder = Recorder::new(RING_BYTES, rings * RING_BYTES, Waker::default());
        let layer = LogsinkLayer::new(producer, bench.reload.clone(), bench.metrics.clone(), Capture::default())
            .recording(recorder.clone());
        let releaser = Mutex::new(Releaser::new(recorder.clone()));
        (Self { bench, recorder, releaser }, layer)
    }

    /// What was published since the last call.
    fn sent(&self) -> Vec<String> {
        self.bench.records().iter().map(|record| record.message().to_owned()).collect()
    }

    fn records(&self) -> Vec<Record> {
        let mut body = Vec::new();
        self.releaser.lock().unwrap().release(&mut |run| body.extend_from_slice(run));
        ScopeLogs::decode(&*body)
            .expect("runs concatenate to ScopeLogs")
            .log_records
            .into_iter()
            .map(Record::new)
            .collect()
    }

    /// What was asked for since the last call.
    fn released(&self) -> Vec<String> {
        self.records().iter().map(|record| record.message().to_owned()).collect()
    }

    fn counts(&self) -> metrics::Recorder {
        self.recorder.counts()
    }
}

#[test]
fn an_error_brings_out_its_own_requests_details_and_no_others() {
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug", 4);
    tracing::dispatcher::with_default(&dispatch, || {
        for request in ["fine", "failing", "also fine"] {
            let _request = info_span!("request", request).entered();
            debug!(step = 1, "{request}: looking up");
            trace!("{request}: too detailed for either");
            info_span!("inner").in_scope(|| debug!(step = 2, "{request}: reading"));
            info!("{request}: done");
            if request == "failing" {
                let _deep = info_span!("deep").entered();
                error!("it fails");
                error!("once more");
            }
        }
        debug!("outside");
    });
    assert_eq!(recorded.sent(), ["fine: done", "failing: done", "it fails", "once more", "also fine: done"]);
    let records = recorded.records();
    let messages: Vec<_> = records.iter().map(Record::message).collect();
    assert_eq!(messages, ["failing: looking up", "failing: reading"]);
    assert_eq!(records[1].text("request"), "failing");
    assert_eq!((records[1].text("span.path"), records[1].int("step")), ("request:inner", 2));
    assert_eq!(recorded.released(), [""; 0], "nothing twice");
    assert_eq!(recorded.counts(), metrics::Recorder { recorded: 7, ..Default::default() });
    assert_eq!(recorded.bench.metrics.snapshot().dropped, []);
}

#[test]
fn outside_of_spans_an_error_brings_out_its_threads_details() {
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug", 4);
    let other = dispatch.clone();
    std::thread::spawn(move || tracing::dispatcher::with_default(&other, || debug!("of another thread")))
        .join()
        .unwrap();
    tracing::dispatcher::with_default(&dispatch, || {
        error!("nothing recorded yet");
        assert_eq!(recorded.released(), [""; 0]);
        debug!("before");
        info_span!("request").in_scope(|| debug!("in a span"));
        error!("it fails");
        assert_eq!(recorded.released(), ["before"]);
    });
}

#[test]
fn a_span_tree_is_one_on_every_thread() {
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug", 4);
    tracing::dispatcher::with_default(&dispatch, || {
        let request = info_span!("request");
        let beside = info_span!("beside");
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (request, beside, dispatch) = (&request, &beside, &dispatch);
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        request.in_scope(|| debug!("part {thread}"));
                        beside.in_scope(|| debug!("beside {thread}"));
                        debug!(parent: request, "named {thread}");
                    });
                });
            }
        });
        // The threads have ended; the error happens here.
        request.in_scope(|| error!("it fails"));
    });
    let mut released = recorded.released();
    released.sort_unstable();
    assert_eq!(released, ["named 0", "named 1", "named 2", "part 0", "part 1", "part 2"]);
}

#[test]
fn a_task_that_moves_between_threads_takes_its_tree_along() {
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug", 8);
    tracing::dispatcher::with_default(&dispatch, || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .on_thread_start({
                let dispatch = dispatch.clone();
                // As a global subscriber would be there.
                move || std::mem::forget(tracing::dispatcher::set_default(&dispatch))
            })
            .build()
            .unwrap();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..20)
                .map(|task| {
                    let work = async move {
                        for step in 0..5 {
                            debug!("task {task} step {step}");
                            tokio::task::yield_now().await;
                        }
                        if task == 7 {
                            error!("it fails");
                        }
                    };
                    tokio::spawn(work.instrument(info_span!("task", task)))
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
    let mut released = recorded.released();
    released.sort_unstable();
    assert_eq!(released, (0..5).map(|step| format!("task 7 step {step}")).collect::<Vec<_>>());
}

#[test]
fn spans_that_only_the_recorder_wants_are_part_of_the_tree() {
    let (recorded, dispatch) = Recorded::new("filter = \"warn\"", "debug", 4);
    tracing::dispatcher::with_default(&dispatch, || {
        let _outer = debug_span!("outer", id = 1).entered();
        debug!("before");
        info!("also below the filter");
        debug_span!("inner").in_scope(|| warn!("sent at once"));
        error!("it fails");
    });
    assert_eq!(recorded.sent(), ["sent at once", "it fails"]);
    assert_eq!(recorded.released(), ["before", "also below the filter"]);
}

#[test]
fn a_rule_that_drops_also_keeps_from_being_recorded_and_a_rule_may_release() {
    const RULES: &str = r#"
        filter = "info"
        [[rule]]
        name = "noise"
        when = "target=noise"
        then = "drop"
        [[rule]]
        name = "slow"
        when = "latency_ms>100"
        then = "release"
        [[rule]]
        name = "one user"
        when = "level=debug user=alice"
        then = "keep"
    "#;
    let (recorded, dispatch) = Recorded::new(RULES, "debug,quiet=off", 4);
    tracing::dispatcher::with_default(&dispatch, || {
        let _request = info_span!("request").entered();
        debug!(target: "noise", "dropped for good");
        debug!(target: "quiet", user = "bob", "not recorded either");
        debug!(user = "bob", "recorded after a look at its values");
        debug!(user = "alice", "sent at once");
        info!(latency_ms = 10, "fast");
        assert_eq!(recorded.released(), [""; 0]);
        info!(latency_ms = 500, "slow");
        assert_eq!(recorded.released(), ["recorded after a look at its values"]);
    });
    assert_eq!(recorded.sent(), ["sent at once", "fast", "slow"]);
    assert_eq!(recorded.counts().recorded, 1);
}

#[test]
fn a_swap_of_rules_moves_events_between_the_queue_and_the_recorder() {
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug", 4);
    tracing::dispatcher::with_default(&dispatch, || {
        let _request = info_span!("request").entered();
        let log = |number: u32| debug!("number {number}");
        log(0);
        recorded.bench.reload.apply(&[document("filter = \"debug\"")], "1").unwrap();
        log(1);
        recorded.bench.reload.apply(&[document("filter = \"warn\"")], "2").unwrap();
        log(2);
        error!("it fails");
    });
    assert_eq!(recorded.sent(), ["number 1", "it fails"]);
    assert_eq!(recorded.released(), ["number 0", "number 2"]);
}

#[test]
fn two_layers_record_what_each_is_told_to() {
    let (first, first_layer) = Recorded::layer("filter = \"info\"", "debug", 4);
    let (second, second_layer) = Recorded::layer("filter = \"error\"", "info", 4);
    let subscriber = Registry::default().with(first_layer.filtered()).with(second_layer.filtered());
    tracing::subscriber::with_default(subscriber, || {
        let _request = info_span!("request").entered();
        debug!("detail");
        info!("step");
        error!("it fails");
    });
    assert_eq!((first.sent(), second.sent()), (vec!["step".into(), "it fails".into()], vec!["it fails".to_owned()]));
    assert_eq!((first.released(), second.released()), (vec!["detail".to_owned()], vec!["step".to_owned()]));
}

#[test]
fn threads_beyond_the_budget_record_nothing_until_there_is_room() {
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug", 1);
    tracing::dispatcher::with_default(&dispatch, || {
        let request = info_span!("request");
        std::thread::scope(|scope| {
            let (sender, turn) = std::sync::mpsc::sync_channel::<()>(0);
            let (request, dispatch) = (&request, &dispatch);
            let first = scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || request.in_scope(|| debug!("of the first")));
                sender.send(()).unwrap();
                sender.send(()).unwrap();
            });
            turn.recv().unwrap();
            request.in_scope(|| debug!("no room"));
            turn.recv().unwrap();
            first.join().unwrap();
        });
        request.in_scope(|| {
            debug!("room again");
            error!("it fails");
        });
    });
    assert_eq!(recorded.released(), ["of the first", "room again"]);
    assert_eq!(recorded.counts(), metrics::Recorder { recorded: 2, no_room: 1, ..Default::default() });
}

#[test]
fn what_cannot_be_recorded_is_counted_and_what_is_too_long_is_cut() {
    let (recorded, dispatch) = Recorded::new("filter = \"warn\"", "info", 1);
    tracing::dispatcher::with_default(&dispatch, || {
        // Logs another event while it is formatted.
        nesting::emit(&dispatch, 1, &nesting::Chatty { dispatch: &dispatch, depth: 1 });
        let long = "x".repeat(3 * CHUNK_BYTES);
        info!(text = long, "long");
        error!("it fails");
    });
    let records = recorded.records();
    assert_eq!(records.iter().map(Record::message).collect::<Vec<_>>(), ["chatty", "long"]);
    assert_eq!(records[0].int("depth"), 1);
    let text = records[1].text("text");
    assert!(text.len() < CHUNK_BYTES && text.contains("…[truncated, "), "{}", text.len());
    assert_eq!(recorded.counts(), metrics::Recorder { recorded: 2, refused: 1, ..Default::default() });
}

#[cfg(feature = "log")]
#[test]
fn records_of_the_log_crate_go_by_their_true_target_and_keep_their_key_values() {
    use log::Log as _;
    let (recorded, dispatch) = Recorded::new("filter = \"info\"", "debug,noisy=off", 1);
    tracing::dispatcher::with_default(&dispatch, || {
        for target in ["noisy", "quiet"] {
            let mut record = log::Record::builder();
            record.level(log::Level::Debug).target(target).key_values(&[("attempt", 3)]);
            crate::log_bridge::Bridge.log(&record.args(format_args!("from {target}")).build());
        }
        error!("it fails");
    });
    let records = recorded.records();
    assert_eq!(records.iter().map(Record::message).collect::<Vec<_>>(), ["from quiet"]);
    assert_eq!((records[0].text("target"), records[0].int("attempt")), ("quiet", 3));
}

#[test]
fn what_the_console_shows_is_recorded_too_and_releases_nothing() {
    let (producer, consumer) = queue::channel(16 * CHUNK_BYTES);
    let rules = "filter = \"off\"\n[[rule]]\nname = \"r\"\nwhen = 'code=1'\nthen = \"keep\"";
    let rules = RuleSet::compile(&[document(rules)], "checkout").unwrap();
    let filter = |text| Document::of_filter(text).unwrap().filter.unwrap();
    let recording = Recording { filter: filter("debug"), trigger: Severity::ERROR };
    let reload = Reload::beside(rules, Some(filter("debug")), Some(recording));
    let bench = Bench { consumer: Mutex::new(consumer), reload, metrics: Arc::new(Metrics::new()) };
    let recorder = Recorder::new(RING_BYTES, RING_BYTES, Waker::default());
    let layer = LogsinkLayer::new(producer, bench.reload.clone(), bench.metrics.clone(), Capture::default());
    let dispatch = dispatch(layer.recording(recorder.clone()));
    let recorded = Recorded { bench, releaser: Mutex::new(Releaser::new(recorder.clone())), recorder };
    let tags = || {
        let mut tags = Vec::new();
        recorded
            .bench
            .consumer
            .lock()
            .unwrap()
            .drain(&mut |run| tags.extend(queue::records(run).map(|record| record[0])));
        tags
    };
    tracing::dispatcher::with_default(&dispatch, || {
        let _request = info_span!("request").entered();
        debug!("detail");
        error!("only the console shows it");
        assert_eq!(tags(), [queue::LOCAL_TAG; 2]);
        assert_eq!(recorded.released(), [""; 0], "an error that is not sent has no story to tell");
        error!(code = 1, "it fails");
        assert_eq!(tags(), [queue::FRAME_TAG]);
        assert_eq!(recorded.released(), ["detail", "only the console shows it"]);
    });
}

/// Owners record as fast as they can while every few events an error asks for one of their trees.
#[test]
fn releases_under_load_are_whole_and_of_the_tree_that_was_asked_for() {
    const THREADS: u64 = 4;
    const REQUESTS: u64 = 400;
    let (recorded, dispatch) = Recorded::new("filter = \"error\"", "debug", THREADS as usize);
    let mut seen: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let dispatch = &dispatch;
                scope.spawn(move || {
                    tracing::dispatcher::with_default(dispatch, || {
                        for number in 0..REQUESTS {
                            let request = thread * REQUESTS + number;
                            let _span = info_span!("request", request).entered();
                            for step in 0..20_u64 {
                                debug!(step, text = &"abcdefghijklmnopqrst"[..step as usize], "step {step}");
                            }
                            if request.is_multiple_of(7) {
                                error!("it fails");
                            }
                        }
                    });
                })
            })
            .collect();
        let mut take = || {
            for record in recorded.records() {
                let (request, step) = (record.int("request"), record.int("step"));
                assert_eq!(record.message(), format!("step {step}"));
                assert_eq!(record.text("text").len() as i64, step);
                seen.entry(request).or_default().push(step);
            }
            recorded.bench.records().len() as u64
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert!(Instant::now() < deadline, "the threads do not end");
            take();
        }
        take();
    });
    assert!(!seen.is_empty());
    for (request, steps) in &seen {
        assert_eq!(request % 7, 0, "nobody asked for request {request}");
        assert!(steps.is_sorted_by(|before, after| before < after), "once and in order: {steps:?}");
    }
    let counts = recorded.counts();
    assert_eq!(counts.recorded + counts.refused, THREADS * REQUESTS * 20);
    assert_eq!((counts.no_room, counts.unanswered), (0, 0));
}
