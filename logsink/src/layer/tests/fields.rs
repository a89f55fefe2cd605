//! What becomes of an event's own fields.

use std::fmt;

use tracing::{debug, error, event, info, trace, warn};

use super::*;

#[derive(Debug)]
struct LoadError;

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot load")
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&fmt::Error)
    }
}

#[test]
fn every_type_of_value_arrives_as_itself() {
    let records = Bench::run(|| {
        info!(
            text = "žlutý",
            signed = -7i64,
            small = 3u8,
            unsigned = u64::MAX,
            wide = u128::MAX,
            narrow = i128::MIN,
            float = 2.5f64,
            yes = true,
            no = false,
            bytes = &[0u8, 255, 7][..],
            debugged = ?Some(1),
            shown = %"plain",
            none = Option::<i64>::None,
            some = Some(9),
            r#type = "raw",
            dotted.name = 1,
            "request {} finished",
            42
        );
    });
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record.message(), "request 42 finished");
    assert_eq!(record.text("text"), "žlutý");
    assert_eq!(record.int("signed"), -7);
    assert_eq!(record.int("small"), 3);
    assert_eq!(record.text("unsigned"), "18446744073709551615");
    assert_eq!(record.text("wide"), u128::MAX.to_string());
    assert_eq!(record.text("narrow"), i128::MIN.to_string());
    assert_eq!(record.get("float"), Some(&Value::DoubleValue(2.5)));
    assert_eq!(record.get("yes"), Some(&Value::BoolValue(true)));
    assert_eq!(record.get("no"), Some(&Value::BoolValue(false)));
    assert_eq!(record.get("bytes"), Some(&Value::BytesValue(vec![0, 255, 7])));
    assert_eq!(record.text("debugged"), "Some(1)");
    assert_eq!(record.text("shown"), "plain");
    assert_eq!(record.get("none"), None);
    assert_eq!(record.int("some"), 9);
    assert_eq!(record.text("type"), "raw");
    assert_eq!(record.int("dotted.name"), 1);
}

#[test]
fn extreme_numbers_keep_their_values() {
    let records = Bench::run(|| {
        info!(a = i64::MIN, b = i64::MAX, c = 127, d = 128, e = 0, f = f64::NEG_INFINITY, g = i64::MAX as u64);
    });
    let record = &records[0];
    assert_eq!(["a", "b", "c", "d", "e", "g"].map(|key| record.int(key)), [i64::MIN, i64::MAX, 127, 128, 0, i64::MAX]);
    assert_eq!(record.get("f"), Some(&Value::DoubleValue(f64::NEG_INFINITY)));
    assert_eq!(record.raw.body, None, "no message, no body");
}

#[test]
fn levels_and_places_are_told() {
    let records = Bench::run(|| {
        trace!("a");
        debug!("a");
        info!("a");
        warn!("a");
        error!(target: "shop::cart", "a");
    });
    let levels: Vec<_> =
        records.iter().map(|record| (record.raw.severity_number, record.raw.severity_text.as_str())).collect();
    assert_eq!(levels, [(1, "TRACE"), (5, "DEBUG"), (9, "INFO"), (13, "WARN"), (17, "ERROR")]);
    assert_eq!(records[0].text("target"), module_path!());
    assert_eq!(records[0].get("code.namespace"), None, "the target says it");
    assert_eq!(records[4].text("target"), "shop::cart");
    assert_eq!(records[4].text("code.namespace"), module_path!());
    assert!(records[0].text("code.file.path").ends_with("fields.rs"));
    assert_eq!(records[1].int("code.line.number"), records[0].int("code.line.number") + 1);
    assert_eq!(records[0].text("thread.name"), std::thread::current().name().unwrap());
    assert!(records[0].int("thread.id") > 0);
}

