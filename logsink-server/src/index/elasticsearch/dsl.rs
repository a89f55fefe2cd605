//! Expression → Elasticsearch's query DSL. Pure.
//!
//! A query may let through more than the expression wants, never less: every hit is put to the expression afterwards. What
//! stands under a `not` is therefore turned into a query that lets through *less* than it should, so that its opposite lets
//! through more. Most of the language is exact either way; regular expressions are not, nor is the whole text of a message, nor an
//! attribute of which the index holds another form (`opaque`, see the body writer).

use logsink::{
    Severity,
    filter::expr::{Expr, Field, Literal, Op},
};
use serde_json::{Value, json};

use super::{
    body::{ANY, TERM_CHARS_MAX},
    number,
};

/// Leaves of a query: a node with little memory takes 1,024, and a leaf of ours makes up to eight of its own.
const LEAVES_MAX: usize = 120;
/// Levels of `and`, `or` and `not`: OpenSearch takes 20 of its own, and a leaf of ours has three.
const DEPTH_MAX: usize = 14;

/// A query that lets through every event for which `expr` holds, and whether it lets through no other.
pub(super) fn query(expr: &Expr) -> (Value, bool) {
    let mut compiler = Compiler { leaves: 0 };
    let (over, under) = (compiler.compile(expr, Side::Over, 0), compiler.compile(expr, Side::Under, 0));
    let is_exact = over == under;
    (over.into_value(), is_exact)
}

/// On which side of the truth a query may err.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    /// It may let through too much.
    Over,
    /// It may let through too little.
    Under,
}

impl Side {
    fn opposite(self) -> Self {
        match self {
            Self::Over => Self::Under,
            Self::Under => Self::Over,
        }
    }

