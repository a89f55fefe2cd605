//! logsink beside other layers: people read the terminal, the team's store gets everything.
//!
//! Run: `cargo run -p logsink-examples --example compose-layers` (with a server on this machine, `cargo run -p
//! logsink-server`, the events arrive there as well).
//!
//! Each layer has its own filter: what logsink's rules silence still reaches the terminal, and the other way round.

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

fn main() -> anyhow::Result<()> {
    let terminal = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(EnvFilter::new("warn,compose_layers=info"));
    let (layer, _logsink) = logsink::builder().service("compose-layers").filter("debug").layer()?;
    tracing_subscriber::registry().with(terminal).with(layer).init();

    let _request = tracing::info_span!("request", user = "ada").entered();
    tracing::debug!("to the store only");
    tracing::info!("to both");
    tracing::warn!(retries = 3, "to both, and people should look");
    Ok(())
}
