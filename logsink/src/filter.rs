//! Compiled rules: what happens to one event. Pure: takes values and `now`, does no I/O.
//!
//! The same filter runs in the application (over the values of a `tracing` event) and in the server (over OTLP wire
//! bytes): both show themselves through [`EventView`].

pub mod expr;
pub(crate) mod recording;
pub mod rules;

use std::borrow::Cow;

use crate::Severity;

/// One value of an event's field, as the expression language sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Text; also bytes, arrays and maps in their JSON form.
    Text(Cow<'a, str>),
    /// A 64-bit integer.
    Int(i64),
    /// A double.
    Double(f64),
    /// `true` or `false`.
    Bool(bool),
}

/// What an expression can ask of an event.
///
/// `attribute` takes a dotted path. It looks among the record's attributes first (where a nested map's leaf `b` below `a`
/// is found as `a.b`), then among the resource's.
pub trait EventView {
    /// The severity number; 0 when there is none.
    fn severity(&self) -> Severity;
    /// `service.name` of the resource; empty when there is none.
    fn service(&self) -> &str;
    /// The `target` attribute, else the instrumentation scope's name; empty when there is neither.
    fn target(&self) -> &str;
    /// The body as text (a body that is not a string in its JSON form).
    fn message(&self) -> Cow<'_, str>;
    /// The trace id, when there is one.
    fn trace_id(&self) -> Option<[u8; 16]>;
    /// The span id, when there is one.
    fn span_id(&self) -> Option<[u8; 8]>;
    /// An attribute's value.
    fn attribute(&self, key: &str) -> Option<Value<'_>>;
}

/// Whether an event goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Keep,
    /// The base filter does not want it.
    DropByFilter,
    /// The rule with this index in [`rules::RuleSet::rules`] dropped it (drop, sample or rate limit).
    DropByRule(u16),
}
