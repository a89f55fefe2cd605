//! `google.rpc.Status`, in which both OTLP doors say what went wrong.

use std::time;

use prost::Message;
use tonic::Code;

use super::IngestError;

/// How long a sender should wait before it tries again when nothing better is known: the disk's or the broker's hiccup is over
/// by then.
const RETRY_AFTER: time::Duration = time::Duration::from_secs(1);

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

#[derive(Clone, PartialEq, Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Status {
    /// The error's gRPC code and text; with `RetryInfo` when trying again is worth it.
    pub(super) fn of(error: &IngestError) -> Self {
        let details = match error.retry_after() {
            Some(wait) => {
                let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX);
                let retry = RetryInfo { retry_delay: Some(Duration { seconds, nanos: wait.subsec_nanos() as i32 }) };
                let type_url = "type.googleapis.com/google.rpc.RetryInfo".into();
                vec![Any { type_url, value: retry.encode_to_vec() }]
            }
            None => Vec::new(),
        };
        Self { code: code(error) as i32, message: error.to_string(), details }
    }
}

impl IngestError {
    /// When the same request may be taken; none: never.
    pub(super) fn retry_after(&self) -> Option<time::Duration> {
        match self {
            Self::Rate { wait } | Self::Share { wait } => Some(*wait),
            _ => self.is_retryable().then_some(RETRY_AFTER),
        }
    }
}

/// HTTP's `Retry-After` knows whole seconds.
pub(super) fn seconds_up(wait: time::Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// The codes that the OTLP specification lists as worth a retry are used for nothing else.
pub(super) fn code(error: &IngestError) -> Code {
    match error {
        IngestError::Malformed(_) | IngestError::Encoding(_) | IngestError::MediaType(_) | IngestError::Limit(_) => {
            Code::InvalidArgument
        }
        // Without RetryInfo it tells an OTLP sender not to send the same again, with it when to do so.
        IngestError::TooLarge { .. } | IngestError::Rate { .. } | IngestError::Share { .. } => Code::ResourceExhausted,
        IngestError::UnknownEncoding(_) => Code::Unimplemented,
        IngestError::Overload
        | IngestError::RulesUnread
        | IngestError::TooSlow
        | IngestError::QueueUnavailable(_)
        | IngestError::QueueFailed(_) => Code::Unavailable,
    }
}
