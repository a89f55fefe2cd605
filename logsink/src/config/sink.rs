//! Further sinks beside `endpoint`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Batch, Config, Overflow, Retry, Secret, Send, Tls, refuse};
use crate::{ConfigError, filter::rules::BaseFilter, filter::rules::Document};

/// A further sink, which gets its own copy of the events. Each has its own batches, backlog, retries and figures: one that is
/// down holds up no other.
///
/// ```toml
/// [[sink]]
/// endpoint = "kafka://b1:9092/errors"
/// filter = "error"
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sink {
    /// Where events go, as [`Config::endpoint`].
    pub endpoint: String,
    /// What the sink gets of the events that pass the rules, in `EnvFilter` directive syntax. Default: all of them.
    #[serde(default)]
    pub filter: Option<String>,
    /// What happens when its share of the memory is spent. Default: that of `[queue]`, except that a further sink holds up
    /// nobody: where that is `block`, it is `drop_newest`.
    #[serde(default)]
    pub overflow: Option<Overflow>,
    /// When its batches are cut. Default: as `[batch]`.
    #[serde(default)]
    pub batch: Option<Batch>,
    /// How its batches are sent. Default: as `[send]`.
    #[serde(default)]
    pub send: Option<Send>,
    /// What happens when sending fails. Default: as `[retry]`.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Its TLS. Default: as `[tls]`.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Metadata sent with its batches. Default: none, since those of the main sink may be credentials.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Further librdkafka properties of a `kafka://` endpoint. Default: as `[kafka]`.
    #[serde(default)]
    pub kafka: Option<BTreeMap<String, Secret>>,
}

/// Sinks beside the main one: each costs memory and a share of a thread.
const SINKS_MAX: usize = 8;

impl Sink {
    /// A sink at this URL that gets every event.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            filter: None,
            overflow: None,
            batch: None,
            send: None,
            retry: None,
            tls: None,
            headers: BTreeMap::new(),
            kafka: None,
        }
    }

    pub(crate) fn base_filter(&self) -> Result<Option<BaseFilter>, ConfigError> {
        base_filter("filter", self.filter.as_deref())
    }

    /// The overflow policy in force.
    pub(crate) fn overflow(&self, config: &Config) -> Overflow {
        self.overflow.unwrap_or(match config.queue.overflow {
            Overflow::Block => Overflow::DropNewest,
            other => other,
        })
    }
}

/// Reads directives.
pub(super) fn base_filter(field: &str, directives: Option<&str>) -> Result<Option<BaseFilter>, ConfigError> {
    let Some(directives) = directives else { return Ok(None) };
    let document = Document::of_filter(directives).map_err(|error| {
        let hint = error.hint.map(|hint| format!(": {hint}")).unwrap_or_default();
        ConfigError { field: field.to_owned(), message: format!("{}{hint}", error.message) }
    })?;
    Ok(document.filter)
}

impl Config {
    pub(super) fn validate_sinks(&self) -> Result<(), ConfigError> {
        if self.sink.len() > SINKS_MAX {
            return refuse("sink", &format!("{} sinks are too many: name at most {SINKS_MAX}", self.sink.len()));
        }
        for (index, sink) in self.sink.iter().enumerate() {
            let within = |error: ConfigError| ConfigError { field: format!("sink[{index}].{}", error.field), ..error };
            if sink.overflow == Some(Overflow::Block) {
                let problem = "a further sink holds up nobody: write drop_newest, drop_oldest or spill";
                return refuse("overflow", problem).map_err(within);
            }
            sink.base_filter().map_err(within)?;
            self.of_sink(sink).validate_own().map_err(within)?;
        }
        let endpoints = self.sink.iter().map(|sink| Some(sink.endpoint.as_str())).chain([self.endpoint.as_deref()]);
        let mut seen = std::collections::BTreeSet::new();
        for endpoint in endpoints.map(|endpoint| endpoint.unwrap_or(super::ENDPOINT_DEFAULT)) {
            if !seen.insert(endpoint) {
                let endpoint = super::endpoint::redacted(endpoint);
                return refuse("sink", &format!("{endpoint} is named twice: it would get every event twice"));
            }
        }
        Ok(())
    }

    /// The settings as a sink's transport sees them.
    pub(crate) fn of_sink(&self, sink: &Sink) -> Self {
        let Sink { endpoint, batch, send, retry, tls, headers, kafka, .. } = sink.clone();
        let mut config = Self { sink: Vec::new(), rules: None, ..self.clone() };
        config.endpoint = Some(endpoint);
        config.headers = headers;
        config.batch = batch.unwrap_or(config.batch);
        config.send = send.unwrap_or(config.send);
        config.retry = retry.unwrap_or(config.retry);
        config.tls = tls.unwrap_or(config.tls);
        config.kafka = kafka.unwrap_or(config.kafka);
        config
    }
}
