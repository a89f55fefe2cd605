//! Events inside events: `Debug` implementations that log, panic or never stop.

use std::fmt;

use tracing::{field::Value as FieldValue, info, info_span};
use tracing_core::{Event, Kind, Level, Metadata, callsite::Callsite, subscriber::Interest};

use super::*;

/// Logs through a subscriber while it is being formatted. The macros cannot: inside an event `tracing` hands out no scoped
/// subscriber a second time, though it does hand out a global one.
struct Chatty<'d> {
    dispatch: &'d Dispatch,
    /// Logs itself so many times over.
    depth: u32,
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
fn emit(dispatch: &Dispatch, depth: i64, chatty: &dyn fmt::Debug) {
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

#[test]
fn a_panic_while_formatting_spoils_nothing() {
    struct Bomb;
    impl fmt::Debug for Bomb {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("boom")
        }
    }
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        info!("before");
        for _ in 0..20 {
            let caught = std::panic::catch_unwind(|| info!(text = "half", bomb = ?Bomb, "lost"));
            assert!(caught.is_err());
        }
        // Were the depth not restored, this would be refused.
        info!("after");
    });
    assert_eq!(bench.records().iter().map(Record::message).collect::<Vec<_>>(), ["before", "after"]);
    assert_eq!(bench.dropped(Reason::Reentrant), 0);
}
