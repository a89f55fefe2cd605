//! From the application's threads to the worker: per-thread chunks, bounded, never blocking.
//!
//! Each thread appends framed records to a 64 KiB chunk of its own and publishes them with one release store, so that the
//! worker can read them at any time while the thread goes on. Full chunks go to the worker, empty ones come back through
//! a last-in-first-out pool whose size is the byte budget: the chunk a thread gets is the one most likely still in cache.
//! When the pool is empty the newest record is refused and its producer counts it; or, where its level is one to wait for,
//! the producer waits for a chunk until a deadline.
//!
//! Rare records that have no chunk (made inside another event, by a thread that is ending, by the 513th thread of a pool
//! of 512) go through one small shared buffer, the strays. So do, when the pool is empty, records of protected levels, which
//! have a reserve there. A thread's records keep their order except around strays.
//!
//! A record is framed as the field it becomes in `ScopeLogs` (`0x12`, length, `LogRecord`): a batch body is a plain
//! concatenation.

mod chunk;
mod closing;
mod levels;
mod signal;
mod strays;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{Severity, voice::diagnostics};
pub(crate) use chunk::CHUNK_BYTES;
use chunk::{Chunks, NO_CHUNK};
use closing::Closing;
pub(crate) use levels::Levels;
pub(crate) use signal::Waker;
use strays::{Patience, Strays};
pub(crate) use writer::{COPY_SHORT_MAX, Draft, Writer, copy_short};

/// `ScopeLogs.log_records`, length-delimited: the first byte of every record.
pub(crate) const FRAME_TAG: u8 = 0x12;

/// The first byte of a record that only the console wants. It never leaves the process: the console's lane writes
/// [`FRAME_TAG`] in its place.
pub(crate) const LOCAL_TAG: u8 = 0x1a;

/// The smallest pool: one chunk being written, one being read.
const CHUNKS_MIN: usize = 2;

/// So many full chunks wake the worker: one mebibyte. Few, so that they go round within a second-level cache of 2 MiB and most of
/// the pool is never touched; and many, so that one record in some 4,000 pays for waking a thread (with 8 the p99.9 of a call
/// was a quarter higher).
const WAKE_CHUNKS: usize = 16;

/// The strays get this fraction of the budget on top of it: enough for what is rare by nature.
const STRAYS_FRACTION: usize = 16;

/// How much a queue takes, and whom it makes wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// About so many bytes of records.
    pub(crate) bytes_max: usize,
    /// Bytes among the strays that only protected levels may use.
    pub(crate) reserve_bytes: usize,
    pub(crate) levels: Levels,
    /// How long a record that is worth it waits for room.
    pub(crate) wait_max: Duration,
}

impl From<usize> for Settings {
    /// For tests: nobody waits, nothing is protected.
    fn from(bytes_max: usize) -> Self {
        Self { bytes_max, reserve_bytes: 0, levels: Levels::default(), wait_max: Duration::ZERO }
    }
}

/// A queue.
pub(crate) fn channel(settings: impl Into<Settings>) -> (Producer, Consumer) {
    let settings = settings.into();
    let count = (settings.bytes_max / CHUNK_BYTES).max(CHUNKS_MIN).min(NO_CHUNK as usize - 1);
    let shared = Arc::new(Shared {
        chunks: Chunks::new(count),
        free: Mutex::new((0..count as u32).rev().collect()),
        free_count: AtomicUsize::new(count),
        freed: Condvar::new(),
        waiting: AtomicUsize::new(0),
        full: Mutex::new(Vec::with_capacity(count)),
        seats: Mutex::new(Vec::new()),
        strays: Strays::new(CHUNK_BYTES * (count / STRAYS_FRACTION).max(1)),
        settings,
        closing: Closing::new(),
        signal: Waker::default(),
    });
    let consumer = Consumer {
        shared: shared.clone(),
        round: 0,
        drained_in: vec![0; count],
        full: Vec::with_capacity(count),
        current: Vec::new(),
        strays: Vec::new(),
    };
    (Producer { shared }, consumer)
}

/// What the two ends share.
pub(crate) struct Shared {
    chunks: Chunks,
    /// Empty chunks, the most recently used last.
    free: Mutex<Vec<u32>>,
    /// The length of `free`, to refuse quickly when it is empty.
    free_count: AtomicUsize,
    /// A chunk came back, the strays were taken, or the queue was closed.
    freed: Condvar,
    /// Threads that wait for that.
    waiting: AtomicUsize,
    /// Chunks that no thread writes to any more, in the order they were filled.
    full: Mutex<Vec<u32>>,
    seats: Mutex<Vec<Arc<Seat>>>,
    strays: Strays,
    settings: Settings,
    closing: Closing,
    signal: Waker,
}

