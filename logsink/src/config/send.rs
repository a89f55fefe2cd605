//! When a batch is cut, how it is sent, and what happens when that fails.

use std::{fmt, path::PathBuf};

use serde::Deserialize;

use super::Secret;

/// When a batch is cut.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Batch {
    /// Payload bytes, before compression. Default 1,000,000: a quarter of what a gRPC server takes by default and, with the
    /// frame around it, just below what a Kafka broker does.
    pub bytes_max: usize,
    /// Records. Default 8192.
    pub records_max: u32,
    /// How long a record may wait for company, in milliseconds. Default 200.
    pub age_ms_max: u64,
}

/// How a batch is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Send {
    /// Batches under way at a time. Default 4.
    pub in_flight_max: usize,
    /// How long the sink may take to answer one attempt, in milliseconds. Default 10,000.
    pub timeout_ms: u64,
    /// `none`, `gzip` or `zstd`; Kafka also takes `lz4`. Default: `zstd` for Kafka, `none` for the loopback, else `gzip`,
    /// which every OTLP server takes.
    pub compression: Option<Compression>,
    /// How long the guard waits for the last events when it is dropped, in milliseconds. Default 5,000.
    pub flush_timeout_ms: u64,
    /// How often a record of the library's own (WARN, target `logsink`) tells the main sink how many events were lost and why,
    /// in milliseconds; 0 for never. Default 10,000.
    pub losses_ms: u64,
    /// A file that holds a token, sent as `authorization: Bearer …` by OTLP over gRPC and HTTP. Read again when it has
    /// changed, five seconds later at most, so tokens that expire may be replaced in it.
    pub token_file: Option<PathBuf>,
    /// The HTTP proxy that OTLP over gRPC and HTTP goes through, by the method `CONNECT`: `http://user:password@host:3128`,
    /// or `none`. Default: what the variables `HTTPS_PROXY` (for `https://` endpoints), `HTTP_PROXY` (for `http://`), else
    /// `ALL_PROXY` say, in capitals or not, except for the hosts that `NO_PROXY` names.
    pub proxy: Option<Secret>,
    /// What the environment says of proxies.
    #[serde(skip)]
    #[cfg_attr(not(feature = "_connect"), allow(dead_code, reason = "for these alone"))]
    pub(crate) proxy_env: ProxyEnv,
}

/// The proxy variables, empty where they are unset.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyEnv {
    pub(crate) http: String,
    pub(crate) https: String,
    pub(crate) all: String,
    pub(crate) no: String,
}

impl fmt::Debug for ProxyEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URLs: they may hold a password.
        f.debug_struct("ProxyEnv").field("no", &self.no).finish_non_exhaustive()
    }
}

/// How payloads are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
    Lz4,
}

/// What happens when sending fails.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retry {
    /// The delay after the first failure, in milliseconds; doubles with every further one. Default 100.
    pub delay_ms_min: u64,
    /// Doubling ends here, in milliseconds. Default 5,000: also how late a sink's return may be noticed.
    pub delay_ms_max: u64,
    /// A batch is given up after this long, in milliseconds. Default: never, the queue being the bound.
    pub elapsed_ms_max: Option<u64>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { bytes_max: 1_000_000, records_max: 8192, age_ms_max: 200 }
    }
}

impl Default for Send {
    fn default() -> Self {
        Self {
            in_flight_max: 4,
            timeout_ms: 10_000,
            compression: None,
            flush_timeout_ms: 5_000,
            losses_ms: 10_000,
            token_file: None,
            proxy: None,
            proxy_env: ProxyEnv::default(),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { delay_ms_min: 100, delay_ms_max: 5_000, elapsed_ms_max: None }
    }
}
