//! Writes one event's fields into its record.
//!
//! What does not fit a chunk is cut, never lost: text at a character's end with a marker that tells how much is missing;
//! a value for which not even that has room is left out and counted in the record's `dropped_attributes_count`.

use std::{
    error::Error,
    fmt::{self, Write as _},
};

use tracing_core::field::{Field, Visit};

use super::{
    FRAME_BYTES, MARKER_BYTES_MAX, SHORT_INT_END, Scalar, Varint, padded, padded_word, tag,
    text::{OTHER_FIELDS_BYTES, TextWriter},
    varint_length, write_bool, write_double, write_error, write_int, write_short_int,
};
use crate::{
    callsite::{Block, Callsite, FieldPlan, NO_BLOCK, Place},
    filter::rules::REDACTED,
    queue::{COPY_SHORT_MAX, Draft, FRAME_TAG, copy_short},
    span::Context,
};

/// Tags and lengths around one value, key aside: `32 LLL 0a LLL … 12 LLL 0a LLL`.
const HEADER_BYTES_MAX: usize = 16;

/// A block and a scalar behind it.
const SCALAR_BYTES_MAX: usize = Block::SIZE + Scalar::SIZE;

/// Tag and length of the text in an `AnyValue`, as short as they can be.
const SHORT_TEXT_HEADER_BYTES: usize = 2;

/// Text that is copied in place: a block's rest and this are together short enough for lengths of one byte.
const SHORT_TEXT_MAX: usize = COPY_SHORT_MAX;
const _: () = assert!(Block::SIZE + SHORT_TEXT_HEADER_BYTES + SHORT_TEXT_MAX <= Block::SHORT_MAX);

/// `2a LLL 0a LLL` before a body, the last part of `32 LLL 0a LLL … 12 LLL 0a LLL` before an attribute.
const TEXT_HEADER_BYTES: usize = 8;

/// Kept free for what [`EventEncoder::finish`] writes itself: `dropped_attributes_count`.
pub(crate) const FINISH_BYTES: usize = 1 + 5;

/// The name under which an error's own message is repeated, as the semantic conventions ask.
pub(crate) const EXCEPTION_MESSAGE: &str = "exception.message";

/// Visits an event's fields and writes them as they come.
pub(crate) struct EventEncoder<'w> {
    /// The record. Inside, because a reference to it would be one more step for every byte.
    pub(crate) draft: Draft<'w>,
    /// The callsite's.
    fields: &'static [FieldPlan],
    /// The bits of fields that were recorded, and [`NO_BLOCK`].
    recorded: u64,
    /// Fields that had no room.
    dropped: u32,
    /// Values that were cut or left out.
    pub(crate) truncated: u32,
    /// Whether [`EXCEPTION_MESSAGE`] was added.
    exception: bool,
}

impl<'w> EventEncoder<'w> {
    #[inline(always)]
    pub(crate) fn new(draft: Draft<'w>, callsite: &'static Callsite) -> Self {
        Self { draft, fields: &callsite.fields, recorded: NO_BLOCK, dropped: 0, truncated: 0, exception: false }
    }

    /// Starts the record at `now` (nanoseconds since 1970) with the callsite's constants; `false` when there is no room.
    #[inline(always)]
    pub(crate) fn begin(&mut self, callsite: &Callsite, now: u64) -> bool {
        self.draft.append_with(&callsite.head, 0, |place| {
            if let Some(place) = place.first_chunk_mut::<{ Callsite::OBSERVED_TIME_AT + 8 }>() {
                place[Callsite::TIME_AT..Callsite::TIME_AT + 8].copy_from_slice(&now.to_le_bytes());
                place[Callsite::OBSERVED_TIME_AT..].copy_from_slice(&now.to_le_bytes());
            }
        })
    }

