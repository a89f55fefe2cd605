//! Rules: decided by callsite where possible, by values where not, and changed while the process runs.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Level, debug, error, info, info_span, warn};

use super::*;

/// Another layer of the same subscriber: counts what it is shown.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Counter {
    fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn messages(bench: &Bench) -> Vec<String> {
    bench.records().iter().map(|record| record.message().to_owned()).collect()
}

#[test]
fn rules_see_values_spans_and_the_message() {
    let rules = r#"
        filter = "info"
        [[rule]]
        name = "slow"
        when = 'latency_ms>250 tenant=acme'
        then = "keep"
        [[rule]]
        name = "health"
        when = '"health check" or path~"^/ready" or ok=true or service=other'
        then = "drop"
    "#;
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    tracing::dispatcher::with_default(&dispatch(layer), || {
        info!(path = "/ready", "1");
        info!(path = "/api", "2");
        info!("the health check passed");
        info!(ok = true, "4");
        info!(ok = false, "5");
        debug!(latency_ms = 300, "6");
        let _span = info_span!("request", tenant = "acme").entered();
        debug!(latency_ms = 300, "7");
        debug!(latency_ms = 200.5, "8");
        info!(latency_ms = 251.5, ok = true, "9");
    });
    assert_eq!(messages(&bench), ["2", "5", "7", "9"]);
    assert_eq!(bench.dropped(Reason::FilteredByRule), 3);
    assert_eq!(bench.dropped(Reason::FilteredByBase), 2);
    assert_eq!(bench.reload.active().rules.counts(), [("slow", 2), ("health", 3)]);
}

#[test]
fn levels_are_set_and_secrets_taken_out() {
    let rules = r#"
        [[rule]]
        name = "secrets"
        when = 'exists(password)'
        then = { redact = ["password", "user", "message"] }
        [[rule]]
        name = "loud"
        when = 'code=500'
        then = { set_level = "error" }
    "#;
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    tracing::dispatcher::with_default(&dispatch(layer), || {
        let _span = info_span!("request", user.email = "a@b", method = "GET").entered();
        info!(password = "x", code = 500, "secret x");
        info!(code = 200, "fine");
    });
    let records = bench.records();
    let [secret, fine] = &records[..] else { panic!("{records:?}") };
    assert_eq!(
        (secret.text("password"), secret.text("user.email"), secret.message()),
        ("[redacted]", "[redacted]", "[redacted]")
    );
    assert_eq!((secret.text("method"), secret.int("code"), secret.text("target")), ("GET", 500, module_path!()));
    assert_eq!((secret.raw.severity_number, &*secret.raw.severity_text), (17, "ERROR"));
    assert_eq!((fine.text("user.email"), fine.message(), fine.raw.severity_number), ("a@b", "fine", 9));
}

#[test]
fn a_swap_changes_interest_at_once() {
    let (bench, layer) = Bench::with("filter = \"info\"", 4, Capture::default());
    let dispatch = dispatch(layer);
    tracing::dispatcher::with_default(&dispatch, || {
        let log = |step: i32| {
            debug!("debug {step}");
            info!("info {step}");
        };
        log(1);
        bench.reload.apply(&[document("filter = \"debug\"")], "2").unwrap();
        log(2);
        bench.reload.apply(&[document("filter = \"warn\"")], "3").unwrap();
        log(3);
        bench.reload.apply(&[document("[[rule]]\nname = \"r\"\nwhen = '\"info 4\"'\nthen = \"drop\"")], "4").unwrap();
        log(4);
        bench.reload.apply(&[], "5").unwrap();
        log(5);
    });
    assert_eq!(messages(&bench), ["info 1", "debug 2", "info 2", "info 5"]);
    assert_eq!(bench.dropped(Reason::FilteredByBase), 0, "what no rule wants does not come as far as the layer");
}

