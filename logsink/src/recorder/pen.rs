//! A thread's access to its ring.

use std::{
    ptr::NonNull,
    sync::{Arc, atomic::Ordering},
};

use super::{
    Recorder,
    ring::{HEADER_BYTES, Ring, SEGMENT_BYTES},
};

/// One of the keys for what is outside of any span: serial numbers of spans do not come this far.
const THREAD_KEY: u64 = 1 << 63;

/// Writes entries. A record is written at [`Pen::place`], or, when that is too small, at the place after [`Pen::advance`],
/// and becomes an entry with [`Pen::publish`].
#[derive(Debug)]
pub(crate) struct Pen {
    pub(super) recorder: Arc<Recorder>,
    /// Taken at the first event.
    ring: Option<Arc<Ring>>,
    /// The key of events outside of any span.
    key: u64,
    /// [`Recorder::leavings`] when no ring was left.
    refused_at: Option<u64>,
    /// The present segment; dangling when there is no ring.
    start: NonNull<u8>,
    /// Bytes of it that are entries.
    used: usize,
}

// SAFETY: the pointer is into the ring, whose unpublished bytes this value owns wherever it is.
unsafe impl Send for Pen {}

impl Pen {
    pub(crate) fn new(recorder: &Arc<Recorder>) -> Self {
        let key = THREAD_KEY | recorder.owners.fetch_add(1, Ordering::Relaxed);
        let start = NonNull::dangling();
        Self { recorder: recorder.clone(), ring: None, key, refused_at: None, start, used: 0 }
    }

    /// The key of events outside of any span; `None` when nothing can be recorded under it yet.
    pub(crate) fn key(&self) -> Option<u64> {
        self.ring.is_some().then_some(self.key)
    }

    /// Sees to it that there is a ring; `false`, counted, when none is left for this thread.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.ring.is_some() || self.take_ring()
    }

    /// The start of the present segment, and how many of its bytes stand before the next record; the others may be written.
    /// To be called when it is ready.
    #[inline]
    pub(crate) fn place(&self) -> (NonNull<u8>, usize) {
        (self.start, (self.used + HEADER_BYTES).min(SEGMENT_BYTES))
    }

    /// Whether a segment is there for the next record alone.
    pub(crate) fn is_fresh(&self) -> bool {
        self.used == 0
    }

    /// Forgets the oldest segment, so that the next place is there; `false`, with nothing changed, while the ring is being
    /// read.
    pub(crate) fn advance(&mut self) -> bool {
        let start = self.ring.as_ref().and_then(|ring| ring.advance(self.recorder.fences));
        if let Some(start) = start {
            (self.start, self.used) = (start, 0);
        }
        start.is_some()
    }

    /// Makes an entry of the framed record of `length` bytes that stands at [`Pen::place`], under this key (0: the
    /// thread's own); `false`, with nothing changed, while the ring is being read.
    #[inline]
    pub(crate) fn publish(&mut self, length: usize, key: u64) -> bool {
        let Some(ring) = &self.ring else { return false };
        let key = if key == 0 { self.key } else { key };
        let end = self.used + HEADER_BYTES + length;
        assert!(end <= SEGMENT_BYTES);
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&key.to_le_bytes());
        // SAFETY: inside the segment, by the line above; unpublished bytes are this value's own.
        unsafe { self.start.add(self.used).cast().write(header) };
        let published = ring.publish(end, key, self.recorder.fences);
        if published {
            self.used = end;
        }
        published
    }

    #[cold]
    fn take_ring(&mut self) -> bool {
        let leavings = self.recorder.leavings.load(Ordering::Acquire);
        // Without a look at the rings when none has become free since the last one.
        let ring = (self.refused_at != Some(leavings)).then(|| self.recorder.take_ring()).flatten();
        let Some(ring) = ring else {
            self.refused_at = Some(leavings);
            self.recorder.counts.no_room.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        (self.start, self.used) = ring.resume();
        self.ring = Some(ring);
        true
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        if let Some(ring) = &self.ring {
            let leavings = self.recorder.leavings.load(Ordering::Relaxed);
            ring.left.store(leavings, Ordering::Relaxed);
            ring.owned.store(false, Ordering::Release);
            // After it is free: who sees the count finds the ring.
            self.recorder.leavings.fetch_add(1, Ordering::Release);
        }
    }
}
