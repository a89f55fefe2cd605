//! The five lines. Needs a server on this machine: `cargo run -p logsink-server`.
//!
//! Run: `cargo run -p logsink-examples --example minimal`, then
//! `cargo run -p logsink-server -- query 'service=minimal' --from -5m`

fn main() -> anyhow::Result<()> {
    let _logsink = logsink::init()?;
    tracing::info!(answer = 42, "hello from the smallest program");
    Ok(())
}
