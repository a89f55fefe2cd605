//! `opentelemetry-appender-tracing` into the SDK's batch processor, with an exporter that only counts: encoding and sending,
//! which the SDK leaves to its own thread, are not in these figures.

use opentelemetry_appender_tracing::layer::{OpenTelemetryTracingBridge, TracingSpanAttributes};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    logs::{LogBatch, LogExporter, SdkLoggerProvider},
};
use tracing::subscriber::set_global_default;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt};

use super::{Running, WhenFull};
use crate::sink;

#[derive(Debug)]
struct Counting;

impl LogExporter for Counting {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        sink::deliver(batch.iter().count() as u64);
        Ok(())
    }
}

pub(super) fn start(_: WhenFull) -> anyhow::Result<Running> {
    let provider = SdkLoggerProvider::builder().with_batch_exporter(Counting).build();
    let bridge =
        OpenTelemetryTracingBridge::builder(&provider).with_tracing_span_attributes(TracingSpanAttributes::all());
    // Its documentation asks for such a filter, against feedback.
    let filter = EnvFilter::new("info,hyper=off,tonic=off,h2=off,reqwest=off,opentelemetry=off");
    set_global_default(Registry::default().with(filter).with(bridge.build()))?;
    let flush = Box::new(move || {
        // What it could not deliver shows as loss.
        let _ = provider.force_flush();
    });
    Ok(Running { flush, ..Running::tracing() })
}
