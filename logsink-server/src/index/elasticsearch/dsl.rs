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
    fields::{self, EXACT_MAX, Kind, Known, Owner},
    number,
};

/// Leaves of a query: a node with little memory takes 1,024, and a leaf of ours makes up to eight of its own.
const LEAVES_MAX: usize = 120;
/// Levels of `and`, `or` and `not`: OpenSearch takes 20 of its own, and a leaf of ours has five.
const DEPTH_MAX: usize = 13;

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

    /// Whether a flat field has a value under a path: any text begins with nothing. What `exists` says is the same, but not in
    /// OpenSearch 2, which looks for the path's last part wherever it stands.
    fn holds(field: &str, path: &str) -> Self {
        Self::Query(json!({"prefix": {format!("{field}.{path}"): {"value": ""}}}))
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
            _ => compare(path, *op, literal, side),
        },
        Expr::Compare(_, Op::Lt | Op::Le | Op::Gt | Op::Ge, _) => Dsl::None,
        Expr::Compare(field, _, literal) => match keywords(field) {
            // The whole message: its words are a first sieve.
            [] if side == Side::Over => phrase(&literal.text),
            [] => Dsl::None,
            _ if literal.text.len() > TERM_CHARS_MAX => side.unknown(),
            names => Dsl::any(names.iter().map(|name| Dsl::term(name, literal.text.as_str()))),
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
            Field::Service | Field::Target => Dsl::any(keywords(field).iter().map(|name| Dsl::term(name, ""))).not(),
            Field::Message => side.unknown(),
            Field::TraceId => Dsl::exists("trace_id"),
            Field::SpanId => Dsl::exists("span_id"),
            Field::Attribute(path) => exists(path, side),
        },
        Expr::And(_) | Expr::Or(_) | Expr::Not(_) => side.unknown(),
    }
}

/// The index's fields that hold the text as one term, of which a document has one; none when no field does.
fn keywords(field: &Field) -> &'static [&'static str] {
    match field {
        // The second in documents of the first template.
        Field::Service => &["service.name", "service"],
        Field::Target => &["target"],
        Field::TraceId => &["trace_id"],
        Field::SpanId => &["span_id"],
        Field::Message | Field::Attribute(_) => &[],
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
    let field = fields::known(path).map(|known| {
        let equal = match known.kind {
            Kind::Keyword => Dsl::term(path, literal.text.as_str()),
            Kind::Long => literal.number.map_or(Dsl::None, |number| long(path, Op::Eq, number)),
        };
        (known, equal)
    });
    found(path, own, resource, number.unwrap_or(Dsl::None), field, side)
}

/// A number on the right side of the literal's.
fn compare(path: &str, op: Op, literal: &Literal, side: Side) -> Dsl {
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
    let number = Dsl::Query(json!({"range": {format!("numbers.{path}"): range}}));
    let field = fields::known(path).map(|known| match known.kind {
        Kind::Keyword => (known, Dsl::None),
        Kind::Long => (known, long(path, op, wanted)),
    });
    found(path, Dsl::None, Dsl::None, number, field, side)
}

/// The integers of a field that are on the right side of a number. They are within ±[`EXACT_MAX`].
fn long(path: &str, op: Op, wanted: f64) -> Dsl {
    // What is beyond all of them is as good as the next integer.
    let wanted = wanted.clamp(-(EXACT_MAX as f64) - 2.0, EXACT_MAX as f64 + 2.0);
    let (down, up) = (wanted.floor() as i64, wanted.ceil() as i64);
    let range = match op {
        Op::Eq | Op::Ne if down != up => return Dsl::None,
        Op::Eq | Op::Ne => json!({"gte": down, "lte": down}),
        Op::Lt => json!({"lt": up}),
        Op::Le => json!({"lte": down}),
        Op::Gt => json!({"gt": down}),
        Op::Ge => json!({"gte": up}),
    };
    Dsl::Query(json!({"range": {path: range}}))
}

/// A record's value by this path, as far as the index knows of it.
fn own(path: &str, field: Option<&Known>) -> Dsl {
    let is_own = field.is_some_and(|known| known.owner == Owner::Record);
    Dsl::any([Dsl::holds("attributes", path), if is_own { Dsl::exists(path) } else { Dsl::None }])
}

fn exists(path: &str, side: Side) -> Dsl {
    let field = fields::known(path);
    let resource = Dsl::holds("resource", path);
    let of_field = field.map_or(Dsl::None, |_| Dsl::exists(path));
    let somewhere = Dsl::any([own(path, None), resource, of_field]);
    match side {
        Side::Over => Dsl::any([somewhere, opaque(path)]),
        Side::Under => Dsl::all([somewhere, opaque(path).not()]),
    }
}

/// An attribute of the record hides one of the resource. `number` is of the one that is seen.
fn found(path: &str, of_record: Dsl, of_resource: Dsl, number: Dsl, field: Option<(&Known, Dsl)>, side: Side) -> Dsl {
    let known = field.as_ref().map(|(known, _)| *known);
    let (of_record, of_resource) = match field {
        Some((Known { owner: Owner::Record, .. }, of_field)) => (Dsl::any([of_record, of_field]), of_resource),
        Some((_, of_field)) => (of_record, Dsl::any([of_resource, of_field])),
        None => (of_record, of_resource),
    };
    match side {
        Side::Over => Dsl::any([of_record, of_resource, number, opaque(path)]),
        Side::Under => {
            let of_resource = Dsl::all([of_resource, own(path, known).not()]);
            Dsl::all([Dsl::any([of_record, of_resource, number]), opaque(path).not()])
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
    fn a_fields_integers_are_those_on_the_right_side() {
        let asked = |op, wanted| match long("n", op, wanted) {
            Dsl::Query(query) => query["range"]["n"].clone(),
            _ => Value::Null,
        };
        assert_eq!(asked(Op::Eq, 5.0), json!({"gte": 5, "lte": 5}));
        assert_eq!(asked(Op::Eq, 5.5), Value::Null);
        assert_eq!((asked(Op::Lt, 5.5), asked(Op::Lt, 5.0)), (json!({"lt": 6}), json!({"lt": 5})));
        assert_eq!((asked(Op::Le, 5.5), asked(Op::Ge, 5.5)), (json!({"lte": 5}), json!({"gte": 6})));
        assert_eq!((asked(Op::Gt, -5.5), asked(Op::Gt, -5.0)), (json!({"gt": -6}), json!({"gt": -5})));
        // Beyond all of them.
        assert_eq!(asked(Op::Lt, 1e300), json!({"lt": EXACT_MAX + 2}));
        assert_eq!(asked(Op::Gt, -1e300), json!({"gt": -EXACT_MAX - 2}));
        assert_eq!(asked(Op::Ge, 1e300), json!({"gte": EXACT_MAX + 2}));
        assert_eq!(asked(Op::Eq, 1e300), json!({"gte": EXACT_MAX + 2, "lte": EXACT_MAX + 2}));
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
        let code = json!({"range": {"numbers.latency": {"gt": "c06f4", "lte": "fff"}}});
        assert_eq!(dsl("latency>250")["bool"]["should"][0], code);
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
