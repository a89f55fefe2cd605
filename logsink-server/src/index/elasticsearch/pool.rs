//! The memory of bodies: of so many bytes together and no more, and used again.
//!
//! A body is written into memory that the process has had for long, so that how much it takes does not hang on how the
//! allocator feels about pieces of megabytes. Who finds nothing left waits: bodies have a part of the drain's byte budget to
//! themselves, so that what was read can always be written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Permits are of this many bytes: a semaphore counts to 2^29 on small machines.
const UNIT: usize = 1 << 10;

/// Buffers in use and waiting for use.
pub(super) struct Pool<T> {
    free: Mutex<Vec<T>>,
    /// Bytes that are not in use, in [`UNIT`]s.
    room: Arc<Semaphore>,
    units: u32,
    metrics: Arc<Metrics>,
}

/// The right to so many bytes, until it is dropped.
pub(super) struct Lease {
    bytes: usize,
    metrics: Arc<Metrics>,
    _room: OwnedSemaphorePermit,
}

impl<T: Default> Pool<T> {
    pub(super) fn new(bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        let units = u32::try_from(bytes_max / UNIT).unwrap_or(u32::MAX >> 3).clamp(1, u32::MAX >> 3);
        Self { free: Mutex::default(), room: Arc::new(Semaphore::new(units as usize)), units, metrics }
    }

    /// Waits until `bytes` more may be used. More than there are altogether are given when nobody else has any.
    pub(super) async fn take(&self, bytes: usize) -> (Lease, T) {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        let room = loop {
            // It fails only for a semaphore that was closed, and nobody closes this one.
            if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(units).await {
                break room;
            }
        };
        self.metrics.index_body_bytes.inc_by(as_gauge(bytes));
        // What was used last is what the processor's caches know.
        let buffer = self.free().pop().unwrap_or_default();
        (Lease { bytes, metrics: Arc::clone(&self.metrics), _room: room }, buffer)
    }

    /// Keeps a buffer for the next who takes one. There are never more than were in use at a time.
    pub(super) fn give(&self, lease: Lease, buffer: T) {
        self.free().push(buffer);
        drop(lease);
    }

    // A panic while it is held leaves whole buffers.
    fn free(&self) -> MutexGuard<'_, Vec<T>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.metrics.index_body_bytes.dec_by(as_gauge(self.bytes));
    }
}

fn as_gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn buffers_are_used_again_and_bounded_together() {
        let pool = Pool::<Vec<u8>>::new(3 << 20, Metrics::new());
        let (lease, mut buffer) = pool.take(2 << 20).await;
        buffer.reserve(100);
        let at = buffer.as_ptr();
        assert!(timeout(SHORT, pool.take(2 << 20)).await.is_err(), "4 MiB of 3");
        assert_eq!(pool.metrics.index_body_bytes.get(), 2 << 20);
        pool.give(lease, buffer);
        assert_eq!(pool.metrics.index_body_bytes.get(), 0);
        let (_lease, buffer) = pool.take(2 << 20).await;
        assert_eq!(buffer.as_ptr(), at, "the same memory again");
    }

    #[tokio::test]
    async fn more_than_there_is_waits_to_be_alone() {
        let pool = Pool::<Vec<u8>>::new(1 << 20, Metrics::new());
        let (small, _) = pool.take(1).await;
        assert!(timeout(SHORT, pool.take(9 << 20)).await.is_err());
        drop(small);
        let (_large, _) = timeout(SHORT * 500, pool.take(9 << 20)).await.expect("it is alone");
        assert!(timeout(SHORT, pool.take(1)).await.is_err());
    }
}
