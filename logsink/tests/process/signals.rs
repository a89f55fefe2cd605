//! Signals that end the process, that the application handles itself, and that interrupt the library.

use std::{
    fmt, mem, ptr,
    sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    thread,
    time::Duration,
};

use libc::c_int;
use logsink::metrics::Reason;

use crate::{
    forks::in_child,
    otlp_server::{OtlpServer, PATIENCE, wait_until},
    program::{Program, Story, library, run},
};

pub(crate) const STORIES: &[Story] = &[
    ("signals::sigterm_flushes_and_still_kills", terminated),
    ("signals::a_second_signal_does_not_wait", terminated_twice),
    ("signals::a_handler_of_the_application_is_left_alone", handled_before),
    ("signals::a_later_handler_of_the_application_takes_over", handled_later),
    ("signals::a_forked_child_dies_alone", child_terminated),
    ("signals::a_handler_that_interrupts_the_encoder_corrupts_nothing", interrupted_in_value),
    ("signals::a_handler_that_interrupts_anywhere_corrupts_nothing", interrupted_anywhere),
];

pub(crate) const PROGRAMS: &[Program] = &[
    ("terminated", terminated_program),
    ("terminated_twice", terminated_twice_program),
    ("handled_before", || handled_program(true)),
    ("handled_later", || handled_program(false)),
    ("child_terminated", child_terminated_program),
    ("interrupted_in_value", interrupted_in_value_program),
    ("interrupted_anywhere", interrupted_anywhere_program),
];

/// Has `handler` called at the signal.
fn handle(signal: c_int, handler: extern "C" fn(c_int)) {
    // SAFETY: the handler has the signature that a handler without `SA_SIGINFO` has; zeros are a value of the action.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(signal, &raw const action, ptr::null_mut()), 0);
    }
}

/// Sends a signal to this process.
fn send(signal: c_int) {
    // SAFETY: a signal to ourselves.
    assert_eq!(unsafe { libc::kill(libc::getpid(), signal) }, 0);
}

fn wait_for_ever() -> ! {
    loop {
        thread::park();
    }
}

fn terminated() {
    let server = OtlpServer::start();
    run("terminated", &server.url()).assert_signal(libc::SIGTERM);
    assert_eq!(server.numbers(), [0]);
}

fn terminated_program() {
    let _guard = library().flush_on_signals().init().unwrap();
    tracing::info!(n = 0, "event");
    send(libc::SIGTERM);
    wait_for_ever();
}

fn terminated_twice() {
    let address = OtlpServer::free_address();
    // Much earlier than the deadline of the flush, or it counts as not ended.
    run("terminated_twice", &format!("http://{address}")).assert_signal(libc::SIGINT);
}

fn terminated_twice_program() {
    let guard = library().flush_timeout(10 * PATIENCE).flush_on_signals().init().unwrap();
    tracing::info!(n = 0, "event");
    send(libc::SIGTERM);
    // It waits for the sink.
    wait_until("attempts", || guard.metrics().retries > 0);
    send(libc::SIGINT);
    wait_for_ever();
}

fn handled_before() {
    let server = OtlpServer::start();
    run("handled_before", &server.url()).assert_code(9);
    assert_eq!(server.numbers(), [0]);
}

fn handled_later() {
    let server = OtlpServer::start();
    run("handled_later", &server.url()).assert_code(9);
    assert_eq!(server.numbers(), [0]);
}

fn handled_program(before: bool) {
    static CAME: AtomicBool = AtomicBool::new(false);
    extern "C" fn note(_: c_int) {
        CAME.store(true, SeqCst);
    }
    if before {
        handle(libc::SIGTERM, note);
    }
    let _guard = library().flush_on_signals().init().unwrap();
    if !before {
        handle(libc::SIGTERM, note);
    }
    tracing::info!(n = 0, "event");
    send(libc::SIGTERM);
    wait_until("the signal", || CAME.load(SeqCst));
    std::process::exit(9);
}

fn child_terminated() {
    let server = OtlpServer::start();
    run("child_terminated", &server.url()).assert_code(0);
    assert_eq!(server.numbers(), [0, 1]);
}

