//! `logsink.v1`: what the library and the server say to each other beside OTLP. Generated code, checked in; after a change
//! of a .proto file: `cargo run -p protogen`.

/// Messages and client of `logsink.v1`.
#[cfg(feature = "grpc")]
#[allow(missing_docs, unreachable_pub, clippy::all)] // Generated.
#[rustfmt::skip]
pub mod v1;
