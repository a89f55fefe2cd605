//! Events straight into Kafka: nothing of ours stands between the program and the broker.
//!
//! Needs a broker on 127.0.0.1:9092 (`make stack` starts one) and the library's feature `kafka`.
//! Run: `cargo run -p logsink-examples --example kafka [BROKERS]`, then look into the topic:
//! `kcat -C -e -b 127.0.0.1:9092 -t otlp_logs -f '%h %S bytes\n'`. Each value is one OTLP `ExportLogsServiceRequest`.

use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let brokers = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9092".into());
    let logsink =
        logsink::builder().endpoint(format!("kafka://{brokers}/otlp_logs")).service("kafka-example").init()?;

    for order in 1..=1_000_u32 {
        let _order = tracing::info_span!("order", order).entered();
        tracing::info!(amount = f64::from(order) * 1.5, "order taken");
        if order % 100 == 0 {
            tracing::warn!("every hundredth order is checked by hand");
        }
    }

    // `Ok` means that Kafka has acknowledged everything with acks=all. Dropping the guard would wait as well, but could
    // not say how it went.
    logsink.flush(Duration::from_secs(10))?;
    tracing::debug!("not sent: the filter is `info` unless told otherwise");
    eprintln!("{}", logsink.metrics());
    Ok(())
}
