//! Events and spans allocate nothing on their caller in steady state: counted by the allocator itself. A binary of its own, because an allocator is the whole program's.

#[path = "support/counting.rs"]
mod counting;

use std::{sync::Arc, time::Duration};

use logsink::transport::{Accepted, Batch, Sending, Transport};
use tracing::{Span, field::Empty, info, info_span};

/// Takes every batch and keeps none.
struct Discard;

impl Transport for Discard {
    fn send(&self, _: Batch) -> Sending<'_> {
        Box::pin(async { Ok(Accepted::default()) })
    }
}

/// Before the count: templates of callsites are built, the thread's buffers have grown to their size.
const WARM: u64 = 2_000;
const COUNTED: u64 = 1_000;

/// Allocations of `each` on this thread, per thousand calls.
fn allocations(each: impl Fn(u64)) -> u64 {
    (0..WARM).for_each(&each);
    let before = counting::allocations();
    (0..COUNTED).for_each(&each);
    counting::allocations() - before
}

/// One test: what other tests allocate does not count, but they would take turns at the queue.
#[test]
fn nothing_is_allocated_in_steady_state() {
    let guard = logsink::builder()
        .service("alloc")
        // Only its name is used.
        .endpoint("stdout:")
        .filter("trace")
        .transport(Arc::new(Discard))
        .init()
        .expect("logsink starts");
    let error = std::io::Error::other("connection refused");
    let events = |n: u64| {
        info!(user_id = n, path = "/api/v1/items", latency_ms = 3.5_f64, ok = true, "request finished");
        tracing::warn!(n, debug = ?Some(n), display = %n, wide = u128::MAX, "of every kind: {}", n);
        tracing::error!(error = &error as &dyn std::error::Error, "request failed");
    };
    let new_span = || info_span!("request", user = "ada", attempt = 3_u64, status = Empty, path = Empty);

    assert_eq!(allocations(events), 0, "outside a span");

    let (outer, other) = (new_span(), new_span());
    outer.in_scope(|| {
        let inner = info_span!("step", number = 1);
        inner.in_scope(|| assert_eq!(allocations(events), 0, "inside two spans"));
        let entered = allocations(|n| {
            let _entered = inner.enter();
            info!(n, "inside");
            other.in_scope(|| info!(n, "in another span"));
        });
        assert_eq!(entered, 0, "entering and leaving");
        let parents = allocations(|n| {
            info!(parent: &other, n, "of another span");
            info!(parent: Span::none(), n, "of none");
            info!(n, "of this one");
        });
        assert_eq!(parents, 0, "explicit parents");
    });
    let recorded = allocations(|n| {
        let _entered = outer.enter();
        outer.record("status", n % 600);
        outer.record("path", "/api/v1/items");
        info!(n, "with new values");
        other.record("status", n);
        info!(n, "with a value recorded elsewhere");
    });
    assert_eq!(recorded, 0, "recording");

    let spans = allocations(|n| {
        let span = info_span!("request", user = "ada", attempt = n, debug = Empty);
        let _entered = span.entered();
        info!(n, "inside");
    });
    assert_eq!(spans, 0, "creating and closing");

    guard.flush(Duration::from_secs(30)).expect("the sink takes everything");
    assert_eq!(guard.metrics().lost(), 0);
}
