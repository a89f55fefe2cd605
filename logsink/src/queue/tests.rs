//! The queue alone.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{Severity, metrics::Reason};

/// One framed record with `payload` bytes.
fn put(writer: &mut Writer, payload: &[u8]) -> Result<(), Reason> {
    put_at(Severity::INFO, writer, payload)
}

fn put_at(severity: Severity, writer: &mut Writer, payload: &[u8]) -> Result<(), Reason> {
    let mut draft = writer.draft(0, severity);
    if !draft.room(4) {
        return Err(draft.refusal());
    }
    draft.put(&[FRAME_TAG]);
    draft.put(&crate::encode::padded(payload.len()));
    if !draft.room(payload.len()) {
        return Err(draft.refusal());
    }
    draft.put(payload);
    draft.commit()
}

fn drained(consumer: &mut Consumer) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    consumer.drain(&mut |run| all.extend(records(run).map(|record| record[4..].to_vec())));
    all
}

#[test]
fn a_record_that_is_not_committed_leaves_no_trace() {
    let (producer, mut consumer) = channel(CHUNK_BYTES);
    let mut writer = Writer::new(&producer);
    put(&mut writer, b"one").unwrap();
    assert!(writer.draft(0, Severity::INFO).append(b"half", 0));
    put(&mut writer, b"two").unwrap();
    assert_eq!(drained(&mut consumer), [b"one", b"two"]);
    assert!(drained(&mut consumer).is_empty(), "once is enough");
}

#[test]
fn a_record_that_outgrows_its_chunk_moves_to_the_next() {
    let (producer, mut consumer) = channel(4 * CHUNK_BYTES);
    let mut writer = Writer::new(&producer);
    put(&mut writer, &[1; 1_000]).unwrap();
    put(&mut writer, &[2; CHUNK_BYTES - 500]).unwrap();
    put(&mut writer, &[3; 400]).unwrap();
    assert_eq!(put(&mut writer, &[4; CHUNK_BYTES - 3]), Err(Reason::Oversize));
    put(&mut writer, &[5; CHUNK_BYTES - 4]).unwrap();
    let lengths: Vec<_> = drained(&mut consumer).iter().map(|record| (record[0], record.len())).collect();
    assert_eq!(lengths, [(1, 1_000), (2, CHUNK_BYTES - 500), (3, 400), (5, CHUNK_BYTES - 4)]);
}

#[test]
fn chunks_come_back() {
    let (producer, mut consumer) = channel(2 * CHUNK_BYTES);
    let mut writer = Writer::new(&producer);
    for round in 0..100u8 {
        put(&mut writer, &vec![round; 40_000]).unwrap();
        assert_eq!(drained(&mut consumer), [vec![round; 40_000]]);
    }
}

#[test]
fn the_budget_is_kept() {
    let (producer, mut consumer) = channel(4 * CHUNK_BYTES);
    let mut writer = Writer::new(&producer);
    let mut taken = 0;
    while put(&mut writer, &[7; 1_000]).is_ok() {
        taken += 1_004;
    }
    // The strays' share comes on top; each chunk wastes less than a record.
    assert!((4 * (CHUNK_BYTES - 1_004)..=5 * CHUNK_BYTES).contains(&taken), "{taken}");
    assert_eq!(put(&mut writer, &[7; 1_000]), Err(Reason::QueueFull));
    assert_eq!(drained(&mut consumer).len(), taken / 1_004);
    put(&mut writer, &[8; 1_000]).unwrap();
}

#[test]
fn runs_split_into_records() {
    let run = [&[FRAME_TAG, 2, b'a', b'b'][..], &[FRAME_TAG, 0x81, 0x80, 0x00, b'c'], &[FRAME_TAG, 0]].concat();
    let lengths: Vec<_> = records(&run).map(<[u8]>::len).collect();
    assert_eq!(lengths, [4, 5, 2]);
    assert_eq!(records(&[FRAME_TAG, 9, 1]).count(), 0, "a record that is cut off is none");
    assert_eq!(records(&[0x0a, 1, 1]).count(), 0);
    assert_eq!(records(&[FRAME_TAG, 0xff, 0xff, 0xff, 0xff, 0xff]).count(), 0);
}

#[test]
fn a_wait_ends_by_a_wake_before_or_during_it() {
    let (_producer, consumer) = channel(CHUNK_BYTES);
    let forever = Duration::from_secs(60);
    let start = Instant::now();
    let waker = consumer.waker();
    waker.wake();
    consumer.wait(forever);
    let waiter = thread::spawn(move || consumer.wait(forever));
    waker.wake();
    waiter.join().unwrap();
    assert!(start.elapsed() < forever);
}

