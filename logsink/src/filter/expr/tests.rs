use std::borrow::Cow;

use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::filter::{EventView, Value};

/// A plain event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) severity: Severity,
    pub(crate) service: &'static str,
    pub(crate) target: &'static str,
    pub(crate) message: &'static str,
    pub(crate) trace_id: Option<[u8; 16]>,
    pub(crate) attributes: Vec<(&'static str, Value<'static>)>,
}

impl EventView for Sample {
    fn severity(&self) -> Severity {
        self.severity
    }
    fn service(&self) -> &str {
        self.service
    }
    fn target(&self) -> &str {
        self.target
    }
    fn message(&self) -> Cow<'_, str> {
        self.message.into()
    }
    fn trace_id(&self) -> Option<[u8; 16]> {
        self.trace_id
    }
    fn span_id(&self) -> Option<[u8; 8]> {
        None
    }
    fn attribute(&self, key: &str) -> Option<Value<'_>> {
        self.attributes.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    }
}

fn sample() -> Sample {
    Sample {
        severity: Severity(14),
        service: "checkout",
        target: "app::db",
        message: "Connection refused by 10.0.0.1",
        trace_id: Some([0xAB; 16]),
        attributes: vec![
            ("latency_ms", Value::Int(251)),
            ("ratio", Value::Double(0.5)),
            ("path", Value::Text("/api/v1/orders".into())),
            ("code", Value::Text("250".into())),
            ("ok", Value::Bool(true)),
            ("user.tier", Value::Text("pro".into())),
            ("level", Value::Text("odd".into())),
            ("nan", Value::Double(f64::NAN)),
        ],
    }
}

#[test]
fn matches_as_documented() {
    let event = sample();
    for (text, expected) in [
        ("", true),
        ("()", true),
        ("level>=warn", true),
        ("level=warn", true),
        ("level!=warn", false),
        ("level>warn", false),
        ("level<ERROR", true),
        (r#"level>=warn service=checkout "connection refused" latency_ms>250 path~"^/api/" not user.tier=free"#, true),
        ("latency_ms>250", true),
        ("latency_ms>251", false),
        ("latency_ms>=251", true),
        ("latency_ms = 251.0", true),
        ("latency_ms=2.51e2", true),
        ("latency_ms!=251", false),
        ("ratio=0.50", true),
        ("ratio<1", true),
        ("ratio~\"^0\\.5$\"", true),
        ("code=250", true),
        ("code=250.0", false),
        ("code>200", false),
        ("ok=true", true),
        ("ok=1", false),
        ("ok~^t", true),
        ("missing=1", false),
        ("missing!=1", true),
        ("not missing=1", true),
        ("missing~.", false),
        ("exists(path)", true),
        ("exists(missing)", false),
        ("exists(trace_id) not exists(span_id)", true),
        ("trace_id=ABABABABABABABABABABABABABABABAB", true),
        ("trace_id~^abab", true),
        ("target=app::db", true),
        ("target~^app", true),
        ("message~\"10\\.0\"", true),
        ("message=\"Connection refused by 10.0.0.1\"", true),
        ("\"refused by\"", true),
        ("\"by refused\"", false),
        ("\"10.0.0.1\"", true),
        ("\"level\"=odd", true),
        ("service=other or level=warn", true),
        ("service=other or level=warn latency_ms<1", false),
        ("(service=other or level=warn) latency_ms>1", true),
        ("service=other OR NOT level=error AND ok=true", true),
        ("not (service=checkout or ok=false)", false),
        ("not not ok=true", true),
        ("nan=NaN", true),
        ("nan<1", false),
        ("nan!=1", true),
    ] {
        let expr = Expr::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(expr.matches(&event), expected, "{text}");
    }
    let unspecified = Sample::default();
    assert!(Expr::parse("level<trace").unwrap().matches(&unspecified));
    assert!(!Expr::parse("level>=trace").unwrap().matches(&unspecified));
}

#[test]
fn refuses_with_a_column_and_a_hint() {
    let deep = format!("{}a=1{}", "(".repeat(64), ")".repeat(64));
    let long = "x".repeat(EXPR_BYTES_MAX + 1);
    let wordy = format!("\"{}\"", "w ".repeat(65));
    for (text, column, message, hint) in [
        ("level>=wran", 8, "unknown level `wran`", "did you mean warn?"),
        ("level>=13", 8, "unknown level `13`", "write trace"),
        ("level~warn", 6, "no text to search", "level>=warn"),
        ("a=1 \"never closed", 5, "this quote is never closed", "write \""),
        ("a==1", 2, "unknown operator `==`", "did you mean =?"),
        ("service:checkout", 8, "unknown operator `:`", "did you mean =?"),
        ("a=~x", 2, "unknown operator `=~`", "did you mean ~?"),
        ("a!~x", 2, "unknown operator `!~`", "not a~"),
        ("a=>5", 2, "unknown operator `=>`", ">=?"),
        ("latency_ms>250ms", 12, "expected a number after `latency_ms>` and found `250ms`", "without a unit"),
        ("levl>=warn", 7, "expected a number", "did you mean level>=warn?"),
        ("a<b", 3, "expected a number", "= and !="),
        ("service<5", 9, "`service` is no number", "= or !="),
        ("path~\"(\"", 6, "bad regular expression, unclosed group", "backslash"),
        ("path~a{99999}{99}", 6, "bad regular expression", "backslash"),
        ("timeout", 1, "`timeout` stands alone", "write \"timeout\" in quotes"),
        ("a=1 refused b=2", 5, "`refused` stands alone", "in quotes"),
        ("a=", 3, "a value is missing after `a=`", "\"\""),
        ("a=b=c", 4, "`=` right after a value", "quote"),
        ("a=1\"b\"", 4, "`\"` right after a value", "space"),
        ("(a=1", 1, "never closed", ")"),
        ("a=1)", 4, "without an opening one", "remove"),
        ("a=1 or", 7, "missing at the end", "level>=warn"),
        ("or a=1", 1, "`or` needs a condition", ""),
        ("a=1 and and b=2", 9, "`and` needs a condition", ""),
        ("not", 4, "missing at the end", ""),
        ("a=1 && b=2", 5, "unexpected `&`", "write and"),
        ("a=1 || b=2", 5, "unexpected `|`", "write or"),
        ("!a=1", 1, "unexpected `!`", "write not"),
        ("'text'", 1, "unexpected `'`", "double quotes"),
        ("a='text'", 3, "unexpected `'`", "double quotes"),
        (">5", 1, "unexpected `>`", "field's name"),
        ("exists()", 8, "a field's name is missing", "exists("),
        ("exists(level)", 8, "takes a field", "level>=trace"),
        ("count(a)", 6, "`count` is no function", "exists"),
        ("trace_id=12", 10, "32 hexadecimal digits", "~"),
        ("ümlaut=1 ö==2", 11, "unknown operator", "="),
        (&deep, 65, "nested deeper than 64", "flatter"),
        (&long, 1, "bytes, more than", ""),
        (&wordy, 1, "words, more than 64", ""),
    ] {
        let error = match Expr::parse(text) {
            Err(error) => error,
            Ok(expr) => panic!("{text} parsed as {expr}"),
        };
        assert_eq!(error.column, column, "{text}: {error}");
        assert!(error.message.contains(message), "{text}: {error}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{text}: {error}");
    }
}

#[test]
fn sixty_three_parentheses_are_not_too_deep() {
    let text = format!("{}a=1{}", "(".repeat(63), ")".repeat(63));
    assert_eq!(Expr::parse(&text).unwrap().to_string(), "a=1");
}

#[test]
fn decides_from_facts_what_they_settle() {
    let facts = Facts { severity: Some(Severity::INFO), target: Some("app::db"), service: Some("checkout") };
    for (text, expected) in [
        ("", Some(true)),
        ("level>=warn", Some(false)),
        ("level>=warn user=1", Some(false)),
        ("level=info", Some(true)),
        ("level=info or user=1", Some(true)),
        ("level=info user=1", None),
        ("not level=info", Some(false)),
        ("not user=1", None),
        ("target~^app service=checkout", Some(true)),
        ("target!=app", Some(true)),
        ("service=other \"text\"", Some(false)),
        ("\"text\"", None),
        ("exists(user)", None),
    ] {
        assert_eq!(Expr::parse(text).unwrap().decide(&facts), expected, "{text}");
    }
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        Just(Field::Service),
        Just(Field::Target),
        Just(Field::Message),
        "[a-z][a-z0-9_.\\-]{0,8}".prop_map(Field::Attribute),
        prop::sample::select(vec!["level", "AND", "exists", "service", "", "a b", "q\"\\", "1", "ключ", ".x"])
            .prop_map(|name| Field::Attribute(name.to_owned())),
        ".{0,6}".prop_map(Field::Attribute),
    ]
}

