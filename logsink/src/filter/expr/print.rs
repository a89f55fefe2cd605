//! Syntax tree → text that parses to the same tree, for every tree that the parser makes.

use std::fmt::{self, Display, Formatter, Write};

use super::{
    Expr, Field, Op,
    parse::{is_bare, is_name, is_name_start},
};

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::And(all) if all.is_empty() => f.write_str("()"),
            // Nothing matches: the opposite of everything.
            Self::Or(any) if any.is_empty() => f.write_str("not ()"),
            Self::And(all) => joined(f, all, " ", |part| matches!(part, Self::And(_) | Self::Or(_))),
            Self::Or(any) => joined(f, any, " or ", |part| matches!(part, Self::Or(_))),
            Self::Not(inner) => {
                f.write_str("not ")?;
                nested(f, inner, matches!(**inner, Self::And(_) | Self::Or(_)))
            }
            Self::Level(op, level) => write!(f, "level{op}{level}"),
            Self::Compare(field, op, literal) => {
                write!(f, "{field}{op}")?;
                match !literal.text.is_empty() && !literal.text.starts_with('\'') && literal.text.chars().all(is_bare) {
                    true => f.write_str(&literal.text),
                    false => quoted(f, &literal.text),
                }
            }
            Self::Match(field, pattern) => {
                write!(f, "{field}~")?;
                quoted(f, pattern.0.as_str())
            }
            Self::Keyword(keyword) => quoted(f, &keyword.text),
            Self::Exists(field) => write!(f, "exists({field})"),
        }
    }
}

impl Display for Field {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service => f.write_str("service"),
            Self::Target => f.write_str("target"),
            Self::Message => f.write_str("message"),
            Self::TraceId => f.write_str("trace_id"),
            Self::SpanId => f.write_str("span_id"),
            Self::Attribute(name) => {
                let plain = name.starts_with(is_name_start) && name.chars().all(is_name) && !is_reserved(name);
                if plain { f.write_str(name) } else { quoted(f, name) }
            }
        }
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eq => "=",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
        })
    }
}

fn joined(f: &mut Formatter<'_>, parts: &[Expr], between: &str, wrap: fn(&Expr) -> bool) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(between)?;
        }
        nested(f, part, wrap(part))?;
    }
    Ok(())
}

fn nested(f: &mut Formatter<'_>, expr: &Expr, wrap: bool) -> fmt::Result {
    match expr {
        // They bring their own.
        Expr::And(parts) | Expr::Or(parts) if parts.is_empty() => write!(f, "{expr}"),
        _ if wrap => write!(f, "({expr})"),
        _ => write!(f, "{expr}"),
    }
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            f.write_char('\\')?;
        }
        f.write_char(c)?;
    }
    f.write_char('"')
}

/// Names that mean something else when they are not quoted.
fn is_reserved(name: &str) -> bool {
    matches!(name, "level" | "service" | "target" | "message" | "trace_id" | "span_id")
        || ["and", "or", "not", "exists"].iter().any(|keyword| name.eq_ignore_ascii_case(keyword))
}
