//! Rules that look at values, keep keys and change text allocate nothing on the caller in steady state: counted by the
//! allocator itself. A binary of its own, because an allocator is the whole program's.

#[path = "support/counting.rs"]
mod counting;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use logsink::transport::{Accepted, Batch, Sending, Transport};

/// Takes every batch and keeps none.
struct Discard;

impl Transport for Discard {
    fn send(&self, _: Batch) -> Sending<'_> {
        Box::pin(async { Ok(Accepted::default()) })
    }
}

const RULES: &str = r##"
[[rule]]
name = "names"
then = { redact = ["*token*"] }
[[rule]]
name = "kinds"
then = { redact = { kinds = ["email", "credit-card"], pattern = 'pin=[0-9]+', with = "#" } }
[[rule]]
name = "short"
then = { cap = { fields = ["note"], bytes_max = 16 } }
[[rule]]
name = "some users"
when = 'kind=sampled'
then = { sample = 0.5, by = "user" }
[[rule]]
name = "not too many of a user"
when = 'kind=limited'
then = { rate_limit = { per_second = 1000, by = ["user", "callsite"] } }
[[rule]]
name = "not again and again"
when = 'kind=repeated'
then = { dedup = { window_ms = 1, by = ["message", "user"] } }
"##;

#[test]
fn rules_allocate_nothing_on_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    fs::write(&file, RULES).unwrap();
    let (layer, guard) = logsink::builder()
        .alone()
        .endpoint("stdout:")
        .transport(Arc::new(Discard))
        .rules(format!("file:{}", file.display()))
        .layer()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while guard.rules().revision.is_empty() {
        assert!(Instant::now() < deadline, "the rules are not in force: {:?}", guard.rules());
        std::thread::yield_now();
    }
    let subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
    let allocations = tracing::subscriber::with_default(subscriber, || {
        let _span = tracing::info_span!("request", session_token = "t", mail = "ada@example.org").entered();
        let emit = |n: u64| {
            for kind in ["sampled", "limited", "repeated"] {
                tracing::info!(kind, user = n % 10, note = "longer than it may be", "pin=1234 of 4111 1111 1111 1111");
            }
        };
        (0..2_000).for_each(emit);
        guard.flush(Duration::from_secs(20)).unwrap();
        let before = counting::allocations();
        (0..1_000).for_each(emit);
        counting::allocations() - before
    });
    assert_eq!(allocations, 0, "over 3,000 events");
    let counts = guard.rule_counts();
    assert!(counts.iter().all(|(_, count)| *count >= 3_000), "{counts:?}");
    assert_eq!(guard.metrics().lost(), 0);
}
