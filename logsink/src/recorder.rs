//! The flight recorder: events below the rules' threshold, kept in memory, sent when something goes wrong around them.
//!
//! An event that the rules do not want, but the recorder's filter does, is encoded as any other, into a ring of its thread
//! instead of the queue, under the number of the outermost span around it. An event of the trigger's severity asks for all
//! that is recorded under its number: the caller notes the number and goes on, the worker reads the rings of all threads
//! and sends what it finds, marked with [`MARK`]. What nobody asks for is forgotten when its ring comes round.
//!
//! It has two bounds: bytes per thread (a ring) and rings in all. A thread for which no ring is left records nothing, and
//! that is counted. A thread's ring stays readable after its end until another thread needs it.
//!
//! Nothing here makes a caller wait: while the worker reads a ring, some ten microseconds, its owner's events are not
//! recorded, and that is counted.

mod pen;
mod ring;

#[cfg(test)]
mod tests;

use std::{
    ops::DerefMut,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use self::ring::{Ring, SEGMENT_BYTES};
pub(crate) use self::{pen::Pen, ring::SEGMENTS_MIN};
use crate::{handshake::Fences, metrics, queue::Waker, sync::Mutex};

/// The attribute, `true`, of a record that was sent from here.
pub(crate) const MARK: &str = "logsink.recorded";

/// Span trees that wait for the worker. It comes within microseconds, so this many errors at a time are a storm, whose first
/// ones tell what happened.
const REQUESTS_MAX: usize = 256;

/// The rings of all threads, and what was asked of them.
#[derive(Debug)]
pub(crate) struct Recorder {
    segments: usize,
    rings_max: usize,
    rings: Mutex<Vec<Arc<Ring>>>,
    /// How often a ring has lost its owner.
    leavings: AtomicU64,
    /// Keys, each once. The worker takes them all at a time.
    requests: Mutex<Vec<u64>>,
    waker: Waker,
    fences: Fences,
    /// Gives every thread's ring a key of its own for what is outside of any span.
    owners: AtomicU64,
    counts: Counts,
}

/// What the recorder counts beside what its rings do.
#[derive(Debug, Default)]
struct Counts {
    released: AtomicU64,
    refused: AtomicU64,
    no_room: AtomicU64,
    unanswered: AtomicU64,
}

/// No code that can panic runs under these locks except allocation, so a poisoned one still holds sound data.
fn lock<T>(mutex: &Mutex<T>) -> impl DerefMut<Target = T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Rings of `ring_bytes` each (rounded down to whole segments), as many as `bytes_max` allows. Requests wake the worker
    /// through `waker`.
    pub(crate) fn new(ring_bytes: usize, bytes_max: usize, waker: Waker) -> Arc<Self> {
        let segments = (ring_bytes / SEGMENT_BYTES).max(SEGMENTS_MIN);
        Arc::new(Self {
            segments,
            rings_max: bytes_max / (segments * SEGMENT_BYTES),
            rings: Mutex::new(Vec::new()),
            leavings: AtomicU64::new(0),
            requests: Mutex::new(Vec::with_capacity(REQUESTS_MAX)),
            waker,
            fences: Fences::new(),
            owners: AtomicU64::new(0),
            counts: Counts::default(),
        })
    }

    /// Asks for everything recorded under this key so far.
    pub(crate) fn ask(&self, key: u64) {
        let mut requests = lock(&self.requests);
        if requests.contains(&key) {
            // What the worker has not begun covers this too.
            return;
        }
        if requests.len() == REQUESTS_MAX {
            self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
            return;
        }
        requests.push(key);
        drop(requests);
        self.waker.wake();
    }

    /// The worker has handed on this many records.
    pub(crate) fn released(&self, records: u64) {
        self.counts.released.fetch_add(records, Ordering::Relaxed);
    }

    /// An event was not recorded, for another reason than room.
    pub(crate) fn refuse(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// All counters.
    pub(crate) fn counts(&self) -> metrics::Recorder {
        let recorded = lock(&self.rings).iter().map(|ring| ring.recorded.load(Ordering::Relaxed)).sum();
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { released, refused, no_room, unanswered } = &self.counts;
        let [released, refused, no_room, unanswered] = [released, refused, no_room, unanswered].map(read);
        metrics::Recorder { recorded, released, refused, no_room, unanswered }
    }

    /// A ring for a thread: a new one, or else the one that has been without an owner for longest.
    fn take_ring(&self) -> Option<Arc<Ring>> {
        let mut rings = lock(&self.rings);
        if rings.len() < self.rings_max {
            let ring = Arc::new(Ring::new(self.segments));
            rings.push(ring.clone());
            return Some(ring);
        }
        let free = |ring: &&Arc<Ring>| !ring.owned.load(Ordering::Acquire);
        let ring = rings.iter().filter(free).min_by_key(|ring| ring.left.load(Ordering::Relaxed))?;
        // Under the lock: nobody else takes it.
        ring.owned.store(true, Ordering::Relaxed);
        Some(ring.clone())
    }
}

/// The worker's access: the only one that reads rings.
#[derive(Debug)]
pub(crate) struct Releaser {
    recorder: Arc<Recorder>,
    // Buffers that keep their capacity.
    keys: Vec<u64>,
    found: Vec<u8>,
}

impl Releaser {
    /// To be made once for a recorder.
    pub(crate) fn new(recorder: Arc<Recorder>) -> Self {
        Self { recorder, keys: Vec::new(), found: Vec::new() }
    }

    /// Does now what would make the first release slow.
    pub(crate) fn prepare(&self) {
        self.recorder.fences.prepare();
    }

    /// The recorder.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Calls `each` with runs of framed records: everything that was asked for before the call, and not handed out yet. A
    /// thread's records are in order. No ring is barred while `each` runs.
    pub(crate) fn release(&mut self, each: &mut dyn FnMut(&[u8])) {
        let Self { recorder, keys, found } = self;
        keys.clear();
        keys.append(&mut lock(&recorder.requests));
        if keys.is_empty() {
            return;
        }
        keys.sort_unstable();
        // A thread that takes its first ring after this has recorded nothing that was asked for.
        let rings = lock(&recorder.rings).clone();
        for ring in rings.iter().filter(|ring| ring.may_hold(keys)) {
            found.clear();
            if !ring.read(keys, recorder.fences, &mut |record| found.extend_from_slice(record)) {
                recorder.counts.unanswered.fetch_add(1, Ordering::Relaxed);
            }
            if !found.is_empty() {
                each(found);
            }
        }
        found.clear();
        found.shrink_to(SEGMENT_BYTES);
    }
}