    /// Completes the record with its context, for which the draft's reserve was kept; `false` when the queue was found full
    /// or closed on the way. What may run the user's code is over.
    #[inline(always)]
    pub(crate) fn finish(&mut self, callsite: &Callsite, context: &Context) -> bool {
        if !self.draft.open_reserve() {
            return false;
        }
        if self.dropped > 0 {
            self.put_dropped();
        }
        context.append(&mut self.draft, callsite, self.recorded, self.exception);
        let length = self.draft.len() - FRAME_BYTES;
        self.draft.patch(0, (u32::from(FRAME_TAG) | padded_word(length) << 8).to_le_bytes());
        true
    }

    #[cold]
    #[inline(never)]
    fn put_dropped(&mut self) {
        self.draft.put(&[tag::DROPPED_ATTRIBUTES]);
        self.draft.put(Varint::new(u64::from(self.dropped)).as_bytes());
        self.truncated += self.dropped;
    }

    /// Where the field goes; `None` when it goes nowhere or has been there already.
    #[inline(always)]
    fn plan(&mut self, field: &Field) -> Option<&'static FieldPlan> {
        let plan = self.fields.get(field.index())?;
        if !plan.place.takes_values() {
            self.redacted(plan);
            return None;
        }
        if self.recorded & plan.bit != 0 {
            return None;
        }
        self.recorded |= plan.bit;
        Some(plan)
    }

    /// A field whose value must not leave, or that goes nowhere.
    #[cold]
    #[inline(never)]
    fn redacted(&mut self, plan: &'static FieldPlan) {
        if plan.place != Place::Nowhere && self.recorded & plan.bit == 0 {
            self.recorded |= plan.bit;
            if !self.delimited(plan, tag::STRING, REDACTED.as_bytes()) {
                self.dropped += 1;
            }
        }
    }

    /// The same for a field that has a block.
    #[inline(always)]
    fn block(&mut self, field: &Field) -> Option<&'static Block> {
        let plan = self.fields.get(field.index())?;
        if self.recorded & plan.block_bit != 0 {
            return None;
        }
        self.recorded |= plan.block_bit;
        Some(&plan.block)
    }

    /// Writes everything before a value that is `any` bytes long, for which there is room.
    #[inline]
    fn open(&mut self, plan: &FieldPlan, any: usize) {
        if plan.place.is_attribute() {
            let length = plan.key.len() + 1 + varint_length(any) + any;
            self.draft.put(&[tag::ATTRIBUTE]);
            self.draft.put(Varint::new(length as u64).as_bytes());
            self.draft.put(&plan.key);
            self.draft.put(&[tag::VALUE]);
        } else {
            self.draft.put(&[tag::BODY]);
        }
        self.draft.put(Varint::new(any as u64).as_bytes());
    }

    /// A scalar, as `write` writes it, at once where that is easy: in an attribute, with room in the chunk. Else `false`.
    #[inline(always)]
    fn scalar(&mut self, field: &Field, write: impl FnOnce(&mut [u8; Scalar::SIZE]) -> usize) -> bool {
        let recorded = self.recorded;
        let Some(block) = self.block(field) else { return false };
        let written = self.draft.fill::<SCALAR_BYTES_MAX>(|next| {
            let last = block.last();
            next[..Block::SIZE].copy_from_slice(&block.bytes);
            let Some(place) = next[last + 1..].first_chunk_mut() else { return 0 };
            let any = write(place);
            next[1] = (last - 1 + any) as u8;
            next[last] = any as u8;
            last + 1 + any
        });
        if !written {
            self.recorded = recorded;
        }
        written
    }

    /// An integer of any size.
    #[inline(never)]
    fn int(&mut self, field: &Field, value: i64) {
        if !self.scalar(field, |place| write_int(place, value)) {
            self.scalar_elsewhere(field, &Scalar::int(value));
        }
    }

    #[cold]
    #[inline(never)]
    fn double_elsewhere(&mut self, field: &Field, value: f64) {
        self.scalar_elsewhere(field, &Scalar::double(value));
    }

    #[cold]
    #[inline(never)]
    fn bool_elsewhere(&mut self, field: &Field, value: bool) {
        self.scalar_elsewhere(field, &Scalar::bool(value));
    }

    /// A scalar in the body, under a long name, or at the end of a chunk.
    fn scalar_elsewhere(&mut self, field: &Field, value: &Scalar) {
        let Some(plan) = self.plan(field) else { return };
        if self.draft.room(HEADER_BYTES_MAX + plan.key.len() + Scalar::SIZE) {
            self.open(plan, value.as_bytes().len());
            self.draft.put(value.as_bytes());
        } else {
            self.dropped += 1;
        }
    }

    /// Text, at once where that is easy: short, in an attribute, with room in the chunk. Else `false`.
    #[inline(always)]
    fn short_text(&mut self, field: &Field, text: &[u8]) -> bool {
        let recorded = self.recorded;
        let Some(block) = self.block(field) else { return false };
        let last = block.last();
        let any = SHORT_TEXT_HEADER_BYTES + text.len();
        let written = text.len() <= SHORT_TEXT_MAX
            && self.draft.fill::<{ Block::SIZE + SHORT_TEXT_HEADER_BYTES + SHORT_TEXT_MAX }>(|next| {
                next[..Block::SIZE].copy_from_slice(&block.bytes);
                next[1] = (last - 1 + any) as u8;
                next[last] = any as u8;
                next[last + 1] = tag::STRING;
                next[last + 2] = text.len() as u8;
                copy_short(&mut next[last + 3..last + 3 + text.len()], text);
                last + 1 + any
            });
        if !written {
            self.recorded = recorded;
        }
        written
    }

    /// An integer that OTLP has no type for.
    #[cold]
    #[inline(never)]
    fn large(&mut self, field: &Field, value: u64) {
        self.record_debug(field, &value);
    }

    /// Text of any kind.
    #[inline(never)]
    fn any_text(&mut self, field: &Field, value: &str) {
        let Some(plan) = self.plan(field) else { return };
        if !self.delimited(plan, tag::STRING, value.as_bytes()) {
            self.text(plan, |out| out.write_str(value));
        }
    }

    /// Text or bytes whose length is known.
    fn delimited(&mut self, plan: &FieldPlan, tag: u8, bytes: &[u8]) -> bool {
        let room = HEADER_BYTES_MAX + plan.key.len() + bytes.len() + MARKER_BYTES_MAX + OTHER_FIELDS_BYTES;
        if !self.draft.room(room) {
            return false;
        }
        self.open(plan, 1 + varint_length(bytes.len()) + bytes.len());
        self.draft.put(&[tag]);
        self.draft.put(Varint::new(bytes.len() as u64).as_bytes());
        self.draft.put(bytes);
        true
    }

    /// Text whose length shows when it is written.
    #[inline(always)]
    fn text(&mut self, plan: &FieldPlan, write: impl FnOnce(&mut TextWriter<'_, 'w>) -> fmt::Result) {
        if plan.place == Place::Body {
            self.text_value(tag::BODY, write);
            return;
        }
        let start = self.draft.len();
        if !self.open_text_attribute(plan) || !self.text_value(tag::VALUE, write) {
            return;
        }
        let length = self.draft.len() - start - 4;
        self.draft.patch(start + 1, padded(length));
    }

    #[inline(never)]
    fn debug_attribute(&mut self, plan: &FieldPlan, value: &dyn fmt::Debug) {
        self.text(plan, |out| write!(out, "{value:?}"));
    }

    /// `TAG LLL 0a LLL` and the text; `false`, and counted, when there is no room for it.
    #[inline(always)]
    fn text_value(&mut self, tag: u8, write: impl FnOnce(&mut TextWriter<'_, 'w>) -> fmt::Result) -> bool {
        // The lengths are written when they are known; a marker may follow the text.
        let Some(header_at) = self.draft.skip(TEXT_HEADER_BYTES, MARKER_BYTES_MAX) else {
            self.dropped += 1;
            return false;
        };
        let mut text = TextWriter::new(&mut self.draft);
        // An implementation that reports an error has still written what it could.
        let _ = write(&mut text);
        if text.is_full() {
            text.close();
            self.truncated += 1;
        }
        let length = self.draft.len() - header_at - TEXT_HEADER_BYTES;
        let header = if length + 4 < 0x80 {
            // Most text is short: its lengths are in one byte each, and the same with 4 added.
            text_header(tag, 0) + (length as u64) * (1 << 40 | 1 << 8)
        } else {
            text_header(tag, length)
        };
        self.draft.patch(header_at, header.to_le_bytes());
        true
    }

    /// `32 LLL key`, its length left open; `false`, and counted, when there is no room for it and what must follow.
    #[inline(never)]
    fn open_text_attribute(&mut self, plan: &FieldPlan) -> bool {
        let room = self.draft.room(HEADER_BYTES_MAX + plan.key.len() + MARKER_BYTES_MAX);
        if room {
            self.draft.put(&[tag::ATTRIBUTE, 0, 0, 0]);
            self.draft.put(&plan.key);
        } else {
            self.dropped += 1;
        }
        room
    }
}

