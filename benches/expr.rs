//! What do parsing an expression and matching an event cost?

use std::borrow::Cow;

use logsink::{
    Severity,
    filter::{EventView, Value, expr::Expr},
};
use logsink_benches::report;

const EXPRESSIONS: [(&str, &str); 4] = [
    ("level and service", "level>=warn service=checkout"),
    ("a number", "latency_ms>250"),
    ("words in the message", "\"connection refused\""),
    ("a regular expression", "path~\"^/api/v[0-9]+/\" not user.tier=free"),
];

struct Event;

impl EventView for Event {
    fn severity(&self) -> Severity {
        Severity::WARN
    }
    fn service(&self) -> &str {
        "checkout"
    }
    fn target(&self) -> &str {
        "shop::payment"
    }
    fn message(&self) -> Cow<'_, str> {
        "the card service did not answer: connection refused by peer after 3 attempts".into()
    }
    fn trace_id(&self) -> Option<[u8; 16]> {
        None
    }
    fn span_id(&self) -> Option<[u8; 8]> {
        None
    }
    fn attribute(&self, key: &str) -> Option<Value<'_>> {
        match key {
            "latency_ms" => Some(Value::Double(317.5)),
            "path" => Some(Value::Text("/api/v1/items".into())),
            "user.tier" => Some(Value::Text("paid".into())),
            _ => None,
        }
    }
}

fn main() -> anyhow::Result<()> {
    for (name, text) in EXPRESSIONS {
        let expr = Expr::parse(text)?;
        anyhow::ensure!(expr.matches(&Event), "{text} should match");
        report(&format!("parse: {name}"), 50, 2_000, |_| Expr::parse(text));
        report(&format!("match: {name}"), 50, 20_000, |_| expr.matches(&Event));
    }
    Ok(())
}
