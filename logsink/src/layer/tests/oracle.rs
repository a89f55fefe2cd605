//! Events and spans of any shape against an oracle in plain Rust: what the official OTLP types decode is what was given.

mod any;
mod given;

use std::{
    collections::BTreeSet,
    fmt,
    panic::{self, AssertUnwindSafe},
};

use proptest::{prelude::*, sample::select};
use tracing::field::display;
use tracing_core::Level;

use self::{
    any::{fields, huge, level, name, small, spans},
    given::{Fields, Given, Shown, emit, enter},
};
use super::*;

/// A span's values are cut beyond.
const SPAN_VALUE_BYTES_MAX: usize = 4 * 1024;
/// What the spans of an event may add to it.
const CONTEXT_BYTES_MAX: usize = 16 * 1024;
/// Events with less to say than this fit a chunk whatever their context: nothing of them may be cut.
const SURELY_FITS: usize = 24 * 1024;

/// The name under which a field is shown.
fn shown(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// What a record must hold.
struct Expected {
    body: Option<Value>,
    /// The event's own attributes: which may be cut or left out when they are too large.
    own: BTreeMap<String, Value>,
    /// What the callsite, the thread and the spans add.
    around: BTreeMap<String, Value>,
}

fn expected(fields: &Fields, spans: &[Fields]) -> Expected {
    let text = |text: &str| Value::StringValue(text.to_owned());
    let (mut body, mut own, mut names) = (None, BTreeMap::new(), BTreeSet::new());
    let mut exception = None;
    for (name, given) in fields {
        // Of fields with one name the first counts, with or without a value.
        if !names.insert(shown(name)) {
            continue;
        }
        let Some(value) = given.expected() else { continue };
        if shown(name) == "message" {
            body = Some(value);
        } else {
            own.insert(shown(name).to_owned(), value);
        }
        if let (Given::Error(error), "error" | "err") = (given, shown(name)) {
            exception.get_or_insert_with(|| error.to_string());
        }
    }
    if let Some(exception) = exception.filter(|_| !names.contains("exception.message")) {
        own.insert("exception.message".to_owned(), text(&exception));
    }

    let mut around = BTreeMap::new();
    for (name, value) in [
        ("target", text("hand::made")),
        ("code.file.path", text("hand.rs")),
        ("code.line.number", Value::IntValue(7)),
        ("code.namespace", text("hand")),
    ] {
        if !names.contains(name) {
            around.insert(name.to_owned(), value);
        }
    }
    // From the outermost in: the innermost value of a name stays.
    let mut context = BTreeMap::new();
    for span in spans {
        for (name, given) in span {
            if let Some(value) = given.expected() {
                context.insert(shown(name).to_owned(), value);
            }
        }
    }
    for name in ["target", "code.file.path", "code.line.number", "code.namespace"] {
        context.remove(name);
    }
    if !spans.is_empty() {
        context.insert("span.name".to_owned(), text("span"));
        context.insert("span.path".to_owned(), text(&vec!["span"; spans.len()].join(":")));
    }
    let thread = std::thread::current();
    context.extend(thread.name().map(|name| ("thread.name".to_owned(), text(name))));
    let number: String = format!("{:?}", thread.id()).chars().filter(char::is_ascii_digit).collect();
    context.insert("thread.id".to_owned(), Value::IntValue(number.parse().unwrap()));
    // Of a field behind the 64th it is not known whether it has a value: it hides what is around in any case.
    let first = |name: &str| fields.iter().position(|(other, _)| shown(other) == name);
    let late = |name: &str| first(name).is_some_and(|index| index >= 64);
    context.retain(|name, _| !own.contains_key(name) && !late(name));
    around.extend(context);
    Expected { body, own, around }
}

/// Equal, NaN too.
fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::DoubleValue(found), Value::DoubleValue(expected)) => found.to_bits() == expected.to_bits(),
        _ => found == expected,
    }
}

/// A start of it, with the marker where it is text.
fn is_cut(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::StringValue(found), Value::StringValue(expected)) => {
            found.rsplit_once('…').is_some_and(|(start, marker)| {
                expected.starts_with(start) && marker == format!("[truncated, {} bytes]", expected.len() - start.len())
            })
        }
        (Value::BytesValue(found), Value::BytesValue(expected)) => {
            found.len() < expected.len() && expected.starts_with(found)
        }
        _ => false,
    }
}

