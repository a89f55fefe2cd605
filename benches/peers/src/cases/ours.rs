//! logsink through its public API, with a transport that counts and keeps nothing.

use std::{
    fs,
    hint::black_box,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use logsink::{
    config::Overflow,
    transport::{Accepted, Batch, Sending, Transport},
};

use super::{Running, WhenFull};
use crate::sink;

/// So long the worker takes to learn the rate of the processor's counter; until then the clock is the system's.
const CLOCK: Duration = Duration::from_secs(2);

const RULES: &str = r#"
[[rule]]
name = "noise"
when = "target=noisy"
then = "drop"
"#;

struct Counting;

impl Transport for Counting {
    fn send(&self, batch: Batch) -> Sending<'_> {
        sink::deliver(u64::from(batch.records));
        Box::pin(async { Ok(Accepted::default()) })
    }
}

pub(super) fn start(when_full: WhenFull) -> anyhow::Result<Running> {
    let builder = match when_full {
        WhenFull::AsShipped => builder(),
        WhenFull::Block => builder().overflow(Overflow::Block),
    };
    let logsink = builder.init()?;
    thread::sleep(CLOCK);
    let logsink = Arc::new(logsink);
    let flushed = logsink.clone();
    // What it could not deliver shows as loss.
    let flush = Box::new(move || drop(flushed.flush(Duration::from_secs(5))));
    Ok(Running { flush, keep: vec![Box::new(logsink)], ..Running::tracing() })
}

/// The rule comes while the process runs, as an operator would have it.
pub(super) fn silenced(_: WhenFull) -> anyhow::Result<Running> {
    let dir = tempfile::tempdir()?;
    let rules = dir.path().join("rules.toml");
    fs::write(&rules, RULES)?;
    let logsink = builder().rules(format!("file:{}", rules.display())).init()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while logsink.rules().revision.is_empty() {
        ensure!(Instant::now() < deadline, "the rules are not in force: {:?}", logsink.rules());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(Running {
        outside: noise,
        inside: |events| {
            let _entered = tracing::info_span!("request", request_id = 7_u64, method = "GET").entered();
            noise(events);
        },
        keep: vec![Box::new(dir), Box::new(logsink)],
        ..Running::tracing()
    })
}

fn builder() -> logsink::Builder {
    // Of the endpoint only its name is used.
    logsink::builder().alone().service("bench").endpoint("stdout:").transport(Arc::new(Counting))
}

#[inline(never)]
fn noise(events: u32) {
    for _ in 0..events {
        tracing::info!(
            target: "noisy",
            user_id = black_box(42_u64),
            path = black_box("/api/v1/items"),
            latency_ms = black_box(3.5_f64),
            "request finished"
        );
    }
}