#[test]
fn an_event_that_no_rule_wants_is_disabled_in_tracing_itself() {
    struct Callsite;
    impl tracing_core::callsite::Callsite for Callsite {
        fn set_interest(&self, _: tracing_core::Interest) {}
        fn metadata(&self) -> &tracing_core::Metadata<'_> {
            &META
        }
    }
    static META: tracing_core::Metadata<'static> = tracing_core::metadata! {
        name: "event", target: "noisy", level: Level::INFO, fields: &["message"], callsite: &Callsite, kind: tracing_core::Kind::EVENT,
    };
    let (bench, layer) = Bench::with("filter = \"info\"", 4, Capture::default());
    let dispatch = dispatch(layer);
    assert!(dispatch.register_callsite(&META).is_always());
    for when in ["target=noisy", "level<warn", "target~\"^noi\""] {
        let text = format!("filter = \"info\"\n[[rule]]\nname = \"r\"\nwhen = '{when}'\nthen = \"drop\"");
        bench.reload.apply(&[document(&text)], when).unwrap();
        assert!(dispatch.register_callsite(&META).is_never(), "{when}");
    }
    bench.reload.apply(&[document("filter = \"noisy=off\"")], "off").unwrap();
    assert!(dispatch.register_callsite(&META).is_never());
    bench.reload.apply(&[], "none").unwrap();
    assert!(dispatch.register_callsite(&META).is_always());
}

#[test]
fn a_swap_while_threads_log_loses_and_doubles_nothing() {
    const EVENTS: u64 = 20_000;
    let (bench, layer) = Bench::with("filter = \"info\"", 1024, Capture::default());
    let dispatch = dispatch(layer);
    std::thread::scope(|scope| {
        let logger = scope.spawn(|| {
            tracing::dispatcher::with_default(&dispatch, || {
                for number in 0..EVENTS {
                    info!(number, "numbered");
                }
            });
        });
        let documents = [
            document("filter = \"info\"\n[[rule]]\nname = \"r\"\nwhen = 'number<0'\nthen = \"drop\""),
            document("filter = \"trace\""),
        ];
        // `tracing` asks the current subscriber alone when it knows of no other, so the swapping thread needs it too.
        tracing::dispatcher::with_default(&dispatch, || {
            let mut turn = 0;
            while !logger.is_finished() {
                turn += 1;
                bench.reload.apply(&[documents[turn % 2].clone()], &turn.to_string()).unwrap();
            }
        });
    });
    let numbers: Vec<_> = bench.records().iter().map(|record| record.int("number") as u64).collect();
    assert!(numbers.iter().copied().eq(0..EVENTS), "{} of {EVENTS} in another order", numbers.len());
}

#[test]
fn other_layers_see_everything() {
    let (bench, layer) = Bench::with(
        "filter = \"warn\"\n[[rule]]\nname = \"r\"\nwhen = 'level>=error'\nthen = \"drop\"",
        4,
        Capture::default(),
    );
    let counter = Counter::default();
    let registry = Registry::default().with(layer.filtered()).with(counter.clone());
    tracing::subscriber::with_default(registry, || {
        for _ in 0..3 {
            debug!("no");
            info!("no");
            warn!("yes");
            error!("dropped by rule");
        }
    });
    assert_eq!(messages(&bench), ["yes", "yes", "yes"]);
    assert_eq!(counter.0.load(Ordering::Relaxed), 12);
}

#[test]
fn a_sole_layer_speaks_for_its_subscriber() {
    let (bench, layer) = Bench::with("filter = \"info\"", 4, Capture::default());
    let dispatch = Dispatch::new(Registry::default().with(layer.sole()));
    tracing::dispatcher::with_default(&dispatch, || {
        let log = || {
            let _span = info_span!("request", id = 5).entered();
            debug!("details");
            info!(target: "noisy", "noise");
            info!("request finished");
            (tracing::enabled!(Level::DEBUG), tracing::enabled!(Level::INFO))
        };
        assert_eq!(log(), (false, true));
        let rules = "filter = \"debug\"\n[[rule]]\nname = \"r\"\nwhen = 'target=noisy'\nthen = \"drop\"";
        bench.reload.apply(&[document(rules)], "r1").unwrap();
        assert_eq!(log(), (true, true));
        bench.reload.apply(&[document("filter = \"off\"")], "r2").unwrap();
        assert_eq!(log(), (false, false));
    });
    let records = bench.records();
    let messages: Vec<_> = records.iter().map(Record::message).collect();
    assert_eq!(messages, ["noise", "request finished", "details", "request finished"]);
    assert!(records.iter().all(|record| record.int("id") == 5));
    assert_eq!(bench.metrics.snapshot().lost(), 0, "what is disabled is not an event");
}