#[test]
fn memory_pressure_wakes_the_worker() {
    let (producer, mut consumer) = channel(4 * CHUNK_BYTES);
    let start = Instant::now();
    let mut writer = Writer::new(&producer);
    for _ in 0..4 {
        put(&mut writer, &[0; 60_000]).unwrap();
    }
    consumer.wait(Duration::from_secs(60));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(drained(&mut consumer).len(), 4);
}

/// However the end falls among the threads' steps, no record is both accepted and left behind.
#[test]
fn at_the_end_every_record_is_drained_or_refused() {
    const ROUNDS: u32 = 1_200;
    const THREADS: usize = 3;
    for round in 0..ROUNDS {
        let (producer, mut consumer) = channel(8 * CHUNK_BYTES);
        let begin = std::sync::Barrier::new(THREADS + 1);
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|number| {
                    let (producer, begin) = (&producer, &begin);
                    scope.spawn(move || {
                        // Large ones change chunks often; the strays' way has its own end.
                        let payload = [7; 30_000];
                        let payload = &payload[..[20, 30_000, 20][number]];
                        let mut writer = if number == 2 { Writer::stray(producer) } else { Writer::new(producer) };
                        begin.wait();
                        let mut accepted = 0;
                        loop {
                            match put(&mut writer, payload) {
                                Ok(()) => accepted += 1,
                                Err(Reason::Shutdown) => return accepted,
                                Err(_) => std::hint::spin_loop(),
                            }
                        }
                    })
                })
                .collect();
            begin.wait();
            let mut drained = 0;
            // Ends at another step each time.
            for _ in 0..round % 4 {
                consumer.drain(&mut |run| drained += records(run).count());
            }
            (0..round % 97).for_each(|_| std::hint::spin_loop());
            consumer.close_and_drain(&mut |run| drained += records(run).count());
            // What a thread has not committed by now is refused.
            let accepted: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(drained, accepted, "round {round}");
        });
    }
}

#[test]
fn a_chunk_that_changes_hands_at_the_end_is_drained() {
    let (producer, mut consumer) = channel(4 * CHUNK_BYTES);
    let mut writer = Writer::new(&producer);
    put(&mut writer, b"between").unwrap();
    // As between the two steps of handing a chunk over: its thread does not show it any more, and it is not among the
    // full ones yet.
    lock(&producer.shared.seats)[0].chunk.store(NO_CHUNK, Ordering::Release);
    assert!(drained(&mut consumer).is_empty());
    let mut all = Vec::new();
    consumer.close_and_drain(&mut |run| all.extend_from_slice(&run[4..]));
    assert_eq!(all, b"between");
    assert_eq!(put(&mut writer, b"after"), Err(Reason::Shutdown));
}

/// Four chunks, a reserve for errors, and whose levels wait.
fn settings(reserve_bytes: usize, blocks: impl Fn(Severity) -> bool, wait_max: Duration) -> Settings {
    let levels = Levels::new(|level| level >= Severity::ERROR, blocks);
    Settings { bytes_max: 4 * CHUNK_BYTES, reserve_bytes, levels, wait_max }
}

#[test]
fn a_protected_level_has_a_reserve_of_its_own() {
    let (producer, mut consumer) = channel(settings(10_000, |_| false, Duration::ZERO));
    let mut writer = Writer::new(&producer);
    while put(&mut writer, &[1; 1_000]).is_ok() {}
    let mut errors = 0;
    while put_at(Severity::ERROR, &mut writer, &[2; 1_000]).is_ok() {
        errors += 1;
        // The thread's chunk went before its error, so its other records are strays now as well; they leave the reserve.
        while put(&mut writer, &[1; 1_000]).is_ok() {}
    }
    // The first one used what is for all.
    assert!((10..=11).contains(&errors), "{errors}");
    assert_eq!(drained(&mut consumer).iter().filter(|record| record[0] == 2).count(), errors);
}

#[test]
fn who_waits_gets_the_next_chunk_that_is_free() {
    let (producer, mut consumer) = channel(settings(0, |level| level == Severity::INFO, Duration::from_secs(60)));
    const RECORDS: usize = 2_000;
    let taken = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut writer = Writer::new(&producer);
            (0..RECORDS).for_each(|_| put(&mut writer, &[7; 1_000]).unwrap());
        });
        let mut taken = 0;
        while !writing.is_finished() {
            // As the worker does: it sleeps until memory runs short or somebody waits.
            consumer.wait(Duration::from_millis(200));
            taken += drained(&mut consumer).len();
        }
        writing.join().unwrap();
        taken + drained(&mut consumer).len()
    });
    assert_eq!(taken, RECORDS, "eight times what the queue holds");
}

