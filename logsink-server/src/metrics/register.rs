//! One metric into the registry, by its kind.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

/// Seconds, from what an in-memory answer takes to what a client waits at most.
const SECONDS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Bytes of requests to the index, from the least that pays to more than is usual.
const REQUEST_BYTES: [f64; 10] = [
    16_384.0,
    65_536.0,
    262_144.0,
    524_288.0,
    1_048_576.0,
    2_097_152.0,
    3_145_728.0,
    4_194_304.0,
    8_388_608.0,
    16_777_216.0,
];

pub(super) fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

pub(super) fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

pub(super) fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(SECONDS);
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
    histogram
}

pub(super) fn bytes(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let histogram = Histogram::new(REQUEST_BYTES);
    registry.register_with_unit(name, help, Unit::Bytes, histogram.clone());
    histogram
}

pub(super) fn seconds_by<S>(registry: &mut Registry, name: &str, help: &str) -> Family<S, Histogram, fn() -> Histogram>
where
    S: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::new_with_constructor((|| Histogram::new(SECONDS)) as fn() -> Histogram);
    registry.register_with_unit(name, help, Unit::Seconds, family.clone());
    family
}

pub(super) fn family<S, M>(registry: &mut Registry, name: &str, help: &str) -> Family<S, M>
where
    S: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
    M: prometheus_client::encoding::EncodeMetric
        + prometheus_client::metrics::TypedMetric
        + Default
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
    fn() -> M: MetricConstructor<M>,
{
    let family = Family::<S, M>::default();
    registry.register(name, help, family.clone());
    family
}
