//! Text → syntax tree, by recursive descent.
//!
//! ```text
//! or      = and { "or" and }
//! and     = unary { [ "and" ] unary }
//! unary   = "not" unary | term
//! term    = "(" [ or ] ")" | "exists" "(" field ")" | quoted | field op value
//! field   = name | quoted          a quoted one is an attribute, whatever its name
//! op      = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
//! value   = quoted | any text without white space, quotes, parentheses and operators
//! quoted  = '"' … '"'              a backslash stands for itself, except before a quote or another backslash
//! ```
//!
//! `and`, `or`, `not` are read in any case. Every error carries the column where it shows, and what to write instead.

mod token;

use regex::RegexBuilder;

pub(super) use self::token::{is_bare, is_name, is_name_start};
use self::token::{is_foreign_operator, is_operator};
use super::{
    EXPR_BYTES_MAX, EXPR_DEPTH_MAX, Expr, Field, KEYWORD_WORDS_MAX, Keyword, Literal, Op, Pattern, SyntaxError,
    nearest::nearest,
};
use crate::Severity;

/// Memory that one compiled regular expression may take: a thousand rules of the worst kind stay under 1 GiB, and an
/// ordinary one needs some kilobytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

const LEVELS: [&str; 7] = ["trace", "debug", "info", "warn", "warning", "error", "fatal"];
const OPERATORS: &str = "write one of = != < <= > >= ~";

pub(super) fn parse(text: &str) -> Result<Expr, SyntaxError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    if text.len() > EXPR_BYTES_MAX {
        let message = format!("the expression has {} bytes, more than {EXPR_BYTES_MAX}", text.len());
        return Err(parser.error(0, message));
    }
    parser.skip_space();
    if parser.at == text.len() {
        return Ok(Expr::And(Vec::new()));
    }
    let expr = parser.or()?;
    match parser.peek() {
        None => Ok(expr),
        // `or` stops only before a closing parenthesis.
        Some(_) => Err(parser.error(parser.at, "a closing parenthesis without an opening one").hint("remove it")),
    }
}

struct Parser<'t> {
    text: &'t str,
    /// The byte that is read next; between tokens, never in front of white space.
    at: usize,
    depth: usize,
}

