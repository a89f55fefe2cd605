//! The rules document: TOML text → checked definitions, or an error that says where and what to write instead.
//!
//! ```toml
//! filter = "info,hyper=warn"            # the base filter
//!
//! [[rule]]
//! name = "health checks"
//! when = 'path~"^/health" level<warn'   # the expression language; left out: every event
//! then = "drop"                         # or "keep"
//! services = ["checkout"]               # left out: all
//! until = 2027-01-01T00:00:00Z          # left out: for ever
//!
//! [[rule]]
//! name = "chatter"
//! when = 'target=noisy'
//! then = { sample = 0.1 }
//! # then = { rate_limit = { per_second = 100, burst = 200 } }
//! # then = { redact = ["password", "user.email"] }
//! # then = { set_level = "debug" }
//! ```
//!
//! The tree is walked by hand instead of through serde: every error then has a line and a column of its own.

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
    value::{Datetime, Offset},
};

use super::{BaseFilter, RULES_MAX};
use crate::{
    Severity,
    filter::expr::{Expr, nearest},
};

/// The longest document: a thousand rules of 250 bytes, and well below what etcd takes in one value (1.5 MiB).
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Fields of one redact rule.
const REDACT_FIELDS_MAX: usize = 256;

/// A checked document.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Document {
    /// The base filter, when the document has one.
    pub filter: Option<BaseFilter>,
    /// The rules in their order.
    pub rules: Vec<RuleDefinition>,
}

/// One rule as written.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleDefinition {
    /// Its name, unique in the document: what its counter is called.
    pub name: String,
    /// Which events it concerns.
    pub when: Expr,
    /// What happens to them.
    pub then: Then,
    /// The services that it concerns; empty for all.
    pub services: Vec<String>,
    /// Unix time at which it ends by itself.
    pub until_ns: Option<u64>,
    /// Where it stands in its document, for errors that show only when documents are put together.
    line: usize,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq)]
pub enum Then {
    /// Lets the event pass, whatever the base filter says.
    Keep,
    /// Drops it.
    Drop,
    /// Lets a share pass, whole traces where there are any.
    Sample {
        /// 0 to 1.
        rate: f64,
    },
    /// Lets so many pass, per process.
    RateLimit {
        /// Above 0.
        per_second: f64,
        /// At least 1.
        burst: u32,
    },
    /// Replaces the values of fields; `message` stands for the message.
    Redact {
        /// Each with all that lies below it.
        fields: Vec<String>,
    },
    /// Gives it another level.
    SetLevel(Severity),
}

/// What is wrong with rules, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// From 1.
    pub line: usize,
    /// In characters from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules line {}, column {}: {}", self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for RuleError {}

impl Document {
    /// Parses and checks a document.
    ///
    /// # Errors
    /// The first problem found. Nothing is guessed and nothing ignored: an unknown key is an error.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        let source = Source { text };
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(
                source.error(0, format!("the document has {} bytes, more than {DOCUMENT_BYTES_MAX}", text.len()))
            );
        }
        let root = DeTable::parse(text).map_err(|error| {
            source.error(error.span().map_or(0, |span| span.start), error.message().replace('\n', ", "))
        })?;
        let root = root.get_ref();
        source.only_keys(root, &["filter", "rule"], "a rules document")?;
        let filter = match root.get("filter") {
            Some(value) => Some(source.base_filter(value)?),
            None => None,
        };
        let mut rules: Vec<RuleDefinition> = Vec::new();
        if let Some(value) = root.get("rule") {
            let tables = value.get_ref().as_array().ok_or_else(|| {
                source
                    .error(value.span().start, "`rule` is not a list of rules")
                    .hint("write `[[rule]]` with two brackets")
            })?;
            if tables.len() > RULES_MAX {
                return Err(source.error(value.span().start, format!("more than {RULES_MAX} rules")));
            }
            for value in tables.iter() {
                let rule = source.rule(value)?;
                if let Some(first) = rules.iter().find(|other| other.name == rule.name) {
                    return Err(source
                        .error(value.span().start, format!("a second rule named `{}`", rule.name))
                        .hint(format!("each name is the name of a counter: the first is in line {}", first.line)));
                }
                rules.push(rule);
            }
        }
        Ok(Self { filter, rules })
    }

    /// A document that is nothing but a base filter in `EnvFilter` directive syntax, as `RUST_LOG` holds.
    ///
    /// # Errors
    /// When it is no such filter; line 1, and the column in `directives`.
    pub fn of_filter(directives: &str) -> Result<Self, RuleError> {
        let filter = BaseFilter::parse(directives).map_err(|error| RuleError {
            hint: error.hint,
            ..Source { text: directives }.error(error.offset, error.message)
        })?;
        Ok(Self { filter: Some(filter), rules: Vec::new() })
    }
}

