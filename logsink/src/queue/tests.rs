//! The queue alone.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::metrics::Reason;

/// One framed record with `payload` bytes.
fn put(writer: &mut Writer, payload: &[u8]) -> Result<(), Reason> {
    let mut draft = writer.draft(4, 0)?;
    draft.put(&[FRAME_TAG]);
    draft.put(&crate::encode::padded(payload.len()));
    if !draft.room(payload.len()) {
        return Err(if draft.failed() { Reason::QueueFull } else { Reason::Oversize });
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
    let mut draft = writer.draft(4, 0).unwrap();
    draft.put(b"half");
    drop(draft);
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
