//! A request comes in: checked, put into the queue, acknowledged.
//!
//! An [`Ack`] promises that every record of the request is durable in the queue, or was dropped by a rule before it. Anything else is
//! an [`IngestError`], which says whether the sender should try again; nothing of the request has been taken then, or, when the queue
//! failed half-way, it may have been: a sender that repeats a batch with its sequence number doubles nothing.
//! When more is under way than [`Options::pending_bytes_max`], a service has its share of that or is over its rate, or the
//! queue is full, the sender is told to try again, and when.

pub mod grpc;
pub mod http;
pub(crate) mod json;
mod rate;
mod receive;
mod services;
mod share;
mod status;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::HeaderMap;
use bytes::Bytes;
use logsink::transport::header;
use tokio::sync::Semaphore;

pub use self::{
    rate::Rate,
    services::{Allowance, Allowances},
};
use self::{
    receive::Room,
    services::{Services, TurnedAway},
};
use crate::{
    compute::compute,
    metrics::{Metrics, Refusal},
    otlp::{self, Limits, WireFault},
    queue::{self, Batch, Headers, QueueError, QueueWriter},
    sift::{Sift, Unread},
};

/// What the doors take in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of one request, decompressed.
    pub request_bytes_max: usize,
    /// Bytes of all requests under way, from before they are read to the queue's answer.
    pub pending_bytes_max: usize,
    /// How long the body of a request may take to arrive.
    pub body_timeout: Duration,
    /// What a request may hold.
    pub limits: Limits,
    /// What each service may send.
    pub allowances: Allowances,
}

impl Default for Options {
    /// Requests of 16 MiB, four times what gRPC clients send by default; 32 MiB under way, which is half a million records a
    /// second while the queue takes a tenth of one; 30 s for a body, which is a megabyte at 300 kbit/s: a sender that is
    /// slower, or silent, holds room for nothing.
    fn default() -> Self {
        Self {
            request_bytes_max: 16 << 20,
            pending_bytes_max: 32 << 20,
            body_timeout: Duration::from_secs(30),
            limits: Limits::default(),
            allowances: Allowances::default(),
        }
    }
}

/// The longest header value that is taken along; a longer one is as if it were not there. A sender's loss counters are a
/// dozen names and numbers.
const HEADER_BYTES_MAX: usize = 4_096;

/// Large bodies decompressed, and bodies read from JSON, at a time: more than cores that could be busy with them. As JSON each
/// takes some times its bytes while it is read.
const DECODES_MAX: usize = 16;

/// A larger request is checked beside the tasks of others: so much takes a third of a millisecond, or some where it is all keys.
const CHECKED_AT_ONCE_BYTES_MAX: usize = 1 << 20;

/// A larger request, or one with several resources, for each of which rules may have to be compiled, is sifted beside the tasks of
/// others: so much takes some tenths of a millisecond. Of those, no more copies are made at a time than there are processors.
const SIFTED_AT_ONCE_BYTES_MAX: usize = 32 << 10;

/// The request is durable in the queue, but for what rules have dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Log records in the request.
    pub records: u32,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// The bytes are not what they should be.
    #[error("the request is not OTLP logs: {0}")]
    Malformed(String),
    /// The body's compression is not known, or the body is not compressed in that way.
    #[error("{0}")]
    Encoding(String),
    /// A compression of gRPC's that is not known here.
    #[error("{0}")]
    UnknownEncoding(&'static str),
    /// The body is neither protobuf nor JSON.
    #[error("{0}")]
    MediaType(String),
    /// A record or the number of records is over a limit.
    #[error("the request is over a limit: {0}")]
    Limit(String),
    /// The request has too many bytes.
    #[error("the request has more than {bytes_max} bytes: send smaller batches")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// More is under way than the server takes at a time.
    #[error("too many requests are under way")]
    Overload,
    /// The service is over its rate.
    #[error("this service is over its rate: come again in {} ms", wait.as_millis())]
    Rate {
        /// When the next request may be taken.
        wait: Duration,
    },
    /// The service has its share of what is under way.
    #[error("this service has its share of all requests under way: come again in {} ms", wait.as_millis())]
    Share {
        /// When some of them have ended.
        wait: Duration,
    },
    /// Rules are applied before the queue, and have not been read yet.
    #[error("the rules have not been read yet, and nothing is taken without them: their store is away")]
    RulesUnread,
    /// The body did not arrive in time.
    #[error("the request's body took too long to arrive")]
    TooSlow,
    /// The queue cannot take it at the moment.
    #[error("{0}")]
    QueueUnavailable(String),
    /// The queue cannot take it before someone acts.
    #[error("{0}")]
    QueueFailed(String),
}

