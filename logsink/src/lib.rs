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
//! # How a process may end
//!
//! | it ends by | what is buffered |
//! |---|---|
//! | `main` returns, or panics | sent, waiting `flush_timeout` at most (five seconds); with it what thread-local destructors and `atexit` handlers registered after `init` log; what earlier handlers log is counted as [`Shutdown`](metrics::Reason::Shutdown) |
//! | `std::process::exit`, [`exit()`] | the same, from any thread |
//! | a panic that aborts | sent by the panic hook, waiting two seconds at most; see [`install_panic_hook`] |
//! | SIGTERM, SIGINT | sent with [`Builder::flush_on_signals`], else lost |
//! | `std::process::abort`, `_exit`, SIGKILL | lost, unless [`Guard::flush`] comes before |
//!
//! # Where it can be called
//!
//! - **Twice**: a second [`init`] is refused and harms nothing; after one that was refused for its settings another may follow.
//!   [`layer()`] may be called any number of times.
//! - **Within an event**, from a `Debug` implementation: the inner event is sent too, unless eight are nested in one another
//!   ([`Reentrant`](metrics::Reason::Reentrant)). `tracing` itself hands out no scoped subscriber there, only a global one. A value
//!   that panics costs its event ([`Panicked`](metrics::Reason::Panicked)), nothing else. A value may call [`exit()`].
//! - **While a thread ends**, from thread-local destructors: sent as any event, in a memory that is a sixteenth of the queue's. Only
//!   while some thread has a scoped subscriber does `tracing` give such events to nobody.
//! - **After a fork**, which leaves the library's threads behind: in the child every event is dropped and counted as
//!   [`Forked`](metrics::Reason::Forked), flushes fail at once, and the child may end by `exit`, `_exit` or a signal without
//!   waiting. Nothing of the parent's is sent twice. The child may start the library anew by [`layer()`], and a program
//!   that becomes a daemon calls [`init`] afterwards. What another thread had locked in `tracing` or in other
//!   layers at the moment of the fork stays locked there: the child's events are safe where `tracing` has met their callsites before.
//! - **In a signal handler**: unsupported, as it is for `tracing` itself. An event there may allocate and take locks, so that it
//!   deadlocks when it interrupts the allocator, `tracing`'s registry of callsites and spans, or another layer. What it
//!   interrupts in this library is not harmed: an event that interrupts another on its thread goes a way of its own, as one within an
//!   event does. Set a flag in the handler and log elsewhere.
//! - **On a thread of the library**, within a [`transport::Transport`]: events are dropped as
//!   [`OwnThread`](metrics::Reason::OwnThread) and can be seen on stderr ([`Config::diagnostics`](Config#structfield.diagnostics)),
//!   a flush fails at once, and [`exit()`] ends the process without sending.
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
//! | `etcd` | | rules from etcd, and sinks that are registered there; needs `protoc` at build time |
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
#[cfg(feature = "etcd")]
pub mod discovery;
mod retry;
pub mod transport;
mod worker;

pub mod proto;
pub mod spool;

// Wiring, and the end.
mod exit;
mod init;
mod panic;
#[cfg(unix)]
mod signals;

// Beside the flow.
#[cfg(feature = "log")]
mod log_bridge;
pub mod testing;

pub use config::Config;
pub use error::{ConfigError, FlushError, InitError};
pub use exit::exit;
pub use init::{Builder, Guard, builder, init, layer};
pub use layer::{Capture, FieldNames, LogsinkLayer, RulesFilter, SpanFields};
#[cfg(feature = "log")]
pub use log_bridge::install_log_bridge;
pub use metrics::Snapshot;
pub use panic::install_panic_hook;
pub use severity::Severity;
