//! `queue/`: chunks that are written and read at the same time, the end of the queue, and the worker's wait.

#[path = "../../logsink/src/queue/chunk.rs"]
mod chunk;
#[path = "../../logsink/src/queue/closing.rs"]
mod closing;
#[path = "../../logsink/src/queue/signal.rs"]
mod signal;

use std::sync::PoisonError;

use loom::{
    cell::UnsafeCell,
    sync::{Arc, MutexGuard, atomic::AtomicUsize},
    thread,
};

pub(crate) use chunk::CHUNK_BYTES;
use chunk::Chunks;
use closing::Closing;
pub(crate) use signal::Waker;

use crate::{
    FOREVER,
    sync::{Mutex, Ordering},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// In the models every record fills a segment of the recorder.
pub(crate) fn frame_length(bytes: &[u8]) -> Option<usize> {
    (!bytes.is_empty()).then_some(bytes.len())
}

const CHUNK: u32 = 0;
const RECORD_BYTES: usize = 8;
const RECORDS: usize = 2;

struct Queue {
    chunks: Chunks,
    closing: Closing,
    /// One beside each record.
    records: [UnsafeCell<bool>; RECORDS],
}

impl Queue {
    fn new() -> Arc<Self> {
        let records = std::array::from_fn(|_| UnsafeCell::new(false));
        Arc::new(Self { chunks: Chunks::new(1), closing: Closing::new(), records })
    }

    /// The owner's part: writes record after record, and tells how many it could publish.
    fn write(&self) -> usize {
        (0..RECORDS)
            .take_while(|&number| {
                // SAFETY: what the model is about.
                self.records[number].with_mut(|written| unsafe { *written = true });
                self.chunks.publish(CHUNK, (number + 1) * RECORD_BYTES, &self.closing)
            })
            .count()
    }

    /// The consumer's part: how many records are new.
    fn read(&self, read: &mut usize) {
        self.chunks.read_new(CHUNK, &mut |run| {
            assert_eq!(run.len() % RECORD_BYTES, 0);
            for number in *read..*read + run.len() / RECORD_BYTES {
                // SAFETY: what the model is about.
                assert!(self.records[number].with(|written| unsafe { *written }));
            }
            *read += run.len() / RECORD_BYTES;
        });
    }
}

/// A thread publishes while the consumer reads, and then closes and drains: each record is read once, or refused.
pub fn at_the_end_every_record_is_drained_or_refused() {
    crate::explore(3, || {
        let queue = Queue::new();
        let writer = thread::spawn({
            let queue = queue.clone();
            move || queue.write()
        });
        let mut read = 0;
        queue.read(&mut read);
        queue.closing.close();
        queue.chunks.wait_for_commits();
        queue.read(&mut read);
        let published = writer.join().expect("the writer does not panic");
        assert_eq!(read, published);
    });
}

/// A thread publishes while the consumer reads, long before the end and without its fences: what it sees is written.
pub fn what_is_published_is_written() {
    crate::sync::barrier::without_fences();
    crate::explore(3, || {
        let queue = Queue::new();
        let writer = thread::spawn({
            let queue = queue.clone();
            move || queue.write()
        });
        let mut read = 0;
        (0..2).for_each(|_| queue.read(&mut read));
        assert_eq!(writer.join().expect("the writer does not panic"), RECORDS);
        queue.read(&mut read);
        assert_eq!(read, RECORDS);
    });
}

/// Two threads wake a worker that looks for what they did: it never sleeps while there is something to see.
pub fn no_wake_is_lost() {
    crate::explore(3, || {
        let waker = Waker::default();
        let done = Arc::new(AtomicUsize::new(0));
        // A thread that does nothing else: loom's `unpark` would also end another wait than the worker's.
        let worker = thread::spawn({
            let (waker, done) = (waker.clone(), done.clone());
            move || {
                while done.load(Ordering::Relaxed) < 2 {
                    waker.wait(FOREVER);
                }
            }
        });
        let other = thread::spawn({
            let (waker, done) = (waker.clone(), done.clone());
            move || {
                done.fetch_add(1, Ordering::Relaxed);
                waker.wake();
            }
        });
        done.fetch_add(1, Ordering::Relaxed);
        waker.wake();
        other.join().expect("a waker does not panic");
        worker.join().expect("the worker does not panic");
    });
}