/// The way in, behind all doors.
pub struct Ingest {
    queue: Arc<dyn QueueWriter>,
    /// What drops and redacts before the queue; without it the drain does.
    rules: Option<Sift>,
    options: Options,
    metrics: Arc<Metrics>,
    /// A permit for each byte under way.
    pending: Arc<Semaphore>,
    /// A permit for each body that is being decoded.
    decoding: Semaphore,
    services: Services,
}

impl Ingest {
    /// The way into this queue. `rules` are applied before it, if they are not left to the drain.
    pub fn new(queue: Arc<dyn QueueWriter>, rules: Option<Sift>, options: Options, metrics: Arc<Metrics>) -> Arc<Self> {
        let pending = Arc::new(Semaphore::new(options.pending_bytes_max.min(Semaphore::MAX_PERMITS)));
        let services =
            Services::new(options.allowances.clone(), options.pending_bytes_max as u64, Arc::clone(&metrics));
        let (free, bytes_max) = (Arc::clone(&pending), options.pending_bytes_max as i64);
        metrics.ask_before_showing(move |metrics| {
            metrics.ingest_pending_bytes.set(bytes_max - free.available_permits() as i64);
            metrics.ingest_pending_bytes_max.set(bytes_max);
        });
        Arc::new(Self { queue, rules, options, metrics, pending, decoding: Semaphore::new(DECODES_MAX), services })
    }

    /// How much of the room for requests is in use, in per cent.
    pub fn load_percent(&self) -> u8 {
        let used = self.options.pending_bytes_max.saturating_sub(self.pending.available_permits());
        u8::try_from(used * 100 / self.options.pending_bytes_max.max(1)).unwrap_or(100)
    }

    /// Room for a request, of which nothing has been read.
    fn room(&self) -> Room {
        Room::new(&self.pending)
    }

