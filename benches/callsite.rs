//! What does an event cost its caller: off, silenced by a rule, and kept?
//!
//! The sink is away on purpose: what is kept stays in the queue, whose budget takes all of it, so that the caller is measured
//! and not the network. A run in which an event was lost is an error.

use std::{fs, thread, time::Duration};

use logsink_benches::report;

/// 30 rounds of 5,000 events of about 250 bytes are 38 MB: they fit into the queue's 64 MiB.
const KEPT_ROUNDS: usize = 30;
const KEPT_EVENTS: u32 = 5_000;

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let rules = dir.path().join("rules.toml");
    fs::write(&rules, "[[rule]]\nname = \"noise\"\nwhen = 'target=noisy'\nthen = \"drop\"\n")?;
    // Port 9 is `discard`: nobody listens there on a machine of today.
    let logsink = logsink::builder()
        .endpoint("http://127.0.0.1:9")
        .service("bench")
        .rules(format!("file:{}", rules.display()))
        .init()?;
    // The file is read by the library's own thread.
    thread::sleep(Duration::from_secs(1));

    report("off by level", 100, 100_000, |n| tracing::trace!(user_id = n, path = "/api/v1/items", "request finished"));
    report("silenced by a rule", 100, 100_000, |n| {
        tracing::info!(target: "noisy", user_id = n, path = "/api/v1/items", "request finished");
    });
    report("kept, outside a span", KEPT_ROUNDS, KEPT_EVENTS, |n| {
        tracing::info!(user_id = n, path = "/api/v1/items", latency_ms = 3.5_f64, "request finished");
    });
    let span = tracing::info_span!("request", user = "ada", attempt = 3_u64);
    let entered = span.enter();
    report("kept, inside a span with 2 fields", KEPT_ROUNDS, KEPT_EVENTS, |n| {
        tracing::info!(user_id = n, path = "/api/v1/items", latency_ms = 3.5_f64, "request finished");
    });
    drop(entered);

    let lost = logsink.metrics().lost();
    anyhow::ensure!(lost == 0, "{lost} events did not fit into the queue: the figures above include drops");
    Ok(())
}
