//! Records that go to the flight recorder instead of the queue: written in the same way, to other memory.

use std::sync::Arc;

use super::{CHUNK_BYTES, Draft, Place, Writer};
use crate::{
    Severity,
    queue::Producer,
    recorder::{Pen, Recorder},
};

impl Writer {
    /// A writer into the calling thread's ring. It never has a chunk.
    pub(crate) fn recording(queue: &Producer, recorder: &Arc<Recorder>) -> Self {
        let mut writer = Self::new(queue);
        writer.pen = Some(Box::new(Pen::new(recorder)));
        writer
    }

    /// The key of what this thread has recorded outside of any span, if it has.
    pub(crate) fn recorded_key(&self) -> Option<u64> {
        self.pen.as_ref()?.key()
    }

    /// As [`Writer::draft`], in the ring; `None`, counted, when there is no ring for this thread.
    #[inline]
    pub(crate) fn record(&mut self, reserve: usize, severity: Severity) -> Option<Draft<'_>> {
        if self.size == 0 {
            if !self.pen.as_mut()?.is_ready() {
                return None;
            }
            self.size = CHUNK_BYTES;
            self.follow();
        }
        Some(self.draft(reserve, severity))
    }

    /// Takes over where the pen is.
    #[inline]
    fn follow(&mut self) {
        if let Some(pen) = &self.pen {
            (self.start, self.used) = pen.place();
        }
    }
}

impl Draft<'_> {
    /// Whether its writer is for one record.
    pub(crate) fn is_of_stray(&self) -> bool {
        self.writer.is_stray()
    }

    /// Makes the record one of the flight recorder's, under this key; `false` when that could not take it.
    #[inline]
    pub(crate) fn keep(&mut self, key: u64) -> bool {
        let Some(pen) = self.writer.pen.as_mut().filter(|_| self.writer.place == Place::Chunk) else { return false };
        let kept = pen.publish(self.length, key);
        self.writer.follow();
        kept
    }

    /// Moves the record to the start of the ring's oldest segment.
    pub(super) fn grow_recorded(&mut self, bytes: usize) -> bool {
        // SAFETY: as in `written`; a slice of its own, because the writer is borrowed beside it.
        let begun = unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) };
        let Some(pen) = self.writer.pen.as_mut().filter(|pen| !pen.is_fresh()) else { return false };
        if !pen.advance() {
            self.writer.place = Place::Nowhere;
            return false;
        }
        self.writer.follow();
        // SAFETY: inside the segment, which has this much more room.
        self.base = unsafe { self.writer.start.add(self.writer.used) };
        // SAFETY: the record fits, since it was not alone in its segment before; that and this one are not the same.
        unsafe { std::ptr::copy_nonoverlapping(begun.as_ptr(), self.base.as_ptr(), begun.len()) };
        self.limit = (CHUNK_BYTES - self.writer.used).saturating_sub(self.writer.reserve);
        self.left() >= bytes
    }
}
