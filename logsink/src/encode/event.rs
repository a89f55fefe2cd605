//! Writes one event's fields into its record.
//!
//! What does not fit a chunk is cut, never lost: text at a character's end with a marker that tells how much is missing;
//! a value for which not even that has room is left out and counted in the record's `dropped_attributes_count`.

use std::{error::Error, fmt};

use tracing_core::field::{Field, Visit};

use super::{
    FRAME_BYTES, MARKER_BYTES_MAX, Scalar, Varint, cut, padded, tag, varint_length, write_error, write_marker,
};
use crate::{
    callsite::{Block, Callsite, FieldPlan, Place},
    queue::Draft,
};

/// Tags and lengths around one value, key aside: `32 LLL 0a LLL … 12 LLL 0a LLL`.
const HEADER_BYTES_MAX: usize = 16;

/// What text leaves free for the fields that follow it, so that a very long message does not push them all out.
const OTHER_FIELDS_BYTES: usize = 2048;

/// Kept free for what [`EventEncoder::finish`] writes itself: `dropped_attributes_count`.
pub(crate) const FINISH_BYTES: usize = 1 + 5;

/// The name under which an error's own message is repeated, as the semantic conventions ask.
pub(crate) const EXCEPTION_MESSAGE: &str = "exception.message";

/// Visits an event's fields and writes them as they come.
pub(crate) struct EventEncoder<'e, 'w> {
    draft: &'e mut Draft<'w>,
    callsite: &'static Callsite,
    /// One bit for each of the first 64 fields that were recorded.
    recorded: u64,
    /// Fields that had no room.
    dropped: u32,
    /// Values that were cut.
    truncated: u32,
    exception: bool,
}

/// What an event left behind.
pub(crate) struct Outcome {
    /// Which of the first 64 fields have a value.
    pub(crate) recorded: u64,
    /// Whether [`EXCEPTION_MESSAGE`] was added.
    pub(crate) exception: bool,
    /// Values that were cut or left out.
    pub(crate) truncated: u32,
}

impl<'e, 'w> EventEncoder<'e, 'w> {
    /// Starts a record at `now` (nanoseconds since 1970) with the callsite's constants; the draft has room for them.
    #[inline]
    pub(crate) fn new(draft: &'e mut Draft<'w>, callsite: &'static Callsite, now: u64) -> Self {
        draft.put(&callsite.head);
        let head = draft.written();
        head[Callsite::TIME_AT..Callsite::TIME_AT + 8].copy_from_slice(&now.to_le_bytes());
        head[Callsite::OBSERVED_TIME_AT..Callsite::OBSERVED_TIME_AT + 8].copy_from_slice(&now.to_le_bytes());
        Self { draft, callsite, recorded: 0, dropped: 0, truncated: 0, exception: false }
    }

    /// Ends the part that may run the user's code.
    #[inline]
    pub(crate) fn finish(self) -> Outcome {
        if self.dropped > 0 {
            self.draft.open_reserve();
            self.draft.put(&[tag::DROPPED_ATTRIBUTES]);
            self.draft.put(Varint::new(u64::from(self.dropped)).as_bytes());
        }
        Outcome { recorded: self.recorded, exception: self.exception, truncated: self.truncated + self.dropped }
    }

