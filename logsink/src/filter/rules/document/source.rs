//! The document's text and the values in it, as the rule language wants them: of a certain kind, else an error with its
//! place.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
    value::{Datetime, Offset},
};

use super::RuleError;
use crate::filter::expr::nearest;

pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// The text, to turn byte offsets into lines and columns.
pub(super) struct Source<'i> {
    text: &'i str,
    /// Where each line starts.
    lines: Vec<usize>,
}

impl<'i> Source<'i> {
    pub(super) fn new(text: &'i str) -> Self {
        Self { text, lines: std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect() }
    }
}

impl Source<'_> {
    /// The number of the line that this byte is in.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    pub(super) fn error(&self, offset: usize, message: impl Into<String>) -> RuleError {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line = self.line(before.len());
        RuleError {
            line,
            column: before[self.lines[line - 1]..].chars().count() + 1,
            message: message.into(),
            hint: None,
        }
    }

    /// The error for a value of the wrong kind.
    pub(super) fn wrong(&self, value: &Value<'_>, message: impl Into<String>, hint: impl Into<String>) -> RuleError {
        self.error(value.span().start, message).hint(hint)
    }

    pub(super) fn only_keys(&self, table: &DeTable<'_>, known: &[&str], what: &str) -> Result<(), RuleError> {
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

    pub(super) fn text<'v>(&self, value: &'v Value<'_>, key: &str) -> Result<&'v str, RuleError> {
        value.get_ref().as_str().ok_or_else(|| {
            let found = value.get_ref().type_str();
            self.wrong(value, format!("`{key}` takes a string, not a {found}"), format!("write {key} = \"…\""))
        })
    }

    pub(super) fn texts(&self, value: &Value<'_>, key: &str) -> Result<Vec<String>, RuleError> {
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
    pub(super) fn number(&self, value: &Value<'_>, key: &str) -> Result<f64, RuleError> {
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
    pub(super) fn inside(&self, value: &Value<'_>, offset: usize) -> Result<usize, usize> {
        let span = value.span();
        let (Some(raw), Some(text)) = (self.text.get(span.clone()), value.get_ref().as_str()) else {
            return Err(span.start);
        };
        match raw.find(text) {
            Some(at) if !text.is_empty() => Ok(span.start + at + offset),
            _ => Err(span.start),
        }
    }

    /// `{ sample = { rate = 0.1 } }` is the long form of `{ sample = 0.1 }`.
    pub(super) fn only<'v, 'i>(&self, argument: &'v Value<'i>, key: &str) -> Result<&'v Value<'i>, RuleError> {
        let Some(table) = argument.get_ref().as_table() else { return Ok(argument) };
        self.only_keys(table, &[key], "the action")?;
        table.get(key).ok_or_else(|| self.error(argument.span().start, format!("the action lacks `{key}`")))
    }

    pub(super) fn until(&self, value: &Value<'_>) -> Result<u64, RuleError> {
        let hint = "write a time with its zone: until = 2027-01-31T18:00:00Z";
        match value.get_ref() {
            DeValue::Datetime(time) => {
                unix_ns(time).ok_or_else(|| self.wrong(value, "`until` is not a point in time", hint))
            }
            _ => Err(self.wrong(value, "`until` is not a date and time", hint)),
        }
    }
}

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
