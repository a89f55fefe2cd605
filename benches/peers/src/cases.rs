//! The cases: one library or one part of `tracing` each, set up as its documentation asks, with a sink that discards.

mod emit;
mod floor;
mod fmt;
mod loki;
mod otel;
mod ours;
mod slog;

use std::{any::Any, hint::black_box};

use crate::sink;

/// What a full queue does, where the library lets one choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenFull {
    /// What the library does by default.
    AsShipped,
    /// The caller waits, so that nothing is lost.
    Block,
}

/// A case that can be set up.
pub struct Case {
    /// Its word on the command line and in the results' data.
    pub name: &'static str,
    /// Its row in the tables.
    pub label: &'static str,
    /// Whether events go through a queue to another thread: then there is something to be delivered.
    pub queued: bool,
    /// Whether it can be told to wait rather than lose.
    pub can_block: bool,
    /// Events that surely fit its queue at once.
    pub burst: u32,
    /// Sets it up for the whole process.
    pub start: fn(WhenFull) -> anyhow::Result<Running>,
}

/// A case that is set up.
pub struct Running {
    /// Emits that many events outside of any span.
    pub outside: fn(u32),
    /// The same inside a span with two fields (entered once, not measured apart).
    pub inside: fn(u32),
    /// Events that have arrived at the sink.
    pub delivered: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Asks for what is queued to be delivered, and waits for it where the library can.
    pub flush: Box<dyn Fn() + Send + Sync>,
    /// What must live as long as the case.
    pub keep: Vec<Box<dyn Any>>,
}

impl Running {
    fn tracing() -> Self {
        Self { outside, inside, delivered: Box::new(sink::delivered), flush: Box::new(|| {}), keep: Vec::new() }
    }
}

const fn unqueued(name: &'static str, label: &'static str, start: fn(WhenFull) -> anyhow::Result<Running>) -> Case {
    Case { name, label, queued: false, can_block: false, burst: 1000, start }
}

const fn queued(name: &'static str, label: &'static str, start: fn(WhenFull) -> anyhow::Result<Running>) -> Case {
    Case { name, label, queued: true, can_block: false, burst: 1000, start }
}

/// All cases, in the order of the tables.
pub const CASES: [Case; 12] = [
    unqueued("off", "`tracing`, level off by interest", floor::off),
    unqueued("noop", "Registry + no-op layer", floor::noop),
    unqueued("visit", "+ visiting the fields", floor::visit),
    unqueued("reload", "`reload::Layer` + EnvFilter + no-op layer", floor::reload),
    Case { can_block: true, ..queued("fmt-text", "fmt text + tracing-appender non_blocking", fmt::text) },
    Case { can_block: true, ..queued("fmt-json", "fmt json + tracing-appender non_blocking", fmt::json) },
    queued("otel", "opentelemetry-appender-tracing + batch processor, exporter that encodes nothing", otel::start),
    queued("emit", "emit + emit_otlp", emit::start),
    Case { burst: 400, ..queued("loki", "tracing-loki", loki::start) },
    Case { can_block: true, ..queued("slog", "slog-async (no time stamp on the caller)", slog::start) },
    unqueued("logsink-silenced", "**logsink**, silenced by a rule at run time", ours::silenced),
    Case { can_block: true, ..queued("logsink", "**logsink** (OTLP bytes on the caller)", ours::start) },
];

/// The event that all figures are about, through `tracing`.
#[inline(never)]
fn outside(events: u32) {
    for _ in 0..events {
        tracing::info!(
            user_id = black_box(42_u64),
            path = black_box("/api/v1/items"),
            latency_ms = black_box(3.5_f64),
            "request finished"
        );
    }
}

#[inline(never)]
fn inside(events: u32) {
    let _entered = tracing::info_span!("request", request_id = 7_u64, method = "GET").entered();
    outside(events);
}