#[test]
fn another_layers_filter_and_ours_do_not_disturb_each_other() {
    let (bench, layer) = Bench::with("filter = \"warn\"", 4, Capture::default());
    let counter = Counter::default();
    let theirs =
        counter.clone().with_filter(tracing_subscriber::filter::filter_fn(|meta| *meta.level() != Level::WARN));
    let registry = Registry::default().with(theirs).with(layer.filtered());
    tracing::subscriber::with_default(registry, || {
        for _ in 0..3 {
            info!("theirs");
            warn!("ours");
            error!("both");
        }
    });
    assert_eq!(messages(&bench), ["ours", "both"].repeat(3));
    assert_eq!(counter.0.load(Ordering::Relaxed), 6);
}

#[test]
fn a_dropped_event_leaves_its_span_to_the_others() {
    let rules = "filter = \"info\"\n[[rule]]\nname = \"r\"\nwhen = 'level<=info'\nthen = \"drop\"";
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    tracing::dispatcher::with_default(&dispatch(layer), || {
        let _span = info_span!("request", id = 5).entered();
        info!("dropped");
        error!("kept");
    });
    let records = bench.records();
    assert_eq!((records[0].message(), records[0].int("id")), ("kept", 5));
}

#[test]
fn secrets_are_found_in_text_and_long_values_cut_before_anything_is_sent() {
    let rules = r#"
        [[rule]]
        name = "names"
        then = { redact = ["*token*"] }
        [[rule]]
        name = "cards"
        then = { redact = { kinds = ["credit-card", "email"], with = "<hidden>" } }
        [[rule]]
        name = "short"
        then = { cap = { fields = ["note", "message"], bytes_max = 24 } }
    "#;
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    tracing::dispatcher::with_default(&dispatch(layer), || {
        let _span = info_span!("request", user = "ada@example.org", session.Token = 7).entered();
        info!(note = ?["4111 1111 1111 1111"], code = 4_111, "from bob@example.org");
        info!(note = "žluťoučký kůň úpěl ďábelské ódy", "short");
    });
    let records = bench.records();
    let [first, second] = &records[..] else { panic!("{records:?}") };
    assert_eq!((first.text("user"), first.text("session.Token")), ("<hidden>", "[redacted]"));
    assert_eq!((first.message(), first.text("note"), first.int("code")), ("from <hidden>", "[\"<hidden>\"]", 4_111));
    assert_eq!((second.message(), second.text("note")), ("short", "žluťoučký kůň úp…[truncated, 20 bytes]"));
    assert_eq!(second.text("target"), module_path!());
}

#[test]
fn repeats_are_dropped_and_counted_and_the_next_event_tells() {
    let rules = r#"
        [[rule]]
        name = "dup"
        when = 'exists(peer)'
        then = { dedup = { window_ms = 3600000, by = ["callsite", "peer"] } }
    "#;
    let (bench, layer) = Bench::with(rules, 4, Capture::default());
    tracing::dispatcher::with_default(&dispatch(layer), || {
        for number in 0..3 {
            info!(peer = "a", number, "refused");
            info!(peer = "b", number, "refused");
        }
        info!("no peer");
        info!("no peer");
    });
    let records = bench.records();
    let told: Vec<_> = records.iter().map(|record| (record.message(), record.get("logsink.repeated"))).collect();
    // Two callsites with one peer each, and what the rule does not concern.
    assert_eq!(told, [("refused", None), ("refused", None), ("no peer", None), ("no peer", None)]);
    assert_eq!(bench.dropped(Reason::FilteredByRule), 4);
    let mut due: Vec<_> = bench.reload.active().rules.due(u64::MAX).collect();
    due.sort_by(|one, other| one.rule.cmp(&other.rule));
    assert_eq!(
        due.iter().map(|repeated| (repeated.count, &*repeated.message)).collect::<Vec<_>>(),
        [(2, "refused"); 2]
    );
}
