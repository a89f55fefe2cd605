//! `[elasticsearch]`: the index of cluster mode.

use std::{path::PathBuf, time::Duration};

use logsink::ConfigError;
use serde::{Deserialize, Serialize};

use super::{
    units::{Bytes, Secret, Span},
    validate::{ensure, urls},
};
use crate::index::elasticsearch::{Compression, FieldNames};

/// `[elasticsearch]`; an OpenSearch cluster is told apart by itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elasticsearch {
    /// URLs of some of the nodes, with a path where a proxy in front wants one.
    pub urls: Vec<String>,
    /// A deployment in Elastic Cloud, instead of URLs or beside them.
    pub cloud_id: Option<String>,
    /// The data stream that events go to, or a pattern with `{service}`, `{dataset}` and `{namespace}` that routes them to
    /// several. Default: `logs-logsink-default`.
    pub data_stream: String,
    /// How many data streams a pattern may make; further ones, and names that others have, share one more. Default: 200.
    pub streams_max: usize,
    /// `data_stream`, `daily` (an index for each day), or `auto`: a data stream where the cluster has them. Default: auto.
    pub layout: LayoutChoice,
    /// How long events are kept there.
    pub retention: ElasticsearchRetention,
    /// How the fields of documents are called: `otel`, as in OpenTelemetry's semantic conventions, or `ecs`, as in the Elastic
    /// Common Schema. Either way the other names are aliases, and searches find what was stored under either. Change it in all
    /// drains at once, and with daily indices together with `data_stream`: an index of the other naming refuses new events.
    /// Default: otel.
    pub field_names: FieldNames,
    /// An API key, as Elasticsearch shows it ("encoded").
    pub api_key: Option<Secret>,
    /// The user of basic authentication.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// A bearer token: of a service account, or of a proxy in front.
    pub bearer_token: Option<Secret>,
    /// A PEM file with the authority that signed the nodes' certificates, beside the well-known ones.
    pub ca: Option<PathBuf>,
    /// Compression of what is sent: `auto` (gzip for nodes that are neither on this machine nor at a private address), `none`,
    /// `gzip`, or `zstd` for a proxy that decodes it. Default: `auto`.
    pub compression: Compression,
    /// The most bytes of one `_bulk`, before compression; it is less where the cluster takes less. Default: 4 MiB.
    pub request_bytes_max: Bytes,
    /// The most `_bulk` requests under way at each node; they are fewer where it takes fewer. Default: 8.
    pub requests_max: usize,
    /// How long a request may take before it is sent again. Default: 60 s.
    pub timeout: Span,
    /// Whether to put the index template and the data stream in place. Default: true.
    pub setup: bool,
    /// Primary shards of each backing index. Default: the cluster's.
    pub shards: Option<u32>,
    /// Copies of each shard. Default: the cluster's.
    pub replicas: Option<u32>,
    /// How long an event may be stored and not found yet. Default: 1 s.
    pub refresh_interval: Span,
}

/// What the operator wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutChoice {
    /// A data stream where the cluster has them, else an index for each day.
    #[default]
    Auto,
    /// A data stream.
    DataStream,
    /// An index for each day.
    Daily,
}

/// Who removes old events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionBy {
    /// A policy of the cluster's where it has them, else the server.
    #[default]
    Auto,
    /// The server.
    Logsink,
    /// Neither: somebody else sees to it.
    Nobody,
}

/// `[elasticsearch.retention]`: the first bound reached counts. Whole indices are removed, and only such as the server made.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElasticsearchRetention {
    /// Who sees to it: `auto` (an ILM or ISM policy where the cluster has them, else the server), `logsink` (the server), or
    /// `nobody`. Default: auto.
    pub by: RetentionBy,
    /// Indices whose events are all older are removed. Default: none is.
    pub age: Option<Span>,
    /// Above this size of all indices with their replicas the oldest are removed. Default: no bound.
    pub bytes: Option<Bytes>,
    /// A data stream begins a new index after this time. Default: 1 day.
    pub rollover_age: Span,
    /// A data stream begins a new index at about this size, replicas not counted. Default: 50 GiB.
    pub rollover_bytes: Bytes,
    /// The server's pause between two looks. Default: 1 minute.
    pub every: Span,
}

