//! Events inside events: `Debug` implementations that log, panic or never stop.

use std::fmt;

use tracing::{field::Value as FieldValue, info, info_span};
use tracing_core::{Event, Kind, Level, Metadata, callsite::Callsite, subscriber::Interest};

use super::*;
use crate::{Severity, metrics::Dropped};

/// Logs through a subscriber while it is being formatted. The macros cannot: inside an event `tracing` hands out no scoped
/// subscriber a second time, though it does hand out a global one.
pub(super) struct Chatty<'d> {
    pub(super) dispatch: &'d Dispatch,
    /// Logs itself so many times over.
    pub(super) depth: u32,
}

impl fmt::Debug for Chatty<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<")?;
        if self.depth > 0 {
            let inner = Chatty { depth: self.depth - 1, ..*self };
            emit(self.dispatch, i64::from(inner.depth), &inner);
        }
        f.write_str(">")
    }
}

/// A callsite by hand, since a macro's event goes to the current subscriber only.
struct ChattyCallsite;

impl Callsite for ChattyCallsite {
    fn set_interest(&self, _: Interest) {}

    fn metadata(&self) -> &Metadata<'_> {
        &CHATTY
    }
}

static CHATTY: Metadata<'static> = tracing_core::metadata! {
    name: "chatty",
    target: module_path!(),
    level: Level::INFO,
    fields: &["message", "depth", "chatty"],
    callsite: &ChattyCallsite,
    kind: Kind::EVENT,
};

/// `info!(depth, ?chatty, "chatty")` to a given subscriber.
pub(super) fn emit(dispatch: &Dispatch, depth: i64, chatty: &dyn fmt::Debug) {
    let field = |name| CHATTY.fields().field(name).unwrap();
    let (message, number, value) = (field("message"), field("depth"), field("chatty"));
    let chatty = tracing::field::debug(chatty);
    dispatch.event(&Event::new(
        &CHATTY,
        &CHATTY.fields().value_set(&[
            (&message, Some(&"chatty" as &dyn FieldValue)),
            (&number, Some(&depth as &dyn FieldValue)),
            (&value, Some(&chatty as &dyn FieldValue)),
        ]),
    ));
}

#[test]
fn an_event_inside_an_event_arrives_too() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        let _span = info_span!("outer", a = 1).entered();
        info!("before");
        emit(&dispatch, 3, &Chatty { dispatch: &dispatch, depth: 3 });
        info!("after");
    });
    let mut depths: Vec<_> = bench
        .records()
        .iter()
        .filter(|record| record.message() == "chatty")
        .map(|record| {
            assert_eq!((record.text("chatty"), record.int("a"), record.text("span.name")), ("<>", 1, "outer"));
            record.int("depth")
        })
        .collect();
    depths.sort_unstable();
    assert_eq!(depths, [0, 1, 2, 3]);
}

#[test]
fn events_nested_without_end_are_counted() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    emit(&dispatch, 1_000_000, &Chatty { dispatch: &dispatch, depth: 1_000_000 });
    assert_eq!(bench.records().len() as u64, 8);
    assert_eq!(bench.dropped(Reason::Reentrant), 1);
}

#[test]
fn values_of_spans_may_log_too() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        let span =
            info_span!("outer", chatty = ?Chatty { dispatch: &dispatch, depth: 1 }, late = tracing::field::Empty);
        span.record("late", tracing::field::debug(Chatty { dispatch: &dispatch, depth: 1 }));
        span.in_scope(|| info!("inside"));
    });
    let records = bench.records();
    assert_eq!(records.len(), 3);
    assert_eq!((records[2].text("chatty"), records[2].text("late")), ("<>", "<>"));
}

/// Panics when it is formatted.
struct Bomb;

impl fmt::Debug for Bomb {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("boom")
    }
}

#[test]
fn a_panic_while_formatting_reaches_the_caller_and_is_counted() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        info!("before");
        for _ in 0..20 {
            let caught = std::panic::catch_unwind(|| tracing::warn!(text = "half", bomb = ?Bomb, "lost"));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"boom"), "the panic is the caller's own");
        }
        // Were the depth not restored, this would be refused.
        info!("after");
    });
    assert_eq!(bench.records().iter().map(Record::message).collect::<Vec<_>>(), ["before", "after"]);
    let dropped = bench.metrics.snapshot().dropped;
    assert_eq!(dropped, [Dropped { reason: Reason::Panicked, severity: Severity::WARN, count: 20 }]);
    assert_eq!(bench.metrics.snapshot().lost(), 20);
}

/// The state is the thread's: an event that its values' panic ended inside another one must not end that one too.
#[test]
fn a_panic_that_a_value_catches_costs_only_the_inner_event() {
    struct Careful<'d>(&'d Dispatch);
    impl fmt::Debug for Careful<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let inner = std::panic::AssertUnwindSafe(|| emit(self.0, 1, &Bomb));
            f.write_str(if std::panic::catch_unwind(inner).is_err() { "caught" } else { "no panic" })
        }
    }
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    emit(&dispatch, 0, &Careful(&dispatch));
    emit(&dispatch, 2, &"after");
    let records = bench.records();
    assert_eq!(records.iter().map(|record| record.int("depth")).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(records[0].text("chatty"), "caught");
    assert_eq!(bench.dropped(Reason::Panicked), 1);
}

#[test]
fn a_panic_in_a_span_s_value_reaches_the_caller_and_leaves_the_span_usable() {
    let (bench, layer) = Bench::new();
    tracing::dispatcher::with_default(&dispatch(layer), || {
        let made = std::panic::catch_unwind(|| info_span!("broken", bomb = ?Bomb));
        assert!(made.is_err());
        let span = info_span!("sound", a = 1, late = tracing::field::Empty);
        let late = std::panic::AssertUnwindSafe(|| {
            span.record("late", tracing::field::debug(Bomb));
        });
        assert!(std::panic::catch_unwind(late).is_err());
        span.in_scope(|| info!("inside"));
        info!("outside");
    });
    let records = bench.records();
    assert_eq!((records[0].message(), records[0].int("a"), records[0].get("late")), ("inside", 1, None));
    assert_eq!((records[1].message(), records[1].get("span.name")), ("outside", None));
}
