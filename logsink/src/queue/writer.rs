//! A thread's pen: starts a record, grows it, publishes it or takes it back.

mod recorded;

use std::{
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use super::{CHUNK_BYTES, NO_CHUNK, Patience, Producer, Room, Seat, Shared, lock};
use crate::{Severity, metrics::Reason, recorder::Pen};

/// One thread's access to one queue.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Taken at the first record. `None` for good in a stray writer, which never owns a chunk.
    seat: Option<Arc<Seat>>,
    stray: bool,
    chunk: u32,
    /// The start of `chunk`; dangling when there is none.
    start: NonNull<u8>,
    /// Bytes published in `chunk`.
    used: usize,
    /// The size of `chunk`; 0 when there is none.
    size: usize,
    // What the record being written needs on its rare ways only, and so is not in `Draft`:
    place: Place,
    /// Bytes kept for the record's end.
    reserve: usize,
    /// The record's level: decides whether to wait for room, or to use what is kept for its like.
    severity: Severity,
    /// The record while its place is `Heap`.
    heap: Vec<u8>,
    /// Until when that record waits for room.
    patience: Patience,
    /// What it writes to the ring with instead, when it writes for the flight recorder.
    pen: Option<Box<Pen>>,
}

/// Where the record being written is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Or the ring.
    Chunk,
    /// It is a stray.
    Heap,
    /// The queue is full or closed: the record cannot be completed.
    Nowhere,
}

impl Writer {
    /// A writer for a thread that will write more.
    pub(crate) fn new(queue: &Producer) -> Self {
        Self {
            shared: queue.shared.clone(),
            seat: None,
            stray: false,
            chunk: NO_CHUNK,
            start: NonNull::dangling(),
            used: 0,
            size: 0,
            place: Place::Chunk,
            reserve: 0,
            severity: Severity::UNSPECIFIED,
            heap: Vec::new(),
            patience: Patience::default(),
            pen: None,
        }
    }

    /// A writer for one record that must not touch the thread's chunk.
    pub(crate) fn stray(queue: &Producer) -> Self {
        let mut writer = Self::new(queue);
        writer.stray = true;
        writer
    }

    /// Whether it is for one record.
    pub(crate) fn is_stray(&self) -> bool {
        self.stray
    }

    /// Whether nobody reads its queue any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closing.is_closed()
    }

    /// Starts a record of this level with `reserve` bytes kept for its end. There is no room in it before [`Draft::room`] was asked.
    #[inline(always)]
    pub(crate) fn draft(&mut self, reserve: usize, severity: Severity) -> Draft<'_> {
        // SAFETY: `used` is at most `size`, so this is inside the chunk or one past it; with no chunk it adds 0.
        let base = unsafe { self.start.add(self.used) };
        let limit = (self.size - self.used).saturating_sub(reserve);
        self.place = Place::Chunk;
        self.reserve = reserve;
        self.severity = severity;
        Draft { base, length: 0, limit, writer: self }
    }

    /// Where a record goes for which the present chunk has no room: waits for that where the level is worth it.
    fn find_room(&mut self) -> Room {
        let Self { shared, stray, severity, .. } = self;
        let has_chunk = self.chunk != NO_CHUNK;
        self.patience = Patience::default();
        if let Some(chunk) = if *stray { None } else { shared.take_free() } {
            return Room::Chunk(chunk);
        }
        if shared.settings.levels.blocks(*severity) {
            let may_stray = !has_chunk || shared.is_crowded();
            let room = shared.wait_for_room(*severity, *stray, may_stray, &mut self.patience);
            if !matches!(room, Room::Nowhere) {
                return room;
            }
        }
        // The record may go around the chunks: because its thread has none, or its level has a reserve.
        let may_stray = !has_chunk || shared.settings.levels.keeps(*severity);
        if may_stray && shared.strays_have_room(*severity) { Room::Strays } else { Room::Nowhere }
    }

    /// Copies `begun`, the start of a record in the present chunk, to the `fresh` one and hands the present one over.
    fn change_chunk(&mut self, fresh: u32, begun: &[u8]) {
        let start = self.shared.chunks.start(fresh);
        // SAFETY: this thread has just become the owner of `fresh`, of which nothing is published; a record is shorter
        // than a chunk, and the two chunks do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(begun.as_ptr(), start.as_ptr(), begun.len()) };
        self.hand_over();
        let seat = self.seat.get_or_insert_with(|| {
            let seat = Arc::new(Seat { chunk: AtomicU32::new(NO_CHUNK), left: AtomicBool::new(false) });
            lock(&self.shared.seats).push(seat.clone());
            seat
        });
        seat.chunk.store(fresh, Ordering::Release);
        (self.chunk, self.start, self.used, self.size) = (fresh, start, 0, CHUNK_BYTES);
    }

    /// Gives the present chunk, if any, to the consumer. Nothing may be written to it afterwards.
    fn hand_over(&mut self) {
        // A closed queue is read to its last chunk, handed over or not; in a forked process its locks may stay locked.
        if self.chunk != NO_CHUNK && !self.is_closed() {
            if let Some(seat) = &self.seat {
                // Before the chunk is among the full ones: see `Consumer::drain`.
                seat.chunk.store(NO_CHUNK, Ordering::Release);
            }
            self.shared.give_full(self.chunk);
            (self.chunk, self.start, self.used, self.size) = (NO_CHUNK, NonNull::dangling(), 0, 0);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.hand_over();
        if let Some(seat) = &self.seat {
            seat.left.store(true, Ordering::Release);
        }
    }
}

