//! Which sinks there are: the main one, those of `[[sink]]` and the console, as the worker's lanes.

use std::{sync::Arc, time::Duration};

use super::resource;
use crate::{
    Config, ConfigError,
    batch::{Envelope, Limits},
    config::{ENDPOINT_DEFAULT, Overflow, Sink},
    filter::rules::BaseFilter,
    metrics::Metrics,
    worker::{Bounds, lane::Settings},
};

/// A sink, before anything is started for it.
pub(super) struct Planned {
    /// The settings as its transport sees them.
    pub(super) config: Config,
    pub(super) metrics: Arc<Metrics>,
    pub(super) settings: Settings,
}

/// What a console's batch is: small and soon, for people watch it.
const CONSOLE_LIMITS: Limits = Limits { bytes_max: 256 << 10, records_max: 4096, age_max: Duration::from_millis(20) };
/// What waits for a terminal that does not read. Then lines are dropped: it must slow nothing.
const CONSOLE_BYTES_MAX: usize = 1 << 20;
/// What the console is called in the figures.
const CONSOLE: &str = "console";

/// All sinks, the main one first, the console last.
pub(super) fn plan(
    config: &Config,
    console: Option<&str>,
    service: &str,
    envelope: &Arc<Envelope>,
    instance: &str,
    metrics: &Arc<Metrics>,
) -> Result<Vec<Planned>, ConfigError> {
    let common = Common { all: config, service, envelope };
    let main = common.sink(config.clone(), None, config.queue.overflow, instance.to_owned(), metrics.clone())?;
    let losses_every = config.losses_every();
    let mut planned = vec![Planned { settings: Settings { losses_every, ..main.settings }, ..main }];
    for sink in &config.sink {
        let own = config.of_sink(sink);
        planned.push(common.further(own, sink.base_filter()?, sink.overflow(config))?);
    }
    if let Some(endpoint) = console {
        let own = config.of_sink(&Sink::new(endpoint));
        let lane = common.further(own, config.console_filter()?, Overflow::DropNewest)?;
        let bounds = Bounds { bytes_max: CONSOLE_BYTES_MAX, reserve_bytes: 0, ..lane.settings.bounds };
        // One at a time, so that lines stand in order.
        let settings = Settings {
            sink: CONSOLE.to_owned(),
            local: true,
            limits: CONSOLE_LIMITS,
            bounds,
            in_flight_max: 1,
            ..lane.settings
        };
        planned.push(Planned { settings, ..lane });
    }
    for sink in &planned[1..] {
        metrics.add_sink(sink.settings.sink.clone(), sink.metrics.clone());
    }
    Ok(planned)
}

/// What all sinks share.
struct Common<'a> {
    all: &'a Config,
    service: &'a str,
    envelope: &'a Arc<Envelope>,
}

impl Common<'_> {
    /// A sink beside the main one. It counts its batches by itself and may reach the server that another lane reaches, so
    /// it has an id of its own.
    fn further(&self, config: Config, filter: Option<BaseFilter>, overflow: Overflow) -> Result<Planned, ConfigError> {
        self.sink(config, filter, overflow, resource::instance_id(), Arc::new(Metrics::new()))
    }

    fn sink(
        &self,
        config: Config,
        filter: Option<BaseFilter>,
        overflow: Overflow,
        instance: String,
        metrics: Arc<Metrics>,
    ) -> Result<Planned, ConfigError> {
        let sink = config.endpoint.clone().unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        let spills = overflow == Overflow::Spill;
        let spool = spills.then(|| self.all.spool.of_sink(self.service, &sink)).transpose()?;
        let settings = Settings {
            sink,
            filter,
            local: false,
            limits: config.limits(),
            bounds: self.all.queue.bounds(overflow, 1 + self.all.sink.len()),
            retry: config.retry_policy(),
            in_flight_max: config.send.in_flight_max,
            envelope: self.envelope.clone(),
            instance,
            metrics: metrics.clone(),
            losses_every: None,
            spool,
        };
        Ok(Planned { config, metrics, settings })
    }
}
