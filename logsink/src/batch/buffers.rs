//! The memory of batches, used again: the system gives a megabyte anew at the price of 256 page faults.
//!
//! A buffer comes back when the last reference to its batch is dropped, by whatever thread.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Buffers kept for use: while a sink keeps up, one is sent and one waits for every one that is filled. More than that come
/// back only after a backlog, and are freed.
const KEPT_MAX: usize = 4;

/// Where a batcher's buffers come back to.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    free: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty one, the last that came back: most likely still in cache.
    pub(super) fn take(self: &Arc<Self>) -> Buffer {
        // A new one doubles from a small start: most batches of a quiet service are small.
        let bytes = self.lock().pop().unwrap_or_default();
        Buffer { bytes, home: Some(self.clone()) }
    }

    fn give(&self, mut bytes: Vec<u8>) {
        bytes.clear();
        let mut free = self.lock();
        if free.len() < KEPT_MAX {
            return free.push(bytes);
        }
        // To free it takes the system a while.
        drop(free);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Whole after every statement.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that go back to where they are from.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// `None`: they are freed.
    home: Option<Arc<Buffers>>,
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, home: None }
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_reference_and_only_so_many_stay() {
        let buffers = Arc::new(Buffers::default());
        let mut first = buffers.take();
        first.resize(1 << 20, 7);
        let memory = first.as_ptr();
        let payload = Bytes::from_owner(first).slice(10..);
        let other = payload.clone();
        drop(payload);
        assert_ne!(buffers.take().as_ptr(), memory, "somebody has it yet");
        std::thread::spawn(move || drop(other)).join().unwrap();
        let again = buffers.take();
        assert!(again.is_empty() && again.as_ptr() == memory && again.capacity() == 1 << 20);
        drop((0..3 * KEPT_MAX).map(|_| buffers.take()).collect::<Vec<_>>());
        assert_eq!(buffers.lock().len(), KEPT_MAX);
    }
}
