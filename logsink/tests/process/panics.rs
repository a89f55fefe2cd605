//! Panics: what is buffered arrives, nobody waits who need not, and the panic itself is an event where that is asked for.

use std::{
    fmt, panic,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use logsink::metrics::Reason;
use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};

use crate::{
    otlp_server::{self, OtlpServer, PATIENCE, attribute, text},
    program::{Program, Sink, Story, library, run},
};

pub(crate) const STORIES: &[Story] = &[
    ("panics::main_may_panic", in_main),
    ("panics::a_process_that_dies_of_a_panic_waits_for_the_sink", deadly),
    ("panics::a_second_panic_while_unwinding_loses_nothing", doubled),
    ("panics::without_the_hook_a_deadly_panic_loses_what_waits", without_hook),
    ("panics::a_panic_that_is_caught_delays_nobody", caught),
    ("panics::a_crash_report_says_what_and_where", reported),
    ("panics::a_value_may_panic_while_it_is_encoded", in_value),
    ("panics::the_library_s_own_threads_may_panic", in_transport),
    ("panics::the_hook_before_is_called", chained),
];

pub(crate) const PROGRAMS: &[Program] = &[
    ("panics_in_main", in_main_program),
    ("deadly", deadly_program),
    ("doubled", doubled_program),
    ("without_hook", without_hook_program),
    ("caught", caught_program),
    ("reported", reported_program),
    ("in_value", in_value_program),
    ("in_transport", in_transport_program),
    ("chained", chained_program),
];

/// What the story's server has of the panic.
fn reports(server: &OtlpServer) -> Vec<LogRecord> {
    let is_report = |record: &LogRecord| text(&record.attributes, "target").as_deref() == Some("panic");
    server.records().into_iter().filter(is_report).collect()
}

fn in_main() {
    let server = OtlpServer::start();
    run("panics_in_main", &server.url()).assert_code(101);
    assert_eq!(server.numbers(), [0]);
    assert!(reports(&server).is_empty(), "only where it is asked for");
}

fn in_main_program() {
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    panic!("in main");
}

/// As with `panic = "abort"`: the process ends right after the hook.
extern "C" fn cannot_unwind() {
    panic!("deadly");
}

fn deadly() {
    let server = OtlpServer::start();
    run("deadly", &server.url()).assert_signal(libc::SIGABRT);
    assert_eq!(server.numbers(), [0]);
    // The panic, and what the standard library makes of it; they may be in two batches, which keep no order.
    let mut messages: Vec<_> =
        reports(&server).iter().filter_map(|report| text(&report.attributes, "exception.message")).collect();
    messages.sort_unstable();
    assert_eq!(messages, ["deadly", "panic in a function that cannot unwind"]);
}

fn deadly_program() {
    let _guard = library().crash_report().init().unwrap();
    tracing::info!(n = 0, "event");
    thread::spawn(|| cannot_unwind()).join().unwrap();
}

struct PanicsAtDrop;

impl Drop for PanicsAtDrop {
    fn drop(&mut self) {
        panic!("the second");
    }
}

fn doubled() {
    let server = OtlpServer::start();
    run("doubled", &server.url()).assert_signal(libc::SIGABRT);
    assert_eq!(server.numbers(), [0]);
}

fn doubled_program() {
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    let _second = PanicsAtDrop;
    panic!("the first");
}

fn without_hook() {
    let server = OtlpServer::start();
    run("without_hook", &server.url()).assert_signal(libc::SIGABRT);
    assert_eq!(server.numbers(), [0; 0]);
}

fn without_hook_program() {
    let _guard = library().configure(|config| config.panic_hook = Some(false)).init().unwrap();
    tracing::info!(n = 0, "event");
    cannot_unwind();
}

fn caught() {
    let address = OtlpServer::free_address();
    let ended = run("caught", &format!("http://{address}"));
    ended.assert_code(0);
    let (millis, lost) = (ended.said("millis"), ended.said("lost"));
    assert!(millis < 10_000, "a hundred panics took {millis} ms while the sink is away");
    assert_eq!(lost, 0);
}

