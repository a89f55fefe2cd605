//! Events in Elasticsearch or OpenSearch: data streams or daily indices, written by `_bulk`, searched by query DSL.
//!
//! Promises: a record's id depends on who sent it and where it stood, so a replay stores nothing twice; a write ends only
//! when each record is stored, dead-lettered with the reason, or was dropped by a rule; a search answers as
//! [`logsink::filter::expr::Expr::matches`] does, since every hit is put to it.
//!
//! Overloaded or away: only what was refused is sent again, with growing pauses; what a person has to mend (no permission,
//! a closed index) stops the line, turns [`IndexReader::ready`] red and is logged, and goes on by itself when mended.

mod address;
mod body;
mod bulk;
mod compress;
mod document;
mod dsl;
mod fields;
mod http;
mod json;
mod layout;
mod lifecycle;
mod limit;
mod mapping;
mod nodes;
mod number;
mod pool;
mod repeats;
mod retention;
mod route;
mod search;
mod server;
mod setup;
mod streams;
mod time;
mod write;

use std::{path::PathBuf, sync::Arc, time::Duration};

use elasticsearch::http::Method;
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

pub use self::{
    address::Auth,
    compress::Compression,
    fields::FieldNames,
    retention::{Retention, RetentionOptions},
};
use self::{
    http::Client,
    layout::Layout,
    pool::Pool,
    repeats::Repeats,
    route::Pattern,
    setup::SetUp,
    streams::Streams,
    write::{Backoff, Growth, Trouble},
};
use super::{Appetite, IndexError, IndexReader, IndexWriter, Written};
use crate::{
    config::LayoutChoice,
    metrics::Metrics,
    query::{Page, Query},
    queue::{BoxFuture, DeadLetters, Message},
};

/// Where the cluster is and what to keep there.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElasticsearchOptions {
    /// Nodes, `http://…` or `https://…`, with a path where a proxy wants one; requests go to those that answer, in turn.
    /// Default: `http://127.0.0.1:9200`.
    pub urls: Vec<String>,
    /// A deployment in Elastic Cloud, as its page shows it; one more node. Default: none.
    pub cloud_id: Option<String>,
    /// The data stream, or a pattern with `{service}`, `{dataset}` and `{namespace}`. Default: `logs-logsink-default`.
    pub data_stream: String,
    /// How many data streams a pattern may make; what is beyond goes to one more. Default: 200, each being a shard at least.
    pub streams_max: usize,
    /// A data stream, or an index for each day. Default: what the cluster has.
    pub layout: LayoutChoice,
    /// How long events are kept.
    pub retention: RetentionOptions,
    /// How the fields of documents are called. Default: as in OpenTelemetry's semantic conventions.
    pub field_names: FieldNames,
    /// How to log in. Default: not at all.
    pub auth: Auth,
    /// A PEM file with certificates of authorities to trust beside the well-known ones.
    pub ca: Option<PathBuf>,
    /// How long one request may take. Default: 60 s; one `_bulk` of 4 MiB takes a tenth of a second when all is well.
    pub timeout: Duration,
    /// Whether and how bodies are compressed. Default: where it pays.
    pub compression: Compression,
    /// The most bytes of one `_bulk`, before compression. Default: 4 MiB, where Elasticsearch's throughput is flat; what the
    /// cluster takes may be less.
    pub request_bytes_max: usize,
    /// The most `_bulk` requests under way at one node. Default: 8; what the node takes may be fewer.
    pub requests_max: usize,
    /// The most bytes of bodies in memory. Default: 24 MiB: six full requests.
    pub body_bytes_max: usize,
    /// How long an event may be stored and not found yet, as Elasticsearch writes it. Default: `1s`.
    pub refresh_interval: String,
    /// Primary shards of each backing index. Default: the cluster's.
    pub shards: Option<u32>,
    /// Copies of each shard. Default: the cluster's.
    pub replicas: Option<u32>,
    /// Whether to put the index template and the data stream in place. Default: yes. Without it someone else has to.
    pub setup: bool,
    /// The queue's name, part of the ids of events whose sender does not number its batches: the Kafka topic. Changing it
    /// makes such events new ones when they are read again. Default: `otlp_logs`.
    pub queue: String,
}

impl Default for ElasticsearchOptions {
    fn default() -> Self {
        Self {
            urls: vec!["http://127.0.0.1:9200".into()],
            cloud_id: None,
            data_stream: "logs-logsink-default".into(),
            streams_max: 200,
            layout: LayoutChoice::Auto,
            retention: RetentionOptions::default(),
            field_names: FieldNames::default(),
            auth: Auth::None,
            ca: None,
            timeout: Duration::from_secs(60),
            compression: Compression::default(),
            request_bytes_max: 4 << 20,
            requests_max: 8,
            body_bytes_max: 24 << 20,
            refresh_interval: "1s".into(),
            shards: None,
            replicas: None,
            setup: true,
            queue: "otlp_logs".into(),
        }
    }
}