    /// What to say when nothing is known.
    fn unknown(self) -> Dsl {
        match self {
            Self::Over => Dsl::All,
            Self::Under => Dsl::None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Dsl {
    All,
    None,
    Query(Value),
}

impl Dsl {
    fn term(field: &str, value: impl Into<Value>) -> Self {
        Self::Query(json!({"term": {field: {"value": value.into()}}}))
    }

    fn exists(field: &str) -> Self {
        Self::Query(json!({"exists": {"field": field}}))
    }

    fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut queries = Vec::new();
        for part in parts {
            match part {
                Self::All => {}
                Self::None => return Self::None,
                Self::Query(query) => queries.push(query),
            }
        }
        match queries.len() {
            0 => Self::All,
            1 => Self::Query(queries.remove(0)),
            _ => Self::Query(json!({"bool": {"filter": queries}})),
        }
    }

    fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut queries = Vec::new();
        for part in parts {
            match part {
                Self::All => return Self::All,
                Self::None => {}
                Self::Query(query) => queries.push(query),
            }
        }
        match queries.len() {
            0 => Self::None,
            1 => Self::Query(queries.remove(0)),
            _ => Self::Query(json!({"bool": {"should": queries, "minimum_should_match": 1}})),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::All => Self::None,
            Self::None => Self::All,
            Self::Query(query) => Self::Query(json!({"bool": {"must_not": [query]}})),
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::All => json!({"match_all": {}}),
            Self::None => json!({"match_none": {}}),
            Self::Query(query) => query,
        }
    }
}

struct Compiler {
    leaves: usize,
}

impl Compiler {
    fn compile(&mut self, expr: &Expr, side: Side, depth: usize) -> Dsl {
        if depth > DEPTH_MAX || self.leaves > 2 * LEAVES_MAX {
            return side.unknown();
        }
        match expr {
            Expr::And(parts) => {
                Dsl::all(parts.iter().map(|part| self.compile(part, side, depth + 1)).collect::<Vec<_>>())
            }
            Expr::Or(parts) => {
                Dsl::any(parts.iter().map(|part| self.compile(part, side, depth + 1)).collect::<Vec<_>>())
            }
            Expr::Not(inner) => self.compile(inner, side.opposite(), depth + 1).not(),
            Expr::Compare(field, Op::Ne, literal) => {
                let equal = Expr::Compare(field.clone(), Op::Eq, literal.clone());
                self.compile(&equal, side.opposite(), depth + 1).not()
            }
            leaf => {
                self.leaves += 1;
                self::leaf(leaf, side)
            }
        }
    }
}

fn leaf(expr: &Expr, side: Side) -> Dsl {
    match expr {
        Expr::Level(op, level) => self::level(*op, *level),
        Expr::Compare(Field::Attribute(path), op, literal) => match op {
            Op::Eq => equal(path, literal, side),
            _ => compare(path, *op, literal),
        },
        Expr::Compare(_, Op::Lt | Op::Le | Op::Gt | Op::Ge, _) => Dsl::None,
        Expr::Compare(field, _, literal) => match keyword(field) {
            Some(name) if literal.text.len() <= TERM_CHARS_MAX => Dsl::term(name, literal.text.as_str()),
            Some(_) => side.unknown(),
            // The whole message: its words are a first sieve.
            None if side == Side::Over => phrase(&literal.text),
            None => Dsl::None,
        },
        // A field that is not there does not match.
        Expr::Match(field, _) => match (side, field) {
            (Side::Under, _) => Dsl::None,
            (Side::Over, Field::Attribute(path)) => exists(path, side),
            (Side::Over, Field::TraceId) => Dsl::exists("trace_id"),
            (Side::Over, Field::SpanId) => Dsl::exists("span_id"),
            (Side::Over, Field::Service | Field::Target | Field::Message) => Dsl::All,
        },
        Expr::Keyword(keyword) if keyword.words.is_empty() => Dsl::All,
        Expr::Keyword(keyword) => phrase(&keyword.text),
        Expr::Exists(field) => match field {
            Field::Service => Dsl::term("service", "").not(),
            Field::Target => Dsl::term("target", "").not(),
            Field::Message => side.unknown(),
            Field::TraceId => Dsl::exists("trace_id"),
            Field::SpanId => Dsl::exists("span_id"),
            Field::Attribute(path) => exists(path, side),
        },
        Expr::And(_) | Expr::Or(_) | Expr::Not(_) => side.unknown(),
    }
}

/// The index's field, when it holds the text as one term.
fn keyword(field: &Field) -> Option<&'static str> {
    match field {
        Field::Service => Some("service"),
        Field::Target => Some("target"),
        Field::TraceId => Some("trace_id"),
        Field::SpanId => Some("span_id"),
        Field::Message | Field::Attribute(_) => None,
    }
}

/// Text without a word in it is in every message.
fn phrase(text: &str) -> Dsl {
    Dsl::Query(json!({"match_phrase": {"message": {"query": text, "zero_terms_query": "all"}}}))
}

/// A level stands for its four numbers; an event without one has 0.
fn level(op: Op, level: Severity) -> Dsl {
    let (first, last) = (level.0, if level == Severity::UNSPECIFIED { 0 } else { level.0 + 3 });
    let range = |range: Value| Dsl::Query(json!({"range": {"severity_number": range}}));
    match op {
        Op::Eq => range(json!({"gte": first, "lte": last})),
        Op::Ne => range(json!({"gte": first, "lte": last})).not(),
        Op::Lt => range(json!({"lt": first})),
        Op::Le => range(json!({"lte": last})),
        Op::Gt => range(json!({"gt": last})),
        Op::Ge => range(json!({"gte": first})),
    }
}

/// Text (or `true`, `false`) equal to the literal, or a number equal to its number.
fn equal(path: &str, literal: &Literal, side: Side) -> Dsl {
    if literal.text.len() > TERM_CHARS_MAX {
        return if side == Side::Over { exists(path, side) } else { Dsl::None };
    }
    let own = Dsl::term(&format!("attributes.{path}"), literal.text.as_str());
    let resource = Dsl::term(&format!("resource.{path}"), literal.text.as_str());
    let number = literal.number.map(|number| Dsl::term(&format!("numbers.{path}"), number::code(number)));
    found(path, own, resource, number, side)
}