impl<'t> Parser<'t> {
    fn or(&mut self) -> Result<Expr, SyntaxError> {
        let mut any = vec![self.and()?];
        while self.take_word("or") {
            any.push(self.and()?);
        }
        Ok(one_or(any, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, SyntaxError> {
        let mut all = vec![self.unary()?];
        loop {
            let and = self.take_word("and");
            if !and && (matches!(self.peek(), None | Some(')')) || self.sees_word("or")) {
                return Ok(one_or(all, Expr::And));
            }
            all.push(self.unary()?);
        }
    }

    fn unary(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.at;
        self.depth += 1;
        if self.depth > EXPR_DEPTH_MAX {
            return Err(self.error(start, format!("nested deeper than {EXPR_DEPTH_MAX}")).hint("write it flatter"));
        }
        let expr = if self.take_word("not") { Expr::Not(Box::new(self.unary()?)) } else { self.term()? };
        self.depth -= 1;
        Ok(expr)
    }

    fn term(&mut self) -> Result<Expr, SyntaxError> {
        let start = self.at;
        match self.peek() {
            Some('(') => {
                self.advance(1);
                let inner = if self.peek() == Some(')') { Expr::And(Vec::new()) } else { self.or()? };
                self.close(start)?;
                Ok(inner)
            }
            Some('"') => {
                let text = self.quoted()?;
                match self.sees_operator() {
                    true => self.comparison(start, Name::Field(Field::Attribute(text))),
                    false => self.keyword(start, text),
                }
            }
            Some(c) if is_name_start(c) => {
                let word = self.name();
                if self.peek() == Some('(') && word.eq_ignore_ascii_case("exists") {
                    return self.exists();
                }
                for (keyword, needs) in [("and", "before and after it"), ("or", "before and after it")] {
                    if word.eq_ignore_ascii_case(keyword) {
                        return Err(self.error(start, format!("`{word}` needs a condition {needs}")));
                    }
                }
                self.comparison(start, Name::of(word))
            }
            found => Err(self.no_term(start, found)),
        }
    }

    fn no_term(&self, start: usize, found: Option<char>) -> SyntaxError {
        let Some(found) = found else {
            return self
                .error(start, "a condition is missing at the end")
                .hint("write one like level>=warn or \"text\"");
        };
        let hint = match found {
            '\'' => "text stands in double quotes: \"connection refused\"",
            '!' => "write not before the condition",
            '&' => "write and, or nothing, between conditions",
            '|' => "write or between conditions",
            ')' => "a condition is missing before the parenthesis",
            '=' | '<' | '>' | '~' => "a field's name is missing before the operator",
            _ => "a condition begins with a field's name, a quoted text, not, exists or a parenthesis",
        };
        self.error(start, format!("unexpected `{found}`")).hint(hint)
    }

    fn keyword(&self, start: usize, text: String) -> Result<Expr, SyntaxError> {
        let keyword = Keyword::new(&text);
        match keyword.words.len() {
            0..=KEYWORD_WORDS_MAX => Ok(Expr::Keyword(keyword)),
            words => Err(self.error(start, format!("a text of {words} words, more than {KEYWORD_WORDS_MAX}"))),
        }
    }

    /// After `exists`, in front of the parenthesis.
    fn exists(&mut self) -> Result<Expr, SyntaxError> {
        let open = self.at;
        self.advance(1);
        let start = self.at;
        let name = match self.peek() {
            Some('"') => Name::Field(Field::Attribute(self.quoted()?)),
            Some(c) if is_name_start(c) => Name::of(self.name()),
            _ => return Err(self.error(start, "a field's name is missing").hint("write exists(user.id)")),
        };
        self.close(open)?;
        match name {
            Name::Field(field) => Ok(Expr::Exists(field)),
            Name::Level => Err(self.error(start, "exists() takes a field").hint("write level>=trace")),
        }
    }

    fn close(&mut self, open: usize) -> Result<(), SyntaxError> {
        match self.peek() {
            Some(')') => {
                self.advance(1);
                Ok(())
            }
            None => Err(self.error(open, "this parenthesis is never closed").hint("write ) after the last condition")),
            Some(found) => Err(self.error(self.at, format!("expected `)` and found `{found}`"))),
        }
    }

    /// After the field: operator and value.
    fn comparison(&mut self, start: usize, name: Name) -> Result<Expr, SyntaxError> {
        let written = self.text[start..self.at].trim_end();
        let op_at = self.at;
        let operator = match self.run(is_operator) {
            "" => self.run(is_foreign_operator),
            operator => operator,
        };
        if operator.is_empty() {
            return Err(match self.peek() {
                Some('(') => {
                    self.error(op_at, format!("`{written}` is no function")).hint("the only one is exists(field)")
                }
                _ => self.error(start, format!("`{written}` stands alone")).hint(format!(
                    "write \"{written}\" in quotes to search the message for it, or compare: {written}=value"
                )),
            });
        }
        self.skip_space();
        let value_at = self.at;
        let pattern = operator == "~";
        let op = match operator {
            "=" | "~" => Op::Eq,
            "!=" => Op::Ne,
            "<" => Op::Lt,
            "<=" => Op::Le,
            ">" => Op::Gt,
            ">=" => Op::Ge,
            _ => {
                return Err(self
                    .error(op_at, format!("unknown operator `{operator}`"))
                    .hint(instead(operator, written)));
            }
        };
        let value = self.value(written, operator)?;
        match name {
            Name::Level if pattern => {
                Err(self.error(op_at, "a level is no text to search").hint("compare it: level>=warn"))
            }
            Name::Level => match value.parse::<Severity>() {
                Ok(level) => Ok(Expr::Level(op, level)),
                Err(_) => {
                    let hint = match nearest(&value, &LEVELS) {
                        Some(near) => format!("did you mean {near}?"),
                        None => "write trace, debug, info, warn, error or fatal".to_owned(),
                    };
                    Err(self.error(value_at, format!("unknown level `{value}`")).hint(hint))
                }
            },
            Name::Field(field) if pattern => match RegexBuilder::new(&value).size_limit(REGEX_BYTES_MAX).build() {
                Ok(regex) => Ok(Expr::Match(field, Pattern(regex))),
                Err(error) => Err(self.bad_regex(value_at, &error)),
            },
            Name::Field(field) => self.compare(field, op, value, written, operator, value_at),
        }
    }

    fn compare(
        &self,
        field: Field,
        op: Op,
        mut value: String,
        written: &str,
        operator: &str,
        value_at: usize,
    ) -> Result<Expr, SyntaxError> {
        if !matches!(op, Op::Eq | Op::Ne) {
            if !matches!(field, Field::Attribute(_)) {
                let hint = "compare it with = or !=, or search it with ~";
                return Err(self.error(value_at, format!("`{written}` is no number")).hint(hint));
            }
            if number(&value).is_none() {
                let hint = if value.parse::<Severity>().is_ok() {
                    format!("did you mean level{operator}{value}?")
                } else if value.starts_with(|c: char| c.is_ascii_digit()) {
                    "write the number alone, without a unit".to_owned()
                } else {
                    "only numbers are less or greater; texts compare with = and !=".to_owned()
                };
                let message = format!("expected a number after `{written}{operator}` and found `{value}`");
                return Err(self.error(value_at, message).hint(hint));
            }
        }
        let digits = match field {
            Field::TraceId => 32,
            Field::SpanId => 16,
            _ => 0,
        };
        if digits > 0 {
            if value.len() != digits || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
                let message = format!("`{written}` has {digits} hexadecimal digits, not `{value}`");
                return Err(self.error(value_at, message).hint("search for a part of it with ~"));
            }
            value.make_ascii_lowercase();
        }
        Ok(Expr::Compare(field, op, Literal::new(value)))
    }

    fn bad_regex(&self, value_at: usize, error: &regex::Error) -> SyntaxError {
        let text = error.to_string();
        // A syntax error is drawn over several lines; the last says what it is.
        let reason = text.rsplit("error: ").next().unwrap_or(&text).trim().replace('\n', " ");
        self.error(value_at, format!("bad regular expression, {reason}"))
            .hint("a backslash before ( ) [ ] { } . * + ? ^ $ | takes their meaning away")
    }

    fn value(&mut self, written: &str, operator: &str) -> Result<String, SyntaxError> {
        let start = self.at;
        let value = match self.text[self.at..].chars().next() {
            Some('"') => self.quoted()?,
            Some('\'') => {
                return Err(self.error(start, "unexpected `'`").hint("text stands in double quotes: \"/api/v1\""));
            }
            Some(c) if is_bare(c) => self.run(is_bare).to_owned(),
            _ => {
                let message = format!("a value is missing after `{written}{operator}`");
                return Err(self.error(start, message).hint("quote it when it is empty or has odd characters: \"\""));
            }
        };
        match self.text[self.at..].chars().next() {
            Some(c) if !c.is_whitespace() && c != ')' => {
                Err(self.error(self.at, format!("`{c}` right after a value")).hint(match c {
                    '(' | '"' => "write a space between conditions, or quote the whole value",
                    _ => "quote the value when this belongs to it",
                }))
            }
            _ => {
                self.skip_space();
                Ok(value)
            }
        }
    }

    fn error(&self, at: usize, message: impl Into<String>) -> SyntaxError {
        let column = self.text.get(..at).map_or(1, |before| before.chars().count() + 1);
        SyntaxError { message: message.into(), column, hint: None }
    }
}

impl SyntaxError {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What stands left of an operator.
enum Name {
    Level,
    Field(Field),
}

impl Name {
    fn of(name: &str) -> Self {
        Self::Field(match name {
            "level" => return Self::Level,
            "service" => Field::Service,
            "target" => Field::Target,
            "message" => Field::Message,
            "trace_id" => Field::TraceId,
            "span_id" => Field::SpanId,
            _ => Field::Attribute(name.to_owned()),
        })
    }
}

impl Literal {
    /// A literal of this text.
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { number: number(&text), text }
    }
}

/// The text's value when it reads as a finite number.
fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn one_or(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

/// What to write instead of an operator of another language.
fn instead(operator: &str, field: &str) -> String {
    match operator {
        "==" | ":" | ":=" | "===" => "did you mean =?".to_owned(),
        "=~" | "~=" | "~~" => "did you mean ~?".to_owned(),
        "=>" => "did you mean >=?".to_owned(),
        "=<" => "did you mean <=?".to_owned(),
        "<>" => "did you mean !=?".to_owned(),
        "!~" => format!("write not {field}~\"…\""),
        "!" => format!("did you mean {field}!=…?"),
        _ => OPERATORS.to_owned(),
    }
}