/// Where there is room for a record.
enum Room {
    /// The caller owns this chunk now.
    Chunk(u32),
    Strays,
    Nowhere,
}

/// A thread's place in the queue: tells the consumer which chunk the thread is writing.
struct Seat {
    /// Stored by the thread: [`NO_CHUNK`] *before* its chunk goes to `full`, the new one after.
    chunk: AtomicU32,
    /// The thread has ended.
    left: AtomicBool,
}

/// No code that can panic runs under these locks except allocation, so a poisoned one still holds sound data.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn take_free(&self) -> Option<u32> {
        if self.free_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut free = lock(&self.free);
        let chunk = free.pop();
        self.free_count.store(free.len(), Ordering::Relaxed);
        chunk
    }

    /// Whether all chunks may be in the hands of threads. (Who holds one gives it back only for another: were all to wait for
    /// that, none would ever come.)
    #[cold]
    fn is_crowded(&self) -> bool {
        lock(&self.seats).len() >= self.chunks.count()
    }

    /// Waits for room until `patience` ends: for a free chunk, unless it `is_stray`, or, where it `may_stray`, for a place
    /// among the strays.
    #[cold]
    fn wait_for_room(&self, severity: Severity, is_stray: bool, may_stray: bool, patience: &mut Patience) -> Room {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut free = lock(&self.free);
        let room = loop {
            if let Some(chunk) = if is_stray { None } else { free.pop() } {
                self.free_count.store(free.len(), Ordering::Relaxed);
                break Room::Chunk(chunk);
            }
            if may_stray && self.strays_have_room(severity) {
                break Room::Strays;
            }
            let left = patience.left(self.settings.wait_max);
            if left.is_zero() || self.closing.is_closed() {
                break Room::Nowhere;
            }
            // The consumer may be asleep, and not know that somebody waits.
            self.signal.wake();
            free = self.freed.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(free);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        room
    }

    fn give_free(&self, chunk: u32) {
        let mut free = lock(&self.free);
        free.push(chunk);
        self.free_count.store(free.len(), Ordering::Relaxed);
        drop(free);
        // Who waits has said so before it took the lock to look for a chunk.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.freed.notify_one();
        }
    }

    /// Ends all waits of which the reason may be gone.
    fn wake_waiting(&self) {
        // Under the lock nobody is between its look and its wait.
        drop(lock(&self.free));
        self.freed.notify_all();
        self.strays.wake_waiting();
    }

    /// Hands a filled chunk to the consumer. Wakes it when some have come together or memory runs short: otherwise it comes by
    /// itself soon, and waking a thread costs the caller microseconds.
    fn give_full(&self, chunk: u32) {
        let full = {
            let mut full = lock(&self.full);
            full.push(chunk);
            full.len()
        };
        if full == WAKE_CHUNKS || self.free_count.load(Ordering::Relaxed) < self.chunks.count() / 2 {
            self.signal.wake();
        }
    }
}

/// The application's end. Threads write through a [`Writer`] each.
#[derive(Clone)]
pub(crate) struct Producer {
    shared: Arc<Shared>,
}

impl Producer {
    /// Refuses all further records of a process that has just been forked, as [`Reason::Forked`]. Takes no lock.
    pub(crate) fn close_in_child(&self) {
        self.shared.closing.close_in_child();
    }
}

/// The worker's end.
pub(crate) struct Consumer {
    shared: Arc<Shared>,
    /// Counts calls of `drain`.
    round: u64,
    /// The round in which each chunk was last recycled.
    drained_in: Vec<u64>,
    // Buffers that keep their capacity between rounds.
    full: Vec<u32>,
    current: Vec<u32>,
    strays: Vec<u8>,
}

