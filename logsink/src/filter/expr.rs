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

mod decide;
mod matches;
mod nearest;
mod parse;
mod print;
#[cfg(test)]
pub(crate) mod tests;
mod words;

pub(crate) use self::nearest::nearest;
pub use self::{decide::Facts, words::words};

/// The longest expression, in bytes: a page of text; more is a program's mistake, not a person's wish.
pub const EXPR_BYTES_MAX: usize = 16 * 1024;
/// The deepest nesting of parentheses and `not`: matching recurses as deep, on the caller's stack.
pub const EXPR_DEPTH_MAX: usize = 64;
/// The most words in one quoted text: which of them have been seen is kept in one word while a message is read.
pub const KEYWORD_WORDS_MAX: usize = 64;

impl Expr {
    /// Parses an expression. Empty text matches every event.
    ///
    /// # Errors
    /// When the text is not an expression, or is deeper or longer than the limits allow.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse::parse(text)
    }

    /// Whether the event matches. Does not allocate, unless the event's view does.
    pub fn matches(&self, event: &dyn super::EventView) -> bool {
        matches::matches(self, event)
    }

    /// Whether it holds for every event (`Some(true)`) or for none (`Some(false)`) of which these facts are known.
    pub fn decide(&self, facts: &Facts<'_>) -> Option<bool> {
        decide::decide(self, facts)
    }
}
