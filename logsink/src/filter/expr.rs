//! The expression language of rules, searches and tails: its syntax tree, parser and in-process matcher.
//!
//! `level>=warn service=checkout "connection refused" latency_ms>250 path~"^/api/" not user.tier=free`

use crate::Severity;

/// An expression. `And(vec![])` matches every event.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of them.
    And(Vec<Expr>),
    /// At least one of them.
    Or(Vec<Expr>),
    /// Its opposite.
    Not(Box<Expr>),
    /// `level>=warn`: compares [`Severity::floor`]; an event without a severity is below `trace`.
    Level(Op, Severity),
    /// `field=value` and its kin. `!=` is `not (field=value)`, so it matches an event that has no such field.
    Compare(Field, Op, Literal),
    /// `field~"regex"`: the regular expression is found anywhere in the field's text.
    Match(Field, Pattern),
    /// `"connection refused"`: these words, adjacent and in this order, in the message.
    Keyword(Keyword),
    /// `exists(field)`
    Exists(Field),
}

/// What a comparison looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Field {
    /// `service`: the resource's `service.name`.
    Service,
    /// `target`
    Target,
    /// `message`
    Message,
    /// `trace_id`, 32 hexadecimal digits
    TraceId,
    /// `span_id`, 16 hexadecimal digits
    SpanId,
    /// Any other name: an attribute of the record, else of the resource.
    Attribute(String),
}

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// `=`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

/// The right side of a comparison.
///
/// `=` holds when the field's text form equals `text`, or when both sides are numbers and equal. `<`, `<=`, `>`, `>=`
/// hold only between numbers: a field that holds text never matches them.
#[derive(Debug, Clone, PartialEq)]
pub struct Literal {
    /// As written, unquoted.
    pub text: String,
    /// Its value when it reads as a finite number.
    pub number: Option<f64>,
}

/// The words of a keyword search, cut as Elasticsearch's `standard` analyzer cuts text (Unicode UAX #29 words) and
/// lower-cased, so that both indexes give the same answer. Empty when the text holds no word: matches every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyword {
    /// As written, unquoted.
    pub text: String,
    /// Its words.
    pub words: Vec<String>,
}

/// A compiled regular expression that remembers how it was written.
#[derive(Debug, Clone)]
pub struct Pattern(pub regex::Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// What is wrong with an expression, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} at column {column}{}", .hint.as_ref().map(|hint| format!(": {hint}")).unwrap_or_default())]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// Where, in characters from 1.
    pub column: usize,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Expr {
    /// Parses an expression. Empty text matches every event.
    ///
    /// # Errors
    /// When the text is not an expression, or is deeper or longer than the limits allow.
    pub fn parse(_text: &str) -> Result<Self, SyntaxError> {
        unimplemented!()
    }

    /// Whether the event matches.
    pub fn matches(&self, _event: &dyn super::EventView) -> bool {
        unimplemented!()
    }
}

/// Calls `each` with every word of `text`, lower-cased, as Elasticsearch's `standard` analyzer cuts it.
pub fn words(_text: &str, _each: &mut dyn FnMut(&str)) {
    unimplemented!()
}
