//! A span's own fields, kept encoded: one value, with room for what most spans have.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Write as _},
    sync::atomic::{AtomicU64, Ordering},
};

use tracing_core::field::{Field, Visit};

use super::buffer::{Bytes, Table};
use crate::encode::{Scalar, cut, push_attribute, push_delimited, tag, write_error, write_marker};

/// A span's value is copied into every event inside: longer ones are cut.
pub(super) const SPAN_VALUE_BYTES_MAX: usize = 4 * 1024;

/// Counts changes of any span's fields: a context built in an older epoch may be out of date.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// Gives every span its own number: the registry uses its ids again.
static SERIAL: AtomicU64 = AtomicU64::new(1);

/// The present epoch. To be read before the fields are.
#[inline]
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Ordering::Acquire)
}

/// Enough for most spans that have no room inside. What others take is given back when they close.
const HEAP_BYTES_KEPT: usize = 1024;

/// A span's fields.
pub(crate) struct SpanFields {
    serial: u64,
    /// The epoch of the last change.
    epoch: u64,
    fields: Table,
    encoded: Bytes,
}

impl SpanFields {
    /// No fields, of no span.
    pub(super) fn new() -> Self {
        Self { serial: 0, epoch: 0, fields: Table::new(), encoded: Bytes::new() }
    }

    /// Takes all fields out, and becomes those of a new span.
    #[inline]
    pub(super) fn renew(&mut self) {
        self.serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        self.epoch = 0;
        self.fields.clear();
        self.encoded.clear();
    }

    /// Whether it takes memory that most spans do not need.
    #[inline]
    pub(super) fn is_large(&self) -> bool {
        self.fields.heap_bytes() + self.encoded.heap_bytes() > HEAP_BYTES_KEPT
    }

    /// The span's own number.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// When a value was recorded last; 0 for never.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Names, and the whole attributes as fields of `LogRecord`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let bytes = self.encoded.as_slice();
        self.fields.as_slice().iter().scan(0, |start, &(name, end)| {
            let encoded = bytes.get(*start..end as usize)?;
            *start = end as usize;
            Some((name, encoded))
        })
    }

    /// Adds fields; a value takes the place of an older one of the same name. To be called under the lock of the span's
    /// extensions: who sees the new epoch waits there for the new values.
    pub(super) fn update(&mut self, newer: &Self) {
        for (name, encoded) in newer.iter() {
            self.forget(name);
            self.encoded.extend(encoded.len()).copy_from_slice(encoded);
            self.close(name);
        }
        self.epoch = EPOCH.fetch_add(1, Ordering::Release) + 1;
    }

    /// Takes out the value of this name.
    #[inline]
    fn forget(&mut self, name: &str) {
        if let Some(at) = self.fields.as_slice().iter().position(|(kept, _)| *kept == name) {
            self.remove(at);
        }
    }

    #[cold]
    fn remove(&mut self, at: usize) {
        let fields = self.fields.as_mut_slice();
        let start = at.checked_sub(1).map_or(0, |before| fields[before].1);
        let end = fields[at].1;
        fields[at..].iter_mut().for_each(|(_, place)| *place -= end - start);
        self.fields.remove(at..at + 1);
        self.encoded.remove(start as usize..end as usize);
    }

    /// Ends a field whose bytes have been put.
    #[inline]
    fn close(&mut self, name: &'static str) {
        // A span's values are cut to some KiB each, and its callsite has a few hundred at most.
        let end = self.encoded.len() as u32;
        self.fields.push((name, end));
    }
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

/// Collects a span's fields, each name once: the last value counts.
pub(super) struct SpanVisitor<'f> {
    kept: &'f mut SpanFields,
    /// Values that were cut.
    pub(super) truncated: u32,
}

impl<'f> SpanVisitor<'f> {
    #[inline]
    pub(super) fn new(kept: &'f mut SpanFields) -> Self {
        Self { kept, truncated: 0 }
    }

    #[inline(always)]
    fn keep(&mut self, field: &Field, put: impl FnOnce(&mut Bytes, &'static str)) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.kept.forget(name);
        put(&mut self.kept.encoded, name);
        self.kept.close(name);
    }

    fn scalar(&mut self, field: &Field, value: &Scalar) {
        self.keep(field, |out, name| out.put_scalar(name, value));
    }

    fn text(&mut self, field: &Field, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        let mut short = Shortener::default();
        // An implementation that reports an error has still written what it could.
        let _ = write(&mut short);
        self.truncated += u32::from(short.missing > 0);
        let text = short.finish();
        self.keep(field, |out, name| out.put_text(name, &text));
    }
}

impl Visit for SpanVisitor<'_> {
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
        if value.len() <= SPAN_VALUE_BYTES_MAX {
            return self.keep(field, |out, name| out.put_text(name, value));
        }
        self.truncated += 1;
        self.keep(field, |out, name| out.put_text(name, &shortened(value)));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let fitting = &value[..value.len().min(SPAN_VALUE_BYTES_MAX)];
        self.truncated += u32::from(fitting.len() < value.len());
        let mut any = Vec::new();
        push_delimited(&mut any, tag::BYTES, fitting);
        self.keep(field, |out, name| out.put_elsewhere(|out| push_attribute(out, name, &any)));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.text(field, |out| write_error(out, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, |out| write!(out, "{value:?}"));
    }
}
