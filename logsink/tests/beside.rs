//! `layer()` in somebody else's subscriber: each gets what it wants, whatever the other wants, before and after the
//! library has ended.

#![cfg(feature = "grpc")]

#[path = "support/otlp_server.rs"]
mod otlp_server;

use std::{
    fs,
    sync::{Arc, Mutex},
};

use otlp_server::{OtlpServer, PATIENCE, text, wait_until};
use tracing::{Event, Level, Subscriber, debug, error, field::Field, info, info_span, trace, warn};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// The application's own layer: notes the number of each event, and whether its span was there.
#[derive(Clone, Default)]
struct Own(Arc<Mutex<Vec<(i64, bool)>>>);

impl Own {
    fn take(&self) -> Vec<(i64, bool)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Own {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        struct Number(Option<i64>);
        impl tracing::field::Visit for Number {
            fn record_i64(&mut self, field: &Field, value: i64) {
                if field.name() == "n" {
                    self.0 = Some(value);
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut number = Number(None);
        event.record(&mut number);
        self.0.lock().unwrap().extend(number.0.map(|number| (number, context.lookup_current().is_some())));
    }
}

/// Five events, one of each level, in a debug span.
fn emit(first: i64) {
    let span = tracing::debug_span!("work", job = first);
    let _within = span.enter();
    error!(n = first, "an error");
    warn!(n = first + 1, "a warning");
    info!(n = first + 2, "a notice");
    debug!(n = first + 3, "a detail");
    trace!(n = first + 4, "a step");
}

#[test]
fn each_layer_gets_what_it_wants() {
    let server = OtlpServer::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.toml");
    let (layer, guard) = logsink::builder()
        .alone()
        .endpoint(server.url())
        .filter("beside=warn")
        .rules(format!("file:{}", file.display()))
        .layer()
        .unwrap();
    let own = Own::default();
    let subscriber = tracing_subscriber::registry().with(own.clone().with_filter(LevelFilter::DEBUG)).with(layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let rules = |text: &str| {
        let before = guard.rules().revision;
        fs::write(&file, text).unwrap();
        wait_until("the rules", || guard.rules().revision != before);
    };
    let sent = || {
        guard.flush(PATIENCE).unwrap();
        server.numbers()
    };

    // logsink wants less than the application.
    emit(0);
    assert_eq!(own.take(), [(0, true), (1, true), (2, true), (3, true)]);
    assert_eq!(sent(), [0, 1]);
    // More than the application.
    rules("filter = \"beside=trace\"");
    assert!(tracing::enabled!(Level::TRACE));
    emit(10);
    assert_eq!(own.take(), [(10, true), (11, true), (12, true), (13, true)]);
    assert_eq!(sent(), [0, 1, 10, 11, 12, 13, 14]);
    let records = server.records();
    let step = records.iter().find(|record| otlp_server::number(&record.attributes) == Some(14)).unwrap();
    assert_eq!(text(&step.attributes, "span.name").as_deref(), Some("work"));
    // Nothing at all.
    rules("filter = \"off\"");
    emit(20);
    assert_eq!(own.take(), [(20, true), (21, true), (22, true), (23, true)]);
    assert_eq!(sent().len(), 7);
    // By what the events hold.
    rules("filter = \"beside=info\"\n[[rule]]\nname = \"no warnings\"\nwhen = 'n=31'\nthen = \"drop\"");
    emit(30);
    assert_eq!(own.take(), [(30, true), (31, true), (32, true), (33, true)]);
    assert_eq!(sent()[7..], [30, 32]);

    // A second pipeline in the same process, for a part of the program only.
    let other = OtlpServer::start();
    let (layer, second) = logsink::builder().alone().endpoint(other.url()).filter("beside=error").layer().unwrap();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || emit(40));
    second.shutdown(PATIENCE).unwrap();
    assert_eq!((other.numbers(), sent().len(), own.take()), (vec![40], 9, vec![]));
    emit(50);
    assert_eq!(own.take(), [(50, true), (51, true), (52, true), (53, true)]);
    assert_eq!(sent()[9..], [50, 51, 52]);

    // The library ends; the subscriber goes on, also in a span that was entered before.
    let span = info_span!("long");
    let within = span.enter();
    drop(guard);
    info!(n = 60, "after the end");
    drop(within);
    emit(70);
    assert_eq!(own.take(), [(60, true), (70, true), (71, true), (72, true), (73, true)]);
    assert_eq!(server.numbers().len(), 12);
}