fn caught_program() {
    let guard = library().flush_timeout(Duration::from_millis(100)).init().unwrap();
    tracing::info!(n = 0, "event");
    let started = Instant::now();
    for _ in 0..10 {
        let threads: Vec<_> = (0..10).map(|_| thread::spawn(|| panic!("in a task"))).collect();
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
    eprintln!("millis {}", started.elapsed().as_millis());
    eprintln!("lost {}", guard.metrics().lost());
}

fn reported() {
    let server = OtlpServer::start();
    run("reported", &server.url()).assert_code(0);
    let reports = reports(&server);
    let [report] = &reports[..] else { panic!("{reports:?}") };
    let shown = |key| text(&report.attributes, key);
    assert_eq!(report.severity_text, "ERROR");
    assert_eq!(shown("exception.type").as_deref(), Some("panic"));
    assert_eq!(shown("exception.message").as_deref(), Some("no item 7"));
    assert!(shown("code.file.path").unwrap().ends_with("panics.rs"));
    let line = attribute(&report.attributes, "code.line.number");
    assert!(matches!(line, Some(Value::IntValue(line)) if *line > 0), "{line:?}");
    assert_eq!(shown("thread.name").as_deref(), Some("shop"));
    assert_eq!((shown("span.name").as_deref(), shown("user").as_deref()), (Some("checkout"), Some("alice")));
    let stacktrace = shown("exception.stacktrace").unwrap();
    assert!(stacktrace.contains("reported_program"), "{stacktrace}");
    assert!(stacktrace.len() <= (16 << 10) + 64);
    let mut keys: Vec<_> = report.attributes.iter().map(|attribute| &attribute.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), report.attributes.len(), "no key twice");
}

fn reported_program() {
    let _guard = library().crash_report().init().unwrap();
    let thread = thread::Builder::new().name("shop".to_owned());
    let thread = thread.spawn(|| {
        let _span = tracing::info_span!("checkout", user = "alice").entered();
        let item = std::hint::black_box(7);
        panic!("no item {item}");
    });
    thread.unwrap().join().unwrap_err();
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("cannot be shown")
    }
}

fn in_value() {
    let server = OtlpServer::start();
    let ended = run("in_value", &server.url());
    ended.assert_code(0);
    assert_eq!(server.numbers(), [0, 2]);
    assert_eq!(ended.said("panicked"), 1);
    let reports = reports(&server);
    assert_eq!(reports.len(), 1);
    assert_eq!(text(&reports[0].attributes, "exception.message").as_deref(), Some("cannot be shown"));
}

fn in_value_program() {
    let guard = library().crash_report().init().unwrap();
    tracing::info!(n = 0, "event");
    panic::catch_unwind(|| tracing::info!(n = 1, value = ?Panics, "event")).unwrap_err();
    tracing::info!(n = 2, "event");
    eprintln!("panicked {}", guard.metrics().dropped_for(Reason::Panicked));
}

fn in_transport() {
    let ended = run("in_transport", "http://127.0.0.1:1");
    ended.assert_code(0);
    assert_eq!((ended.said("lost"), ended.said("own")), (2, 0));
}

fn in_transport_program() {
    let sink = Sink(|_| panic!("in the sink"));
    let guard = library().transport(Arc::new(sink)).crash_report().init().unwrap();
    for _ in 0..2 {
        tracing::info!("event");
        guard.flush(PATIENCE).unwrap();
    }
    eprintln!("lost {}", guard.metrics().lost());
    eprintln!("own {}", guard.metrics().dropped_for(Reason::OwnThread));
}

fn chained() {
    let server = OtlpServer::start();
    let ended = run("chained", &server.url());
    ended.assert_code(0);
    assert_eq!(ended.said("before"), 1);
    otlp_server::wait_until("the event", || server.numbers() == [0]);
}

fn chained_program() {
    panic::set_hook(Box::new(|_| eprintln!("before 1")));
    let guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    thread::spawn(|| panic!("in a thread")).join().unwrap_err();
    // Neither the guard nor the end of the process: the hook has had the event sent.
    let sent = || guard.metrics().sent == 1;
    otlp_server::wait_until("the event to be sent", sent);
    // SAFETY: ends the process, whatever its state.
    unsafe { libc::_exit(0) };
}
