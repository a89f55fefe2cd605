//! What an event gets from the spans around it.

use tracing::{field::Empty, info, info_span};

use super::*;

#[test]
fn fields_of_all_spans_are_shown_under_their_names() {
    let records = Bench::run(|| {
        info!("outside");
        let root = info_span!("request", method = "GET", id = 7).entered();
        let leaf = info_span!("query", table = %"users", float = 0.5, yes = true).entered();
        info!("inside");
        drop(leaf);
        info!("again in the root");
        drop(root);
        info!("outside again");
    });
    let [before, inside, root, after] = &records[..] else { panic!("{records:?}") };
    for outside in [before, after] {
        assert_eq!(outside.get("span.name"), None);
        assert_eq!(outside.get("id"), None);
    }
    assert_eq!((inside.text("span.name"), inside.text("span.path")), ("query", "request:query"));
    assert_eq!((inside.text("method"), inside.int("id"), inside.text("table")), ("GET", 7, "users"));
    assert_eq!(
        (inside.get("float"), inside.get("yes")),
        (Some(&Value::DoubleValue(0.5)), Some(&Value::BoolValue(true)))
    );
    assert_eq!((root.text("span.name"), root.text("span.path")), ("request", "request"));
    assert_eq!(root.get("table"), None);
}

#[test]
fn of_one_name_the_innermost_is_shown() {
    let records = Bench::run(|| {
        info_span!("a", x = "outer", y = "outer", target = "span", thread.id = "span").in_scope(|| {
            info_span!("b", x = "inner", span.name = "span").in_scope(|| {
                info!("none of its own");
                info!(y = "event", span.path = "event", "one of its own");
                info!(x = Option::<i64>::None, "declared but absent");
            });
        });
    });
    let [none, own, absent] = &records[..] else { panic!("{records:?}") };
    assert_eq!((none.text("x"), none.text("y")), ("inner", "outer"));
    assert_eq!((none.text("target"), none.text("span.name")), (module_path!(), "b"));
    assert!(none.int("thread.id") > 0);
    assert_eq!((own.text("x"), own.text("y"), own.text("span.path")), ("inner", "event", "event"));
    assert_eq!(absent.text("x"), "inner");
}

#[test]
fn values_recorded_later_are_shown_from_then_on() {
    let records = Bench::run(|| {
        let outer = info_span!("outer", status = Empty, tries = 1);
        let _outer = outer.clone().entered();
        let _inner = info_span!("inner").entered();
        info!("before");
        outer.record("status", 200);
        info!("after");
        outer.record("tries", 2);
        info!("replaced");
    });
    let [before, after, replaced] = &records[..] else { panic!("{records:?}") };
    assert_eq!(before.get("status"), None);
    assert_eq!((after.int("status"), after.int("tries")), (200, 1));
    assert_eq!((replaced.int("status"), replaced.int("tries")), (200, 2));
}

#[test]
fn a_value_recorded_on_another_thread_is_shown() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        let span = info_span!("shared", status = Empty);
        let _inside = span.clone().entered();
        info!("before");
        std::thread::scope(|scope| {
            scope.spawn(|| tracing::dispatcher::with_default(&dispatch, || span.record("status", "done")));
        });
        info!("after");
    });
    let records = bench.records();
    assert_eq!(records[0].get("status"), None);
    assert_eq!(records[1].text("status"), "done");
}

#[test]
fn an_explicit_parent_goes_before_the_current_span() {
    let records = Bench::run(|| {
        let other = info_span!("other", who = "other");
        let _current = info_span!("current", who = "current").entered();
        info!("current");
        info!(parent: &other, "explicit");
        info!("current again");
        info!(parent: None, "none");
        info_span!(parent: &other, "child").in_scope(|| info!("child"));
    });
    let [current, explicit, again, none, child] = &records[..] else { panic!("{records:?}") };
    assert_eq!((current.text("who"), again.text("who")), ("current", "current"));
    assert_eq!((explicit.text("who"), explicit.text("span.path")), ("other", "other"));
    assert_eq!((none.get("who"), none.get("span.name")), (None, None));
    assert_eq!((child.text("who"), child.text("span.path")), ("other", "other:child"));
}

