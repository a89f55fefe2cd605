//! Placeholder.
#![allow(missing_docs)]
pub struct LogsinkLayer;