impl Consumer {
    /// Calls `each` with runs of whole framed records: everything that was published before the call. Takes no lock while
    /// `each` runs. Full chunks come first, so a thread's records keep their order.
    pub(crate) fn drain(&mut self, each: &mut dyn FnMut(&[u8])) {
        let shared = &*self.shared;
        self.round += 1;
        // The seats are read before the full chunks are taken. So a chunk that a seat shows here is either still being
        // written, or it is among the full ones of this round and skipped below; and no record that is newer than one
        // left in `full` can be seen through a seat.
        self.current.clear();
        lock(&shared.seats).retain(|seat| {
            let chunk = seat.chunk.load(Ordering::Acquire);
            if chunk != NO_CHUNK {
                self.current.push(chunk);
            }
            !seat.left.load(Ordering::Acquire)
        });
        std::mem::swap(&mut *lock(&shared.full), &mut self.full);
        shared.strays.take(&mut self.strays);
        if !self.strays.is_empty() && shared.waiting.load(Ordering::Relaxed) > 0 {
            shared.wake_waiting();
        }
        for chunk in self.full.drain(..) {
            shared.chunks.read_new(chunk, each);
            shared.chunks.reset(chunk);
            self.drained_in[chunk as usize] = self.round;
            shared.give_free(chunk);
        }
        if !self.strays.is_empty() {
            each(&self.strays);
            self.strays.clear();
            self.strays.shrink_to(CHUNK_BYTES);
        }
        for &chunk in &self.current {
            if self.drained_in[chunk as usize] != self.round {
                shared.chunks.read_new(chunk, each);
            }
        }
    }

    /// Sleeps until memory runs short, somebody asks through a [`Waker`], or `timeout` has passed.
    pub(crate) fn wait(&self, timeout: Duration) {
        self.shared.signal.wait(timeout);
    }

    /// A handle that ends [`Consumer::wait`].
    pub(crate) fn waker(&self) -> Waker {
        self.shared.signal.clone()
    }

    /// Chunks in the pool.
    #[cfg(test)]
    pub(crate) fn chunks_free(&self) -> usize {
        self.shared.free_count.load(Ordering::Relaxed)
    }

    /// Refuses all further records, then drains: each record ends here, or with its writer as refused.
    pub(crate) fn close_and_drain(&mut self, each: &mut dyn FnMut(&[u8])) {
        self.shared.closing.close();
        self.shared.wake_waiting();
        self.shared.chunks.wait_for_commits();
        self.drain(each);
        // A chunk that its thread is just handing over is in no list, and there is no next round to find it.
        for chunk in 0..self.shared.chunks.count() {
            self.shared.chunks.read_new(chunk as u32, each);
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.closing.close();
        self.shared.wake_waiting();
    }
}

/// Splits a run into its framed records. Stops at the first byte that is not a record's.
pub(crate) fn records(run: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = run;
    std::iter::from_fn(move || {
        let length = frame_length(rest)?;
        let (record, tail) = rest.split_at_checked(length)?;
        rest = tail;
        Some(record)
    })
}

/// The length of the framed record at the start of `bytes`, frame included.
#[inline]
pub(crate) fn frame_length(bytes: &[u8]) -> Option<usize> {
    // As our own encoder writes it: a tag (the two differ in one bit), then a length padded to three bytes.
    if let Some(head) = bytes.first_chunk::<4>() {
        let head = u32::from_le_bytes(*head);
        if head & (0x8080_8000 | (0xff & !TAGS_DIFFER)) == 0x0080_8000 | u32::from(FRAME_TAG) & !TAGS_DIFFER {
            return Some(4 + (head >> 8 & 0x7f | head >> 9 & 0x3f80 | head >> 10 & 0x1f_c000) as usize);
        }
    }
    frame_length_of_any(bytes)
}

/// The bit by which the two tags differ.
const TAGS_DIFFER: u32 = (FRAME_TAG ^ LOCAL_TAG) as u32;

fn frame_length_of_any(bytes: &[u8]) -> Option<usize> {
    let (&tag, rest) = bytes.split_first()?;
    if tag != FRAME_TAG && tag != LOCAL_TAG {
        return None;
    }
    let mut length = 0usize;
    for (index, &byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some(2 + index + length);
        }
    }
    None
}

thread_local! {
    /// No destructor, so it can be read while the thread ends.
    static OWN_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Marks the calling thread as the library's own, or as one of its clients': its events are refused, since sending an
/// event about sending events would never end. They are said on stderr where that is asked for. To be called before the
/// thread's first event.
pub(crate) fn mark_own_thread() {
    OWN_THREAD.set(true);
    diagnostics::listen();
}

/// Whether [`mark_own_thread`] was called on this thread.
pub(crate) fn is_own_thread() -> bool {
    OWN_THREAD.get()
}
