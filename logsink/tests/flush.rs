//! A flush while other threads go on logging as fast as they can: it ends, and covers what came before it.

#![cfg(feature = "grpc")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use logsink::transport::{Accepted, Batch, Sending, Transport};
use tracing_subscriber::layer::SubscriberExt;

const PATIENCE: Duration = Duration::from_secs(60);

/// Finds the marks among everything else.
#[derive(Default)]
struct Marks {
    found: Mutex<Vec<u64>>,
}

impl Transport for Marks {
    fn send(&self, batch: Batch) -> Sending<'_> {
        for at in memchr::memmem::find_iter(&batch.payload, b"mark-") {
            let digits = batch.payload[at + 5..].iter().take_while(|byte| byte.is_ascii_digit());
            self.found.lock().unwrap().push(digits.fold(0, |number, byte| 10 * number + u64::from(byte - b'0')));
        }
        Box::pin(std::future::ready(Ok(Accepted::default())))
    }
}

#[test]
fn a_flush_ends_though_four_threads_keep_logging() {
    let marks = Arc::new(Marks::default());
    let builder = logsink::builder().alone().rules("none").transport(marks.clone());
    // Full all the time: each flush has as much before it as there can be.
    let (layer, guard) = builder
        .configure(|config| {
            config.queue.bytes_max = 1 << 20;
            // The library's own records would be counted too.
            config.send.losses_ms = 0;
        })
        .layer()
        .unwrap();
    let dispatch = tracing::Dispatch::new(tracing_subscriber::registry().with(layer));
    let (stop, emitted) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                tracing::dispatcher::with_default(&dispatch, || {
                    while !stop.load(Relaxed) {
                        tracing::info!(n = emitted.fetch_add(1, Relaxed), "busy");
                    }
                });
            });
        }
        let flushed = tracing::dispatcher::with_default(&dispatch, || {
            (0..10).find(|round| {
                let before = emitted.load(Relaxed);
                // An error has a reserve, in the queue and before the sink, which the threads cannot fill.
                tracing::error!("mark-{round}.");
                let flushed = guard.flush(PATIENCE).is_ok();
                let found = marks.found.lock().unwrap().contains(round);
                while flushed && emitted.load(Relaxed) == before {
                    thread::yield_now();
                }
                !(flushed && found)
            })
        });
        stop.store(true, Relaxed);
        assert_eq!(flushed, None, "the flush of this round failed");
    });
    let counts = guard.shutdown(PATIENCE).unwrap();
    assert_eq!(counts.sent + counts.lost(), emitted.load(Relaxed) + 10, "{counts}");
}
