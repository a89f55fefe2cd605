use std::{
    collections::BTreeMap,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
};

use super::*;
use crate::{
    encode::padded,
    queue::{FRAME_TAG, records},
};

/// A framed record that says who wrote it.
fn record(key: u64, number: u64, filling: usize) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&key.to_le_bytes());
    body.extend_from_slice(&number.to_le_bytes());
    body.resize(16 + filling, number as u8);
    let mut record = vec![FRAME_TAG];
    record.extend_from_slice(&padded(body.len()));
    record.extend_from_slice(&body);
    record
}

/// The key and the number in a record, checked to the last byte.
fn read(framed: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(framed[at..at + 8].try_into().unwrap());
    let (key, number) = (word(4), word(12));
    assert_eq!(framed, record(key, number, framed.len() - 20), "key {key}, number {number}");
    (key, number)
}

/// As a thread does it; `false` when it was not recorded.
fn write(pen: &mut Pen, key: u64, number: u64, filling: usize) -> bool {
    if !pen.is_ready() {
        return false;
    }
    let shown = if key == 0 { pen.key().unwrap_or(0) } else { key };
    let record = record(shown, number, filling);
    if SEGMENT_BYTES - pen.place().1 < record.len() && !pen.advance() {
        pen.recorder.refuse();
        return false;
    }
    let (start, used) = pen.place();
    assert!(SEGMENT_BYTES - used >= record.len());
    // SAFETY: the pen has just said that these bytes are the caller's.
    unsafe { std::ptr::copy_nonoverlapping(record.as_ptr(), start.as_ptr().add(used), record.len()) };
    let published = pen.publish(record.len(), key);
    if !published {
        pen.recorder.refuse();
    }
    published
}

fn recorder(rings: usize) -> (Arc<Recorder>, Releaser) {
    let ring_bytes = SEGMENTS_MIN * SEGMENT_BYTES;
    let recorder = Recorder::new(ring_bytes, rings * ring_bytes, Waker::default());
    (recorder.clone(), Releaser::new(recorder))
}

fn released(releaser: &mut Releaser) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    releaser.release(&mut |run| {
        let mut bytes = 0;
        for record in records(run) {
            bytes += record.len();
            all.push(read(record));
        }
        assert_eq!(bytes, run.len(), "runs hold whole records");
    });
    all
}

#[test]
fn what_is_asked_for_comes_out_once_and_in_order() {
    let (recorder, mut releaser) = recorder(2);
    let mut pen = Pen::new(&recorder);
    for number in 0..6 {
        assert!(write(&mut pen, 10 + number % 2, number, 300));
    }
    assert_eq!(released(&mut releaser), [], "nobody has asked");
    recorder.ask(11);
    recorder.ask(11);
    assert_eq!(released(&mut releaser), [(11, 1), (11, 3), (11, 5)]);
    assert!(write(&mut pen, 11, 7, 300));
    recorder.ask(11);
    assert_eq!(released(&mut releaser), [(11, 7)], "the others have been sent");
    recorder.ask(99);
    assert_eq!(released(&mut releaser), []);
    assert_eq!(recorder.counts(), metrics::Recorder { recorded: 7, ..Default::default() });
}

#[test]
fn keys_are_found_on_every_thread_and_the_threads_own_only_there() {
    let (recorder, mut releaser) = recorder(3);
    let mut pens = [Pen::new(&recorder), Pen::new(&recorder)];
    assert_eq!(pens[0].key(), None, "nothing to ask for yet");
    for (number, pen) in pens.iter_mut().enumerate() {
        assert!(write(pen, 5, number as u64, 10));
        assert!(write(pen, 0, 10 + number as u64, 10));
    }
    recorder.ask(5);
    assert_eq!(released(&mut releaser), [(5, 0), (5, 1)]);
    let own = pens[1].key().unwrap();
    recorder.ask(own);
    assert_eq!(released(&mut releaser), [(own, 11)]);
}

#[test]
fn the_oldest_segment_is_forgotten_for_the_newest() {
    let (recorder, mut releaser) = recorder(1);
    let mut pen = Pen::new(&recorder);
    // Four in a segment: the fifth opens the second, the ninth takes the first one's place.
    for number in 0..9 {
        assert!(write(&mut pen, 1, number, 15_000));
    }
    recorder.ask(1);
    assert_eq!(released(&mut releaser), (4..9).map(|number| (1, number)).collect::<Vec<_>>());
    for number in 9..500 {
        assert!(write(&mut pen, 1, number, 20 + 97 * number as usize % 5_000));
    }
    recorder.ask(1);
    let numbers: Vec<_> = released(&mut releaser).into_iter().map(|(_, number)| number).collect();
    assert!(numbers.len() > 20, "at least a segment is full of them: {}", numbers.len());
    assert!(numbers.iter().copied().eq(500 - numbers.len() as u64..500), "the newest, without a hole");
}

