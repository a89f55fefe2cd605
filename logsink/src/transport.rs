//! How a batch leaves the process.

#[cfg(feature = "grpc")]
mod balance;
#[cfg(feature = "_connect")]
mod connect;
#[cfg(feature = "grpc")]
mod fleet;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod lines;
pub mod memory;
#[cfg(feature = "_connect")]
mod tls;
#[cfg(feature = "_connect")]
mod token;
pub(crate) mod wire;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{Config, ConfigError, config::Endpoint, metrics::Metrics};

/// A sink's transport, and what others may use of its connection.
pub(crate) struct Connected {
    pub(crate) transport: Arc<dyn Transport>,
    /// The connection of a gRPC sink, or that of any where there are several: rules are pushed over it.
    #[cfg(feature = "grpc")]
    pub(crate) channel: Option<Channels>,
}

/// A connection to a gRPC sink; none while there is no sink.
#[cfg(feature = "grpc")]
pub(crate) type Channels = Arc<dyn Fn() -> Option<tonic::transport::Channel> + Send + Sync>;

/// Makes the transport of one sink. To be called within the runtime that will send; connects to nothing yet.
///
/// # Errors
/// When a setting that this kind of sink needs cannot be used.
#[allow(unused_variables, reason = "which transports there are depends on the cargo features")]
pub(crate) fn connect(endpoint: &Endpoint, config: &Config, metrics: &Arc<Metrics>) -> Result<Connected, ConfigError> {
    let alone = |transport: Arc<dyn Transport>| Connected {
        transport,
        #[cfg(feature = "grpc")]
        channel: None,
    };
    Ok(match endpoint {
        Endpoint::Lines { to, format, colour } => alone(Arc::new(lines::Lines::new(to.clone(), *format, *colour))),
        #[cfg(feature = "grpc")]
        Endpoint::Grpc { url, .. } => {
            let channel = grpc::channel(url, config)?;
            let transport = grpc::GrpcTransport::new(channel.clone(), config, config.compression(endpoint))?;
            Connected { transport: Arc::new(transport), channel: Some(Arc::new(move || Some(channel.clone()))) }
        }
        #[cfg(feature = "grpc")]
        Endpoint::GrpcAny { urls, .. } => fleet::listed(urls, config, config.compression(endpoint))?,
        #[cfg(all(feature = "grpc", feature = "etcd"))]
        Endpoint::Etcd { members, fleet } => fleet::discovered(members, fleet, config, config.compression(endpoint)),
        #[cfg(feature = "http")]
        Endpoint::Http { url, .. } => {
            alone(Arc::new(http::HttpTransport::new(url, config, config.compression(endpoint))?))
        }
        #[cfg(feature = "kafka")]
        Endpoint::Kafka { brokers, topic, tls } => {
            let compression = config.compression(endpoint);
            alone(Arc::new(kafka::KafkaTransport::new(brokers, topic, *tls, config, compression, metrics.clone())?))
        }
        #[allow(unreachable_patterns, reason = "depends on the cargo features")]
        _ => unreachable!("`Endpoint::parse` has refused what is not compiled in"),
    })
}

/// One batch, ready to be sent: the bytes of one `ExportLogsServiceRequest`.
///
/// The sender's instance id and `sequence` travel beside it (gRPC metadata, Kafka headers): a server that sees the pair
/// again knows that it is the same batch, so a retry doubles nothing.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `ExportLogsServiceRequest`, protobuf.
    pub payload: Bytes,
    /// Log records in it.
    pub records: u32,
    /// From 1, by one for each batch of this instance, never used twice for different contents: a retry keeps it, the
    /// halves of a batch that was too large get new ones.
    pub sequence: u64,
    /// What travels beside the payload: names from [`header`] and their values. A transport passes them on as they are.
    pub headers: Vec<(&'static str, String)>,
}

impl Batch {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| *have == name).map(|(_, value)| value.as_str())
    }
}

