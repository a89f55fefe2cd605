//! Which sinks there are: the main one and those of `[[sink]]`, as the worker's lanes.

use std::sync::Arc;

use super::resource;
use crate::{Config, ConfigError, batch::Envelope, config::ENDPOINT_DEFAULT, metrics::Metrics, worker::lane::Settings};

/// A sink, before anything is started for it.
pub(super) struct Planned {
    /// The settings as its transport sees them.
    pub(super) config: Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settings: Settings,
}

/// All sinks, the main one first.
pub(super) fn plan(
    config: &Config,
    envelope: &Arc<Envelope>,
    instance: &str,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Planned>, ConfigError> {
    let count = 1 + config.sink.len();
    let main =
        Sink { config: config.clone(), filter: None, overflow: config.queue.overflow, instance: instance.to_owned() };
    let mut planned = vec![main.planned(config, count, envelope, metrics.clone())];
    for sink in &config.sink {
        let own = Sink {
            config: config.of_sink(sink),
            filter: sink.base_filter()?,
            overflow: sink.overflow(config),
            // It counts its batches by itself, and may reach the server that another lane reaches.
            instance: resource::instance_id(),
        };
        let own = own.planned(config, count, envelope, Arc::new(Metrics::new()));
        metrics.add_sink(own.settings.sink.clone(), own.metrics.clone());
        planned.push(own);
    }
    Ok(planned)
}

struct Sink {
    config: Config,
    filter: Option<crate::filter::rules::BaseFilter>,
    overflow: crate::config::Overflow,
    instance: String,
}

impl Sink {
    fn planned(self, all: &Config, count: usize, envelope: &Arc<Envelope>, metrics: Arc<Metrics>) -> Planned {
        let Self { config, filter, overflow, instance } = self;
        let settings = Settings {
            sink: config.endpoint.clone().unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned()),
            filter,
            local: false,
            limits: config.limits(),
            bounds: all.queue.bounds(overflow, count),
            retry: config.retry_policy(),
            in_flight_max: config.send.in_flight_max,
            envelope: envelope.clone(),
            instance,
            metrics: metrics.clone(),
        };
        Planned { config, metrics, settings }
    }
}