/// A number on the right side of the literal's.
fn compare(path: &str, op: Op, literal: &Literal) -> Dsl {
    let Some(wanted) = literal.number else {
        return Dsl::None;
    };
    let code = number::code(wanted);
    // Both ends always: NaN lies beyond the infinities.
    let range = match op {
        Op::Lt => json!({"gte": number::MIN, "lt": code}),
        Op::Le => json!({"gte": number::MIN, "lte": code}),
        Op::Gt => json!({"gt": code, "lte": number::MAX}),
        _ => json!({"gte": code, "lte": number::MAX}),
    };
    Dsl::Query(json!({"range": {format!("numbers.{path}"): range}}))
}

fn exists(path: &str, side: Side) -> Dsl {
    let (own, resource) = (Dsl::exists(&format!("attributes.{path}")), Dsl::exists(&format!("resource.{path}")));
    match side {
        Side::Over => Dsl::any([own, resource, opaque(path)]),
        Side::Under => Dsl::all([Dsl::any([own, resource]), opaque(path).not()]),
    }
}

/// An attribute of the record hides one of the resource.
fn found(path: &str, own: Dsl, resource: Dsl, number: Option<Dsl>, side: Side) -> Dsl {
    let number = number.unwrap_or(Dsl::None);
    match side {
        Side::Over => Dsl::any([own, resource, number, opaque(path)]),
        Side::Under => {
            let resource = Dsl::all([resource, Dsl::exists(&format!("attributes.{path}")).not()]);
            Dsl::all([Dsl::any([own, resource, number]), opaque(path).not()])
        }
    }
}

/// Events whose value under `path` the index does not hold as the expression language sees it.
fn opaque(path: &str) -> Dsl {
    if path.len() > TERM_CHARS_MAX {
        return Dsl::term("opaque", ANY);
    }
    Dsl::Query(json!({"terms": {"opaque": [path, ANY]}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dsl(text: &str) -> Value {
        query(&Expr::parse(text).unwrap()).0
    }

    #[test]
    fn levels_and_words_are_exact() {
        for text in
            ["", "level>=warn", "\"connection refused\"", "service=checkout not level=info", "not (level<error)"]
        {
            assert!(query(&Expr::parse(text).unwrap()).1, "{text}");
        }
        for text in ["path~\"^/api\"", "user=1", "message=x", "not a.b=c"] {
            assert!(!query(&Expr::parse(text).unwrap()).1, "{text}");
        }
    }

    #[test]
    fn a_level_is_its_range() {
        assert_eq!(dsl("level=info"), json!({"range": {"severity_number": {"gte": 9, "lte": 12}}}));
        assert_eq!(dsl("level>info"), json!({"range": {"severity_number": {"gt": 12}}}));
        assert_eq!(dsl("level<=info"), json!({"range": {"severity_number": {"lte": 12}}}));
    }

    #[test]
    fn a_regular_expression_lets_everything_through_under_a_not_too() {
        assert_eq!(dsl("not service~x"), json!({"match_all": {}}));
        assert_eq!(dsl("service~x"), json!({"match_all": {}}));
        let exists = dsl("exists(path)");
        assert_eq!(dsl("path~x"), exists);
        assert_eq!(dsl("level=info path~x or not path~x"), json!({"match_all": {}}));
    }

    #[test]
    fn numbers_never_match_text() {
        let five = || Literal { text: "5".into(), number: Some(5.0) };
        let service = Expr::Compare(Field::Service, Op::Gt, five());
        assert_eq!(query(&service), (json!({"match_none": {}}), true));
        assert_eq!(dsl("latency>250"), json!({"range": {"numbers.latency": {"gt": "c06f4", "lte": "fff"}}}));
    }

    #[test]
    fn an_oversized_expression_becomes_a_wider_query() {
        let many = (0..2_000).map(|n| format!("a{n}=1")).collect::<Vec<_>>().join(" ");
        let leaves = dsl(&many).to_string().matches("\"attributes.").count();
        assert!((1..=2 * LEAVES_MAX + 1).contains(&leaves), "{leaves}");
        let deep = format!("{}service=a{}", "not (level=info or ".repeat(20), ")".repeat(20));
        assert_ne!(dsl(&deep), json!({"match_none": {}}));
    }
}