/// How long [`IndexReader::ready`] waits for an answer: less than a health check waits for ours.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// An Elasticsearch or OpenSearch cluster as an index.
pub struct Elasticsearch {
    options: ElasticsearchOptions,
    client: Client,
    dead: Arc<dyn DeadLetters>,
    metrics: Arc<Metrics>,
    /// The hash of the queue's name.
    origin: u64,
    /// `options.data_stream`
    pattern: Arc<Pattern>,
    /// Known once the template is in place.
    set_up: OnceCell<SetUp>,
    streams: Streams,
    repeats: Repeats,
    trouble: Trouble,
    /// Memory for bodies.
    bodies: Pool<body::Buffers>,
    growth: Growth,
}

impl Elasticsearch {
    /// An index in the cluster at `options.urls`. Asks the cluster nothing yet: it may be away when the server starts.
    ///
    /// # Errors
    /// When an option cannot be used: a URL, the data stream's name, the CA file.
    pub fn connect(
        options: ElasticsearchOptions,
        dead: Arc<dyn DeadLetters>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, IndexError> {
        let pattern = Arc::new(Pattern::parse(&options.data_stream)?);
        let client = Client::new(&options, metrics.clone())?;
        let origin = body::origin(&options.queue);
        let bodies = Pool::new(options.body_bytes_max, metrics.clone());
        Ok(Self {
            options,
            client,
            dead,
            metrics,
            origin,
            pattern,
            set_up: OnceCell::new(),
            streams: Streams::default(),
            repeats: Repeats::default(),
            trouble: Trouble::default(),
            bodies,
            growth: Growth::default(),
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<bytes::Bytes>,
    ) -> Result<http::Answer, Failed> {
        self.client.call(method, path, query, body, "application/json", None).await
    }

    /// Puts the template in place before the first write, however often it takes.
    async fn set_up(&self) -> SetUp {
        let set_up = async || setup::set_up(self).await;
        let (mut backoff, mut has_failed) = (Backoff::default(), false);
        loop {
            match self.set_up.get_or_try_init(set_up).await {
                Ok(set_up) => {
                    // Not left to the first write: who waits for readiness may send nothing before.
                    if has_failed {
                        self.trouble.over();
                    }
                    return *set_up;
                }
                Err(failed) => {
                    has_failed = true;
                    self.trouble.failed(&failed, "cannot set up the index");
                    backoff.wait(&failed).await;
                }
            }
        }
    }

    /// Where `_bulk` goes. Where there is one data stream, the action lines need not name it.
    fn bulk_path(&self, layout: Layout) -> String {
        match self.pattern.fixed() {
            Some(name) if layout == Layout::DataStream => format!("/{name}/_bulk"),
            _ => "/_bulk".to_owned(),
        }
    }

    /// What a search names: a process that only searches does not ask the cluster what it has.
    fn search_path(&self) -> String {
        let streams = self.pattern.wildcard();
        match self.options.layout {
            LayoutChoice::DataStream => format!("/{streams}/_search"),
            LayoutChoice::Auto | LayoutChoice::Daily => {
                format!("/{streams},{streams}-2*.*.*,{streams}-{}/_search", layout::OUTSIDE)
            }
        }
    }

    /// Whether a search may meet what others have stored: then events of ours are told by the field that orders them.
    fn meets_others(&self) -> bool {
        self.pattern.fixed().is_none() || self.options.layout != LayoutChoice::DataStream
    }
}

impl IndexWriter for Elasticsearch {
    fn write<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<Written, IndexError>> {
        Box::pin(async move {
            let set_up = self.set_up().await;
            Ok(write::write(self, set_up, messages).await)
        })
    }

    fn appetite(&self) -> Option<Appetite> {
        let (requests, bytes) = self.client.nodes.appetite();
        // More than are sent: of one the body is written meanwhile, of one it is asked what became of it.
        Some(Appetite { writes: requests + 2, payload_bytes: self.growth.payload(bytes) })
    }
}

impl IndexReader for Elasticsearch {
    fn search<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<Page, IndexError>> {
        Box::pin(search::search(self, query))
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), IndexError>> {
        Box::pin(async move {
            if let Some(message) = self.trouble.message() {
                return Err(IndexError::Failed(message));
            }
            let path = self.search_path();
            let query = [("size", "0"), ("track_total_hits", "false"), ("ignore_unavailable", "true")];
            let answer = self.client.call(Method::Get, &path, &query, None, "application/json", Some(READY_TIMEOUT));
            answer.await?.ok().map(drop).map_err(IndexError::from)
        })
    }
}

/// Why the cluster did not do something.
#[derive(Debug, Clone, PartialEq)]
enum Failed {
    /// It is away or overloaded.
    Retry {
        /// A short name for the counter.
        reason: &'static str,
        message: String,
        /// The server's own wish.
        after: Option<Duration>,
    },
    /// A person has to act.
    Stop { message: String },
    /// It does not understand the request.
    BadRequest { message: String },
}

impl Failed {
    fn retry(reason: &'static str, message: String) -> Self {
        Self::Retry { reason, message, after: None }
    }

    fn message(&self) -> &str {
        let (Self::Retry { message, .. } | Self::Stop { message } | Self::BadRequest { message }) = self;
        message
    }
}

impl From<Failed> for IndexError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Retry { message, .. } => Self::Unavailable(format!("elasticsearch: {message}")),
            Failed::Stop { message } => Self::Failed(format!("elasticsearch: {message}")),
            Failed::BadRequest { message } => Self::BadRequest(message),
        }
    }
}
