//! The rules document: TOML text → checked definitions, or an error that says where and what to write instead.
//!
//! ```toml
//! filter = "info,hyper=warn"            # the base filter
//!
//! [[rule]]
//! name = "health checks"                # unique in the document: its counter is called so
//! when = 'path~"^/health" level<warn'   # the expression language; left out: every event
//! then = "drop"                         # one action, see below
//! services = ["checkout"]               # left out: all
//! until = 2027-01-01T00:00:00Z          # left out: for ever
//! ```
//!
//! # Actions
//!
//! Of the rules whose condition holds, the first that has one of these actions decides:
//!
//! | `then =` | the event |
//! |---|---|
//! | `"keep"` | passes, whatever the base filter says |
//! | `"drop"` | is dropped |
//! | `{ sample = 0.1 }` | passes if its trace is in the share; without a trace, one in ten passes |
//! | `{ sample = 0.1, by = "user_id" }` | passes if its user is in the share: the same users in every process; without one, as above |
//! | `{ rate_limit = { per_second = 100, burst = 200 } }` | passes while it is one of so many, per process; `burst` is at least 1 and as much as `per_second` when it is left out |
//! | `{ rate_limit = { per_second = 1, by = "callsite" } }` | the same for each callsite by itself; 2,048 keys at a time, and what is beyond shares one limit, as do events without any of the fields |
//! | `{ dedup = { window_ms = 1000 } }` | passes, and those like it are dropped for a second |
//! | `{ dedup = { window_ms = 1000, by = ["user_id", "message"] } }` | the same, with another idea of being alike; without any of the fields it passes |
//!
//! `by` takes a field or a list of up to 8: attributes, `message`, `target`, `service`, `level`, `trace_id`, `span_id`, and
//! `callsite`, which is the target with `code.file.path` and `code.line.number`, or with the message where those are not told. Values are
//! compared as text. Left out in `dedup` it is `["callsite", "message", "level"]`.
//!
//! How many repeats were dropped is said as soon as possible: by the attribute `logsink.repeated` on the next event of the key that
//! passes or, when its window ends without one, by an event of the library's own with that attribute, the message and target that were
//! repeated, and `logsink.rule`. (The server, which passes on other senders' events and has none of its own, says it by the attribute
//! only.) 1,024 keys are watched at a time; events of keys beyond pass. What is dropped is counted as any drop by a rule is.
//!
//! These decide nothing and apply to every event that passes, before and after the rule that has decided:
//!
//! | `then =` | |
//! |---|---|
//! | `{ redact = ["password", "user.email", "*token*"] }` | the values of these fields become `[redacted]` |
//! | `{ redact = { fields = ["note"], with = "…" } }` | they become another text |
//! | `{ redact = { pattern = 'ssn=\d+' } }` | what the regular expression matches in a text becomes `[redacted]`, in the message too |
//! | `{ redact = { kinds = ["email", "bearer"], fields = ["message", "http.*"], with = "#" } }` | the same for known kinds and for some fields: `bearer` (and basic) credentials, `credit-card` with a right check digit, `email`, `ipv4`, `jwt` |
//! | `{ cap = { fields = ["*"], bytes_max = 256 } }` | a longer text is cut at a character's end, and how much is missing is told behind it; bytes are cut |
//! | `{ set_level = "debug" }` | it gets this level |
//! | `"release"` | the flight recorder sends what it has kept of the event's span tree |
//!
//! A field is named with all that lies below it (`user` is `user.email` too), in either case of the letters A to Z, and `*` stands for
//! any text. `message` is the message. Left out, `fields` is every text. Neither that nor a `*` reaches `target`, by which events are
//! found and judged; it has to be named. Values are redacted first, then searched for patterns, then cut. A text that has more than
//! 1,000 matches, or would grow by more than 1 KiB, is replaced as a whole. The span fields on an event are its fields like
//! others. In nested values, which other senders have, texts in lists belong to the field that the list is in.
//!
//! The tree is walked by hand instead of through serde: every error then has a line and a column of its own.

mod source;
mod then;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    ops::Range,
};

use toml::de::DeTable;

use self::source::{Source, Value};
pub use self::then::Then;
use super::{BaseFilter, RULES_MAX};
use crate::filter::expr::Expr;

/// The longest document: a thousand rules of 250 bytes, and well below what etcd takes in one value (1.5 MiB).
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

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
        let source = Source::new(text);
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
            let mut lines = HashMap::with_capacity(tables.len());
            for value in tables.iter() {
                let rule = source.rule(value)?;
                match lines.entry(rule.name.clone()) {
                    Entry::Vacant(place) => drop(place.insert(rule.line)),
                    Entry::Occupied(first) => {
                        return Err(source
                            .error(value.span().start, format!("a second rule named `{}`", rule.name))
                            .hint(format!(
                                "each name is the name of a counter: the first is in line {}",
                                first.get()
                            )));
                    }
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
            ..Source::new(directives).error(error.offset, error.message)
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

/// The rule language: what stands in the tables.
impl Source<'_> {
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
            return Err(self.error(start, format!("rule `{name}` has no `then`")).hint(then::HINT));
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
            line: self.line(start),
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
}
