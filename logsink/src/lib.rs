//! A `tracing` layer that filters, encodes, batches and ships events to Kafka or an OTLP sink.
//!
//! The modules stand in the order of the flow:
//! event → [`filter`] → encode → queue → batch → [`transport`].

// What all steps share; none of these imports a step.
pub mod config;
pub mod error;
pub mod metrics;
pub mod severity;

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
mod queue;

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
pub use layer::{Capture, LogsinkLayer, RulesFilter};
pub use metrics::Snapshot;
pub use severity::Severity;