#[test]
fn a_wait_ends_at_its_deadline_or_with_the_queue() {
    let wait = Duration::from_millis(30);
    let (producer, consumer) = channel(settings(0, |level| level == Severity::INFO, wait));
    let mut writer = Writer::new(&producer);
    let mut start = Instant::now();
    while put(&mut writer, &[1; 1_000]).is_ok() {
        start = Instant::now();
    }
    assert!(start.elapsed() >= wait, "{:?}", start.elapsed());
    let start = Instant::now();
    assert_eq!(put_at(Severity::DEBUG, &mut writer, &[1; 1_000]), Err(Reason::QueueFull));
    assert!(start.elapsed() < wait, "a level that does not wait");

    let (producer, mut patient) = channel(settings(0, |_| true, Duration::from_secs(600)));
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut writer = Writer::new(&producer);
            loop {
                if let Err(reason) = put(&mut writer, &[1; 1_000]) {
                    return reason;
                }
            }
        });
        while patient.chunks_free() > 0 {
            thread::yield_now();
        }
        patient.close_and_drain(&mut |_| {});
        assert_eq!(writing.join().unwrap(), Reason::Shutdown);
    });
    drop(consumer);
}

#[test]
fn a_thread_without_a_chunk_does_not_wait_for_one_that_nobody_gives_back() {
    let (producer, mut consumer) = channel(settings(0, |_| true, Duration::from_secs(600)));
    let mut holders: Vec<_> = (0..4).map(|_| Writer::new(&producer)).collect();
    holders.iter_mut().for_each(|writer| put(writer, b"held").unwrap());
    put(&mut Writer::new(&producer), b"stray").unwrap();
    assert_eq!(drained(&mut consumer).len(), 5);
}

/// A record begun by a writer without a chunk, of which the pool has none either.
fn begun<'w>(writer: &'w mut Writer, payload: &[u8]) -> Draft<'w> {
    let mut draft = writer.draft(0, Severity::INFO);
    assert!(draft.room(4 + payload.len()));
    draft.put(&[FRAME_TAG]);
    draft.put(&crate::encode::padded(payload.len()));
    draft.put(payload);
    draft
}

#[test]
fn room_among_the_strays_that_another_thread_used_first_is_waited_for() {
    for (wait, expected) in [(Duration::from_secs(600), Ok(())), (Duration::from_millis(1), Err(Reason::QueueFull))] {
        let (producer, mut consumer) = channel(settings(0, |_| true, wait));
        let mut holders: Vec<_> = (0..4).map(|_| Writer::new(&producer)).collect();
        holders.iter_mut().for_each(|writer| put(writer, b"held").unwrap());
        let (mut first, mut second) = (Writer::new(&producer), Writer::stray(&producer));
        // Both see that there is room, which one of them alone fills.
        let (mut first, mut second) = (begun(&mut first, &[1; 40_000]), begun(&mut second, &[2; 40_000]));
        assert_eq!(first.commit(), Ok(()));
        let waits = AtomicBool::new(true);
        let drained = thread::scope(|scope| {
            let draining = scope.spawn(|| {
                let mut all = 0;
                while waits.load(Ordering::Acquire) && expected.is_ok() {
                    consumer.wait(Duration::from_millis(200));
                    all += drained(&mut consumer).len();
                }
                all
            });
            let committed = second.commit();
            waits.store(false, Ordering::Release);
            assert_eq!(committed, expected);
            draining.join().unwrap()
        });
        let drained = drained + self::drained(&mut consumer).len();
        assert_eq!(drained, 5 + usize::from(expected.is_ok()));
    }
}

/// More threads than chunks: all chunks are held by threads that wait for another, and the strays fill up.
#[test]
fn where_all_wait_nothing_is_lost() {
    const THREADS: usize = 8;
    const RECORDS: usize = 3_000;
    let (producer, mut consumer) = channel(settings(0, |_| true, Duration::from_secs(600)));
    let begin = std::sync::Barrier::new(THREADS);
    let taken = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|number| {
                let (producer, begin) = (&producer, &begin);
                scope.spawn(move || {
                    let mut writer = Writer::new(producer);
                    begin.wait();
                    let payload = vec![number as u8; 500 + 1_500 * number];
                    (0..RECORDS).for_each(|_| put(&mut writer, &payload).unwrap());
                })
            })
            .collect();
        let mut taken = 0;
        while !threads.iter().all(|thread| thread.is_finished()) {
            consumer.wait(Duration::from_millis(200));
            taken += drained(&mut consumer).len();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        taken + drained(&mut consumer).len()
    });
    assert_eq!(taken, THREADS * RECORDS);
}
