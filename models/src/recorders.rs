//! `recorder/`: a ring that its thread writes while the worker takes out what was asked for.

#[allow(clippy::duplicate_mod, reason = "within the recorder the ring is nobody else's business")]
#[path = "../../logsink/src/recorder/ring.rs"]
mod ring;

use std::ptr::NonNull;

use loom::{cell::UnsafeCell, sync::Arc, thread};
use ring::{HEADER_BYTES, Ring, SEGMENT_BYTES, SEGMENTS_MIN};

use crate::{
    handshake::Fences,
    queue::Waker,
    recorder::{Pen, Recorder, Releaser},
};

/// All records have it.
const KEY: u64 = 7;

/// A ring of two segments, each of which one record fills.
struct Model {
    ring: Ring,
    fences: Fences,
    /// One beside each segment: the number of the record in it.
    segments: [UnsafeCell<u8>; SEGMENTS_MIN],
}

impl Model {
    fn new() -> Arc<Self> {
        let segments = std::array::from_fn(|_| UnsafeCell::new(0));
        Arc::new(Self { ring: Ring::new(SEGMENTS_MIN), fences: Fences::new(), segments })
    }

    /// The owner's part: records this many, and tells which of them the ring took.
    fn record(&self, records: u8) -> Vec<u8> {
        let (mut start, _) = self.ring.resume();
        let mut place = Some(0);
        let mut segment = 0;
        let mut recorded = Vec::new();
        for number in 1..=records {
            if place.is_none() {
                let Some(next) = self.ring.advance(self.fences) else { continue };
                (start, segment) = (next, (segment + 1) % SEGMENTS_MIN);
            }
            place = None;
            self.write(start, segment, number);
            if self.ring.publish(SEGMENT_BYTES, KEY, self.fences) {
                recorded.push(number);
            } else {
                place = Some(0);
            }
        }
        recorded
    }

    fn write(&self, start: NonNull<u8>, segment: usize, number: u8) {
        let mut entry = [number; HEADER_BYTES + 2];
        entry[..8].copy_from_slice(&KEY.to_le_bytes());
        entry[8] = 0;
        entry[HEADER_BYTES] = segment as u8;
        // SAFETY: the owner may write what is not published; the cell shows loom that it did.
        unsafe {
            start.cast().write(entry);
            self.segments[segment].with_mut(|place| *place = number);
        }
    }

    /// The worker's part: the numbers of the records that come out.
    fn release(&self) -> Vec<u8> {
        let mut numbers = Vec::new();
        let at_rest = self.ring.read(&[KEY], self.fences, &mut |record| {
            // SAFETY: what the model is about.
            let number = self.segments[usize::from(record[0])].with(|place| unsafe { *place });
            assert_eq!(record[1], number);
            numbers.push(number);
        });
        assert!(at_rest);
        numbers
    }
}

/// The worker reads twice while the owner goes round its ring: nothing is read while it is overwritten, nothing comes out
/// twice, all is in order, and at the end what the ring still holds has come out.
pub fn a_ring_is_not_written_where_it_is_read() {
    crate::explore(3, || {
        let model = Model::new();
        let owner = thread::spawn({
            let model = model.clone();
            move || model.record(3)
        });
        let mut released = model.release();
        released.extend(model.release());
        let recorded = owner.join().expect("the owner does not panic");
        released.extend(model.release());
        assert!(released.is_sorted_by(|before, after| before < after), "{released:?}");
        assert!(released.iter().all(|number| recorded.contains(number)), "{released:?} of {recorded:?}");
        let newest = recorded.last();
        assert_eq!(released.last(), newest, "{released:?} of {recorded:?}");
    });
}

/// What a thread recorded before the error is found, though the error happens on another one, while the first goes on.
pub fn what_was_recorded_before_the_error_is_found() {
    crate::explore(3, || {
        let ring_bytes = SEGMENTS_MIN * SEGMENT_BYTES;
        let recorder = Recorder::new(ring_bytes, ring_bytes, Waker::default());
        let mut pen = Pen::new(&recorder);
        assert!(pen.is_ready());
        let (moved, moves) = loom::sync::mpsc::channel();
        let owner = thread::spawn(move || {
            let (start, used) = pen.place();
            // SAFETY: the pen has just said that these bytes are the caller's.
            unsafe { start.add(used).write_bytes(1, SEGMENT_BYTES - used) };
            assert!(pen.publish(SEGMENT_BYTES - used, KEY), "nobody has asked yet");
            moved.send(()).expect("the span is waited for");
            // Of another tree.
            if pen.advance() {
                let (start, used) = pen.place();
                // SAFETY: as above.
                unsafe { start.add(used).write_bytes(2, SEGMENT_BYTES - used) };
                pen.publish(SEGMENT_BYTES - used, KEY + 1);
            }
        });
        let failing = thread::spawn({
            let recorder = recorder.clone();
            move || {
                moves.recv().expect("the span comes");
                recorder.ask(KEY);
            }
        });
        failing.join().expect("asking does not panic");
        let mut found = Vec::new();
        Releaser::new(recorder).release(&mut |run| found.push((run[0], run.len())));
        owner.join().expect("the owner does not panic");
        assert_eq!(found, [(1, SEGMENT_BYTES - HEADER_BYTES)]);
    });
}
