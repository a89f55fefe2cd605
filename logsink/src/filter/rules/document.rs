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
//! # then = "release"                    # the flight recorder sends what it has kept of the span tree
//! ```
//!
//! The tree is walked by hand instead of through serde: every error then has a line and a column of its own.

mod source;

use std::{fmt, ops::Range};

use toml::de::DeTable;

use self::source::{Source, Value};
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
    /// Makes the flight recorder send what it has kept of the event's span tree, where the event itself passes.
    Release,
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
                "release" => Ok(Then::Release),
                _ => {
                    let hint = match nearest(text, &["keep", "drop", "release"]) {
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
}

const THEN_HINT: &str = "write \"keep\", \"drop\", \"release\", { sample = 0.1 }, { rate_limit = { per_second = 100 } }, { redact = [\"field\"] } or { set_level = \"debug\" }";