#[test]
fn a_span_moves_across_threads() {
    let (bench, layer) = Bench::new();
    let dispatch = dispatch(layer);
    let span = tracing::dispatcher::with_default(&dispatch, || info_span!("task", id = 1));
    for turn in 0..4 {
        let (dispatch, span) = (dispatch.clone(), span.clone());
        std::thread::spawn(move || {
            tracing::dispatcher::with_default(&dispatch, || {
                info!("before");
                span.in_scope(|| info!(turn, "polled"));
                info!("after");
            });
        })
        .join()
        .unwrap();
    }
    let records = bench.records();
    assert_eq!(records.len(), 12);
    for record in &records {
        let inside = record.message() == "polled";
        assert_eq!(record.get("id").is_some(), inside, "{record:?}");
        assert_eq!(record.get("span.name").is_some(), inside);
    }
}

#[test]
fn spans_may_be_left_in_any_order() {
    let records = Bench::run(|| {
        let (a, b) = (info_span!("a"), info_span!("b"));
        let a1 = a.clone().entered();
        let b1 = b.clone().entered();
        info!("1");
        drop(a1);
        info!("2");
        let a2 = a.clone().entered();
        info!("3");
        drop(b1);
        info!("4");
        drop(a2);
        info!("5");
    });
    let names: Vec<_> =
        records.iter().map(|record| record.get("span.name").map(|_| record.text("span.name"))).collect();
    assert_eq!(names, [Some("b"), Some("b"), Some("a"), Some("a"), None]);
}

#[test]
fn a_span_entered_twice_stays_where_it_was() {
    let (bench, layer) = Bench::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let registry = Registry::default().with(layer.filtered()).with(Witness(seen.clone()));
    tracing::subscriber::with_default(registry, || {
        let (a, b) = (info_span!("a"), info_span!("b"));
        let a1 = a.clone().entered();
        let b1 = b.clone().entered();
        let a2 = a.clone().entered();
        info!("1");
        drop(a2);
        info!("2");
        drop(b1);
        info!("3");
        drop(a1);
    });
    let records = bench.records();
    let names: Vec<_> = records.iter().map(|record| record.text("span.name").to_owned()).collect();
    assert_eq!(names, *seen.lock().unwrap(), "the registry agrees");
    assert_eq!(names, ["b", "b", "a"]);
}

/// Notes the span that the registry takes for current.
struct Witness(Arc<Mutex<Vec<String>>>);

impl<S> tracing_subscriber::Layer<S> for Witness
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_event(&self, event: &tracing::Event<'_>, context: tracing_subscriber::layer::Context<'_, S>) {
        let name = context.event_span(event).map_or("", |span| span.name());
        self.0.lock().unwrap().push(name.to_owned());
    }
}

#[test]
fn ids_that_are_used_again_show_the_new_span() {
    // The registry gives an id again after some thousand spans in the same place.
    let (bench, layer) = Bench::new();
    let mut ids = BTreeMap::new();
    let mut again = 0;
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        for turn in 0..40_000u64 {
            let span = info_span!("short", turn);
            let id = span.id().unwrap().into_u64();
            let _inside = span.entered();
            // Log in the first span of an id and in the first that has it again: the thread's context must not survive.
            if turn == 0 || ids.get(&id) == Some(&0) {
                info!(expected = turn, "short");
                again += u32::from(turn > 0);
            }
            ids.entry(id).or_insert(turn);
            if again == 1 {
                break;
            }
        }
    });
    let records = bench.records();
    for record in &records {
        assert_eq!(record.int("turn"), record.int("expected"));
    }
    assert_eq!(records.len() as u32, 1 + again);
    assert_eq!(again, 1, "no id was used again: the test shows nothing");
}

#[test]
fn the_id_of_an_explicit_parent_may_be_used_again() {
    let (bench, layer) = Bench::new();
    let mut first = None;
    let mut again = false;
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        for turn in 0..40_000u64 {
            let span = info_span!("short", turn);
            let id = span.id();
            if turn == 0 {
                first = id;
                // The thread never enters this span, so nothing tells it that the span closes.
                info!(parent: &span, expected = turn, "parent");
            } else if id == first {
                span.in_scope(|| info!(expected = turn, "inside"));
                again = true;
                break;
            }
        }
    });
    assert!(again, "no id was used again: the test shows nothing");
    let records = bench.records();
    assert_eq!(records.iter().map(Record::message).collect::<Vec<_>>(), ["parent", "inside"]);
    for record in &records {
        assert_eq!(record.int("turn"), record.int("expected"));
    }
}

