//! Ends by `main`, by `exit` and by `abort`.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use logsink::{Guard, metrics::Reason};
use tracing_subscriber::layer::SubscriberExt;

use crate::{
    otlp_server::{OtlpServer, PATIENCE},
    program::{Program, Sink, Story, library, run},
};

pub(crate) const STORIES: &[Story] = &[
    ("exit::events_after_main_arrive_and_later_ones_are_counted", after_main),
    ("exit::process_exit_loses_nothing", process_exit),
    ("exit::logsink_exit_sends_what_a_layer_has", layer_exit),
    ("exit::a_thread_may_end_the_process", thread_exit),
    ("exit::a_value_may_end_the_process", value_exit),
    ("exit::abort_after_a_flush_loses_nothing", flush_and_abort),
    ("exit::a_transport_may_end_the_process", transport_exit),
    ("exit::the_end_waits_for_a_shutdown_under_way", exit_beside_shutdown),
    ("exit::a_sink_that_is_away_delays_the_end_once", sink_away),
    ("exit::init_after_a_refused_init_works", second_init),
];

pub(crate) const PROGRAMS: &[Program] = &[
    ("after_main", after_main_program),
    ("process_exit", process_exit_program),
    ("layer_exit", layer_exit_program),
    ("thread_exit", thread_exit_program),
    ("value_exit", value_exit_program),
    ("flush_and_abort", flush_and_abort_program),
    ("transport_exit", transport_exit_program),
    ("exit_beside_shutdown", exit_beside_shutdown_program),
    ("sink_away", sink_away_program),
    ("second_init", second_init_program),
];

/// Logs when its thread ends.
struct AtThreadEnd(i64);

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        tracing::info!(n = self.0, "thread-local destructor");
    }
}

thread_local! {
    static AT_THREAD_END: RefCell<Option<AtThreadEnd>> = const { RefCell::new(None) };
}

static GUARD: OnceLock<Guard> = OnceLock::new();

extern "C" fn registered_before() {
    tracing::info!(n = 100, "too late");
    let guard = GUARD.get().unwrap();
    eprintln!("refused {}", guard.metrics().dropped_for(Reason::Shutdown));
    eprintln!("flushed {}", u64::from(guard.flush(PATIENCE).is_ok()));
}

extern "C" fn registered_after() {
    tracing::info!(n = 4, "atexit");
}

fn after_main() {
    let server = OtlpServer::start();
    let ended = run("after_main", &server.url());
    ended.assert_code(0);
    assert_eq!(server.numbers(), [0, 1, 2, 3, 4]);
    assert_eq!((ended.said("refused"), ended.said("flushed")), (1, 1));
}

fn after_main_program() {
    // Before the layer's own thread-local, so that its destructor runs after that.
    AT_THREAD_END.set(Some(AtThreadEnd(3)));
    // SAFETY: the handlers neither unwind nor are called twice.
    unsafe { libc::atexit(registered_before) };
    let guard = library().init().unwrap();
    // SAFETY: as above.
    unsafe { libc::atexit(registered_after) };
    tracing::info!(n = 0, "event");
    thread_local!(static LATER: RefCell<Option<AtThreadEnd>> = const { RefCell::new(None) });
    LATER.set(Some(AtThreadEnd(2)));
    let thread = thread::spawn(|| AT_THREAD_END.set(Some(AtThreadEnd(1))));
    thread.join().unwrap();
    assert!(GUARD.set(guard).is_ok());
}

fn process_exit() {
    let server = OtlpServer::start();
    run("process_exit", &server.url()).assert_code(7);
    assert_eq!(server.numbers(), [0, 1]);
}

fn process_exit_program() {
    AT_THREAD_END.set(Some(AtThreadEnd(1)));
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    std::process::exit(7);
}

fn layer_exit() {
    let server = OtlpServer::start();
    run("layer_exit", &server.url()).assert_code(7);
    assert_eq!(server.numbers(), [0]);
}

fn layer_exit_program() {
    let (layer, _guard) = library().layer().unwrap();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    tracing::info!(n = 0, "event");
    logsink::exit(7);
}

fn thread_exit() {
    let server = OtlpServer::start();
    run("thread_exit", &server.url()).assert_code(3);
    assert_eq!(server.numbers(), [0, 1]);
}

fn thread_exit_program() {
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    thread::spawn(|| {
        tracing::info!(n = 1, "event");
        std::process::exit(3);
    });
    loop {
        thread::park();
    }
}

fn value_exit() {
    let server = OtlpServer::start();
    run("value_exit", &server.url()).assert_code(4);
    assert_eq!(server.numbers(), [0]);
}

fn value_exit_program() {
    struct Exits;
    impl fmt::Debug for Exits {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            logsink::exit(4)
        }
    }
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    tracing::info!(n = 1, value = ?Exits, "never ends");
}

fn flush_and_abort() {
    let server = OtlpServer::start();
    run("flush_and_abort", &server.url()).assert_signal(libc::SIGABRT);
    assert_eq!(server.numbers(), [0]);
}

fn flush_and_abort_program() {
    let guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    guard.flush(PATIENCE).unwrap();
    std::process::abort();
}

fn transport_exit() {
    run("transport_exit", "http://127.0.0.1:1").assert_code(5);
}

fn transport_exit_program() {
    let guard = library().transport(Arc::new(Sink(|_| logsink::exit(5)))).init().unwrap();
    tracing::info!("event");
    let _ = guard.flush(PATIENCE);
    unreachable!("the sink has ended the process");
}

fn exit_beside_shutdown() {
    let ended = run("exit_beside_shutdown", "http://127.0.0.1:1");
    ended.assert_code(6);
    assert_eq!(ended.said("sent"), 1);
}

fn exit_beside_shutdown_program() {
    static SENDING: AtomicBool = AtomicBool::new(false);
    let slow = Sink(|batch| {
        SENDING.store(true, Ordering::SeqCst);
        // Long enough for a process that does not wait to be gone.
        thread::sleep(Duration::from_millis(300));
        eprintln!("sent {}", batch.records);
    });
    let guard = library().transport(Arc::new(slow)).init().unwrap();
    tracing::info!("event");
    thread::spawn(move || guard.shutdown(PATIENCE));
    while !SENDING.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    std::process::exit(6);
}

fn sink_away() {
    let address = OtlpServer::free_address();
    let ended = run("sink_away", &format!("http://{address}"));
    ended.assert_code(0);
    assert!(ended.took < Duration::from_millis(7500), "waited {:?}", ended.took);
    assert!(ended.stderr.contains("1 events were lost"), "{}", ended.stderr);
}

fn sink_away_program() {
    let _guard = library().flush_timeout(Duration::from_secs(4)).init().unwrap();
    tracing::info!(n = 0, "event");
}

fn second_init() {
    let server = OtlpServer::start();
    run("second_init", &server.url()).assert_code(0);
    assert_eq!(server.numbers(), [0]);
}

fn second_init_program() {
    library().endpoint("ftp://nowhere").init().unwrap_err();
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "event");
    library().init().unwrap_err();
}