fn child_terminated_program() {
    let _guard = library().flush_on_signals().init().unwrap();
    tracing::info!(n = 0, "event");
    let status = in_child(|| {
        send(libc::SIGTERM);
        wait_for_ever();
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGTERM, "{status:x}");
    tracing::info!(n = 1, "the parent goes on");
}

static NEXT: AtomicI64 = AtomicI64::new(1_000_000);

extern "C" fn log_in_handler(_: c_int) {
    tracing::info!(n = NEXT.fetch_add(1, SeqCst), "in a handler");
}

/// Its signal comes while it is being encoded.
struct Interrupts;

impl fmt::Debug for Interrupts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: a signal to this thread, handled before the call returns.
        unsafe { libc::raise(libc::SIGUSR1) };
        f.write_str("interrupted")
    }
}

fn interrupted_in_value() {
    let server = OtlpServer::start();
    let ended = run("interrupted_in_value", &server.url());
    ended.assert_code(0);
    let handled = 1_000_000..1_000_100;
    assert_eq!(server.numbers(), (0..100).chain(handled).collect::<Vec<_>>(), "{}", ended.stderr);
    let value = |record: &opentelemetry_proto::tonic::logs::v1::LogRecord| {
        crate::otlp_server::text(&record.attributes, "value")
    };
    assert_eq!(server.records().iter().filter_map(value).filter(|value| value == "interrupted").count(), 100);
}

fn interrupted_in_value_program() {
    let _guard = library().init().unwrap();
    handle(libc::SIGUSR1, log_in_handler);
    (0..100).for_each(|n| tracing::info!(n, value = ?Interrupts, "event"));
}

fn interrupted_anywhere() {
    let server = OtlpServer::start();
    let ended = run("interrupted_anywhere", &server.url());
    ended.assert_code(0);
    let (numbers, emitted) = (server.numbers(), ended.said("emitted") as i64);
    let (own, handled): (Vec<_>, Vec<_>) = numbers.into_iter().partition(|n| *n < 1_000_000);
    assert_eq!(own, (0..emitted).collect::<Vec<_>>());
    let refused = ended.said("refused") as usize;
    assert_eq!(handled.len() + refused, ended.said("handled") as usize);
    assert!(handled.iter().zip(handled.iter().skip(1)).all(|(n, next)| n < next), "none twice");
    assert!(handled.len() > 100, "or this shows little: {}", handled.len());
}

fn interrupted_anywhere_program() {
    let alarm = |how| {
        // SAFETY: plain data, of which zeros are a value; the pointers outlive the calls.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGALRM);
            libc::pthread_sigmask(how, &raw const set, ptr::null_mut());
        }
    };
    // The library's threads get none.
    alarm(libc::SIG_BLOCK);
    let guard = library().configure(|config| config.batch.age_ms_max = 5).init().unwrap();
    // What a thread allocates at its first event is there, as are the callsites: an allocator must not be interrupted.
    log_in_handler(0);
    let event = |n: i64| tracing::info!(n, text = "text", ratio = 0.5, "event");
    event(0);
    handle(libc::SIGALRM, log_in_handler);
    alarm(libc::SIG_UNBLOCK);
    let every = |micros| {
        let interval = libc::timeval { tv_sec: 0, tv_usec: micros };
        let timer = libc::itimerval { it_interval: interval, it_value: interval };
        // SAFETY: `timer` outlives the call.
        unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    };
    every(100);
    let mut emitted = 1;
    while NEXT.load(SeqCst) < 1_000_500 && emitted < 900_000 {
        event(emitted);
        emitted += 1;
        if emitted % 10_000 == 0 {
            // The queue must not overflow: each event counts.
            thread::sleep(Duration::from_millis(5));
        }
    }
    every(0);
    alarm(libc::SIG_BLOCK);
    let dropped = guard.metrics();
    let refused = [Reason::Reentrant, Reason::QueueFull].map(|reason| dropped.dropped_for(reason)).iter().sum::<u64>();
    eprintln!("emitted {emitted}");
    eprintln!("handled {}", NEXT.load(SeqCst) - 1_000_000);
    eprintln!("refused {refused}");
    drop(guard);
}