#[test]
fn a_record_that_fills_a_segment() {
    let (recorder, mut releaser) = recorder(1);
    let mut pen = Pen::new(&recorder);
    let filling = SEGMENT_BYTES - ring::HEADER_BYTES - 20;
    for number in 0..3 {
        assert!(write(&mut pen, 1, number, filling));
    }
    recorder.ask(1);
    assert_eq!(released(&mut releaser), [(1, 1), (1, 2)]);
}

#[test]
fn a_ring_is_readable_after_its_thread_until_another_needs_it() {
    let (recorder, mut releaser) = recorder(2);
    let mut pens = [Pen::new(&recorder), Pen::new(&recorder)];
    for (number, pen) in pens.iter_mut().enumerate() {
        assert!(write(pen, 1, number as u64, 100));
    }
    let [first, second] = pens;
    let mut third = Pen::new(&recorder);
    assert!(!write(&mut third, 1, 2, 100), "there is no third ring");
    assert!(!write(&mut third, 1, 3, 100));
    assert_eq!(recorder.counts(), metrics::Recorder { recorded: 2, no_room: 2, ..Default::default() });
    drop(second);
    drop(first);
    // It goes on where the thread that ended first has stopped.
    assert!(write(&mut third, 2, 4, 100));
    recorder.ask(1);
    assert_eq!(released(&mut releaser), [(1, 0), (1, 1)]);
    let mut fourth = Pen::new(&recorder);
    assert!(write(&mut fourth, 2, 5, 100));
    recorder.ask(2);
    assert_eq!(released(&mut releaser), [(2, 5), (2, 4)], "of the first thread's ring, then the second's");
}

#[test]
fn more_requests_than_the_worker_can_take_are_counted() {
    let (recorder, mut releaser) = recorder(1);
    let mut pen = Pen::new(&recorder);
    assert!(write(&mut pen, 7, 0, 100));
    (1..=REQUESTS_MAX as u64 + 3).for_each(|key| recorder.ask(key));
    assert_eq!(recorder.counts().unanswered, 3);
    assert_eq!(released(&mut releaser), [(7, 0)]);
}

/// Owners write as fast as they can while the releaser reads: what comes out is whole, is of the key that was asked for, comes
/// once, and in its thread's order; and what nothing had a chance to overwrite is complete.
#[test]
fn owners_and_the_releaser_at_the_same_time() {
    const THREADS: u64 = 4;
    const ENTRIES: u64 = if cfg!(miri) { 300 } else { 60_000 };
    const KEYS: u64 = 8;
    let (recorder, mut releaser) = recorder(THREADS as usize);
    let (start, running) = (Barrier::new(THREADS as usize + 1), AtomicBool::new(true));
    let mut last = BTreeMap::new();
    let mut seen = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (recorder, start) = (&recorder, &start);
                scope.spawn(move || {
                    let mut pen = Pen::new(recorder);
                    start.wait();
                    let mut written = 0;
                    for number in 0..ENTRIES {
                        let key = 1 + number % KEYS;
                        let number = thread << 32 | number;
                        written += u64::from(write(&mut pen, key, number, (number % 700) as usize));
                        if number.is_multiple_of(64) {
                            recorder.ask(key);
                        }
                    }
                    written
                })
            })
            .collect();
        let running = &running;
        let reader = scope.spawn(|| {
            let mut all = Vec::new();
            while running.load(Ordering::Relaxed) {
                all.extend(released(&mut releaser));
            }
            (1..=KEYS).for_each(|key| recorder.ask(key));
            all.extend(released(&mut releaser));
            all
        });
        start.wait();
        let written: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        running.store(false, Ordering::Relaxed);
        for (key, number) in reader.join().unwrap() {
            let (thread, number) = (number >> 32, number & 0xffff_ffff);
            assert_eq!(key, 1 + number % KEYS);
            let before = last.insert((thread, key), number);
            assert!(before.is_none_or(|before| before < number), "once and in order");
            seen += 1;
        }
        let counts = recorder.counts();
        assert_eq!(counts.recorded, written);
        assert_eq!(counts.recorded + counts.refused, THREADS * ENTRIES);
    });
    assert!(seen > 0);
}
