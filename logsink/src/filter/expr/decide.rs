//! Deciding an expression from what is known before the event exists: level, target, service.

use super::{Expr, Field, Op};
use crate::Severity;

/// What is known of all events of a callsite, or of a service. `None` is "not known".
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The severity.
    pub severity: Option<Severity>,
    /// The target.
    pub target: Option<&'a str>,
    /// The service.
    pub service: Option<&'a str>,
}

pub(super) fn decide(expr: &Expr, facts: &Facts<'_>) -> Option<bool> {
    match expr {
        Expr::And(all) => {
            let mut answer = Some(true);
            for part in all {
                match decide(part, facts) {
                    Some(false) => return Some(false),
                    Some(true) => {}
                    None => answer = None,
                }
            }
            answer
        }
        Expr::Or(any) => {
            let mut answer = Some(false);
            for part in any {
                match decide(part, facts) {
                    Some(true) => return Some(true),
                    Some(false) => {}
                    None => answer = None,
                }
            }
            answer
        }
        Expr::Not(inner) => decide(inner, facts).map(|holds| !holds),
        Expr::Level(op, level) => facts.severity.map(|severity| op.holds(severity.floor().cmp(level))),
        Expr::Compare(field, op, literal) => known(field, facts).map(|value| match op {
            Op::Eq => value == literal.text,
            Op::Ne => value != literal.text,
            // Order is between numbers, and these are texts.
            Op::Lt | Op::Le | Op::Gt | Op::Ge => false,
        }),
        Expr::Match(field, pattern) => known(field, facts).map(|value| pattern.0.is_match(value)),
        Expr::Exists(field) => known(field, facts).map(|value| !value.is_empty()),
        Expr::Keyword(keyword) => keyword.words.is_empty().then_some(true),
    }
}

fn known<'a>(field: &Field, facts: &Facts<'a>) -> Option<&'a str> {
    match field {
        Field::Service => facts.service,
        Field::Target => facts.target,
        Field::Message | Field::TraceId | Field::SpanId | Field::Attribute(_) => None,
    }
}
