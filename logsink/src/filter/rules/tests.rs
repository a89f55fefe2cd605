use super::*;
use crate::filter::{Value, expr::tests::Sample};

fn set(text: &str) -> RuleSet {
    RuleSet::compile(&[Document::parse(text).unwrap()], "checkout").unwrap()
}

fn event(severity: Severity, target: &'static str) -> Sample {
    Sample { severity, target, service: "checkout", message: "hello world", ..Sample::default() }
}

#[test]
fn the_first_rule_that_decides_decides() {
    let set = set(r#"
        filter = "info,hyper=warn"
        [[rule]]
        name = "rescue"
        when = 'user=alice'
        then = "keep"
        [[rule]]
        name = "health"
        when = 'path~"^/health"'
        then = "drop"
        [[rule]]
        name = "late"
        when = 'user=alice'
        then = "drop"
    "#);
    let with = |severity, target, attributes: &[(&'static str, &'static str)]| Sample {
        attributes: attributes.iter().map(|(key, value)| (*key, Value::Text((*value).into()))).collect(),
        ..event(severity, target)
    };
    for (sample, fate) in [
        (with(Severity::INFO, "app", &[]), Fate::Keep),
        (with(Severity::DEBUG, "app", &[]), Fate::DropByFilter),
        (with(Severity::INFO, "hyper", &[]), Fate::DropByFilter),
        (with(Severity::DEBUG, "app", &[("user", "alice")]), Fate::Keep),
        (with(Severity::INFO, "app", &[("path", "/health")]), Fate::DropByRule(1)),
        (with(Severity::INFO, "app", &[("path", "/health"), ("user", "alice")]), Fate::Keep),
        (with(Severity::DEBUG, "app", &[("path", "/health")]), Fate::DropByFilter),
    ] {
        assert_eq!(set.decide(&sample, 0).fate, fate, "{sample:?}");
    }
    assert_eq!(set.counts(), [("rescue", 2), ("health", 1), ("late", 0)]);
}

#[test]
fn redact_and_set_level_apply_before_and_after_the_decision() {
    let set = set(r#"
        [[rule]]
        name = "first"
        then = { redact = ["password", "user"] }
        [[rule]]
        name = "all"
        then = "keep"
        [[rule]]
        name = "second"
        when = '"hello"'
        then = { redact = { fields = ["message"] } }
        [[rule]]
        name = "quieter"
        then = { set_level = "debug" }
        [[rule]]
        name = "not this"
        when = 'level=debug'
        then = { redact = ["other"] }
    "#);
    let sample = event(Severity::INFO, "app");
    let verdict = set.decide(&sample, 0);
    assert_eq!((verdict.fate, verdict.level), (Fate::Keep, Some(Severity::DEBUG)));
    assert_eq!(verdict.redact.fields().collect::<Vec<_>>(), ["password", "user", "message"]);
    for (key, covered) in
        [("password", true), ("user", true), ("user.email", true), ("username", false), ("other", false)]
    {
        assert_eq!(verdict.redact.covers(key), covered, "{key}");
    }
    assert!(Redactions::NONE.is_empty() && !Redactions::NONE.covers("password"));
}

#[test]
fn samples_whole_traces_and_the_asked_share() {
    let set = set("[[rule]]\nname = \"s\"\nthen = { sample = 0.25 }");
    let mut kept = 0;
    for number in 0..10_000_u128 {
        let sample = Sample { trace_id: Some(number.to_be_bytes()), ..event(Severity::INFO, "app") };
        let fate = set.decide(&sample, 0).fate;
        assert_eq!(set.decide(&sample, 0).fate, fate, "the same trace, the same fate");
        kept += usize::from(fate == Fate::Keep);
    }
    assert!((2_400..2_600).contains(&kept), "{kept}");
    let kept = (0..10_000).filter(|_| set.decide(&event(Severity::INFO, "app"), 0).fate == Fate::Keep).count();
    assert!((2_490..2_510).contains(&kept), "{kept}");
    for (rate, expected) in [("0", 0), ("1", 100), ("1.0", 100)] {
        let set = self::set(&format!("[[rule]]\nname = \"s\"\nthen = {{ sample = {rate} }}"));
        let kept = (0..100).filter(|_| set.decide(&event(Severity::INFO, "app"), 0).fate == Fate::Keep).count();
        assert_eq!(kept, expected, "{rate}");
    }
}

#[test]
fn thinning_rules_do_not_widen_the_base_filter() {
    let set = set("[[rule]]\nname = \"s\"\nthen = { sample = 1 }\n[[rule]]\nname = \"k\"\nthen = \"keep\"");
    assert_eq!(set.decide(&event(Severity::DEBUG, "app"), 0).fate, Fate::DropByFilter);
    assert_eq!(set.decide(&event(Severity::INFO, "app"), 0).fate, Fate::Keep);
}

#[test]
fn rate_limits_and_rules_that_end() {
    let set = set(r#"
        [[rule]]
        name = "limit"
        when = 'target=chatty'
        then = { rate_limit = { per_second = 2 } }
        [[rule]]
        name = "tonight"
        until = 1970-01-01T01:00:10+01:00
        then = "drop"
    "#);
    let second = 1_000_000_000;
    let fates = |target, now| (0..4).map(|_| set.decide(&event(Severity::INFO, target), now).fate).collect::<Vec<_>>();
    assert_eq!(fates("chatty", second), [Fate::Keep, Fate::Keep, Fate::DropByRule(0), Fate::DropByRule(0)]);
    assert_eq!(fates("app", 10 * second - 1), [Fate::DropByRule(1); 4]);
    assert_eq!(fates("app", 10 * second), [Fate::Keep; 4]);
    assert_eq!((set.next_expiry(0), set.next_expiry(10 * second)), (Some(10 * second), None));
}

#[test]
fn a_release_decides_nothing_and_is_told() {
    let set = set(r#"
        [[rule]]
        name = "noise"
        when = 'code=404'
        then = "drop"
        [[rule]]
        name = "send the details"
        when = 'code>=400'
        then = "release"
    "#);
    let with = |code| Sample { attributes: vec![("code", Value::Int(code))], ..event(Severity::INFO, "app") };
    for (code, expected) in [(200, (Fate::Keep, false)), (500, (Fate::Keep, true)), (404, (Fate::DropByRule(0), false))]
    {
        let sample = with(code);
        let verdict = set.decide(&sample, 0);
        assert_eq!((verdict.fate, verdict.release), expected, "{code}");
    }
    let facts = Facts { severity: Some(Severity::INFO), target: Some("app"), service: Some("checkout") };
    assert_eq!(set.plan_for(&facts).interest, Interest::Sometimes);
}

#[test]
fn only_rules_for_the_service_are_compiled() {
    let text = "[[rule]]\nname = \"a\"\nservices = [\"cart\", \"checkout\"]\nthen = \"drop\"\n\
                [[rule]]\nname = \"b\"\nservices = [\"cart\"]\nthen = \"drop\"";
    assert_eq!(set(text).counts(), [("a", 0)]);
}

#[test]
fn the_service_document_comes_second_and_its_filter_wins() {
    let global = Document::parse("filter = \"warn\"\n[[rule]]\nname = \"g\"\nthen = \"keep\"").unwrap();
    let own = Document::parse("filter = \"debug\"\n[[rule]]\nname = \"s\"\nthen = \"drop\"").unwrap();
    let set = RuleSet::compile(&[global, own], "checkout").unwrap();
    assert_eq!(set.base().to_string(), "debug");
    assert_eq!(set.counts(), [("g", 0), ("s", 0)]);
}

#[test]
fn interest_is_what_level_target_and_service_settle() {
    let base = "filter = \"info,hyper=warn\"\n";
    let rule = |when: &str, then: &str| format!("[[rule]]\nname = '{when} {then}'\nwhen = '{when}'\nthen = {then}\n");
    let (info, debug) = (Severity::INFO, Severity::DEBUG);
    use Interest::{Always, Never, Sometimes};
    for (rules, expected) in [
        // info app, info hyper, debug app
        (String::new(), [Always, Never, Never]),
        (rule("target=app", "\"drop\""), [Never, Never, Never]),
        (rule("target=app user=1", "\"drop\""), [Sometimes, Never, Never]),
        (rule("target=app", "\"keep\""), [Always, Never, Always]),
        (rule("user=1", "\"keep\""), [Always, Sometimes, Sometimes]),
        (rule("level>=info", "\"keep\"") + &rule("user=1", "\"drop\""), [Always, Always, Never]),
        (rule("user=1", "\"drop\"") + &rule("level>=info", "\"keep\""), [Sometimes, Sometimes, Never]),
        (rule("service=checkout", "\"drop\""), [Never, Never, Never]),
        (rule("service=cart", "\"drop\""), [Always, Never, Never]),
        (rule("", "{ sample = 0.5 }"), [Sometimes, Never, Never]),
        (rule("level=info", "{ redact = [\"x\"] }"), [Sometimes, Never, Never]),
        (rule("level=error", "{ redact = [\"x\"] }"), [Always, Never, Never]),
    ] {
        let set = set(&format!("{base}{rules}"));
        let ask = |severity, target| {
            set.plan_for(&Facts { severity: Some(severity), target: Some(target), service: Some("checkout") }).interest
        };
        assert_eq!([ask(info, "app"), ask(info, "hyper"), ask(debug, "app")], expected, "{rules}");
    }
}

#[test]
fn a_rule_that_expires_leaves_the_callsite_open() {
    let text = |until| format!("[[rule]]\nname = \"a\"\nthen = \"drop\"\nuntil = {until}");
    let facts = Facts { severity: Some(Severity::INFO), target: Some("app"), service: Some("checkout") };
    assert_eq!(set(&text("2999-01-01T00:00:00Z")).plan_for(&facts).interest, Interest::Sometimes);
    assert_eq!(set(&text("1999-01-01T00:00:00Z")).plan_for(&facts).interest, Interest::Always);
}

#[test]
fn events_of_the_log_crate_are_judged_by_their_own_target() {
    let set = set("filter = \"off,app=info\"");
    let facts = Facts { severity: Some(Severity::INFO), target: None, service: Some("checkout") };
    assert_eq!(set.plan_for(&facts).interest, Interest::Sometimes);
    let facts = Facts { severity: Some(Severity::DEBUG), ..facts };
    assert_eq!(set.plan_for(&facts).interest, Interest::Never);
}

#[test]
fn a_plan_decides_as_the_whole_set() {
    let set = set(r#"
        filter = "info"
        [[rule]]
        name = "elsewhere"
        when = 'target=elsewhere'
        then = "drop"
        [[rule]]
        name = "here"
        when = 'target=app user=1'
        then = "drop"
        [[rule]]
        name = "later"
        when = 'level=info'
        then = { redact = ["x"] }
    "#);
    let plan = set.plan_for(&Facts { severity: Some(Severity::INFO), target: Some("app"), service: Some("checkout") });
    assert_eq!(&*plan.rules, [1, 2]);
    for user in [1, 2] {
        let sample = Sample { attributes: vec![("user", Value::Int(user))], ..event(Severity::INFO, "app") };
        assert_eq!(set.decide_by(&plan, &sample, 0).fate, set.decide(&sample, 0).fate);
    }
}

#[test]
fn the_most_verbose_level_comes_from_filter_and_keep_rules() {
    for (text, expected) in [
        ("", LevelFilter::INFO),
        ("filter = \"off\"", LevelFilter::OFF),
        ("filter = \"warn,app=debug\"", LevelFilter::DEBUG),
        ("filter = \"off\"\n[[rule]]\nname = \"k\"\nwhen = 'level>=debug user=1'\nthen = \"keep\"", LevelFilter::DEBUG),
        ("filter = \"off\"\n[[rule]]\nname = \"k\"\nwhen = 'service=other'\nthen = \"keep\"", LevelFilter::OFF),
        ("filter = \"error\"\n[[rule]]\nname = \"k\"\nwhen = 'user=1'\nthen = \"keep\"", LevelFilter::TRACE),
        ("filter = \"fatal\"", LevelFilter::OFF),
    ] {
        assert_eq!(set(text).max_level(), expected, "{text}");
    }
}

#[test]
fn errors_have_line_column_and_hint() {
    for (text, place, message, hint) in [
        ("filter = \"info,hyper=wran\"", (1, 22), "unknown level `wran`", "warn"),
        ("filter = 5", (1, 10), "`filter` takes a string, not a integer", "filter ="),
        ("\nfiler = \"info\"", (2, 1), "unknown key `filer`", "did you mean `filter`?"),
        ("[rule]\nname = \"a\"", (1, 1), "`rule` is not a list", "[[rule]]"),
        ("[[rule]]\nwhen = 'a=1'\nthen = \"drop\"", (1, 1), "without a `name`", "name ="),
        ("[[rule]]\nname = \"a\"", (1, 1), "rule `a` has no `then`", "\"drop\""),
        ("[[rule]]\nname = \"a\"\nthen = \"dorp\"", (3, 8), "`then` cannot be \"dorp\"", "did you mean \"drop\"?"),
        ("[[rule]]\nname = \"a\"\nwhen = 'level>=wran'\nthen = \"drop\"", (3, 16), "unknown level `wran`", "warn"),
        ("[[rule]]\nname = \"a\"\nwhen = \"x=\\\"1\\\" ü\"\nthen = \"drop\"", (3, 8), "at column 7 of `when`", ""),
        ("[[rule]]\nname = \"a\"\nwhen = '''\na=1\nlevel>=wran'''\nthen = \"drop\"", (5, 8), "unknown level", ""),
        ("[[rule]]\nname = \"a\"\nthen = { sample = 1.5 }", (3, 19), "not between 0 and 1", "one event in ten"),
        ("[[rule]]\nname = \"a\"\nthen = { sample = nan }", (3, 19), "takes a number", ""),
        ("[[rule]]\nname = \"a\"\nthen = { smaple = 0.5 }", (3, 10), "unknown key `smaple`", "`sample`"),
        ("[[rule]]\nname = \"a\"\nthen = { sample = 0.5, redact = [\"a\"] }", (3, 8), "exactly one action", ""),
        ("[[rule]]\nname = \"a\"\nthen = { rate_limit = { burst = 1 } }", (3, 23), "lacks `per_second`", "write"),
        ("[[rule]]\nname = \"a\"\nthen = { rate_limit = { per_second = 0 } }", (3, 38), "is not between", ""),
        ("[[rule]]\nname = \"a\"\nthen = { redact = [] }", (3, 19), "empty list", ""),
        ("[[rule]]\nname = \"a\"\nthen = { redact = [\"level\"] }", (3, 19), "cannot be redacted", ""),
        ("[[rule]]\nname = \"a\"\nthen = { set_level = \"lod\" }", (3, 22), "unknown level `lod`", ""),
        ("[[rule]]\nname = \"a\"\nthen = \"drop\"\nuntil = \"tomorrow\"", (4, 9), "not a date", "Z"),
        ("[[rule]]\nname = \"a\"\nthen = \"drop\"\nuntil = 2027-01-01T00:00:00", (4, 9), "not a point in time", "zone"),
        (
            "[[rule]]\nname = \"a\"\nthen = \"drop\"\n\n[[rule]]\nname = \"a\"\nthen = \"keep\"",
            (5, 1),
            "a second rule",
            "line 1",
        ),
        ("filter = \"info", (1, 15), "", ""),
        ("[[rule]]\nname = ", (2, 8), "", ""),
    ] {
        let error = match Document::parse(text) {
            Err(error) => error,
            Ok(document) => panic!("{text} parsed as {document:?}"),
        };
        assert_eq!((error.line, error.column), place, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{text}: {error}");
        assert!(error.to_string().starts_with(&format!("rules line {}, column {}: ", place.0, place.1)));
    }
}

#[test]
fn the_limits_hold() {
    let rules = |count: usize, then: &str| {
        (0..count).map(|number| format!("[[rule]]\nname = \"{number}\"\nthen = {then}\n")).collect::<String>()
    };
    assert!(Document::parse(&rules(RULES_MAX + 1, "\"drop\"")).is_err());
    let half = Document::parse(&rules(RULES_MAX / 2 + 1, "\"drop\"")).unwrap();
    assert!(RuleSet::compile(std::slice::from_ref(&half), "a").is_ok());
    assert!(RuleSet::compile(&[half.clone(), half], "a").unwrap_err().message.contains("2000 rules"));
    let redact = Document::parse(&rules(REDACT_RULES_MAX + 1, "{ redact = [\"a\"] }")).unwrap();
    let error = RuleSet::compile(&[redact], "a").unwrap_err();
    assert_eq!(error.line, REDACT_RULES_MAX * 3 + 1);
    assert!(Document::parse(&"#".repeat(DOCUMENT_BYTES_MAX + 1)).is_err());
}

#[test]
fn times_are_read_right() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:34:56Z", 951_827_696),
        ("2026-11-22T18:00:00+02:30", 1_795_361_400),
        ("2100-03-01T00:00:00Z", 4_107_542_400),
    ] {
        let document = Document::parse(&format!("[[rule]]\nname = \"a\"\nthen = \"drop\"\nuntil = {text}")).unwrap();
        assert_eq!(document.rules[0].until_ns, Some(seconds * 1_000_000_000), "{text}");
    }
}
