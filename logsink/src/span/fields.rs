//! A span's own fields, kept encoded in the registry.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
};

use tracing_core::field::{Field, Visit};

use crate::encode::{Scalar, cut, push_attribute, push_delimited, push_text, tag, write_error, write_marker};

/// A span's value is copied into every event inside: longer ones are cut.
const SPAN_VALUE_BYTES_MAX: usize = 4 * 1024;

/// Counts changes of any span's fields: a context built in an older epoch may be out of date.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// Gives every span its own number: the registry uses its ids again.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// The present epoch. To be read before the fields are.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// To be called after fields have changed.
pub(super) fn advance_epoch() {
    EPOCH.fetch_add(1, Ordering::Release);
}

/// One field, encoded.
pub(crate) struct SpanField {
    pub(crate) name: &'static str,
    /// The whole attribute, as a field of `LogRecord`.
    pub(crate) encoded: Box<[u8]>,
}

/// A span's fields, as an extension of the span.
pub(crate) struct SpanFields {
    pub(crate) serial: u64,
    fields: Vec<SpanField>,
}

impl SpanFields {
    pub(crate) fn new(fields: Vec<SpanField>) -> Self {
        Self { serial: SERIAL.fetch_add(1, Ordering::Relaxed), fields }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SpanField> {
        self.fields.iter()
    }

    /// Adds fields; a value takes the place of an older one of the same name.
    pub(super) fn update(&mut self, fields: Vec<SpanField>) {
        fields.into_iter().for_each(|field| self.set(field));
    }

    fn set(&mut self, field: SpanField) {
        match self.fields.iter_mut().find(|kept| kept.name == field.name) {
            Some(kept) => *kept = field,
            None => self.fields.push(field),
        }
    }
}

/// The fields that `visit` records, each name once (the last value counts), and how many values were cut.
pub(super) fn record(visit: impl FnOnce(&mut dyn Visit)) -> (Vec<SpanField>, u32) {
    let mut visitor = SpanVisitor { kept: SpanFields { serial: 0, fields: Vec::new() }, truncated: 0 };
    visit(&mut visitor);
    (visitor.kept.fields, visitor.truncated)
}

/// Text that fits beside others; cut with a marker when it is too long.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= SPAN_VALUE_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let mut short = Shortener::default();
    // It does not fail.
    let _ = short.write_str(text);
    Cow::Owned(short.finish())
}

/// Collects the start of a text and counts the rest.
#[derive(Default)]
struct Shortener {
    text: String,
    missing: usize,
}

impl Shortener {
    fn finish(mut self) -> String {
        if self.missing > 0 {
            // Writing to a string does not fail.
            let _ = write_marker(&mut self.text, self.missing);
        }
        self.text
    }
}

impl fmt::Write for Shortener {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = if self.missing > 0 { 0 } else { SPAN_VALUE_BYTES_MAX - self.text.len() };
        let fitting = cut(text, room);
        self.text.push_str(fitting);
        self.missing += text.len() - fitting.len();
        Ok(())
    }
}

struct SpanVisitor {
    kept: SpanFields,
    truncated: u32,
}

impl SpanVisitor {
    fn keep(&mut self, field: &Field, write: impl FnOnce(&mut Vec<u8>, &str)) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        let mut encoded = Vec::new();
        write(&mut encoded, name);
        self.kept.set(SpanField { name, encoded: encoded.into() });
    }

    fn scalar(&mut self, field: &Field, value: &Scalar) {
        self.keep(field, |out, name| push_attribute(out, name, value.as_bytes()));
    }

    fn text(&mut self, field: &Field, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        let mut short = Shortener::default();
        // An implementation that reports an error has still written what it could.
        let _ = write(&mut short);
        self.truncated += u32::from(short.missing > 0);
        let text = short.finish();
        self.keep(field, |out, name| push_text(out, name, &text));
    }
}

impl Visit for SpanVisitor {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.scalar(field, &Scalar::double(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.scalar(field, &Scalar::int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.scalar(field, &Scalar::int(value)),
            Err(_) => self.record_debug(field, &value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.scalar(field, &Scalar::bool(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let short = shortened(value);
        self.truncated += u32::from(short.len() != value.len());
        self.keep(field, |out, name| push_text(out, name, &short));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let fitting = &value[..value.len().min(SPAN_VALUE_BYTES_MAX)];
        self.truncated += u32::from(fitting.len() < value.len());
        let mut any = Vec::new();
        push_delimited(&mut any, tag::BYTES, fitting);
        self.keep(field, |out, name| push_attribute(out, name, &any));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, |out| write_error(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, |out| write!(out, "{value:?}"));
    }
}
