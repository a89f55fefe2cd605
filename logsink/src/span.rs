//! Spans: their fields, encoded once, and the context that they give to the events inside.
//!
//! A context is everything that an event gets without bringing it: its thread, the name and path of its span, the fields
//! of all spans around it and the trace. It is built when it is first needed and kept by the thread, so an event in the
//! same span costs one copy. Where two spans have a field of the same name, the innermost is shown.

mod buffer;
mod fields;
pub(crate) mod stack;
mod table;

use std::ops::Range;

use tracing_core::{Subscriber, span};
use tracing_subscriber::{
    layer::Context as LayerContext,
    registry::{LookupSpan, SpanRef},
};

pub(crate) use fields::epoch;
use fields::{SPAN_VALUE_BYTES_MAX, SpanFields, SpanVisitor};
pub(crate) use table::Spans;

use crate::{
    callsite::{BITS, Callsite, name, name_bit},
    encode::{Scalar, event::EXCEPTION_MESSAGE, push_attribute, push_text, push_text_of},
    filter::rules::REDACTED,
    layer::Capture,
    queue::Draft,
};

/// A quarter of a chunk: an event must have room beside its context. Fields of outer spans are left out first.
const CONTEXT_BYTES_MAX: usize = 16 * 1024;

/// Spans that are shown in `span.path` and give their fields; deeper nesting is a runaway recursion.
const DEPTH_MAX: usize = 128;

/// A thread's or span's share of an event, encoded, for one layer.
#[derive(Default)]
pub(crate) struct Context {
    /// The innermost span's id; 0 for none. Ids are used again after a span has closed.
    span: u64,
    /// [`epoch`] before it was built; 0 when it is not.
    epoch: u64,
    /// [`SpanFields::serial`] of the innermost span, never used again; 0 for none.
    serial: u64,
    /// The same of the outermost span: what the flight recorder keeps events together by. Of spans nested deeper than
    /// [`DEPTH_MAX`], of one of those in between. 0 outside of any span.
    pub(crate) root: u64,
    /// Attributes, then (from `ids_at`) the trace's fields.
    bytes: Vec<u8>,
    ids_at: usize,
    /// The attributes' names and places in `bytes`.
    attributes: Vec<(&'static str, Range<usize>)>,
    /// [`name_bit`] of every name in `attributes`.
    name_bits: u64,
    /// Names of spans from the innermost out, while a path is made; kept for its memory.
    names: Vec<&'static str>,
    /// Values that had no room.
    pub(crate) left_out: u32,
}

impl Context {
    #[inline]
    pub(crate) fn is_built(&self) -> bool {
        self.epoch != 0
    }