/// What [`copy_short`] copies without a call.
pub(crate) const COPY_SHORT_MAX: usize = 32;

/// Copies a few bytes between places of the same length by two that may overlap, each of constant size. A call of `memcpy`
/// costs its caller some thirty instructions, most of them to save what the call may change.
#[inline(always)]
pub(crate) fn copy_short(to: &mut [u8], from: &[u8]) {
    fn ends<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
        let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else { return false };
        let (first, last) = (*first, *last);
        if let Some(place) = to.first_chunk_mut() {
            *place = first;
        }
        if let Some(place) = to.last_chunk_mut() {
            *place = last;
        }
        true
    }
    debug_assert!(to.len() == from.len() && from.len() <= COPY_SHORT_MAX);
    if !(ends::<16>(to, from) || ends::<8>(to, from) || ends::<4>(to, from)) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// A record being written. Dropped without [`Draft::commit`], it leaves no trace. Four words, because it is made anew for every
/// event; the rest is in the writer.
pub(crate) struct Draft<'w> {
    /// Where the record starts.
    base: NonNull<u8>,
    /// Bytes written.
    length: usize,
    /// Bytes from `base` that may be written: the memory that is there, without the reserve unless that was opened.
    limit: usize,
    writer: &'w mut Writer,
}

impl Draft<'_> {
    /// Makes room for `bytes` more; `false` when the record would become larger than a chunk or the queue is full.
    #[inline(always)]
    pub(crate) fn room(&mut self, bytes: usize) -> bool {
        self.length + bytes <= self.limit || self.grow(bytes)
    }

    /// Bytes that [`Draft::room`] would still give without moving the record.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.limit.saturating_sub(self.length)
    }

    /// Lifts the reserve: what was kept for the end may be written. `false` when the queue was found full or closed, so that
    /// the record cannot be completed.
    #[inline(always)]
    pub(crate) fn open_reserve(&mut self) -> bool {
        if self.writer.place != Place::Chunk {
            return self.open_reserve_elsewhere();
        }
        self.writer.reserve = 0;
        self.limit = self.writer.size - self.writer.used;
        true
    }

    #[cold]
    #[inline(never)]
    fn open_reserve_elsewhere(&mut self) -> bool {
        let is_stray = self.writer.place == Place::Heap;
        if is_stray {
            self.writer.reserve = 0;
            self.limit = self.writer.heap.len();
        }
        is_stray
    }

    /// Why there was no room.
    #[cold]
    pub(crate) fn refusal(&self) -> Reason {
        match self.writer.place == Place::Nowhere {
            _ if self.writer.is_closed() => self.writer.shared.closing.reason(),
            true => Reason::QueueFull,
            false => Reason::Oversize,
        }
    }

    /// Bytes written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends bytes for which there is room.
    ///
    /// # Panics
    /// When there is not.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        assert!(end <= self.limit);
        // SAFETY: `base..base + limit` is memory that only this draft may touch (unpublished bytes of a chunk that the
        // thread owns, or the writer's `heap`), and the line above keeps the copy inside. `bytes` cannot overlap it: a
        // reference into it borrows the draft.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.as_ptr().add(self.length), bytes.len()) };
        self.length = end;
    }

    /// Appends bytes if there is room for them and `spare` more; otherwise `false`.
    #[inline]
    pub(crate) fn append(&mut self, bytes: &[u8], spare: usize) -> bool {
        self.append_with(bytes, spare, |_| ())
    }

    /// As [`Draft::append`], and shows the copy to `correct`.
    #[inline(always)]
    pub(crate) fn append_with(&mut self, bytes: &[u8], spare: usize, correct: impl FnOnce(&mut [u8])) -> bool {
        let room = self.room(bytes.len() + spare);
        if room {
            // SAFETY: there is room.
            let place = unsafe { self.next(bytes.len()) };
            place.copy_from_slice(bytes);
            correct(place);
            self.length += bytes.len();
        }
        room
    }

    /// As [`Draft::append`] for at most [`COPY_SHORT_MAX`] bytes; `false` also for more, or where the record would have to be
    /// moved. No call.
    #[inline(always)]
    pub(crate) fn append_short(&mut self, bytes: &[u8], spare: usize) -> bool {
        let fits = bytes.len() <= COPY_SHORT_MAX && self.length + bytes.len() + spare <= self.limit;
        if fits {
            // SAFETY: there is room, by the line above.
            copy_short(unsafe { self.next(bytes.len()) }, bytes);
            self.length += bytes.len();
        }
        fits
    }

    /// The next bytes.
    ///
    /// # Safety
    /// There must be room for them: `length + bytes <= limit`.
    #[inline(always)]
    unsafe fn next(&mut self, bytes: usize) -> &mut [u8] {
        debug_assert!(self.length + bytes <= self.limit);
        // SAFETY: as in `written`; the caller promises that they are within the limit.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(self.length), bytes) }
    }

    /// Shows the next `N` bytes to `fill`, which writes some and tells how many of them count; `false`, without asking it,
    /// when the chunk has no room for all `N`: unlike [`Draft::room`] it makes none. One check and no call, and places of
    /// constant size in which the compiler needs no others.
    #[inline(always)]
    pub(crate) fn fill<const N: usize>(&mut self, fill: impl FnOnce(&mut [u8; N]) -> usize) -> bool {
        if self.length + N > self.limit {
            return false;
        }
        // SAFETY: only this draft may touch these bytes, see `put`, and there are N of them, as `limit` says; they are
        // initialised, as chunks and `heap` start zeroed.
        let next = unsafe { &mut *self.base.as_ptr().add(self.length).cast::<[u8; N]>() };
        self.length += fill(next).min(N);
        true
    }

    /// Leaves `bytes` to be written by [`Draft::patch`], and tells where, if there is room for them and `spare` more.
    #[inline(always)]
    pub(crate) fn skip(&mut self, bytes: usize, spare: usize) -> Option<usize> {
        let at = self.length;
        // Initialised, see `written`.
        self.room(bytes + spare).then(|| {
            self.length = at + bytes;
            at
        })
    }

    /// Writes over bytes that were written; does nothing when they were not.
    #[inline(always)]
    pub(crate) fn patch<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        if let Some(place) = self.written().get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = bytes;
        }
    }

    /// What was written, for corrections in place.
    #[inline]
    pub(crate) fn written(&mut self) -> &mut [u8] {
        // SAFETY: only this draft may touch these bytes, see `put`; they are initialised, as chunks and `heap` start
        // zeroed.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }

    /// Replaces the whole record; `false` when there is no room for it.
    pub(crate) fn replace(&mut self, record: &[u8]) -> bool {
        if record.len() > self.length && !self.room(record.len() - self.length) {
            return false;
        }
        self.length = 0;
        self.put(record);
        true
    }

    /// Publishes the record. Nothing may be done to it afterwards.
    ///
    /// # Errors
    /// The reason why it must be dropped.
    #[inline]
    pub(crate) fn commit(&mut self) -> Result<(), Reason> {
        if self.writer.place != Place::Chunk {
            return self.commit_stray();
        }
        let Writer { shared, chunk, used, .. } = &mut *self.writer;
        let end = *used + self.length;
        if !shared.chunks.publish(*chunk, end, &shared.closing) {
            return Err(shared.closing.reason());
        }
        *used = end;
        Ok(())
    }

    #[cold]
    fn commit_stray(&mut self) -> Result<(), Reason> {
        if self.writer.place == Place::Nowhere {
            return Err(self.refusal());
        }
        let Writer { shared, heap, severity, patience, .. } = &mut *self.writer;
        let heap = std::mem::take(heap);
        shared.give_stray(&heap[..self.length], *severity, patience)
    }

    /// Moves the record to the start of a fresh chunk, or to the heap.
    #[cold]
    #[inline(never)]
    fn grow(&mut self, bytes: usize) -> bool {
        if self.writer.pen.is_some() {
            return self.grow_recorded(bytes);
        }
        let alone_in_chunk = self.writer.size == CHUNK_BYTES && self.writer.used == 0;
        if self.writer.place != Place::Chunk || alone_in_chunk {
            return false;
        }
        if self.writer.is_closed() {
            self.writer.place = Place::Nowhere;
            return false;
        }
        // SAFETY: as in `written`; a slice of its own, because the writer is borrowed beside it.
        let begun = unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) };
        match self.writer.find_room() {
            Room::Chunk(fresh) => {
                self.writer.change_chunk(fresh, begun);
                self.base = self.writer.start;
            }
            Room::Strays => {
                let mut heap = vec![0; CHUNK_BYTES];
                heap[..begun.len()].copy_from_slice(begun);
                // What the thread has written so far goes before its strays.
                self.writer.hand_over();
                self.base = NonNull::from(heap.as_mut_slice()).cast();
                self.writer.heap = heap;
                self.writer.place = Place::Heap;
            }
            Room::Nowhere => {
                self.writer.place = Place::Nowhere;
                return false;
            }
        }
        self.limit = CHUNK_BYTES.saturating_sub(self.writer.reserve);
        self.left() >= bytes
    }
}