/// Compares a record with the oracle. Tells how many values were cut or left out, as the record shows it.
fn compare(record: &Record, level: Level, expected: &Expected, fits: bool) -> u64 {
    let number = match level {
        Level::TRACE => 1,
        Level::DEBUG => 5,
        Level::INFO => 9,
        Level::WARN => 13,
        Level::ERROR => 17,
    };
    assert_eq!((record.raw.severity_number, &*record.raw.severity_text), (number, level.as_str()));
    assert!(record.raw.trace_id.is_empty() && record.raw.span_id.is_empty());
    let mut cut = u64::from(record.raw.dropped_attributes_count);
    let mut missing = 0;
    let mut look = |what: &str, found: Option<&Value>, expected: &Value| match found {
        Some(found) if same(found, expected) => {}
        Some(found) if !fits && is_cut(found, expected) => cut += 1,
        None if !fits => missing += 1,
        _ => panic!("{what:?} is {found:?}, not {expected:?}"),
    };
    let body = record.raw.body.as_ref().map(|body| body.value.as_ref().expect("a body has a value"));
    match &expected.body {
        Some(expected) => look("the body", body, expected),
        None => assert_eq!(body, None),
    }
    for (name, value) in &expected.own {
        look(name, record.get(name), value);
    }
    assert_eq!(missing, record.raw.dropped_attributes_count, "what has no room is counted");
    for (name, value) in &expected.around {
        let found = record.get(name).unwrap_or_else(|| panic!("{name:?} is missing beside {:?}", record.attributes));
        if !same(found, value) {
            let long = matches!(value, Value::StringValue(text) if text.len() > SPAN_VALUE_BYTES_MAX)
                || matches!(value, Value::BytesValue(bytes) if bytes.len() > SPAN_VALUE_BYTES_MAX);
            assert!(long && is_cut(found, value), "{name:?} is {found:?}, not {value:?}");
        }
    }
    let known = |name: &&String| expected.own.contains_key(*name) || expected.around.contains_key(*name);
    let others: Vec<_> = record.attributes.keys().filter(|name| !known(name)).collect();
    assert!(others.is_empty(), "nobody gave {others:?}");
    cut
}

/// Emits an event inside spans and compares what comes of it.
fn check(level: Level, fields: &Fields, spans: &[Fields]) {
    let (bench, layer) = Bench::new();
    let before = std::time::SystemTime::now();
    tracing::dispatcher::with_default(&dispatch(layer), || {
        let entered: Vec<_> = spans.iter().map(|span| enter("span", span)).collect();
        emit(level, fields);
        entered.into_iter().rev().for_each(drop);
    });
    let records = bench.records();
    let [record] = &records[..] else { panic!("{} records", records.len()) };
    let age = before.elapsed().unwrap().as_nanos() as i128;
    let now = before.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i128 + age;
    // The clock may be the processor's counter, which is kept within far less than this.
    assert!((now - i128::from(record.raw.time_unix_nano)).abs() <= age + 50_000_000);
    let expected = expected(fields, spans);
    let fits = fields.iter().map(|(name, given)| name.len() + given.bytes()).sum::<usize>() < SURELY_FITS;
    let cut = compare(record, level, &expected, fits);
    let in_spans = spans.iter().flatten().filter(|(_, given)| given.bytes() > SPAN_VALUE_BYTES_MAX).count() as u64;
    assert_eq!(bench.metrics.snapshot().truncated, cut + in_spans, "what is cut or left out is counted");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn an_event_of_any_shape_decodes_to_what_was_given(level in level(), fields in fields(0..12), spans in spans()) {
        check(level, &fields, &spans);
    }
}

// Fewer cases of what is large: a thousand fields take a second unoptimised.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_thousand_fields_arrive_or_are_counted(fields in fields(900..1100)) {
        check(Level::INFO, &fields, &[]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn of_huge_values_what_does_not_fit_is_cut_and_counted(
        before in fields(0..4), huge in prop::collection::vec((name(), huge()), 1..4), after in fields(0..4)
    ) {
        check(Level::ERROR, &[before, huge, after].concat(), &[]);
    }

    #[test]
    fn a_hundred_spans_give_their_innermost_values(
        spans in prop::collection::vec(prop::collection::vec((select(vec!["a", "b", "c", "message"]), small()), 0..3), 100),
        fields in fields(0..4),
    ) {
        check(Level::INFO, &fields, &spans);
    }
}

#[test]
fn ten_megabytes_are_cut_to_what_fits() {
    let text = "žluťoučký kůň 🦀 ".repeat(10_000_000 / 24);
    check(Level::INFO, &vec![("text", Given::Text(text.clone())), ("after", Given::Int(1))], &[]);
    check(Level::INFO, &vec![("message", Given::Displayed(display(Shown { pieces: vec![text], fails: false })))], &[]);
}

#[test]
fn a_value_that_panics_costs_its_own_event_only() {
    struct Panics;
    impl fmt::Debug for Panics {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("so far")?;
            // Without the hook, which would write to the test's output.
            panic::resume_unwind(Box::new("as told"))
        }
    }
    let (bench, layer) = Bench::new();
    tracing::dispatcher::with_default(&dispatch(layer), || {
        for _ in 0..100 {
            let event = || tracing::info!(before = 1, value = ?Panics, after = 2, "panics");
            panic::catch_unwind(AssertUnwindSafe(event)).expect_err("the panic goes on to the caller");
            tracing::info!(a = 1, "follows");
        }
    });
    let records = bench.records();
    assert_eq!(records.len(), 100);
    assert!(records.iter().all(|record| record.message() == "follows" && record.int("a") == 1));
    assert_eq!(bench.dropped(Reason::Panicked), 100);
}
