//! Every runtime, or none: all share one `init()`, as the tests of this binary run in parallel.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    sync::{LazyLock, mpsc},
    thread,
};

use logsink::{Guard, testing};
use otlp_server::{OtlpServer, PATIENCE};
use tracing::{Instrument, Level};

struct Shared {
    server: OtlpServer,
    guard: Guard,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    let server = OtlpServer::start();
    let guard = logsink::builder().alone().rules("none").endpoint(server.url()).init().unwrap();
    Shared { server, guard }
});

/// Numbers in a test's own hundred.
fn event(n: i64) {
    LazyLock::force(&SHARED);
    tracing::info!(n, "event");
}

/// Flushes on the calling thread, whatever it is, and expects the first `count` of a hundred.
#[track_caller]
fn expect(hundred: i64, count: i64) {
    SHARED.guard.flush(PATIENCE).unwrap();
    let numbers: Vec<_> =
        SHARED.server.numbers().into_iter().filter(|n| (hundred..hundred + 100).contains(n)).collect();
    assert_eq!(numbers, (hundred..hundred + count).collect::<Vec<_>>());
}

/// An event, a pause in which other tasks run, and an event.
async fn task(n: i64) {
    async {
        event(n);
        pause().await;
        event(n + 1);
    }
    .instrument(tracing::info_span!("task", first = n))
    .await;
}

/// Lets other tasks run, in any runtime.
async fn pause() {
    let mut paused = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn plain_threads() {
    let threads: Vec<_> = (0..10).map(|n| thread::spawn(move || event(n))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    expect(0, 10);
}

#[test]
fn tokio_on_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..10).map(|n| tokio::spawn(task(100 + 2 * n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        // Within `block_on`: blocks the runtime's only thread, which the library does not need.
        expect(100, 20);
    });
}

#[test]
fn tokio_on_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..10).map(|n| tokio::spawn(task(200 + 2 * n))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        tokio::spawn(async { expect(200, 20) }).await.unwrap();
        tokio::task::spawn_blocking(|| event(220)).await.unwrap();
    });
    expect(200, 21);
}

#[test]
fn smol_s_executor() {
    smol::block_on(async {
        let tasks: Vec<_> = (0..10).map(|n| smol::spawn(task(300 + 2 * n))).collect();
        for task in tasks {
            task.await;
        }
        expect(300, 20);
    });
}

#[test]
fn a_runtime_that_is_gone_before_the_flush() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (done, finished) = mpsc::sync_channel(0);
    runtime.spawn(async move {
        event(400);
        done.send(()).unwrap();
    });
    finished.recv().unwrap();
    drop(runtime);
    event(401);
    expect(400, 2);
}

#[test]
fn two_runtimes_at_a_time() {
    let runtimes = [0, 1].map(|_| tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());
    let tasks: Vec<_> = (0..10).map(|n| runtimes[n as usize % 2].spawn(task(500 + 2 * n))).collect();
    let all = async {
        for task in tasks {
            task.await.unwrap();
        }
    };
    runtimes[0].block_on(all);
    expect(500, 20);
}

/// Several of these run at a time, each with a runtime and a capture of its own.
async fn captured(name: &'static str) {
    let capture = testing::capture();
    let task = async move {
        for step in 0..50 {
            tracing::info!(name, step, "captured");
            tokio::task::yield_now().await;
        }
    };
    tokio::spawn(task.instrument(tracing::info_span!("within"))).await.unwrap();
    let events = capture.events();
    assert_eq!(events.len(), 50);
    assert!(events.iter().all(|event| event.text("name") == name && event.spans == ["within"]), "{capture:?}");
    capture.assert_logged(Level::INFO, "captured");
}

#[tokio::test]
async fn first_of_three_captures() {
    captured("first").await;
}

#[tokio::test]
async fn second_of_three_captures() {
    captured("second").await;
}

#[tokio::test]
async fn third_of_three_captures() {
    captured("third").await;
}