/// What travels beside every batch, in gRPC metadata and in Kafka headers alike.
pub mod header {
    /// The sender's instance id (a UUID made at start).
    pub const INSTANCE: &str = "logsink-instance";
    /// [`super::Batch::sequence`], decimal.
    pub const SEQUENCE: &str = "logsink-sequence";
    /// The revision of the rules that the sender has applied. Present only when it has rules from a source: the server then
    /// does not apply its own to the batch, so that nothing is sampled twice.
    pub const RULES: &str = "logsink-rules";
    /// The sender's loss counters since its start, `reason=count` separated by commas.
    pub const LOST: &str = "logsink-lost";
    /// The index of the message's first record in the sender's batch, decimal: of a batch that a server had to split. Without
    /// it, 0.
    pub const FIRST: &str = "logsink-first";
}

/// Cuts an encoded `LogRecord`, with its field's key and length before it, to `bytes_max` bytes: the longest texts first, each
/// marked, and the size that it had in `logsink.truncated.original_bytes`. None when what cannot be cut is larger.
pub fn shrink_record(framed: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    crate::encode::shrink::shrink(framed, bytes_max).map(|shrunk| shrunk.record)
}

/// A sink's answer to a batch that it took.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Records that the sink refused for good (OTLP partial success), with its reason.
    pub rejected: u64,
    /// The sink's words about them.
    pub message: String,
}

/// Why a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Worth trying again, not before `after` when the sink said so.
    #[error("{message}")]
    Retryable {
        /// What failed.
        message: String,
        /// The sink's own wish (`RetryInfo`).
        after: Option<Duration>,
    },
    /// The batch is too large for the sink: halves may pass.
    #[error("{message}")]
    TooLarge {
        /// What failed.
        message: String,
    },
    /// Trying again is pointless.
    #[error("{message}")]
    Permanent {
        /// What failed.
        message: String,
    },
}

/// A future that a transport hands out.
pub type Sending<'a> = Pin<Box<dyn Future<Output = Result<Accepted, SendError>> + Send + 'a>>;

/// Takes batches out of the process. `Ok` means the sink has taken responsibility: Kafka has acknowledged with acks=all,
/// or an OTLP server has answered.
pub trait Transport: Send + Sync + 'static {
    /// Sends one batch, once: retrying is the worker's matter. Several may be under way at a time.
    fn send(&self, batch: Batch) -> Sending<'_>;
    /// The largest payload that the sink takes, where it has told: batches are cut to it before they are sent. It may change.
    fn bytes_max(&self) -> Option<usize> {
        None
    }
    /// Gives up connections, after what is under way has ended.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// How clients name themselves.
#[cfg(feature = "_connect")]
const USER_AGENT: &str = concat!("logsink/", env!("CARGO_PKG_VERSION"));

/// `ExportLogsServiceResponse { partial_success = 1 { rejected_log_records = 1, error_message = 2 } }`
#[cfg(feature = "_connect")]
fn accepted(response: &[u8]) -> Accepted {
    let Some(partial) = wire::field(response, 1) else { return Accepted::default() };
    Accepted {
        // A negative number makes no sense, and is not one that could be counted.
        rejected: wire::field(partial.bytes(), 1)
            .map_or(0, |value| u64::try_from(value.number() as i64).unwrap_or_default()),
        message: wire::field(partial.bytes(), 2).map(wire::Value::text).unwrap_or_default(),
    }
}

/// An error and its causes, each said once.
#[cfg(feature = "_connect")]
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

#[cfg(all(test, feature = "_connect"))]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_is_read() {
        assert_eq!(accepted(b""), Accepted::default());
        let partial = Accepted { rejected: 3, message: "old".to_owned() };
        assert_eq!(accepted(b"\x0a\x07\x08\x03\x12\x03old"), partial);
        assert_eq!(accepted(b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").rejected, 0);
    }
}
