//! The sink server: ingest → queue → drain → index → query.
//!
//! Standalone it runs on an on-disk log and an embedded store; in cluster mode on Kafka and Elasticsearch. The two modes
//! are two compositions of the same steps, put together in [`app`].

// One file has some: `text`.
#![deny(unsafe_code)]

// What all steps share; none of these imports a step.
mod compute;
pub mod config;
pub mod error;
pub mod metrics;

// The wire view, used by ingest, drain and index.
pub mod otlp;
// Its bytes, sixteen at a time; used by the view and by index.
mod text;

// ingest → queue → drain → index → query
pub mod drain;
pub mod index;
pub mod ingest;
pub mod offsets;
pub mod query;
pub mod queue;
pub mod sift;

// The control plane: rules in, status out.
pub mod control;

// Doors.
pub mod api;
pub mod cli;
pub mod ui;

// Wiring.
pub mod app;