    /// Whether it shows this span, and all values that were recorded for it and the spans around it.
    pub(crate) fn still_shows<S>(&mut self, spans: &Spans, leaf: &SpanRef<'_, S>) -> bool
    where
        S: for<'a> LookupSpan<'a>,
    {
        let epoch = epoch();
        if !self.is_built() || self.span != leaf.id().into_u64() || self.serial != serial(spans, leaf) {
            return false;
        }
        // Mostly it was another span that got a value.
        let is_newer = |fields: &SpanFields| fields.epoch() > self.epoch;
        let changed = self.epoch != epoch
            && leaf.scope().take(DEPTH_MAX).any(|span| look_at(spans, &span, is_newer).unwrap_or(false));
        if !changed {
            self.epoch = epoch;
        }
        !changed
    }

    /// How many bytes it adds to a record.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Starts anew with what the thread gives.
    #[cold]
    #[inline(never)]
    pub(crate) fn build_thread(&mut self, capture: &Capture) {
        self.clear();
        if capture.thread {
            let thread = std::thread::current();
            if let Some(thread_name) = thread.name() {
                self.push(name::THREAD_NAME, capture, |out| {
                    push_text(out, name::THREAD_NAME, crate::encode::cut(thread_name, THREAD_NAME_BYTES_MAX));
                });
            }
            if let Some(id) = thread_number(thread.id()) {
                self.push(name::THREAD_ID, capture, |out| {
                    push_attribute(out, name::THREAD_ID, Scalar::int(id).as_bytes());
                });
            }
        }
        self.ids_at = self.bytes.len();
        self.epoch = epoch();
    }

    /// Starts anew with what this span and those around it give, beside the thread's context.
    pub(crate) fn build_span<S>(
        &mut self,
        capture: &Capture,
        thread: &Context,
        spans: &Spans,
        leaf: &SpanRef<'_, S>,
        ids: impl FnOnce(&mut Vec<u8>),
    ) where
        S: for<'a> LookupSpan<'a>,
    {
        self.epoch = 0;
        self.bytes.clone_from(&thread.bytes);
        self.attributes.clone_from(&thread.attributes);
        self.name_bits = thread.name_bits;
        self.left_out = thread.left_out;
        let epoch = epoch();
        if capture.spans {
            self.push(name::SPAN_NAME, capture, |out| push_text(out, name::SPAN_NAME, leaf.name()));
        }
        self.root = 0;
        self.names.clear();
        // From the innermost out: a name that is there already stays.
        for span in leaf.scope().take(DEPTH_MAX) {
            self.names.push(span.name());
            look_at(spans, &span, |fields| {
                self.root = fields.serial();
                let wanted = |name: &str| capture.spans && name != name::SPAN_PATH && capture.span_fields.include(name);
                fields.iter().filter(|(name, _)| wanted(name)).for_each(|(name, encoded)| {
                    self.push(name, capture, |out| out.extend_from_slice(encoded));
                });
            });
        }
        if capture.spans {
            self.push_path(capture);
        }
        self.ids_at = self.bytes.len();
        ids(&mut self.bytes);
        (self.span, self.serial, self.epoch) = (leaf.id().into_u64(), serial(spans, leaf), epoch);
    }

    /// `outer:inner` of the names that were collected from the inside out.
    fn push_path(&mut self, capture: &Capture) {
        let names = std::mem::take(&mut self.names);
        let bytes = names.iter().map(|name| name.len() + 1).sum::<usize>().saturating_sub(1);
        if bytes <= SPAN_VALUE_BYTES_MAX {
            let separated =
                names.iter().rev().enumerate().flat_map(|(at, name)| [if at == 0 { "" } else { ":" }, name]);
            self.push(name::SPAN_PATH, capture, |out| push_text_of(out, name::SPAN_PATH, bytes, separated));
        } else {
            let path = names.iter().rev().copied().collect::<Vec<_>>().join(":");
            self.push(name::SPAN_PATH, capture, |out| push_text(out, name::SPAN_PATH, &fields::shortened(&path)));
        }
        self.names = names;
    }

    fn clear(&mut self) {
        (self.span, self.serial, self.root, self.epoch) = (0, 0, 0, 0);
        self.bytes.clear();
        self.attributes.clear();
        self.name_bits = 0;
        self.left_out = 0;
    }

    fn push(&mut self, key: &'static str, capture: &Capture, write: impl FnOnce(&mut Vec<u8>)) {
        let known = self.attributes.iter().any(|(name, _)| *name == key);
        if known || matches!(key, name::TARGET | name::FILE | name::LINE | name::MODULE) {
            return;
        }
        let start = self.bytes.len();
        if capture.redact.cover(key) {
            push_text(&mut self.bytes, key, REDACTED);
        } else {
            write(&mut self.bytes);
        }
        if self.bytes.len() > CONTEXT_BYTES_MAX {
            self.bytes.truncate(start);
            self.left_out += 1;
            return;
        }
        self.attributes.push((key, start..self.bytes.len()));
        self.name_bits |= name_bit(key);
    }

    /// Appends itself to an event's record, without the attributes that the event brings itself: `recorded` says which of the
    /// callsite's first [`BITS`] fields have a value, `exception` whether [`EXCEPTION_MESSAGE`] was added.
    #[inline(always)]
    pub(crate) fn append(&self, draft: &mut Draft<'_>, callsite: &Callsite, recorded: u64, exception: bool) {
        if self.name_bits & callsite.name_bits == 0 {
            draft.put(&self.bytes);
        } else {
            self.append_others(draft, callsite, recorded, exception);
        }
    }

    #[cold]
    #[inline(never)]
    fn append_others(&self, draft: &mut Draft<'_>, callsite: &Callsite, recorded: u64, exception: bool) {
        for (name, range) in &self.attributes {
            let brought = (exception && *name == EXCEPTION_MESSAGE)
                || callsite.fields.iter().enumerate().any(|(index, field)| {
                    // Beyond these fields it is not known whether it has a value; a missing attribute is better than
                    // a double one.
                    field.place.is_attribute() && field.name == *name && (index >= BITS || recorded & (1 << index) != 0)
                });
            if !brought {
                draft.put(&self.bytes[range.clone()]);
            }
        }
        draft.put(&self.bytes[self.ids_at..]);
    }
}

/// Longer names are cut; the system shows 15 bytes of them at most.
const THREAD_NAME_BYTES_MAX: usize = 256;

/// The number in `ThreadId(7)`, which the standard library shows in no other way.
fn thread_number(id: std::thread::ThreadId) -> Option<i64> {
    format!("{id:?}").trim_matches(|letter: char| !letter.is_ascii_digit()).parse().ok()
}

/// What a span's fields say: those in the table, or for want of a place there in the registry. `None` for a span whose
/// creation the layer did not see.
fn look_at<S, R>(spans: &Spans, span: &SpanRef<'_, S>, look: impl FnOnce(&SpanFields) -> R) -> Option<R>
where
    S: for<'a> LookupSpan<'a>,
{
    match spans.read(&span.id()) {
        Some(fields) => Some(look(&fields)),
        None => span.extensions().get::<SpanFields>().map(look),
    }
}

/// A span's serial number; 0 when the layer did not see its creation.
fn serial<S>(spans: &Spans, span: &SpanRef<'_, S>) -> u64
where
    S: for<'a> LookupSpan<'a>,
{
    look_at(spans, span, SpanFields::serial).unwrap_or(0)
}

impl Spans {
    /// Keeps the fields of a new span. Tells how many values were cut.
    #[inline]
    pub(crate) fn on_new<S>(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: &LayerContext<'_, S>,
    ) -> u32
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Some(mut claim) = self.claim(id) else { return keep_in_registry(attributes, id, context) };
        let mut visitor = SpanVisitor::new(&mut claim.fields);
        attributes.record(&mut visitor);
        let truncated = visitor.truncated;
        claim.publish(id);
        truncated
    }

    /// Adds fields that a span was given later. Tells how many values were cut.
    pub(crate) fn on_record<S>(&self, values: &span::Record<'_>, id: &span::Id, context: &LayerContext<'_, S>) -> u32
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        // Before anything is locked: this may run the user's code, which may log.
        let mut newer = SpanFields::new();
        let mut visitor = SpanVisitor::new(&mut newer);
        values.record(&mut visitor);
        let truncated = visitor.truncated;
        if !self.change(id, |kept| kept.update(&newer))
            && let Some(span) = context.span(id)
            && let Some(kept) = span.extensions_mut().get_mut::<SpanFields>()
        {
            kept.update(&newer);
        }
        truncated
    }
}

/// For a span that finds no place in the table.
#[cold]
#[inline(never)]
fn keep_in_registry<S>(attributes: &span::Attributes<'_>, id: &span::Id, context: &LayerContext<'_, S>) -> u32
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    // Before the span's extensions are locked: this may run the user's code, which may log.
    let mut fields = SpanFields::new();
    fields.renew();
    let mut visitor = SpanVisitor::new(&mut fields);
    attributes.record(&mut visitor);
    let truncated = visitor.truncated;
    if let Some(span) = context.span(id) {
        // Two layers of this library in one subscriber share them.
        span.extensions_mut().replace(fields);
    }
    truncated
}
