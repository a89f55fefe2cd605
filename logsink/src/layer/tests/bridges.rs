//! Events of the `log` crate, and traces of `tracing-opentelemetry`.

use super::*;

#[cfg(feature = "log")]
#[test]
fn records_of_the_log_crate_show_where_they_come_from() {
    use log::Log as _;
    let (bench, layer) = Bench::with("filter = \"info,noisy=off\"", 4, Capture::default());
    let tracer = tracing_log::LogTracer::new();
    tracing::dispatcher::with_default(&dispatch(layer), || {
        for (target, level) in
            [("quiet::part", log::Level::Warn), ("noisy", log::Level::Error), ("quiet::part", log::Level::Debug)]
        {
            tracer.log(
                &log::Record::builder()
                    .args(format_args!("from {target}"))
                    .level(level)
                    .target(target)
                    .file(Some("src/part.rs"))
                    .line(Some(77))
                    .module_path(Some("quiet::part"))
                    .build(),
            );
        }
        let _span = tracing::info_span!("request", id = 5).entered();
        tracer.log(&log::Record::builder().args(format_args!("bare")).level(log::Level::Info).target("bare").build());
    });
    let records = bench.records();
    let [part, bare] = &records[..] else { panic!("{records:?}") };
    assert_eq!((part.message(), &*part.raw.severity_text), ("from quiet::part", "WARN"));
    assert_eq!((part.text("target"), part.text("code.namespace")), ("quiet::part", "quiet::part"));
    assert_eq!((part.text("code.file.path"), part.int("code.line.number")), ("src/part.rs", 77));
    assert!(part.attributes.keys().all(|key| !key.starts_with("log.")));
    assert_eq!((bare.text("target"), bare.int("id"), bare.get("code.file.path")), ("bare", 5, None));
}

#[cfg(feature = "log")]
#[test]
fn rules_know_the_true_target_of_a_log_record() {
    use log::Log as _;
    let rules = "filter = \"info\"\n[[rule]]\nname = \"r\"\nwhen = 'target=noisy'\nthen = \"drop\"";
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    let tracer = tracing_log::LogTracer::new();
    tracing::dispatcher::with_default(&dispatch(layer), || {
        for target in ["noisy", "quiet"] {
            tracer.log(&log::Record::builder().args(format_args!("a")).level(log::Level::Info).target(target).build());
        }
    });
    assert_eq!(bench.records().iter().map(|record| record.text("target").to_owned()).collect::<Vec<_>>(), ["quiet"]);
}

#[cfg(feature = "opentelemetry")]
#[test]
fn the_trace_of_the_span_is_shown() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let provider = opentelemetry_sdk::trace::SdkTracerProvider::default();
    let (bench, layer) = Bench::new();
    let registry = Registry::default()
        .with(layer.filtered())
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    let expected = tracing::subscriber::with_default(registry, || {
        tracing::info!("outside");
        let outer = tracing::info_span!("outer", a = 1);
        let _outer = outer.clone().entered();
        tracing::info!("outer");
        let inner = tracing::info_span!("inner");
        let _inner = inner.clone().entered();
        tracing::info!(a = 2, "inner");
        tracing::info!(parent: &outer, "outer");
        [&outer, &inner, &outer].map(|span| {
            let context = span.context();
            let span = context.span();
            let trace = span.span_context();
            (
                trace.trace_id().to_bytes().to_vec(),
                trace.span_id().to_bytes().to_vec(),
                u32::from(trace.trace_flags().to_u8()),
            )
        })
    });
    let records = bench.records();
    assert_eq!((records[0].raw.trace_id.len(), records[0].raw.span_id.len(), records[0].raw.flags), (0, 0, 0));
    for (record, (trace, span, flags)) in records[1..].iter().zip(&expected) {
        assert_eq!((&record.raw.trace_id, &record.raw.span_id, record.raw.flags), (trace, span, *flags));
        assert_eq!((trace.len(), span.len(), *flags), (16, 8, 1));
    }
    assert_ne!(expected[0].1, expected[1].1);
}