impl RuleDefinition {
    pub(super) fn error(&self, message: String) -> RuleError {
        RuleError { line: self.line, column: 1, message: format!("rule `{}`: {message}", self.name), hint: None }
    }
}

impl RuleError {
    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

type Value<'i> = Spanned<DeValue<'i>>;

/// The text, to turn byte offsets into lines and columns.
struct Source<'i> {
    text: &'i str,
}

impl Source<'_> {
    fn error(&self, offset: usize, message: impl Into<String>) -> RuleError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        RuleError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.into(),
            hint: None,
        }
    }

    /// The error for a value of the wrong kind.
    fn wrong(&self, value: &Value<'_>, message: impl Into<String>, hint: impl Into<String>) -> RuleError {
        self.error(value.span().start, message).hint(hint)
    }

    fn only_keys(&self, table: &DeTable<'_>, known: &[&str], what: &str) -> Result<(), RuleError> {
        // The first in the text, not in the alphabet.
        let stranger =
            table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())).min_by_key(|key| key.span().start);
        let Some(key) = stranger else { return Ok(()) };
        let name = key.get_ref();
        let error = self.error(key.span().start, format!("unknown key `{name}` in {what}"));
        Err(match nearest(name, known) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error.hint(format!("it takes {}", known.join(", "))),
        })
    }

    fn text<'v>(&self, value: &'v Value<'_>, key: &str) -> Result<&'v str, RuleError> {
        value.get_ref().as_str().ok_or_else(|| {
            let found = value.get_ref().type_str();
            self.wrong(value, format!("`{key}` takes a string, not a {found}"), format!("write {key} = \"…\""))
        })
    }

    fn texts(&self, value: &Value<'_>, key: &str) -> Result<Vec<String>, RuleError> {
        let example = format!("write {key} = [\"a\", \"b\"]");
        let Some(items) = value.get_ref().as_array() else {
            return Err(self.wrong(value, format!("`{key}` takes a list of strings"), example));
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_str() {
                Some(text) if !text.is_empty() => texts.push(text.to_owned()),
                _ => return Err(self.wrong(item, format!("`{key}` takes a list of non-empty strings"), example)),
            }
        }
        if texts.is_empty() {
            return Err(self.wrong(value, format!("`{key}` is an empty list"), example));
        }
        Ok(texts)
    }

    /// An integer or a float.
    fn number(&self, value: &Value<'_>, key: &str) -> Result<f64, RuleError> {
        let number = match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().replace('_', "").parse().ok(),
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            _ => None,
        };
        number.filter(|number: &f64| number.is_finite()).ok_or_else(|| {
            self.error(value.span().start, format!("`{key}` takes a number, not a {}", value.get_ref().type_str()))
        })
    }

    /// Where in the document the byte `offset` of a string value stands: exact when the string is written without escapes.
    fn inside(&self, value: &Value<'_>, offset: usize) -> Result<usize, usize> {
        let span = value.span();
        let (Some(raw), Some(text)) = (self.text.get(span.clone()), value.get_ref().as_str()) else {
            return Err(span.start);
        };
        match raw.find(text) {
            Some(at) if !text.is_empty() => Ok(span.start + at + offset),
            _ => Err(span.start),
        }
    }

    fn base_filter(&self, value: &Value<'_>) -> Result<BaseFilter, RuleError> {
        BaseFilter::parse(self.text(value, "filter")?).map_err(|error| {
            let offset = self.inside(value, error.offset).unwrap_or_else(|start| start);
            RuleError { hint: error.hint, ..self.error(offset, error.message) }
        })
    }

    fn rule(&self, value: &Value<'_>) -> Result<RuleDefinition, RuleError> {
        let Range { start, .. } = value.span();
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.wrong(value, "a rule is a table", "write `[[rule]]` and its keys below"));
        };
        self.only_keys(table, &["name", "when", "then", "services", "until"], "a rule")?;
        let Some(name) = table.get("name") else {
            return Err(self
                .error(start, "a rule without a `name`")
                .hint("write name = \"…\": its counter is called so"));
        };
        let name = match self.text(name, "name")? {
            "" => return Err(self.wrong(name, "the rule's `name` is empty", "its counter is called so")),
            text => text.to_owned(),
        };
        let Some(then) = table.get("then") else {
            return Err(self.error(start, format!("rule `{name}` has no `then`")).hint(THEN_HINT));
        };
        Ok(RuleDefinition {
            when: match table.get("when") {
                Some(value) => self.when(value)?,
                None => Expr::And(Vec::new()),
            },
            then: self.then(then)?,
            services: match table.get("services") {
                Some(value) => self.texts(value, "services")?,
                None => Vec::new(),
            },
            until_ns: match table.get("until") {
                Some(value) => Some(self.until(value)?),
                None => None,
            },
            line: self.error(start, "").line,
            name,
        })
    }

    fn when(&self, value: &Value<'_>) -> Result<Expr, RuleError> {
        let text = self.text(value, "when")?;
        Expr::parse(text).map_err(|error| {
            let byte = text.char_indices().nth(error.column - 1).map_or(text.len(), |(at, _)| at);
            match self.inside(value, byte) {
                Ok(offset) => RuleError { hint: error.hint, ..self.error(offset, error.message) },
                Err(start) => RuleError {
                    hint: error.hint,
                    ..self.error(start, format!("{} at column {} of `when`", error.message, error.column))
                },
            }
        })
    }

    fn then(&self, value: &Value<'_>) -> Result<Then, RuleError> {
        if let Some(text) = value.get_ref().as_str() {
            return match text {
                "keep" => Ok(Then::Keep),
                "drop" => Ok(Then::Drop),
                _ => {
                    let hint = match nearest(text, &["keep", "drop"]) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => THEN_HINT.to_owned(),
                    };
                    Err(self.wrong(value, format!("`then` cannot be \"{text}\""), hint))
                }
            };
        }
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.wrong(value, "`then` is neither a string nor a table", THEN_HINT));
        };
        self.only_keys(table, &["sample", "rate_limit", "redact", "set_level"], "`then`")?;
        let mut actions = table.iter();
        let (Some((action, argument)), None) = (actions.next(), actions.next()) else {
            return Err(self.wrong(value, "`then` takes exactly one action", THEN_HINT));
        };
        match action.get_ref().as_ref() {
            "sample" => self.sample(self.only(argument, "rate")?),
            "rate_limit" => self.rate_limit(argument),
            "redact" => self.redact(self.only(argument, "fields")?),
            _ => {
                let argument = self.only(argument, "level")?;
                match self.text(argument, "set_level")?.parse() {
                    Ok(level) => Ok(Then::SetLevel(level)),
                    Err(message) => Err(self.error(argument.span().start, message)),
                }
            }
        }
    }

    /// `{ sample = { rate = 0.1 } }` is the long form of `{ sample = 0.1 }`.
    fn only<'v, 'i>(&self, argument: &'v Value<'i>, key: &str) -> Result<&'v Value<'i>, RuleError> {
        let Some(table) = argument.get_ref().as_table() else { return Ok(argument) };
        self.only_keys(table, &[key], "the action")?;
        table.get(key).ok_or_else(|| self.error(argument.span().start, format!("the action lacks `{key}`")))
    }

    fn sample(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        let rate = self.number(argument, "sample")?;
        if !(0.0..=1.0).contains(&rate) {
            let hint = "0.1 keeps one event in ten, 1 keeps all";
            return Err(self.wrong(argument, format!("the sampling rate {rate} is not between 0 and 1"), hint));
        }
        Ok(Then::Sample { rate })
    }

    fn rate_limit(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        let hint = "write { rate_limit = { per_second = 100, burst = 200 } }";
        let Some(table) = argument.get_ref().as_table() else {
            return Err(self.wrong(argument, "`rate_limit` takes a table", hint));
        };
        self.only_keys(table, &["per_second", "burst"], "`rate_limit`")?;
        let Some(value) = table.get("per_second") else {
            return Err(self.wrong(argument, "`rate_limit` lacks `per_second`", hint));
        };
        let per_second = self.number(value, "per_second")?;
        // From one event a day to what no process emits.
        if !(1e-5..=1e9).contains(&per_second) {
            return Err(self.wrong(value, format!("`per_second` = {per_second} is not between 0.00001 and 1e9"), hint));
        }
        let burst = match table.get("burst") {
            None => per_second.ceil(),
            Some(value) => match self.number(value, "burst")? {
                burst if burst.fract() == 0.0 && (1.0..=1e9).contains(&burst) => burst,
                _ => return Err(self.wrong(value, "`burst` is not a whole number from 1 to 1e9", hint)),
            },
        };
        Ok(Then::RateLimit { per_second, burst: burst as u32 })
    }

    fn redact(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        let fields = self.texts(argument, "redact")?;
        if fields.len() > REDACT_FIELDS_MAX {
            return Err(self.error(argument.span().start, format!("`redact` takes at most {REDACT_FIELDS_MAX} fields")));
        }
        // They are what the event is found, routed and compared by.
        if let Some(field) =
            fields.iter().find(|field| matches!(field.as_str(), "level" | "service" | "trace_id" | "span_id"))
        {
            let hint = "redact takes `message` and attributes";
            return Err(self.wrong(argument, format!("`{field}` cannot be redacted"), hint));
        }
        Ok(Then::Redact { fields })
    }

    fn until(&self, value: &Value<'_>) -> Result<u64, RuleError> {
        let hint = "write a time with its zone: until = 2027-01-31T18:00:00Z";
        match value.get_ref() {
            DeValue::Datetime(time) => {
                unix_ns(time).ok_or_else(|| self.wrong(value, "`until` is not a point in time", hint))
            }
            _ => Err(self.wrong(value, "`until` is not a date and time", hint)),
        }
    }
}

const THEN_HINT: &str = "write \"keep\", \"drop\", { sample = 0.1 }, { rate_limit = { per_second = 100 } }, { redact = [\"field\"] } or { set_level = \"debug\" }";

/// Unix nanoseconds; none without a date, a time and an offset. Before 1970 and after 2554 it stays at the
/// first and last nanosecond that a `u64` holds: long ago, and never.
fn unix_ns(time: &Datetime) -> Option<u64> {
    let (date, clock) = (time.date?, time.time?);
    let offset_minutes = match time.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days since 1970 in the proleptic Gregorian calendar, years beginning in March (Howard Hinnant, "days_from_civil").
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = year.div_euclid(400) * 146_097 + day_of_era - 719_468;
    let minutes = (days * 24 + i64::from(clock.hour)) * 60 + i64::from(clock.minute) - offset_minutes;
    let seconds = u64::try_from(minutes * 60 + i64::from(clock.second.unwrap_or(0))).unwrap_or(0);
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(u64::from(clock.nanosecond.unwrap_or(0))))
}