fn leaf() -> impl Strategy<Value = Expr> {
    let level = (0..6_u8).prop_map(|step| Severity(step * 4 + 1));
    let op = prop::sample::select(vec![Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge]);
    let equal = prop::sample::select(vec![Op::Eq, Op::Ne]);
    let text = prop_oneof![".{0,8}", "[a-z0-9./'\\\\\"-]{0,8}"];
    prop_oneof![
        (op.clone(), level).prop_map(|(op, level)| Expr::Level(op, level)),
        (field(), equal.clone(), text.clone()).prop_map(|(field, op, text)| Expr::Compare(
            field,
            op,
            Literal::new(text)
        )),
        (".{1,6}", op, any::<f64>().prop_filter("finite", |number| number.is_finite()))
            .prop_map(|(name, op, number)| Expr::Compare(Field::Attribute(name), op, Literal::new(number.to_string()))),
        (equal, "[0-9a-f]{32}").prop_map(|(op, id)| Expr::Compare(Field::TraceId, op, Literal::new(id))),
        (field(), text.clone())
            .prop_map(|(field, text)| Expr::Match(field, Pattern(Regex::new(&regex::escape(&text)).unwrap()))),
        text.prop_map(|text| Expr::Keyword(Keyword::new(&text))),
        field().prop_map(Expr::Exists),
        Just(Expr::And(Vec::new())),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    leaf().prop_recursive(5, 48, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner.prop_map(|inner| Expr::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(expr in expr()) {
        let text = expr.to_string();
        prop_assert_eq!(Expr::parse(&text).map_err(|error| format!("{text}: {error}")), Ok(expr));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[ab(){}\"'=<>!~:&|\\\\ .é0-9]{0,40}|.{0,60}") {
        if let Err(error) = Expr::parse(&text) {
            prop_assert!(error.column <= text.chars().count() + 1);
        }
    }

    /// What is decided beforehand must never contradict the event itself.
    #[test]
    fn a_decision_from_facts_holds_for_the_event(expr in expr(), severity in 0..25_u8, mask in 0..8_u8) {
        let event = Sample { severity: Severity(severity), ..sample() };
        let facts = Facts {
            severity: (mask & 1 > 0).then_some(event.severity),
            target: (mask & 2 > 0).then_some(event.target),
            service: (mask & 4 > 0).then_some(event.service),
        };
        if let Some(decided) = expr.decide(&facts) {
            prop_assert_eq!(decided, expr.matches(&event));
        }
    }
}