#[test]
fn an_error_shows_its_sources_and_the_conventional_name() {
    let error: &(dyn std::error::Error + 'static) = &LoadError;
    let records = Bench::run(|| {
        error!(error, "failed");
        error!(err = error, other = error, "failed");
        error!(error, exception.message = "mine", "failed");
        error!(other = error, "failed");
    });
    let chain = format!("cannot load: {}", fmt::Error);
    assert_eq!((records[0].text("error"), records[0].text("exception.message")), (&*chain, "cannot load"));
    assert_eq!((records[1].text("err"), records[1].text("other")), (&*chain, &*chain));
    assert_eq!(records[1].text("exception.message"), "cannot load");
    assert_eq!(records[2].text("exception.message"), "mine");
    assert_eq!(records[3].get("exception.message"), None);
}

#[test]
fn an_events_own_field_stands_in_for_ours() {
    let records = Bench::run(|| {
        info!({ target = "mine", code.line.number = "none", thread.id = 5, span.name = 1 }, "a");
    });
    assert_eq!(records[0].text("target"), "mine");
    assert_eq!(records[0].text("code.line.number"), "none");
    assert_eq!(records[0].int("thread.id"), 5);
}

#[test]
fn a_message_may_be_a_value() {
    let records = Bench::run(|| {
        event!(tracing::Level::INFO, message = 7);
        event!(tracing::Level::INFO, message = "text");
    });
    assert_eq!(records[0].raw.body, Some(AnyValue { value: Some(Value::IntValue(7)) }));
    assert_eq!(records[1].message(), "text");
}

#[test]
fn what_is_not_captured_is_not_sent() {
    let capture = Capture { location: false, thread: false, spans: false, ..Capture::default() };
    let (bench, layer) = Bench::with("filter = \"trace\"", 4, capture);
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        tracing::info_span!("outer", a = 1).in_scope(|| info!(b = 2, "a"));
    });
    let records = bench.records();
    assert_eq!(records[0].attributes.keys().collect::<Vec<_>>(), ["b", "target"]);
}

#[test]
fn a_layer_added_bare_filters_by_itself() {
    let (bench, layer) = Bench::with("filter = \"warn\"", 4, Capture::default());
    tracing::subscriber::with_default(Registry::default().with(layer), || {
        info!("unwanted");
        warn!("wanted");
    });
    let records = bench.records();
    assert_eq!(records.iter().map(Record::message).collect::<Vec<_>>(), ["wanted"]);
    assert_eq!(bench.dropped(Reason::FilteredByBase), 1);
}

#[test]
fn a_value_given_twice_is_sent_once() {
    // Values built by hand may name a field twice, which no macro does.
    let records = Bench::run(|| {
        let span = tracing::info_span!("borrowed", a = tracing::field::Empty);
        let meta = span.metadata().unwrap();
        let field = meta.fields().field("a").unwrap();
        let values = [(&field, Some(&1i64 as &dyn tracing::Value)), (&field, Some(&2i64 as &dyn tracing::Value))];
        tracing_core::Event::dispatch(meta, &meta.fields().value_set(&values));
    });
    assert_eq!(records[0].int("a"), 1);
}

#[test]
fn what_the_settings_redact_is_never_formatted() {
    /// Must not be looked at.
    struct Secret;
    impl fmt::Debug for Secret {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("a secret is formatted")
        }
    }
    let names = ["password", "*secret*", "err", "code.line.number", "request.body"];
    let redact = crate::FieldNames::new(names).unwrap();
    let (bench, layer) = Bench::with("filter = \"trace\"", 4, Capture { redact, ..Capture::default() });
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let span = tracing::info_span!("request", Password = "p", request.body.text = 1, id = 7);
        let _entered = span.enter();
        let err: &(dyn std::error::Error + 'static) = &LoadError;
        info!(password = ?Secret, client_secret = 7, secrets = "text", err, id = true, "seen");
        info!(plain = 1, "seen too");
    });
    let records = bench.records();
    let [first, second] = &records[..] else { panic!("{records:?}") };
    for key in ["password", "client_secret", "secrets", "err", "Password", "request.body.text"] {
        assert_eq!(first.text(key), "[redacted]", "{key}");
    }
    assert_eq!((first.message(), first.get("id")), ("seen", Some(&Value::BoolValue(true))));
    assert_eq!((first.get("exception.message"), first.get("code.line.number")), (None, None));
    assert_eq!((second.int("plain"), second.int("id"), second.text("Password")), (1, 7, "[redacted]"));

    let redact = crate::FieldNames::new(["message", "target"]).unwrap();
    let (bench, layer) = Bench::with("filter = \"trace\"", 4, Capture { redact, ..Capture::default() });
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        info!("a secret {:?}", Secret);
        event!(tracing::Level::INFO, message = 7);
    });
    let records = bench.records();
    assert_eq!([records[0].message(), records[1].message()], ["[redacted]"; 2]);
    assert_eq!(records[0].text("target"), module_path!(), "by which events are found and judged");
}