    /// Where the field goes; `None` when it goes nowhere or has been there already.
    #[inline]
    fn plan(&mut self, field: &Field) -> Option<&'static FieldPlan> {
        let index = field.index();
        let plan = self.callsite.fields.get(index)?;
        let bit = if index < 64 { 1 << index } else { 0 };
        if plan.place == Place::Nowhere || self.recorded & bit != 0 {
            return None;
        }
        self.recorded |= bit;
        Some(plan)
    }

    /// Writes everything before a value that is `any` bytes long, for which there is room.
    #[inline]
    fn open(&mut self, plan: &FieldPlan, any: usize) {
        if plan.place == Place::Attribute {
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

    /// As [`EventEncoder::open`] for a short value of an attribute, with room for a whole block and the key; `false` when
    /// it is none, or not short enough.
    #[inline]
    fn open_short(&mut self, plan: &FieldPlan, any: usize) -> bool {
        let Some(block) = &plan.block else { return false };
        let length = block.length - 2 + any;
        if plan.place != Place::Attribute || length > Block::SHORT_MAX {
            return false;
        }
        let start = self.draft.len();
        self.draft.put_start(&block.bytes, block.length);
        let header = &mut self.draft.written()[start..];
        header[1] = length as u8;
        header[block.length - 1] = any as u8;
        true
    }

    #[inline]
    fn scalar(&mut self, field: &Field, value: Scalar) {
        let Some(plan) = self.plan(field) else { return };
        if !self.draft.room(Block::SIZE + Scalar::SIZE + plan.key.len()) {
            self.dropped += 1;
            return;
        }
        if !self.open_short(plan, value.length) {
            self.open(plan, value.length);
        }
        self.draft.put_start(&value.bytes, value.length);
    }

    /// Text or bytes whose length is known.
    #[inline]
    fn delimited(&mut self, plan: &FieldPlan, tag: u8, bytes: &[u8]) -> bool {
        // Of what is kept for other fields a block may take some for a moment.
        let room = HEADER_BYTES_MAX + plan.key.len() + bytes.len() + MARKER_BYTES_MAX + OTHER_FIELDS_BYTES;
        if !self.draft.room(room) {
            return false;
        }
        if bytes.len() < Block::SHORT_MAX && self.open_short(plan, 2 + bytes.len()) {
            self.draft.put(&[tag, bytes.len() as u8]);
        } else {
            self.open(plan, 1 + varint_length(bytes.len()) + bytes.len());
            self.draft.put(&[tag]);
            self.draft.put(Varint::new(bytes.len() as u64).as_bytes());
        }
        self.draft.put(bytes);
        true
    }

    /// Text whose length shows when it is written.
    fn text(&mut self, plan: &FieldPlan, write: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        if !self.draft.room(HEADER_BYTES_MAX + plan.key.len() + MARKER_BYTES_MAX) {
            self.dropped += 1;
            return;
        }
        let attribute_at = self.draft.len() + 1;
        if plan.place == Place::Attribute {
            self.draft.put(&[tag::ATTRIBUTE, 0, 0, 0]);
            self.draft.put(&plan.key);
            self.draft.put(&[tag::VALUE, 0, 0, 0, tag::STRING, 0, 0, 0]);
        } else {
            self.draft.put(&[tag::BODY, 0, 0, 0, tag::STRING, 0, 0, 0]);
        }
        let text_at = self.draft.len();
        let mut text = TextWriter { draft: self.draft, missing: 0, full: false };
        // An implementation that reports an error has still written what it could.
        let _ = write(&mut text);
        if text.full {
            text.close();
            self.truncated += 1;
        }
        let end = self.draft.len();
        let record = self.draft.written();
        record[text_at - 3..text_at].copy_from_slice(&padded(end - text_at));
        record[text_at - 7..text_at - 4].copy_from_slice(&padded(end - text_at + 4));
        if plan.place == Place::Attribute {
            record[attribute_at..attribute_at + 3].copy_from_slice(&padded(end - attribute_at - 3));
        }
    }
}

impl Visit for EventEncoder<'_, '_> {
    #[inline]
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.scalar(field, Scalar::double(value));
    }

    #[inline]
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.scalar(field, Scalar::int(value));
    }

    #[inline]
    fn record_u64(&mut self, field: &Field, value: u64) {
        match i64::try_from(value) {
            Ok(value) => self.scalar(field, Scalar::int(value)),
            // OTLP has no unsigned integer: the digits are kept rather than the type.
            Err(_) => self.record_debug(field, &value),
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
        self.scalar(field, Scalar::bool(value));
    }

    #[inline]
    fn record_str(&mut self, field: &Field, value: &str) {
        let Some(plan) = self.plan(field) else { return };
        if !self.delimited(plan, tag::STRING, value.as_bytes()) {
            self.text(plan, |out| out.write_str(value));
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
        self.text(plan, |out| write!(out, "{value:?}"));
    }
}

/// Writes text at the end of a draft, as far as there is room, and counts the rest.
struct TextWriter<'t, 'w> {
    draft: &'t mut Draft<'w>,
    /// Bytes that had no room.
    missing: usize,
    full: bool,
}

impl TextWriter<'_, '_> {
    /// Room for the marker was kept by each write.
    fn close(&mut self) {
        let missing = self.missing;
        self.full = false;
        let mut marker = MarkerWriter(self.draft);
        // The writer below does not fail.
        let _ = write_marker(&mut marker, missing);
    }
}

impl fmt::Write for TextWriter<'_, '_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        const KEPT: usize = MARKER_BYTES_MAX + OTHER_FIELDS_BYTES;
        if self.full {
            self.missing += text.len();
        } else if self.draft.room(text.len() + KEPT) {
            self.draft.put(text.as_bytes());
        } else {
            let fitting = cut(text, self.draft.left().saturating_sub(KEPT));
            self.draft.put(fitting.as_bytes());
            self.missing = text.len() - fitting.len();
            self.full = true;
        }
        Ok(())
    }
}

struct MarkerWriter<'t, 'w>(&'t mut Draft<'w>);

impl fmt::Write for MarkerWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.left() >= text.len() {
            self.0.put(text.as_bytes());
        }
        Ok(())
    }
}

/// Writes the frame's length when the record is complete.
#[inline]
pub(crate) fn close_frame(draft: &mut Draft<'_>) {
    let length = draft.len() - FRAME_BYTES;
    draft.written()[1..FRAME_BYTES].copy_from_slice(&padded(length));
}
