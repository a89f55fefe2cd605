//! A thread's ring of recorded events: segments filled one after the other, the oldest forgotten for the next.
//!
//! Bytes below a segment's `committed` are whole entries; the ring's owner writes above them without telling anybody. Only
//! two steps of the owner concern what others may read: publishing an entry and emptying the oldest segment. It takes them as
//! an [`Actor`], so that the releaser, who bars the ring, finds it at rest.

use std::{array, ptr::NonNull, sync::atomic::AtomicU64 as Counter, time::Duration};

use crate::{
    handshake::{Actor, Fences},
    queue::CHUNK_BYTES,
    sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

/// As large as a chunk of the queue, so that a record is cut to the same length in both.
pub(super) const SEGMENT_BYTES: usize = CHUNK_BYTES;

/// One being written, one to look back at.
pub(crate) const SEGMENTS_MIN: usize = 2;

/// What stands before a record: its key, and whether it has been sent.
pub(super) const HEADER_BYTES: usize = 8 + 1;

/// What a ring waits for its owner to finish a dozen instructions. It then releases nothing of this ring rather than hold
/// up the worker.
const REST_WITHIN: Duration = Duration::from_millis(100);

/// Words of a segment's set of keys. A segment holds some 180 events, of perhaps 30 span trees: most other keys find no bit.
const KEY_WORDS: usize = 4;

/// The recorded events of one thread.
#[derive(Debug)]
pub(super) struct Ring {
    /// One zeroed allocation of `SEGMENT_BYTES` for each segment; the system gives it real memory when it is written.
    base: NonNull<u8>,
    segments: Box<[Segment]>,
    /// The segment that the owner writes. Changed by the owner, as an act.
    current: AtomicU32,
    /// What the owner does to published entries.
    owner: Actor,
    /// Set by the releaser while it reads.
    barred: AtomicBool,
    /// A thread writes here. Its successor, if any, goes on where it stopped.
    pub(super) owned: AtomicBool,
    /// How many others had lost their owner before this one did.
    pub(super) left: Counter,
    /// Entries since the start, stored by the owner alone.
    pub(super) recorded: Counter,
}

#[derive(Debug)]
struct Segment {
    /// Bytes of whole entries. Changed by the owner, as an act.
    committed: AtomicUsize,
    /// One bit for each key in it, see [`bit`].
    keys: [AtomicU64; KEY_WORDS],
}

// SAFETY: the memory behind `base` belongs to this value; who may touch which part of it is written at the top and kept by
// `Pen` (the only owner, of bytes that are not committed) and `Ring::read` (committed bytes, while the owner is barred).
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

/// The word and the bit that stand for a key. Serial numbers are spread by a multiplication, of which the upper bits count.
#[inline]
fn bit(key: u64) -> (usize, u64) {
    let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((hash >> 62) as usize % KEY_WORDS, 1 << (hash >> 56 & 63))
}

impl Ring {
    pub(super) fn new(segments: usize) -> Self {
        let memory = Box::leak(vec![0u8; segments * SEGMENT_BYTES].into_boxed_slice());
        let segment = || Segment { committed: AtomicUsize::new(0), keys: array::from_fn(|_| AtomicU64::new(0)) };
        Self {
            base: NonNull::from(memory).cast(),
            segments: (0..segments).map(|_| segment()).collect(),
            current: AtomicU32::new(0),
            owner: Actor::new(),
            barred: AtomicBool::new(false),
            owned: AtomicBool::new(true),
            left: Counter::new(0),
            recorded: Counter::new(0),
        }
    }

    fn start(&self, segment: usize) -> NonNull<u8> {
        assert!(segment < self.segments.len());
        // SAFETY: within the allocation, by the line above.
        unsafe { self.base.add(segment * SEGMENT_BYTES) }
    }

    /// For a new owner: the present segment and how much of it is used.
    pub(super) fn resume(&self) -> (NonNull<u8>, usize) {
        let current = self.current.load(Ordering::Relaxed) as usize;
        (self.start(current), self.segments[current].committed.load(Ordering::Relaxed))
    }

    /// Forgets the oldest segment to write there next; `None` while the ring is being read. Only the owner may call it.
    pub(super) fn advance(&self, fences: Fences) -> Option<NonNull<u8>> {
        let next = (self.current.load(Ordering::Relaxed) as usize + 1) % self.segments.len();
        self.owner.act(&self.barred, fences, || {
            let segment = &self.segments[next];
            segment.committed.store(0, Ordering::Relaxed);
            segment.keys.iter().for_each(|word| word.store(0, Ordering::Relaxed));
            self.current.store(next as u32, Ordering::Relaxed);
        })?;
        Some(self.start(next))
    }

    /// Publishes the present segment up to `end`, where an entry of this key ends; `false`, with nothing published, while
    /// the ring is being read. Only the owner may call it, with bytes that it has written.
    #[inline]
    pub(super) fn publish(&self, end: usize, key: u64, fences: Fences) -> bool {
        let segment = &self.segments[self.current.load(Ordering::Relaxed) as usize];
        let (word, bit) = bit(key);
        let published = self.owner.act(&self.barred, fences, || {
            let keys = &segment.keys[word];
            keys.store(keys.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
            segment.committed.store(end, Ordering::Relaxed);
            self.recorded.store(self.recorded.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        });
        published.is_some()
    }

    /// Whether one of these keys may be in it. It sees every entry that was published before the caller learned of the key.
    pub(super) fn may_hold(&self, keys: &[u64]) -> bool {
        self.segments.iter().any(|segment| segment.may_hold(keys))
    }

    /// Calls `each` with the framed record of every entry of these (sorted) keys that no earlier call has shown,
    /// oldest first. `false` when the owner could not be brought to rest. One caller at a time.
    pub(super) fn read(&self, keys: &[u64], fences: Fences, each: &mut dyn FnMut(&[u8])) -> bool {
        self.barred.store(true, Ordering::Relaxed);
        fences.heavy();
        let at_rest = self.owner.wait(REST_WITHIN);
        if at_rest {
            let newest = self.current.load(Ordering::Relaxed) as usize;
            for age in 1..=self.segments.len() {
                let segment = (newest + age) % self.segments.len();
                if self.segments[segment].may_hold(keys) {
                    self.read_segment(segment, keys, each);
                }
            }
        }
        self.barred.store(false, Ordering::Release);
        at_rest
    }

    fn read_segment(&self, segment: usize, keys: &[u64], each: &mut dyn FnMut(&[u8])) {
        let committed = self.segments[segment].committed.load(Ordering::Relaxed);
        // SAFETY: the owner has written these bytes before it published them, which has happened before `Actor::wait`
        // returned; it touches them again only after it has seen the bar lifted. The releaser is alone.
        let mut rest = unsafe { std::slice::from_raw_parts_mut(self.start(segment).as_ptr(), committed) };
        while let Some((header, entries)) = rest.split_first_chunk_mut::<HEADER_BYTES>() {
            let Some(length) = crate::queue::frame_length(entries) else { return };
            let Some((record, after)) = entries.split_at_mut_checked(length) else { return };
            let [key @ .., sent] = header;
            if *sent == 0 && keys.binary_search(&u64::from_le_bytes(*key)).is_ok() {
                *sent = 1;
                each(record);
            }
            rest = after;
        }
    }
}

impl Segment {
    fn may_hold(&self, keys: &[u64]) -> bool {
        let words = self.keys.each_ref().map(|word| word.load(Ordering::Relaxed));
        keys.iter().any(|&key| {
            let (word, bit) = bit(key);
            words[word] & bit != 0
        })
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let memory = std::ptr::slice_from_raw_parts_mut(self.base.as_ptr(), self.segments.len() * SEGMENT_BYTES);
        // SAFETY: the same pointer and length that `new` leaked; whoever refers to the memory keeps the ring alive.
        drop(unsafe { Box::from_raw(memory) });
    }
}
