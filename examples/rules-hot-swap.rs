//! Rules that change while the program runs, without a restart.
//!
//! 1. `cargo run -p logsink-server`
//! 2. `cargo run -p logsink-examples --example rules-hot-swap`
//! 3. Silence the chatter, and look at what the program prints:
//!
//!    ```sh
//!    cargo run -p logsink-server -- rules put --service rules-hot-swap - <<'RULES'
//!    [[rule]]
//!    name = "chatter"
//!    when = 'target=chatter'
//!    then = "drop"
//!    RULES
//!    ```
//!
//! The server pushes the document over the connection that the program has anyway. With `LOGSINK_RULES=etcd://127.0.0.1:2379`
//! (and `rules put --etcd http://127.0.0.1:2379`) the same document comes from etcd, with `LOGSINK_RULES=file:rules.toml`
//! from a file. Every second the program prints what an event of its two targets costs it: a silenced one costs what an
//! event costs that `tracing` has off.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Enough for a stable mean, little enough to be no load.
const EVENTS: u32 = 1_000;

fn main() -> anyhow::Result<()> {
    let logsink = logsink::builder().service("rules-hot-swap").init()?;
    loop {
        let chatter = cost(|n| tracing::info!(target: "chatter", n, "the same thing again"));
        let business = cost(|n| tracing::info!(target: "business", n, "an order"));
        eprintln!("an event costs: chatter {chatter:6.1} ns, business {business:6.1} ns; {}", logsink.metrics());
        thread::sleep(Duration::from_secs(1));
    }
}

fn cost(emit: impl Fn(u32)) -> f64 {
    let start = Instant::now();
    (0..EVENTS).for_each(emit);
    start.elapsed().as_nanos() as f64 / f64::from(EVENTS)
}
