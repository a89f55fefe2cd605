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

/// Logs a record with these key-values at `info`.
#[cfg(feature = "log")]
fn log_with(key_values: impl log::kv::Source) {
    use log::Log as _;
    let mut record = log::Record::builder();
    record.level(log::Level::Info).target("legacy").module_path(Some("legacy::part")).key_values(&key_values);
    crate::log_bridge::Bridge.log(&record.args(format_args!("a record")).build());
}

#[cfg(feature = "log")]
#[test]
fn key_values_of_a_log_record_keep_their_types() {
    use log::kv::Value as Kv;
    let error = crate::FlushError { timeout: std::time::Duration::ZERO };
    let long = "€".repeat(5000);
    let pairs = [
        ("int", Kv::from(-5)),
        ("large", Kv::from(u64::MAX)),
        ("huge", Kv::from(u128::MAX)),
        ("double", Kv::from(0.5)),
        ("truth", Kv::from(true)),
        ("letter", Kv::from('€')),
        ("text", Kv::from("as it is")),
        ("debug", Kv::from_debug(&Some(1))),
        ("display", Kv::from_display(&error)),
        ("error", Kv::from_dyn_error(&error)),
        ("nothing", Kv::null()),
        ("", Kv::from("an empty key")),
        ("int", Kv::from("the second of a name")),
        ("target", Kv::from("the record has its own")),
        ("long", Kv::from(&*long)),
    ];
    let (bench, layer) = Bench::new();
    tracing::dispatcher::with_default(&dispatch(layer), || log_with(&pairs[..]));
    let records = bench.records();
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.message(), record.text("target")), ("a record", "legacy"));
    assert_eq!(record.text("code.namespace"), "legacy::part");
    assert_eq!((record.int("int"), record.get("double")), (-5, Some(&Value::DoubleValue(0.5))));
    assert_eq!(record.get("truth"), Some(&Value::BoolValue(true)));
    assert_eq!((record.text("large"), record.text("huge")), (&*u64::MAX.to_string(), &*u128::MAX.to_string()));
    assert_eq!((record.text("letter"), record.text("text"), record.text("")), ("€", "as it is", "an empty key"));
    assert_eq!((record.text("debug"), record.text("display")), ("Some(1)", &*error.to_string()));
    assert_eq!((record.text("error"), record.text("exception.message")), (&*error.to_string(), &*error.to_string()));
    assert_eq!(record.get("nothing"), None);
    assert!(record.text("long").starts_with("€€") && record.text("long").ends_with("…[truncated, 10905 bytes]"));
    // Two left out, one cut.
    assert_eq!(bench.metrics.snapshot().truncated, 3);
}

#[cfg(feature = "log")]
#[test]
fn key_values_of_a_log_record_hide_those_of_its_spans() {
    let (bench, layer) = Bench::new();
    tracing::dispatcher::with_default(&dispatch(layer), || {
        let _span = tracing::info_span!("request", user = "of the span", id = 5).entered();
        log_with([("user", "of the record")]);
        log_with(None::<(&str, &str)>);
        tracing::info!("no record");
    });
    let records = bench.records();
    let shown: Vec<_> = records.iter().map(|record| (record.text("user"), record.int("id"))).collect();
    assert_eq!(shown, [("of the record", 5), ("of the span", 5), ("of the span", 5)]);
}

#[cfg(feature = "log")]
#[test]
fn rules_know_the_key_values_of_a_log_record() {
    let rules = "filter = \"info\"\n[[rule]]\nname = \"r\"\nwhen = 'user=bob'\nthen = \"drop\"\n\
                 [[rule]]\nname = \"s\"\nthen = { redact = [\"user\"] }";
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    tracing::dispatcher::with_default(&dispatch(layer), || {
        ["alice", "bob"].iter().for_each(|user| log_with([("user", *user)]));
    });
    let records = bench.records();
    assert_eq!(records.len(), 1);
    assert_ne!(records[0].text("user"), "alice", "redacted");
}

#[cfg(feature = "log")]
#[test]
fn key_values_of_a_log_record_are_redacted_as_fields_are() {
    let capture = Capture { redact: crate::FieldNames::new(["password"]).unwrap(), ..Capture::default() };
    let (bench, layer) = Bench::with("filter = \"info\"", 4, capture);
    tracing::dispatcher::with_default(&dispatch(layer), || {
        log_with([("password", "hunter2"), ("password.old", "hunter1"), ("user", "alice")]);
    });
    let records = bench.records();
    assert_eq!((records[0].text("password"), records[0].text("password.old")), ("[redacted]", "[redacted]"));
    assert_eq!(records[0].text("user"), "alice");
}

#[cfg(feature = "log")]
#[test]
fn more_key_values_than_there_is_room_for_are_left_out_and_counted() {
    let long = "x".repeat(4000);
    let names: Vec<_> = (0..10).map(|number| format!("key{number}")).collect();
    let pairs: Vec<_> = names.iter().map(|name| (&**name, &*long)).collect();
    let (bench, layer) = Bench::new();
    tracing::dispatcher::with_default(&dispatch(layer), || log_with(&pairs[..]));
    let records = bench.records();
    let shown = records[0].attributes.keys().filter(|key| key.starts_with("key")).count();
    assert_eq!((shown, bench.metrics.snapshot().truncated), (4, 6));
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

#[cfg(feature = "opentelemetry")]
#[test]
fn the_trace_is_shown_wherever_the_other_layer_stands() {
    use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let sampled = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).build();
    let unsampled = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
    let event = || {
        let span = tracing::info_span!("request");
        let _within = span.clone().entered();
        tracing::info!("inside");
        let context = span.context();
        let span = context.span();
        (span.span_context().trace_id().to_bytes().to_vec(), span.span_context().span_id().to_bytes().to_vec())
    };
    for (provider, flags) in [(&sampled, 1), (&unsampled, 0)] {
        for above in [true, false] {
            let (bench, layer) = Bench::new();
            let (trace, span) = if above {
                let registry = Registry::default()
                    .with(layer.filtered())
                    .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
                tracing::subscriber::with_default(registry, event)
            } else {
                let registry = Registry::default()
                    .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")))
                    .with(layer.filtered());
                tracing::subscriber::with_default(registry, event)
            };
            let records = bench.records();
            let record = &records.iter().find(|record| record.message() == "inside").unwrap().raw;
            assert_eq!((&record.trace_id, &record.span_id), (&trace, &span), "flags {flags}, above {above}");
            assert_eq!((record.trace_id.len(), record.flags), (16, flags), "above {above}");
        }
    }
    // A subscriber without the other layer has no traces.
    let (bench, layer) = Bench::new();
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        tracing::info_span!("request").in_scope(|| tracing::info!("inside"));
    });
    let records = bench.records();
    assert_eq!((records[0].raw.trace_id.len(), records[0].raw.span_id.len(), records[0].raw.flags), (0, 0, 0));
}
