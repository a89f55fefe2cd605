//! Text of a length that shows only when it is written, as `Display` and `Debug` write it.

use std::fmt;

use super::{MARKER_BYTES_MAX, cut, write_marker};
use crate::queue::Draft;

/// What text leaves free for the fields that follow it, so that a very long message does not push them all out.
pub(super) const OTHER_FIELDS_BYTES: usize = 2048;

/// What text leaves free behind it.
const KEPT: usize = MARKER_BYTES_MAX + OTHER_FIELDS_BYTES;

/// Writes text at the end of a draft, as far as there is room, and counts the rest.
pub(super) struct TextWriter<'t, 'w> {
    draft: &'t mut Draft<'w>,
    /// Bytes that had no room.
    missing: usize,
    full: bool,
}

impl<'t, 'w> TextWriter<'t, 'w> {
    #[inline(always)]
    pub(super) fn new(draft: &'t mut Draft<'w>) -> Self {
        Self { draft, missing: 0, full: false }
    }

    /// Whether something had no room.
    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Puts the marker behind a text that had no room; room for it was kept by each write.
    #[cold]
    pub(super) fn close(&mut self) {
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
        if self.full || !self.draft.append_short(text.as_bytes(), KEPT) {
            self.write_elsewhere(text);
        }
        Ok(())
    }
}

impl TextWriter<'_, '_> {
    /// Text that is not short, or has no room.
    #[inline(never)]
    fn write_elsewhere(&mut self, text: &str) {
        if self.full {
            self.missing += text.len();
        } else if !self.draft.append(text.as_bytes(), KEPT) {
            let fitting = cut(text, self.draft.left().saturating_sub(KEPT));
            self.draft.put(fitting.as_bytes());
            self.missing = text.len() - fitting.len();
            self.full = true;
        }
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
