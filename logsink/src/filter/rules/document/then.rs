//! What a rule does: the values of `then`.

use toml::de::DeTable;

use super::{
    RuleError,
    source::{Source, Value},
};
use crate::{
    Severity,
    filter::{
        expr::nearest,
        rules::{
            Finder, Key, Names, edits::REDACTED, find::KIND_NAMES, key::KEY_FIELDS_MAX, names::MESSAGE,
            repeats::WINDOW_MS_MAX,
        },
    },
};

/// Where a secret was, more says less.
const WITH_BYTES_MAX: usize = 256;
/// A chunk of the queue: no value is longer.
const CAP_BYTES_MAX: f64 = 65_536.0;

pub(super) const HINT: &str = "write \"keep\", \"drop\", \"release\", { sample = 0.1 }, { rate_limit = { per_second = 100 } }, \
                               { dedup = { window_ms = 1000 } }, { redact = [\"field\"] }, { cap = { bytes_max = 256 } } or \
                               { set_level = \"debug\" }";
const SAMPLE_HINT: &str = "0.1 keeps one event in ten, 1 keeps all";
const RATE_LIMIT_HINT: &str = "write { rate_limit = { per_second = 100, burst = 200 } }";
const DEDUP_HINT: &str = "write { dedup = { window_ms = 1000 } }";
const REDACT_HINT: &str =
    "write { redact = [\"password\"] } or { redact = { pattern = 'ssn=\\d+', fields = [\"message\"] } }";
const CAP_HINT: &str = "write { cap = { fields = [\"*\"], bytes_max = 256 } }";

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
        /// Whole keys, where the event has one.
        by: Option<Key>,
    },
    /// Lets so many pass, per process.
    RateLimit {
        /// Above 0.
        per_second: f64,
        /// At least 1.
        burst: u32,
        /// So many of each key.
        by: Option<Key>,
    },
    /// Lets the first pass and drops those like it.
    Dedup {
        /// For how long, in milliseconds.
        window_ms: u64,
        /// What is alike.
        by: Key,
    },
    /// Replaces the values of fields; `message` stands for the message.
    Redact {
        /// Each with all that lies below it.
        fields: Names,
        /// What they become.
        with: String,
    },
    /// Replaces what is found in texts.
    RedactFound {
        /// Each with all that lies below it; `None` for every text.
        fields: Option<Names>,
        /// What is looked for.
        find: Vec<Finder>,
        /// What it becomes.
        with: String,
    },
    /// Cuts long values.
    Cap {
        /// Each with all that lies below it; `None` for every one.
        fields: Option<Names>,
        /// How much stays.
        bytes_max: usize,
    },
    /// Gives it another level.
    SetLevel(Severity),
    /// Makes the flight recorder send what it has kept of the event's span tree, where the event itself passes.
    Release,
}

