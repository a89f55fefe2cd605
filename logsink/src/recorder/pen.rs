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

/// Writes entries. A record is written at [`Pen::place`], or, when that is too small, from [`Pen::advance`] on, and
/// becomes an entry with [`Pen::publish`].
#[derive(Debug)]
pub(crate) struct Pen {
    recorder: Arc<Recorder>,
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
        let (start, used) = (NonNull::dangling(), SEGMENT_BYTES);
        Self { recorder: recorder.clone(), ring: None, key, refused_at: None, start, used }
    }

    /// Whether it writes for this recorder.
    #[inline]
    pub(crate) fn writes_to(&self, recorder: &Arc<Recorder>) -> bool {
        Arc::ptr_eq(&self.recorder, recorder)
    }

    /// The key of events outside of any span; `None` when nothing can be recorded under it yet.
    #[inline]
    pub(crate) fn key(&self) -> Option<u64> {
        self.ring.is_some().then_some(self.key)
    }

    /// Where the next record may be written, and how many bytes; `None` when there is no ring for this thread.
    #[inline]
    pub(crate) fn place(&mut self) -> Option<(NonNull<u8>, usize)> {
        if self.ring.is_none() {
            self.take_ring()?;
        }
        let at = self.used + HEADER_BYTES;
        match SEGMENT_BYTES.checked_sub(at) {
            // SAFETY: `at` is at most the segment's size.
            Some(capacity) => Some((unsafe { self.start.add(at) }, capacity)),
            // Not even the header fits.
            None => Some((self.start, 0)),
        }
    }

    /// Forgets the oldest segment; the next record is written there. `None`, counted, while the ring is being read.
    #[cold]
    pub(crate) fn advance(&mut self) -> Option<(NonNull<u8>, usize)> {
        let start = self.ring.as_ref()?.advance(self.recorder.fences);
        let Some(start) = start else {
            self.recorder.refuse();
            return None;
        };
        (self.start, self.used) = (start, 0);
        self.place()
    }

    /// Makes an entry of the framed record of `length` bytes that stands at [`Pen::place`], under this key (0: the
    /// thread's own). Counts what cannot be.
    #[inline]
    pub(crate) fn publish(&mut self, length: usize, key: u64) {
        let Some(ring) = &self.ring else { return };
        let key = if key == 0 { self.key } else { key };
        let end = self.used + HEADER_BYTES + length;
        assert!(end <= SEGMENT_BYTES);
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&key.to_le_bytes());
        // SAFETY: inside the segment, by the line above; unpublished bytes are this value's own.
        unsafe { self.start.add(self.used).cast().write(header) };
        if ring.publish(end, key, self.recorder.fences) {
            self.used = end;
        } else {
            self.recorder.refuse();
        }
    }

    #[cold]
    fn take_ring(&mut self) -> Option<()> {
        let leavings = self.recorder.leavings.load(Ordering::Acquire);
        // Without a look at the rings when none has become free since the last one.
        let ring = (self.refused_at != Some(leavings)).then(|| self.recorder.take_ring()).flatten();
        let Some(ring) = ring else {
            self.refused_at = Some(leavings);
            self.recorder.counts.no_room.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        (self.start, self.used) = ring.resume();
        self.ring = Some(ring);
        Some(())
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
