//! The counters as instruments of an OpenTelemetry meter.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use super::{Metrics, series};

/// Registers every counter. The meter's provider asks for them when it exports, from a thread of its own.
pub(crate) fn observe(meter: &Meter, metrics: &Arc<Metrics>) {
    for named in series::all() {
        let (metrics, name) = (metrics.clone(), format!("logsink.{}", named.name.replace('_', ".")));
        let series::Series { kind, unit, help, .. } = named.series;
        let observe = move |observer: &dyn AsyncInstrument<u64>| {
            for point in named.points(&metrics.snapshot()) {
                let labels: Vec<_> = point.labels.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
                observer.observe(point.value, &labels);
            }
        };
        // The provider keeps the callback; the handle is of no further use.
        match kind {
            series::Kind::Counter => {
                let counter = meter.u64_observable_counter(name).with_unit(*unit).with_description(*help);
                let _ = counter.with_callback(observe).build();
            }
            series::Kind::Gauge => {
                let gauge = meter.u64_observable_gauge(name).with_unit(*unit).with_description(*help);
                let _ = gauge.with_callback(observe).build();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::{
        InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
        data::{AggregatedMetrics, MetricData},
    };

    use super::*;
    use crate::{Severity, metrics::Reason};

    /// What the SDK exported last: values by name and labels.
    fn exported(exporter: &InMemoryMetricExporter) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let finished = exporter.get_finished_metrics().unwrap();
        for metric in finished.last().unwrap().scope_metrics().flat_map(|scope| scope.metrics()) {
            let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else { panic!("{metric:?}") };
            assert!(sum.is_monotonic() && !metric.unit().is_empty() && !metric.description().is_empty());
            for point in sum.data_points() {
                let mut labels: Vec<_> =
                    point.attributes().map(|label| format!("{}={}", label.key, label.value)).collect();
                labels.sort();
                let key = [vec![metric.name().to_owned()], labels].concat().join(" ");
                assert_eq!(found.insert(key, point.value()), None);
            }
        }
        found
    }

    #[test]
    fn the_sdk_exports_what_the_counters_say() {
        let exporter = InMemoryMetricExporter::default();
        let provider =
            SdkMeterProvider::builder().with_reader(PeriodicReader::builder(exporter.clone()).build()).build();
        let metrics = Arc::new(Metrics::new());
        observe(&provider.meter("test"), &metrics);

        metrics.drained(5);
        metrics.sent(4, 400);
        metrics.dropped(Reason::Rejected, Severity::WARN);
        provider.force_flush().unwrap();
        let first = exported(&exporter);
        let main = series::all()
            .filter(|series| !series.name.starts_with("sink_") && !series.name.starts_with("kafka_"))
            .count();
        assert_eq!(first.len(), main, "one value each: {first:?}");
        assert_eq!((first["logsink.records.drained"], first["logsink.records.sent"]), (5, 4));
        assert_eq!((first["logsink.bytes.sent"], first["logsink.batches.sent"]), (400, 1));
        assert_eq!(first["logsink.records.dropped level=warn reason=rejected"], 1);
        assert_eq!(first["logsink.records.lost"], 1);

        metrics.sent(3, 300);
        provider.force_flush().unwrap();
        assert_eq!(exported(&exporter)["logsink.records.sent"], 7, "totals, not differences");
    }
}
