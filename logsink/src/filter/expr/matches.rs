//! Whether an expression holds for an event. Nothing is allocated here: numbers are written into small buffers on the
//! stack where their text is needed.

use std::{cmp::Ordering, io::Write};

use super::{Expr, Field, Literal, Op};
use crate::filter::{EventView, Value};

pub(super) fn matches(expr: &Expr, event: &dyn EventView) -> bool {
    match expr {
        Expr::And(all) => all.iter().all(|part| matches(part, event)),
        Expr::Or(any) => any.iter().any(|part| matches(part, event)),
        Expr::Not(inner) => !matches(inner, event),
        Expr::Level(op, level) => op.holds(event.severity().floor().cmp(level)),
        Expr::Compare(field, Op::Ne, literal) => !compare(field, Op::Eq, literal, event),
        Expr::Compare(field, op, literal) => compare(field, *op, literal, event),
        Expr::Match(field, pattern) => field.with_text(event, &mut |text| pattern.0.is_match(text)),
        Expr::Keyword(keyword) => keyword.words.is_empty() || keyword.is_in(&event.message()),
        Expr::Exists(field) => match field {
            Field::Service => !event.service().is_empty(),
            Field::Target => !event.target().is_empty(),
            Field::Message => !event.message().is_empty(),
            Field::TraceId => event.trace_id().is_some(),
            Field::SpanId => event.span_id().is_some(),
            Field::Attribute(key) => event.attribute(key).is_some(),
        },
    }
}

impl Op {
    /// Whether the comparison holds between two values that are ordered so.
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Eq => ordering.is_eq(),
            Self::Ne => ordering.is_ne(),
            Self::Lt => ordering.is_lt(),
            Self::Le => ordering.is_le(),
            Self::Gt => ordering.is_gt(),
            Self::Ge => ordering.is_ge(),
        }
    }
}

/// All operators but `!=`.
fn compare(field: &Field, op: Op, literal: &Literal, event: &dyn EventView) -> bool {
    let Field::Attribute(key) = field else {
        if *field == Field::Target {
            // In most rules: without the call back.
            return op == Op::Eq && event.target() == literal.text;
        }
        return op == Op::Eq && field.with_text(event, &mut |text| text == literal.text);
    };
    // Integers are compared as doubles, like literals: every index does so.
    let number = match event.attribute(key) {
        None => return false,
        Some(Value::Int(number)) => number as f64,
        Some(Value::Double(number)) => number,
        Some(Value::Text(text)) => return op == Op::Eq && text == literal.text.as_str(),
        Some(Value::Bool(value)) => return op == Op::Eq && literal.text == bool_text(value),
    };
    match literal.number {
        Some(wanted) => number.partial_cmp(&wanted).is_some_and(|ordering| op.holds(ordering)),
        // Only a number that is none, such as NaN, has a text that does not read as a number.
        None => op == Op::Eq && !number.is_finite() && literal.text == non_finite_text(number),
    }
}

impl Field {
    /// The answer for the field's text; `false` when the event has no such field.
    pub(crate) fn with_text(&self, event: &dyn EventView, ask: &mut dyn FnMut(&str) -> bool) -> bool {
        match self {
            Self::Service => ask(event.service()),
            Self::Target => ask(event.target()),
            Self::Message => ask(&event.message()),
            Self::TraceId => event.trace_id().is_some_and(|id| ask(hex(&id, &mut [0; 32]))),
            Self::SpanId => event.span_id().is_some_and(|id| ask(hex(&id, &mut [0; 16]))),
            Self::Attribute(key) => match event.attribute(key) {
                None => false,
                Some(Value::Text(text)) => ask(&text),
                Some(Value::Bool(value)) => ask(bool_text(value)),
                Some(Value::Int(number)) => ask(itoa::Buffer::new().format(number)),
                Some(Value::Double(number)) => ask(double_text(number, &mut [0; 32])),
            },
        }
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// As protobuf's JSON mapping calls them.
fn non_finite_text(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}

/// The shortest decimal that reads as the same number, as JSON writers print it; at most 24 bytes.
fn double_text(number: f64, buffer: &mut [u8; 32]) -> &str {
    if !number.is_finite() {
        return non_finite_text(number);
    }
    let mut rest = &mut buffer[..];
    let written = match write!(rest, "{number:?}") {
        Ok(()) => 32 - rest.len(),
        Err(_) => 0,
    };
    std::str::from_utf8(&buffer[..written]).unwrap_or_default()
}

fn hex<'b>(id: &[u8], buffer: &'b mut [u8]) -> &'b str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, digits) in id.iter().zip(buffer.chunks_exact_mut(2)) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(buffer).unwrap_or_default()
}