    /// Takes one `ExportLogsServiceRequest`, protobuf, decompressed. A request without records is taken at once.
    ///
    /// # Errors
    /// When the request is wrong, or cannot be taken at the moment.
    pub async fn accept(&self, payload: Bytes, headers: Headers) -> Result<Ack, IngestError> {
        let mut room = self.room();
        match room.grow(payload.len()) {
            Ok(()) => self.accept_received(payload, headers, room).await,
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// The same for a request that holds its room.
    async fn accept_received(&self, payload: Bytes, headers: Headers, _room: Room) -> Result<Ack, IngestError> {
        let started = Instant::now();
        self.metrics.ingest_requests.inc();
        let answer = self.take(payload, headers, started).await;
        self.metrics.ingest_seconds.observe(started.elapsed().as_secs_f64());
        if let Err(error) = &answer {
            self.metrics.refused(error.refusal());
        }
        answer
    }

    /// Counts a request that a door refused before it was a payload.
    fn refuse(&self, error: IngestError) -> IngestError {
        self.metrics.ingest_requests.inc();
        self.metrics.refused(error.refusal());
        error
    }

    async fn take(&self, payload: Bytes, headers: Headers, now: Instant) -> Result<Ack, IngestError> {
        let bytes = payload.len();
        if bytes > self.options.request_bytes_max {
            return Err(IngestError::TooLarge { bytes_max: self.options.request_bytes_max });
        }
        let check = || otlp::check(&payload, &self.options.limits);
        let checked = if bytes > CHECKED_AT_ONCE_BYTES_MAX { compute(check).await } else { check() };
        let summary = checked.map_err(|error| match error.fault {
            WireFault::OverLimit { .. } | WireFault::TooDeep => IngestError::Limit(error.to_string()),
            _ => IngestError::Malformed(error.to_string()),
        })?;
        let records = summary.records;
        if records > 0 {
            let admitted = self.services.admit(summary.service, records, bytes, now)?;
            if let Some(batch) = self.sifted(Batch { payload, headers }).await? {
                self.append(batch).await?;
            }
            admitted.taken();
        }
        self.metrics.ingest_records.inc_by(u64::from(records));
        self.metrics.ingest_bytes.inc_by(bytes as u64);
        Ok(Ack { records })
    }
}

impl Ingest {
    /// The batch as the rules leave it; none when they drop all of it.
    async fn sifted(&self, batch: Batch) -> Result<Option<Batch>, IngestError> {
        let Some(rules) = &self.rules else { return Ok(Some(batch)) };
        let Some(snapshot) = rules.rules_ahead(&batch).map_err(|Unread| IngestError::RulesUnread)? else {
            return Ok(Some(batch));
        };
        let is_quick = batch.payload.len() <= SIFTED_AT_ONCE_BYTES_MAX && has_one_resource(&batch.payload);
        let cut = || rules.cut(&snapshot, batch);
        let cut = if is_quick { cut() } else { compute(cut).await };
        cut.map_err(|error| IngestError::Malformed(error.to_string()))
    }

    async fn append(&self, batch: Batch) -> Result<(), QueueError> {
        let (started, bytes) = (Instant::now(), batch.payload.len());
        let appended = self.queue.append(batch).await;
        self.metrics.queue_append_seconds.observe(started.elapsed().as_secs_f64());
        match &appended {
            Ok(()) => {
                self.metrics.queue_appended.inc();
                self.metrics.queue_bytes.inc_by(bytes as u64);
            }
            Err(_) => _ = self.metrics.queue_failed.inc(),
        }
        appended
    }
}

fn has_one_resource(payload: &[u8]) -> bool {
    let mut resources = 0;
    let are_more = otlp::any_resource(payload, |_| {
        resources += 1;
        resources > 1
    });
    are_more.is_ok_and(|are_more| !are_more)
}

impl IngestError {
    /// Whether the same request may be taken later.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Overload
                | Self::Rate { .. }
                | Self::Share { .. }
                | Self::RulesUnread
                | Self::TooSlow
                | Self::QueueUnavailable(_)
                | Self::QueueFailed(_)
        )
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Malformed(_) => Refusal::Malformed,
            Self::Encoding(_) | Self::UnknownEncoding(_) => Refusal::Encoding,
            Self::MediaType(_) => Refusal::MediaType,
            Self::Limit(_) => Refusal::Limit,
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::Overload => Refusal::Overload,
            Self::Rate { .. } => Refusal::Rate,
            Self::Share { .. } => Refusal::Share,
            Self::RulesUnread => Refusal::RulesUnread,
            Self::TooSlow => Refusal::TooSlow,
            Self::QueueUnavailable(_) => Refusal::QueueUnavailable,
            Self::QueueFailed(_) => Refusal::QueueFailed,
        }
    }
}

impl From<TurnedAway> for IngestError {
    fn from(why: TurnedAway) -> Self {
        match why {
            TurnedAway::Rate(wait) => Self::Rate { wait },
            TurnedAway::Share(wait) => Self::Share { wait },
        }
    }
}

impl From<QueueError> for IngestError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Unavailable(message) => Self::QueueUnavailable(message),
            QueueError::TooLarge { bytes_max, .. } => Self::TooLarge { bytes_max },
            QueueError::Failed(message) => Self::QueueFailed(message),
        }
    }
}

/// What travels beside a payload; gRPC metadata and HTTP headers are the same here.
fn headers(map: &HeaderMap) -> Headers {
    let text = |name: &str| {
        let value = map.get(name)?.to_str().ok()?;
        (!value.is_empty() && value.len() <= HEADER_BYTES_MAX).then(|| value.to_owned())
    };
    Headers {
        instance: text(header::INSTANCE),
        sequence: text(header::SEQUENCE).and_then(|sequence| sequence.parse().ok()),
        rules: text(header::RULES),
        lost: text(header::LOST),
        first: text(header::FIRST).and_then(|first| first.parse().ok()).unwrap_or(0),
        others: trace_context(map),
        ..Headers::default()
    }
}

/// The sender's trace context goes on beside the message, as another producer's would stand there. Without one nothing is
/// allocated.
fn trace_context(map: &HeaderMap) -> Vec<(String, Bytes)> {
    let found =
        map.get(queue::TRACEPARENT).filter(|value| value.to_str().is_ok_and(|text| queue::trace_of(text).is_some()));
    found.map(|value| (queue::TRACEPARENT.to_owned(), Bytes::copy_from_slice(value.as_bytes()))).into_iter().collect()
}

#[cfg(test)]
mod tests;
