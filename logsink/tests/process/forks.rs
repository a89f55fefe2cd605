//! Processes forked while the library runs: they log, flush and end, and double nothing.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    thread,
    time::{Duration, Instant},
};

use logsink::metrics::Reason;
use tracing_subscriber::layer::SubscriberExt;

use crate::{
    otlp_server::{OtlpServer, PATIENCE},
    program::{Program, Story, library, run},
};

pub(crate) const STORIES: &[Story] = &[
    ("forks::a_child_ends_in_any_way_and_doubles_nothing", child_ends),
    ("forks::forks_among_busy_threads_do_not_hang", busy_forks),
    ("forks::a_child_may_start_anew", child_starts_anew),
];

pub(crate) const PROGRAMS: &[Program] = &[
    ("child_ends", child_ends_program),
    ("busy_forks", busy_forks_program),
    ("child_starts_anew", starts_anew_program),
];

/// Forks, runs `child` in the new process, and gives its status.
pub(crate) fn in_child(child: impl FnOnce()) -> i32 {
    // SAFETY: the child allocates, which glibc allows after a fork, and leaves without returning.
    let id = unsafe { libc::fork() };
    assert!(id >= 0);
    if id == 0 {
        child();
        std::process::exit(0);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut status = -1;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(id, &raw mut status, libc::WNOHANG) } == 0 {
        if Instant::now() > deadline {
            // SAFETY: a signal to a child of ours that was not waited for yet.
            unsafe { libc::kill(id, libc::SIGKILL) };
            panic!("the child does not end");
        }
        thread::sleep(Duration::from_millis(1));
    }
    status
}

fn child_ends() {
    let server = OtlpServer::start();
    let ended = run("child_ends", &server.url());
    ended.assert_code(0);
    assert_eq!(server.numbers(), [0, 1, 2], "{}", ended.stderr);
    assert_eq!(ended.said("counted"), 5001);
    assert!(ended.stderr.contains("its 1 events were not sent"), "{}", ended.stderr);
}

fn child_ends_program() {
    let guard = library().init().unwrap();
    // Not sent yet, and in the memory of both processes.
    tracing::info!(n = 0, "before");
    let by_exit = in_child(|| {
        let span = tracing::info_span!("child");
        span.in_scope(|| (0..5000).for_each(|_| tracing::info!(n = 100, "more than a chunk")));
        thread::spawn(|| tracing::info!(n = 101, "on a thread")).join().unwrap();
        let flushed = guard.flush(PATIENCE).is_ok();
        eprintln!("counted {}", guard.metrics().dropped_for(Reason::Forked));
        std::process::exit(if flushed { 3 } else { 0 });
    });
    tracing::info!(n = 1, "between");
    let by_underscore_exit = in_child(|| {
        tracing::info!(n = 102, "in the child");
        // SAFETY: ends the process, whatever its state.
        unsafe { libc::_exit(0) };
    });
    let mut guard = Some(guard);
    let by_drop = in_child(|| {
        tracing::info!(n = 103, "in the child");
        drop(guard.take());
        logsink::exit(0);
    });
    assert_eq!((by_exit, by_underscore_exit, by_drop), (0, 0, 0));
    tracing::info!(n = 2, "after");
}

fn busy_forks() {
    let server = OtlpServer::start();
    let ended = run("busy_forks", &server.url());
    ended.assert_code(0);
    let emitted = ended.said("emitted") as i64;
    assert_eq!(server.numbers(), (0..emitted).collect::<Vec<_>>(), "{}", ended.stderr);
}

fn busy_forks_program() {
    static NEXT: AtomicI64 = AtomicI64::new(0);
    static STOP: AtomicBool = AtomicBool::new(false);
    let guard = library().configure(|config| config.batch.age_ms_max = 5).init().unwrap();
    let event = |n| tracing::info!(n, "event");
    event(NEXT.fetch_add(1, Ordering::SeqCst));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(move || {
                while !STOP.load(Ordering::SeqCst) {
                    event(NEXT.fetch_add(1, Ordering::SeqCst));
                    // The queue must not overflow: each event counts.
                    thread::sleep(Duration::from_micros(50));
                }
            })
        })
        .collect();
    for round in 0..50 {
        let status = in_child(|| {
            (0..1000).for_each(|_| event(-1));
            if round % 2 == 0 {
                // SAFETY: ends the process, whatever its state.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: runs the handlers, and leaves without returning.
            unsafe { libc::exit(0) };
        });
        assert_eq!(status, 0);
    }
    STOP.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eprintln!("emitted {}", NEXT.load(Ordering::SeqCst));
    drop(guard);
}

fn child_starts_anew() {
    let server = OtlpServer::start();
    run("child_starts_anew", &server.url()).assert_code(0);
    assert_eq!(server.numbers(), [0, 1]);
    let instances: std::collections::BTreeSet<_> =
        server.calls().iter().map(|call| call.metadata.get("logsink-instance").unwrap().as_bytes().to_vec()).collect();
    assert_eq!(instances.len(), 2);
}

fn starts_anew_program() {
    let _guard = library().init().unwrap();
    tracing::info!(n = 0, "in the parent");
    let status = in_child(|| {
        let (layer, guard) = library().layer().unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || tracing::info!(n = 1, "in the child"));
        guard.shutdown(PATIENCE).unwrap();
    });
    assert_eq!(status, 0);
}