impl Default for ElasticsearchRetention {
    fn default() -> Self {
        let by = RetentionBy::Auto;
        let (rollover_age, rollover_bytes, every) = (Span::days(1), Bytes::gib(50), Span::minutes(1));
        Self { by, age: None, bytes: None, rollover_age, rollover_bytes, every }
    }
}

impl Default for Elasticsearch {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            cloud_id: None,
            data_stream: "logs-logsink-default".into(),
            streams_max: 200,
            layout: LayoutChoice::Auto,
            retention: ElasticsearchRetention::default(),
            field_names: FieldNames::Otel,
            api_key: None,
            username: None,
            password: None,
            bearer_token: None,
            ca: None,
            compression: Compression::default(),
            request_bytes_max: Bytes::mib(4),
            requests_max: 8,
            timeout: Span::minutes(1),
            setup: true,
            shards: None,
            replicas: None,
            refresh_interval: Span(Duration::from_secs(1)),
        }
    }
}

impl Elasticsearch {
    /// What the types cannot say.
    ///
    /// # Errors
    /// The first key that cannot be used, by its path, with what to write instead.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.cloud_id.is_none() || !self.urls.is_empty() {
            urls("elasticsearch.urls", &self.urls, "http://127.0.0.1:9200")?;
        }
        ensure(self.cloud_id.as_ref().is_none_or(|id| id.contains(':')), "elasticsearch.cloud_id", || {
            "is not a cloud id: copy it from the deployment's page, `name:` and base64 after it".into()
        })?;
        ensure(!self.data_stream.is_empty(), "elasticsearch.data_stream", || "is empty".into())?;
        ensure(self.username.is_some() == self.password.is_some(), "elasticsearch.username", || {
            "`username` and `password` go together: set both or neither".into()
        })?;
        let logins = [
            ("elasticsearch.api_key", self.api_key.is_some()),
            ("elasticsearch.bearer_token", self.bearer_token.is_some()),
            ("elasticsearch.username", self.username.is_some()),
        ];
        let mut logins = logins.iter().filter(|(_, is_set)| *is_set);
        if let (Some((first, _)), Some((second, _))) = (logins.next(), logins.next()) {
            ensure(false, first, || format!("is set together with `{second}`: choose one way to log in"))?;
        }
        ensure(
            (Bytes::kib(256)..=Bytes::mib(64)).contains(&self.request_bytes_max),
            "elasticsearch.request_bytes_max",
            || format!("{} is not between 256KiB and 64MiB", self.request_bytes_max),
        )?;
        ensure((1..=64).contains(&self.requests_max), "elasticsearch.requests_max", || {
            format!("{} is not between 1 and 64", self.requests_max)
        })?;
        ensure(self.timeout.0 >= Duration::from_secs(1), "elasticsearch.timeout", || {
            format!("{} is too short for a full request: write 1s at least", self.timeout)
        })?;
        ensure((1..=10_000).contains(&self.streams_max), "elasticsearch.streams_max", || {
            format!("is {}: write a number from 1 to 10000, each stream being a shard at least", self.streams_max)
        })?;
        ensure(!self.refresh_interval.0.is_zero(), "elasticsearch.refresh_interval", || {
            "is 0: write 1s or more".into()
        })?;
        self.retention.validate()
    }
}

impl ElasticsearchRetention {
    fn validate(&self) -> Result<(), ConfigError> {
        let at_least = |field: &str, span: Option<Span>, least: Span| {
            ensure(span.is_none_or(|span| span >= least), field, || format!("is less than {least}: write more"))
        };
        at_least("elasticsearch.retention.age", self.age, Span::minutes(60))?;
        at_least("elasticsearch.retention.rollover_age", Some(self.rollover_age), Span::minutes(1))?;
        at_least("elasticsearch.retention.every", Some(self.every), Span(Duration::from_secs(1)))?;
        let least = Bytes::mib(1);
        ensure(self.rollover_bytes >= least, "elasticsearch.retention.rollover_bytes", || {
            format!("is less than {least}: write more")
        })?;
        ensure(self.bytes.is_none_or(|bytes| bytes >= Bytes::mib(4)), "elasticsearch.retention.bytes", || {
            "is less than 4MiB: write more".into()
        })
    }
}
