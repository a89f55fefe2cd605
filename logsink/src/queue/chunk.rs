//! The memory of the queue: chunks of one allocation, each written by one thread and read by the consumer meanwhile.

use std::{ptr::NonNull, time::Duration};

use super::closing::Closing;
use crate::{
    handshake::Actor,
    sync::{AtomicUsize, Instant, Ordering},
};

/// Large enough that changing chunks is rare (some 200 records), small enough that two stay in the second-level cache.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;

/// A commit is a dozen instructions: only a thread that the system does not run takes longer, and one that is not run at all
/// must not keep a process from ending.
const COMMIT_WITHIN: Duration = Duration::from_secs(1);

/// "No chunk", where a chunk's number is stored.
pub(super) const NO_CHUNK: u32 = u32::MAX;

/// All chunks of a queue.
///
/// A chunk has one owner at a time, who alone may write to it: the thread that took it from the pool, until it hands it
/// over as full. Bytes below `committed` are never written again until the consumer has reset the chunk, and only the
/// consumer reads them.
pub(super) struct Chunks {
    /// One zeroed allocation of `CHUNK_BYTES` for each control; the system gives it real memory when it is first written.
    base: NonNull<u8>,
    controls: Box<[Control]>,
}

/// On cache lines of its own (two: the prefetcher fetches pairs), since its thread stores to it at every event.
#[repr(align(128))]
struct Control {
    /// Bytes published, stored by the owner with release.
    committed: AtomicUsize,
    /// The owner, who publishes.
    owner: Actor,
    /// Bytes that the consumer has taken; only the consumer touches it.
    taken: AtomicUsize,
}

// SAFETY: the memory behind `base` belongs to this value; who may touch which part of it is written above and kept by
// `Writer` (the owner of unpublished bytes) and `Consumer` (the only reader of published ones).
unsafe impl Send for Chunks {}
// SAFETY: as above.
unsafe impl Sync for Chunks {}

impl Chunks {
    pub(super) fn new(count: usize) -> Self {
        let memory = Box::leak(vec![0u8; count * CHUNK_BYTES].into_boxed_slice());
        let control = || Control { committed: AtomicUsize::new(0), owner: Actor::new(), taken: AtomicUsize::new(0) };
        Self { base: NonNull::from(memory).cast(), controls: (0..count).map(|_| control()).collect() }
    }

    pub(super) fn count(&self) -> usize {
        self.controls.len()
    }

    /// The first byte of a chunk.
    pub(super) fn start(&self, chunk: u32) -> NonNull<u8> {
        assert!((chunk as usize) < self.controls.len());
        // SAFETY: within the allocation, by the line above.
        unsafe { self.base.add(chunk as usize * CHUNK_BYTES) }
    }

    /// Publishes the first `length` bytes; `false`, with nothing published, when the queue is closed. Only the chunk's owner
    /// may call it, with bytes that it has written.
    #[inline]
    pub(super) fn publish(&self, chunk: u32, length: usize, closing: &Closing) -> bool {
        let control = &self.controls[chunk as usize];
        let (bar, fences) = closing.bar();
        control.owner.act(bar, fences, || control.committed.store(length, Ordering::Release)).is_some()
    }

    /// Waits until nobody publishes any more. To be called after [`Closing::close`].
    pub(super) fn wait_for_commits(&self) {
        let deadline = Instant::now() + COMMIT_WITHIN;
        for control in &self.controls {
            // What is not over by then is left to its thread.
            let _ = control.owner.wait(deadline.saturating_duration_since(Instant::now()));
        }
    }

    /// Calls `each` with what was published and not read yet. Only the consumer may call it.
    pub(super) fn read_new(&self, chunk: u32, each: &mut dyn FnMut(&[u8])) {
        let control = &self.controls[chunk as usize];
        let committed = control.committed.load(Ordering::Acquire);
        let taken = control.taken.load(Ordering::Relaxed);
        if committed > taken {
            // SAFETY: the bytes up to `committed` were written before the release store that this acquire load saw, and
            // their owner does not write to them again before the consumer, which is the caller, resets the chunk.
            let new = unsafe { std::slice::from_raw_parts(self.start(chunk).add(taken).as_ptr(), committed - taken) };
            each(new);
            control.taken.store(committed, Ordering::Relaxed);
        }
    }

    /// Empties a chunk that has no owner. Its next owner sees this through the lock of the pool.
    pub(super) fn reset(&self, chunk: u32) {
        let control = &self.controls[chunk as usize];
        control.committed.store(0, Ordering::Relaxed);
        control.taken.store(0, Ordering::Relaxed);
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        let memory = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.controls.len() * CHUNK_BYTES);
        // SAFETY: the same pointer and length that `new` leaked; nobody holds a reference into it, since writers and the
        // consumer keep the queue alive.
        drop(unsafe { Box::from_raw(memory) });
    }
}
