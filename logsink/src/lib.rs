//! A `tracing` layer that filters, encodes, batches and ships events to Kafka or an OTLP sink, losing none in silence.
//!
//! # In a minute
//!
//! ```toml
//! [dependencies]
//! logsink = { path = "…/logsink" }
//! tracing = "0.1"
//! ```
//!
//! ```no_run
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Keep the guard: it sends the last events when it is dropped.
//!     let _logsink = logsink::init()?;
//!     tracing::info!(user_id = 42, "request finished");
//!     Ok(())
//! }
//! ```
//!
//! Events go to `http://127.0.0.1:4317` (OTLP over gRPC). To see them there, start `logsink-server`, or any OpenTelemetry
//! Collector, and search: `logsink-server query 'user_id=42' --from -5m`. To see them without either, run the program with
//! `LOGSINK_ENDPOINT=stdout:`. In production three variables are enough:
//!
//! ```sh
//! OTEL_SERVICE_NAME=checkout LOGSINK_ENDPOINT=https://logs.internal:4317 LOGSINK_FILTER=info,hyper=warn ./checkout
//! ```
//!
//! Where there is a subscriber already, add [`layer()`] to it. Then read the [`guide`]: recipes for services, tools and tests
//! ([`guide::setup`]), every setting ([`guide::settings`]), what happens when the sink is down or too much comes
//! ([`guide::delivery`]), how to watch it ([`guide::watching`]), how to come from other crates ([`guide::migration`]), and what
//! fits ([`guide::limits`]).
//!
//! # What it promises
//!
//! - The application's threads never wait for the sink, for a lock that the worker holds while it works, or for memory, unless
//!   [`config::Queue`] lets them. When the memory is full (64 MiB by default, some seconds of a busy log) the newest event is
//!   dropped; or the oldest, or events go on over the disk: see [`config::Overflow`].
//! - Nothing is lost in silence: [`Guard::metrics`] counts every record as sent or as dropped for a [`metrics::Reason`], the
//!   counts ride beside the batches, and losses are said on stderr, once a minute at most, and in the stream itself.
//! - Several sinks do not disturb each other ([`config::Sink`]); stderr may be one of them, for people
//!   ([`config::Console`]).
//! - At least once: a batch is sent again until the sink has answered. It keeps its sequence number, by which
//!   `logsink-server` tells doubles.
//! - It works in a plain `fn main`, in any async runtime, and while that is saturated or shutting down: two threads of its own
//!   do the work. What they, or the client libraries below them, have to say does not become an event.
//! - Which events are wanted may change at any time: [`filter::rules`] come from a file, etcd or the server, and an event that
//!   no rule wants costs what a disabled `tracing` event costs.
//!
//! # Detail where something went wrong
//!
//! With `[recorder] filter = "debug"` in `logsink.toml`, `LOGSINK_RECORDER=debug` or [`Builder::recorder`], events that the rules
//! do not let pass are kept in memory, a few hundred per thread ([`config::Recorder`] has the bounds). When an event of level
//! error is sent, or a rule says `then = "release"`, what was kept of its span tree (all spans below the same outermost one,
//! on whatever threads; outside of any span, what its thread kept there) is sent too, with the attribute
//! `logsink.recorded = true`. The rules redact and drop it as any other event. [`Snapshot::recorder`] counts.
//!
//! # Cargo features
//!
//! | feature | | brings |
//! |---|---|---|
//! | `grpc` | default | OTLP over gRPC, rules pushed by the server |
//! | `http` | default | OTLP over HTTP |
//! | `log` | default | events of the `log` crate |
//! | `kafka` | | `kafka://` endpoints; builds librdkafka, which needs a C and a C++ compiler |
//! | `kafka-ssl` | | SASL and TLS for Kafka; needs OpenSSL's headers |
//! | `etcd` | | rules from etcd; needs `protoc` at build time |
//! | `opentelemetry` | | trace and span ids of `tracing-opentelemetry`; our counters on an OpenTelemetry meter |
//!
//! The modules stand in the order of the flow:
//! event → [`filter`] → encode → queue → batch → [`transport`].

// For reading.
pub mod guide;

// What all steps share; none of these imports a step.
pub mod config;
pub mod error;
pub mod metrics;
pub mod severity;
mod voice;

// event → filter
mod callsite;
pub mod filter;
mod layer;
pub mod reload;
pub mod source;
mod span;

// encode → queue
mod clock;
mod encode;
mod handshake;
mod queue;
mod recorder;
mod sync;

// batch → transport
mod batch;
mod retry;
pub mod transport;
mod worker;

pub mod proto;
pub mod spool;

// Wiring.
mod init;

pub use config::Config;
pub use error::{ConfigError, FlushError, InitError};
pub use init::{Builder, Guard, builder, init, layer};
pub use layer::{Capture, FieldNames, LogsinkLayer, RulesFilter, SpanFields};
pub use metrics::Snapshot;
pub use severity::Severity;