#[test]
fn values_recorded_for_spans_around_are_told_from_those_of_others() {
    let (bench, layer) = Bench::new();
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let (outer, other) = (info_span!("outer", status = Empty), info_span!("other", status = Empty));
        let _outer = outer.clone().entered();
        let _inner = info_span!("inner").entered();
        for n in 0..3 {
            info!("before");
            other.record("status", n);
            info!("another's");
            outer.record("status", n);
            info!("an outer one's");
        }
    });
    let seen: Vec<_> =
        bench.records().iter().map(|record| record.get("status").map(|_| record.int("status"))).collect();
    assert_eq!(
        seen,
        [None, None, Some(0), Some(0), Some(0), Some(1), Some(1), Some(1), Some(2)],
        "each value from its record on"
    );
}

#[test]
fn two_layers_see_the_same_spans() {
    let (first, first_layer) = Bench::new();
    let (second, second_layer) = Bench::with("filter = \"warn\"", 8, Capture::default());
    let registry = Registry::default().with(first_layer.filtered()).with(second_layer.filtered());
    tracing::subscriber::with_default(registry, || {
        let _outer = tracing::warn_span!("outer", a = 1).entered();
        for turn in 0..1_000 {
            let _inner = info_span!("inner", turn).entered();
            tracing::warn!("both");
            info!("first");
        }
    });
    let (first, second) = (first.records(), second.records());
    assert_eq!((first.len(), second.len()), (2_000, 1_000));
    assert_eq!((first[0].text("span.path"), second[0].text("span.path")), ("outer:inner", "outer"));
    assert_eq!((first[1999].int("turn"), second[999].get("turn")), (999, None));
    assert_eq!((first[1999].int("a"), second[999].int("a")), (1, 1));
}

#[test]
fn names_that_meet_are_settled_as_documented() {
    let (bench, layer) = Bench::new();
    tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
        let outer = tracing::info_span!(
            "outer",
            both = "outer",
            mine = "outer",
            late = "outer",
            only = 1,
            message = "of the span"
        );
        let _outer = outer.enter();
        let inner = tracing::info_span!(
            "inner",
            both = "inner",
            late = tracing::field::Empty,
            target = "t",
            thread.id = -1,
            span.name = "s"
        );
        let _inner = inner.enter();
        info!(mine = "event", "first");
        inner.record("late", "inner");
        inner.record("both", "again");
        info!(thread.id = "own", "second");
    });
    let records = bench.records();
    let [first, second] = &records[..] else { panic!("{records:?}") };
    let texts = |record: &Record| ["both", "mine", "late", "message"].map(|key| record.text(key).to_owned());
    assert_eq!(texts(first), ["inner", "event", "outer", "of the span"]);
    assert_eq!(texts(second), ["again", "outer", "inner", "of the span"]);
    assert_eq!((first.message(), first.int("only"), first.text("target")), ("first", 1, module_path!()));
    assert_eq!((first.text("span.name"), first.text("span.path")), ("inner", "outer:inner"));
    assert!(first.int("thread.id") > 0);
    assert_eq!(second.text("thread.id"), "own");
}

#[test]
fn only_the_chosen_fields_of_spans_are_sent() {
    use crate::{FieldNames, SpanFields};
    let sent = |span_fields| {
        let (bench, layer) = Bench::with("filter = \"trace\"", 4, Capture { span_fields, ..Capture::default() });
        tracing::subscriber::with_default(Registry::default().with(layer.filtered()), || {
            let span =
                tracing::info_span!("request", user = "ada", http.path = "/", other = 1, late = tracing::field::Empty);
            let _entered = span.enter();
            span.record("late", 2);
            info!(other = 3, "inside");
        });
        let record = bench.records().remove(0);
        assert_eq!(
            (record.text("span.name"), record.int("other")),
            ("request", 3),
            "an event's own fields are always sent"
        );
        ["user", "http.path", "late"].map(|key| record.get(key).is_some())
    };
    let only = |names: &[&str]| SpanFields::Only(FieldNames::new(names.iter().copied()).unwrap());
    assert_eq!(sent(SpanFields::All), [true; 3]);
    assert_eq!(sent(SpanFields::None), [false; 3]);
    assert_eq!(sent(only(&["user", "HTTP"])), [true, true, false]);
    assert_eq!(sent(only(&["*a*e*"])), [false, false, true]);
}
