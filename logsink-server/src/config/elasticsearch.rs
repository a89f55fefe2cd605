//! `[elasticsearch]`: the index of cluster mode.

use std::path::PathBuf;

use logsink::ConfigError;
use serde::Deserialize;

use super::{
    units::Secret,
    validate::{ensure, urls},
};

/// `[elasticsearch]`; an OpenSearch cluster is told apart by itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Elasticsearch {
    /// URLs of some of the nodes.
    pub urls: Vec<String>,
    /// The data stream that events go to. Default: `logs-logsink-default`.
    pub data_stream: String,
    /// An API key, as Elasticsearch shows it ("encoded").
    pub api_key: Option<Secret>,
    /// The user of basic authentication.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// A PEM file with the authority that signed the nodes' certificates, beside the well-known ones.
    pub ca: Option<PathBuf>,
    /// Whether to put the index template and the data stream in place. Default: true.
    pub setup: bool,
    /// Primary shards of each backing index. Default: the cluster's.
    pub shards: Option<u32>,
    /// Copies of each shard. Default: the cluster's.
    pub replicas: Option<u32>,
}

impl Default for Elasticsearch {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            data_stream: "logs-logsink-default".into(),
            api_key: None,
            username: None,
            password: None,
            ca: None,
            setup: true,
            shards: None,
            replicas: None,
        }
    }
}

impl Elasticsearch {
    /// What the types cannot say.
    ///
    /// # Errors
    /// The first key that cannot be used, by its path, with what to write instead.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        urls("elasticsearch.urls", &self.urls, "http://127.0.0.1:9200")?;
        ensure(!self.data_stream.is_empty(), "elasticsearch.data_stream", || "is empty".into())?;
        ensure(self.username.is_some() == self.password.is_some(), "elasticsearch.username", || {
            "`username` and `password` go together: set both or neither".into()
        })?;
        ensure(self.api_key.is_none() || self.username.is_none(), "elasticsearch.api_key", || {
            "is set together with `username`: choose one way to log in".into()
        })?;
        Ok(())
    }
}
