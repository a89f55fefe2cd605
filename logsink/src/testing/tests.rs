use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

#[test]
fn an_event_reads_as_it_was_written() {
    let capture = capture();
    let _outer = tracing::info_span!("outer", user = "alice", id = 1).entered();
    let _inner = tracing::debug_span!("inner", id = 2).entered();
    tracing::warn!(target: "shop", items = -3, ratio = 0.5, paid = true, cart = ?[1], "cart is {}", "full");
    tracing::trace!("the least");
    let events = capture.events();
    let line = line!() - 3;
    let expected = Event {
        level: Level::WARN,
        target: "shop".to_owned(),
        message: "cart is full".to_owned(),
        fields: [
            ("items", (-3).into()),
            ("ratio", 0.5.into()),
            ("paid", true.into()),
            ("cart", "[1]".into()),
            ("id", 2.into()),
            ("user", "alice".into()),
        ]
        .map(|(key, value): (&str, Value)| (key.to_owned(), value))
        .into(),
        spans: vec!["outer".to_owned(), "inner".to_owned()],
        file: Some(file!().to_owned()),
        line: Some(line),
    };
    assert_eq!(events[0], expected);
    assert_eq!((events[1].level, &*events[1].message), (Level::TRACE, "the least"));
    assert_eq!(capture.events(), events, "none goes away by being looked at");
    assert_eq!(
        events[0].to_string(),
        r#"WARN shop in outer:inner: cart is full items=-3 ratio=0.5 paid=true cart="[1]" id=2 user="alice""#
    );
}

#[test]
fn assertions_tell_what_there_is_instead() {
    let capture = capture();
    tracing::info!("started");
    capture.assert_logged(Level::INFO, "start");
    capture.assert_not_logged(Level::WARN, "start");
    let failure = |assertion: &dyn Fn()| {
        let payload = catch_unwind(AssertUnwindSafe(assertion)).unwrap_err();
        *payload.downcast::<String>().unwrap()
    };
    let missing = failure(&|| capture.assert_logged(Level::WARN, "start"));
    assert!(missing.contains("no event WARN with \"start\"") && missing.contains(": started\n"), "{missing}");
    let unwanted = failure(&|| capture.assert_not_logged(Level::INFO, "start"));
    assert!(unwanted.contains("an event INFO with \"start\""), "{unwanted}");
}

#[test]
fn events_of_other_threads_come_when_they_are_given_the_subscriber() {
    let capture = capture();
    std::thread::scope(|scope| {
        scope.spawn(|| tracing::info!("not ours"));
        scope.spawn(|| tracing::dispatcher::with_default(&capture.dispatch(), || tracing::info!("ours")));
    });
    let messages: Vec<_> = capture.events().into_iter().map(|event| event.message).collect();
    assert_eq!(messages, ["ours"]);
}

#[test]
fn lost_events_fail_the_test_that_looks_at_them() {
    let capture = capture();
    let long = "x".repeat(60 << 10);
    (0..BYTES_MAX / long.len() + 2 * BYTES_MAX / (16 * long.len())).for_each(|_| tracing::info!(long, "too much"));
    let payload = catch_unwind(AssertUnwindSafe(|| capture.events())).unwrap_err();
    assert!(payload.downcast::<String>().unwrap().starts_with("events were lost: "));
}

#[cfg(feature = "log")]
#[test]
fn records_of_the_log_crate_are_captured() {
    let capture = capture();
    log::warn!(target: "legacy", user = "alice"; "a record");
    capture.assert_logged(Level::WARN, "a record");
    let event = &capture.events()[0];
    assert_eq!((&*event.target, event.text("user")), ("legacy", "alice"));
}