impl Visit for EventEncoder<'_> {
    #[inline]
    fn record_f64(&mut self, field: &Field, value: f64) {
        if !self.scalar(field, |place| write_double(place, value)) {
            self.double_elsewhere(field, value);
        }
    }

    #[inline]
    fn record_i64(&mut self, field: &Field, value: i64) {
        // The loop of a long varint wants more registers than a call has for free.
        if !(0..SHORT_INT_END).contains(&value) || !self.scalar(field, |place| write_short_int(place, value)) {
            self.int(field, value);
        }
    }

    #[inline]
    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.record_i64(field, value),
            // OTLP has no unsigned integer: the digits are kept rather than the type.
            Err(_) => self.large(field, value),
        }
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.record_debug(field, &value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.record_debug(field, &value);
    }

    #[inline]
    fn record_bool(&mut self, field: &Field, value: bool) {
        if !self.scalar(field, |place| write_bool(place, value)) {
            self.bool_elsewhere(field, value);
        }
    }

    #[inline]
    fn record_str(&mut self, field: &Field, value: &str) {
        if !self.short_text(field, value.as_bytes()) {
            self.any_text(field, value);
        }
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let Some(plan) = self.plan(field) else { return };
        if !self.delimited(plan, tag::BYTES, value) {
            let around = HEADER_BYTES_MAX + plan.key.len() + MARKER_BYTES_MAX + OTHER_FIELDS_BYTES;
            let fitting = self.draft.left().saturating_sub(around).min(value.len());
            // Bytes have no place for a marker; the counter tells.
            match self.delimited(plan, tag::BYTES, &value[..fitting]) {
                true => self.truncated += 1,
                false => self.dropped += 1,
            }
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let Some(plan) = self.plan(field) else { return };
        self.text(plan, |out| write_error(out, value));
        if let (Some(exception), false) = (&plan.exception, self.exception) {
            self.exception = true;
            self.text(exception, |out| write!(out, "{value}"));
        }
    }

    #[inline]
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let Some(plan) = self.plan(field) else { return };
        if plan.place == Place::Body {
            self.text_value(tag::BODY, |out| write!(out, "{value:?}"));
        } else {
            self.debug_attribute(plan, value);
        }
    }
}

/// `TAG LLL 0a LLL` before text, as a little-endian word.
#[inline(always)]
fn text_header(tag: u8, length: usize) -> u64 {
    u64::from(u32::from(tag) | padded_word(length + 4) << 8)
        | u64::from(u32::from(tag::STRING) | padded_word(length) << 8) << 32
}