impl Source<'_> {
    pub(super) fn then(&self, value: &Value<'_>) -> Result<Then, RuleError> {
        if let Some(text) = value.get_ref().as_str() {
            return match text {
                "keep" => Ok(Then::Keep),
                "drop" => Ok(Then::Drop),
                "release" => Ok(Then::Release),
                _ => {
                    let hint = match nearest(text, &["keep", "drop", "release"]) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => HINT.to_owned(),
                    };
                    Err(self.wrong(value, format!("`then` cannot be \"{text}\""), hint))
                }
            };
        }
        let Some(table) = value.get_ref().as_table() else {
            return Err(self.wrong(value, "`then` is neither a string nor a table", HINT));
        };
        self.only_keys(table, &["sample", "rate_limit", "dedup", "redact", "cap", "set_level", "by"], "`then`")?;
        let mut actions = table.iter().filter(|(action, _)| action.get_ref() != "by");
        let (Some((action, argument)), None) = (actions.next(), actions.next()) else {
            return Err(self.wrong(value, "`then` takes exactly one action", HINT));
        };
        let action = action.get_ref().as_ref();
        if let (Some(by), true) = (table.get("by"), action != "sample") {
            let hint =
                "in rate_limit and dedup it stands inside: { rate_limit = { per_second = 1, by = \"callsite\" } }";
            return Err(self.wrong(by, format!("`by` does not go with `{action}`"), hint));
        }
        match action {
            "sample" => self.sample(argument, table.get("by")),
            "rate_limit" => self.rate_limit(argument),
            "dedup" => self.dedup(argument),
            "redact" => self.redact(argument),
            "cap" => self.cap(argument),
            _ => {
                let argument = self.only(argument, "level")?;
                match self.text(argument, "set_level")?.parse() {
                    Ok(level) => Ok(Then::SetLevel(level)),
                    Err(message) => Err(self.error(argument.span().start, message)),
                }
            }
        }
    }

    /// `0.1`, with `by` beside it, or `{ rate = 0.1, by = … }`.
    fn sample<'v, 'i>(&self, argument: &'v Value<'i>, mut by: Option<&'v Value<'i>>) -> Result<Then, RuleError> {
        let mut value = argument;
        if let Some(table) = argument.get_ref().as_table() {
            self.only_keys(table, &["rate", "by"], "`sample`")?;
            value = table.get("rate").ok_or_else(|| self.wrong(argument, "`sample` lacks `rate`", SAMPLE_HINT))?;
            by = by.or(table.get("by"));
        }
        let rate = self.number(value, "sample")?;
        if !(0.0..=1.0).contains(&rate) {
            return Err(self.wrong(value, format!("the sampling rate {rate} is not between 0 and 1"), SAMPLE_HINT));
        }
        Ok(Then::Sample { rate, by: by.map(|by| self.key(by)).transpose()? })
    }

    fn rate_limit(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        let table = self.table(argument, "rate_limit", &["per_second", "burst", "by"], RATE_LIMIT_HINT)?;
        let Some(value) = table.get("per_second") else {
            return Err(self.wrong(argument, "`rate_limit` lacks `per_second`", RATE_LIMIT_HINT));
        };
        let per_second = self.number(value, "per_second")?;
        // From one event a day to what no process emits.
        if !(1e-5..=1e9).contains(&per_second) {
            let message = format!("`per_second` = {per_second} is not between 0.00001 and 1e9");
            return Err(self.wrong(value, message, RATE_LIMIT_HINT));
        }
        let burst = match table.get("burst") {
            None => per_second.ceil(),
            Some(value) => self.whole(value, "burst", 1e9, RATE_LIMIT_HINT)?,
        };
        let by = table.get("by").map(|by| self.key(by)).transpose()?;
        Ok(Then::RateLimit { per_second, burst: burst as u32, by })
    }

    fn dedup(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        let table = self.table(argument, "dedup", &["window_ms", "by"], DEDUP_HINT)?;
        let Some(value) = table.get("window_ms") else {
            return Err(self.wrong(argument, "`dedup` lacks `window_ms`", DEDUP_HINT));
        };
        let window_ms = self.whole(value, "window_ms", WINDOW_MS_MAX as f64, DEDUP_HINT)? as u64;
        let by = match table.get("by") {
            Some(by) => self.key(by)?,
            None => Key::new(["callsite", "message", "level"]),
        };
        Ok(Then::Dedup { window_ms, by })
    }

    fn redact(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        if argument.get_ref().as_array().is_some() {
            return Ok(Then::Redact { fields: self.names(argument, "redact")?, with: REDACTED.to_owned() });
        }
        let table = self.table(argument, "redact", &["fields", "pattern", "kinds", "with"], REDACT_HINT)?;
        let fields = table.get("fields").map(|value| self.names(value, "fields")).transpose()?;
        let with = match table.get("with") {
            None => REDACTED,
            Some(value) => match self.text(value, "with")? {
                text if text.len() <= WITH_BYTES_MAX => text,
                text => {
                    let message = format!("`with` has {} bytes, more than {WITH_BYTES_MAX}", text.len());
                    return Err(self.error(value.span().start, message));
                }
            },
        };
        let with = with.to_owned();
        let mut find = Vec::new();
        if let Some(value) = table.get("pattern") {
            let finder = Finder::pattern(self.text(value, "pattern")?);
            find.push(finder.map_err(|message| self.error(value.span().start, message))?);
        }
        if let Some(value) = table.get("kinds") {
            for name in self.texts(value, "kinds")? {
                let unknown = || match nearest(&name, &KIND_NAMES) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("there are {}", KIND_NAMES.join(", ")),
                };
                find.push(
                    Finder::kind(&name)
                        .ok_or_else(|| self.wrong(value, format!("unknown kind `{name}`"), unknown()))?,
                );
            }
        }
        match fields {
            Some(fields) if find.is_empty() => Ok(Then::Redact { fields, with }),
            None if find.is_empty() => {
                Err(self.wrong(argument, "`redact` says neither which fields nor what in them", REDACT_HINT))
            }
            fields => Ok(Then::RedactFound { fields, find, with }),
        }
    }

    fn cap(&self, argument: &Value<'_>) -> Result<Then, RuleError> {
        let table = self.table(argument, "cap", &["fields", "bytes_max"], CAP_HINT)?;
        let Some(value) = table.get("bytes_max") else {
            return Err(self.wrong(argument, "`cap` lacks `bytes_max`", CAP_HINT));
        };
        let bytes_max = self.whole(value, "bytes_max", CAP_BYTES_MAX, CAP_HINT)? as usize;
        let fields = table.get("fields").map(|value| self.names(value, "fields")).transpose()?;
        Ok(Then::Cap { fields, bytes_max })
    }

    fn table<'v, 'i>(
        &self,
        argument: &'v Value<'i>,
        action: &str,
        keys: &[&str],
        hint: &str,
    ) -> Result<&'v DeTable<'i>, RuleError> {
        let Some(table) = argument.get_ref().as_table() else {
            return Err(self.wrong(argument, format!("`{action}` takes a table"), hint));
        };
        self.only_keys(table, keys, &format!("`{action}`"))?;
        Ok(table)
    }

    /// A whole number from 1.
    fn whole(&self, value: &Value<'_>, key: &str, max: f64, hint: &str) -> Result<f64, RuleError> {
        match self.number(value, key)? {
            number if number.fract() == 0.0 && (1.0..=max).contains(&number) => Ok(number),
            _ => Err(self.wrong(value, format!("`{key}` is not a whole number from 1 to {max}"), hint)),
        }
    }

    /// A field or several.
    fn key(&self, value: &Value<'_>) -> Result<Key, RuleError> {
        let names = match value.get_ref().as_str() {
            Some("") => return Err(self.wrong(value, "`by` is empty", "write by = \"callsite\" or by = \"user_id\"")),
            Some(name) => vec![name.to_owned()],
            None => self.texts(value, "by")?,
        };
        if names.len() > KEY_FIELDS_MAX {
            return Err(self.error(value.span().start, format!("`by` takes at most {KEY_FIELDS_MAX} fields")));
        }
        Ok(Key::new(names.iter().map(String::as_str)))
    }

    /// Names of fields that can be changed.
    fn names(&self, value: &Value<'_>, key: &str) -> Result<Names, RuleError> {
        let names = Names::new(self.texts(value, key)?);
        let hint = || format!("`{key}` takes `{MESSAGE}` and attributes");
        names.check().map_err(|message| self.wrong(value, message, hint()))?;
        Ok(names)
    }
}
