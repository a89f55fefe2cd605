//! An expression, asked of a block's summary and a page's filter: can anything in there match? `false` is certain; whatever
//! is not certain is left to the matcher, which sees every row of the pages that remain.

use logsink::{
    Severity,
    filter::expr::{self, Expr, Field, Literal, Op},
};

use super::{
    columns,
    manifest::Entry,
    side::{Page, hash},
};

/// An expression with its hashes made.
#[derive(Debug)]
pub(super) enum Probe {
    /// No certainty.
    Maybe,
    All(Vec<Probe>),
    Any(Vec<Probe>),
    /// One of these severities (bit n: number n).
    Severities(u32),
    /// This is in the filter.
    Holds(u64),
    /// The service is exactly this, and so in the filter.
    Service(String, u64),
}

impl Probe {
    pub(super) fn of(expr: &Expr) -> Self {
        match expr {
            Expr::And(parts) => Self::All(parts.iter().map(Self::of).collect()),
            Expr::Or(parts) => Self::Any(parts.iter().map(Self::of).collect()),
            // Nothing is certain about the opposite of a filter's "maybe"; severities are exact.
            Expr::Not(inner) => match &**inner {
                Expr::Not(inner) => Self::of(inner),
                Expr::Level(op, severity) => Self::Severities(!severities(*op, *severity)),
                _ => Self::Maybe,
            },
            Expr::Level(op, severity) => Self::Severities(severities(*op, *severity)),
            Expr::Compare(field, op, literal) => Self::compare(field, *op, literal),
            Expr::Match(Field::Attribute(key), _) | Expr::Exists(Field::Attribute(key)) => Self::Holds(hash::key(key)),
            Expr::Match(..) | Expr::Exists(_) => Self::Maybe,
            Expr::Keyword(keyword) => {
                Self::All(keyword.words.iter().map(|word| Self::Holds(hash::word(word))).collect())
            }
        }
    }

    fn compare(field: &Field, op: Op, literal: &Literal) -> Self {
        let text = &literal.text;
        match (field, op) {
            (_, Op::Ne) => Self::Maybe,
            (Field::Attribute(key), Op::Eq) => {
                // Numbers are compared as numbers, everything else as text.
                let text = Self::Holds(hash::text(key, text));
                match literal.number {
                    Some(number) => Self::Any(vec![text, Self::Holds(hash::number(key, number))]),
                    None => text,
                }
            }
            (Field::Attribute(key), _) => Self::Holds(hash::key(key)),
            (Field::Service, Op::Eq) => Self::Service(text.clone(), hash::service(text)),
            (Field::Target, Op::Eq) => Self::Holds(hash::target(text)),
            (Field::TraceId, Op::Eq) => Self::Holds(hash::trace_id(&text.to_ascii_lowercase())),
            (Field::SpanId, Op::Eq) => Self::Holds(hash::span_id(&text.to_ascii_lowercase())),
            (Field::Message, Op::Eq) => {
                let mut words = Vec::new();
                expr::words(text, &mut |word| words.push(Self::Holds(hash::word(word))));
                Self::All(words)
            }
            _ => Self::Maybe,
        }
    }

    /// Whether the block may have an event that matches.
    pub(super) fn block(&self, block: &Entry) -> bool {
        match self {
            Self::Maybe | Self::Holds(_) => true,
            Self::All(parts) => parts.iter().all(|part| part.block(block)),
            Self::Any(parts) => parts.iter().any(|part| part.block(block)),
            Self::Severities(wanted) => wanted & block.severities != 0,
            Self::Service(service, _) => block.services.as_ref().is_none_or(|services| services.contains(service)),
        }
    }

    /// Whether the page may have an event that matches.
    pub(super) fn page(&self, page: Page<'_>) -> bool {
        match self {
            Self::Maybe => true,
            Self::All(parts) => parts.iter().all(|part| part.page(page)),
            Self::Any(parts) => parts.iter().any(|part| part.page(page)),
            Self::Severities(wanted) => wanted & page.summary.severities != 0,
            Self::Holds(hash) | Self::Service(_, hash) => page.may_hold(*hash),
        }
    }
}

/// The severity numbers (as bits) that the comparison holds for.
fn severities(op: Op, severity: Severity) -> u32 {
    (0..=24u8)
        .filter(|&number| op.holds(Severity(number).floor().cmp(&severity)))
        .fold(0, |bits, number| bits | 1 << number)
}

/// The columns that the matcher looks at.
pub(super) fn columns(expr: &Expr, names: &mut Vec<String>) {
    let mut add = |field: &Field| match field {
        Field::Service => names.push(columns::SERVICE.to_owned()),
        Field::Target => names.push(columns::TARGET.to_owned()),
        Field::Message => names.push(columns::MESSAGE.to_owned()),
        Field::TraceId => names.push(columns::TRACE_ID.to_owned()),
        Field::SpanId => names.push(columns::SPAN_ID.to_owned()),
        Field::Attribute(key) => {
            names.push(format!("{}{key}", columns::ATTRIBUTE_PREFIX));
            names.push(columns::ATTRIBUTES.to_owned());
            names.push(columns::RESOURCE.to_owned());
        }
    };
    match expr {
        Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|part| columns(part, names)),
        Expr::Not(inner) => columns(inner, names),
        Expr::Level(..) => names.push(columns::SEVERITY.to_owned()),
        Expr::Keyword(_) => names.push(columns::MESSAGE.to_owned()),
        Expr::Compare(field, ..) | Expr::Match(field, _) | Expr::Exists(field) => add(field),
    }
}
