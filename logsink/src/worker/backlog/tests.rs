//! The policies of a backlog, alone.

use std::{sync::mpsc, thread};

use super::*;
use crate::{Severity, metrics::Metrics};

/// One framed record of this level with a number in it (field 15, which no decoder minds).
fn record(severity: Severity, number: u8) -> Vec<u8> {
    let mut record = vec![0x12, 0, 0x10, severity.0, 0x78, number];
    record.resize(102, 0x78);
    // The padding is a run of `field 15 = 0x78`: pairs of a tag and a value.
    record[1] = 100;
    record
}

fn envelope() -> Arc<Envelope> {
    Arc::new(Envelope::new(&[]))
}

fn batch(metrics: &Arc<Metrics>, records: &[(Severity, u8)]) -> Pending {
    let body: Vec<u8> = records.iter().flat_map(|(severity, number)| record(*severity, *number)).collect();
    Pending::new(envelope().seal(&body, records.len() as u32), metrics.clone())
}

/// A backlog for two batches of ten records, and a reserve for some four records.
fn backlog(overflow: Overflow, levels: Levels) -> Backlog {
    let wait_max = Duration::from_millis(if levels.any_blocks() { 10_000 } else { 20 });
    let bounds = Bounds { bytes_max: 2_300, reserve_bytes: 500, overflow, wait_max, levels };
    Backlog::new(bounds, envelope())
}

fn errors_kept() -> Levels {
    Levels::new(|level| level >= Severity::ERROR, |_| false)
}

/// The number in each record that comes out, a batch each.
fn out(backlog: &Backlog) -> Vec<Vec<u8>> {
    let numbers = |batch: &Pending| crate::queue::records(batch.sealed().body()).map(|record| record[5]).collect();
    std::iter::from_fn(|| backlog.pop())
        .filter_map(|item| match item {
            Item::Batch(batch, _) => {
                let numbers = numbers(&batch);
                batch.sent(&crate::transport::Accepted::default());
                Some(numbers)
            }
            Item::Barrier(_) => None,
        })
        .collect()
}

fn infos(number: u8) -> Vec<(Severity, u8)> {
    vec![(Severity::INFO, number); 10]
}

fn with_error(number: u8) -> Vec<(Severity, u8)> {
    let mut records = infos(number);
    records[4] = (Severity::ERROR, 100 + number);
    records
}

#[test]
fn the_newest_batch_goes_but_for_its_errors() {
    let metrics = Arc::new(Metrics::new());
    let backlog = backlog(Overflow::DropNewest, errors_kept());
    (1..=4).for_each(|number| backlog.push(batch(&metrics, &with_error(number)), None));
    let ten = |number: u8| [vec![number; 4], vec![100 + number], vec![number; 5]].concat();
    assert_eq!(out(&backlog), [ten(1), ten(2), vec![103], vec![104]]);
    let counts = metrics.snapshot();
    assert_eq!((counts.sent, counts.dropped_for(Reason::QueueFull), counts.dropped.len()), (22, 18, 1), "{counts}");
    assert_eq!(counts.dropped[0].severity, Severity::INFO);
}

#[test]
fn the_oldest_batch_goes_and_its_errors_stay_in_order() {
    let metrics = Arc::new(Metrics::new());
    let backlog = backlog(Overflow::DropOldest, errors_kept());
    (1..=4).for_each(|number| backlog.push(batch(&metrics, &with_error(number)), None));
    let first: Vec<_> = out(&backlog).into_iter().map(|numbers| (numbers[0], numbers.len())).collect();
    assert_eq!(first, [(101, 1), (102, 1), (3, 10), (4, 10)]);
    assert_eq!(metrics.snapshot().dropped_for(Reason::QueueFull), 18);
}

#[test]
fn the_reserve_has_a_bound_too() {
    for overflow in [Overflow::DropNewest, Overflow::DropOldest] {
        let metrics = Arc::new(Metrics::new());
        let backlog = backlog(overflow, errors_kept());
        (1..=50).for_each(|number| backlog.push(batch(&metrics, &with_error(number)), None));
        let errors = out(&backlog).into_iter().filter(|numbers| numbers.len() == 1).count();
        assert!((2..=4).contains(&errors), "{errors}");
        let counts = metrics.snapshot();
        assert_eq!(counts.sent + counts.lost(), 500, "{counts}");
        assert!(counts.dropped.iter().any(|dropped| dropped.severity == Severity::ERROR), "counted by level");
    }
}

#[test]
fn a_batch_above_the_bound_is_taken_alone() {
    let metrics = Arc::new(Metrics::new());
    let backlog = backlog(Overflow::DropNewest, Levels::default());
    backlog.push(batch(&metrics, &vec![(Severity::INFO, 1); 200]), None);
    backlog.push(batch(&metrics, &infos(2)), None);
    assert_eq!(out(&backlog), [vec![1; 200]]);
    assert_eq!(metrics.snapshot().lost(), 10);
}

#[test]
fn who_blocks_waits_for_room_and_at_most_until_the_deadline() {
    let metrics = Arc::new(Metrics::new());
    let blocking = backlog(Overflow::Block, Levels::default());
    (1..=3).for_each(|number| blocking.push(batch(&metrics, &infos(number)), None));
    assert_eq!(metrics.snapshot().dropped_for(Reason::QueueFull), 10, "nobody made room within the deadline");

    let bounds = Bounds { wait_max: Duration::from_secs(60), ..blocking.bounds };
    let patient = Backlog::new(bounds, envelope());
    (1..=2).for_each(|number| patient.push(batch(&metrics, &infos(number)), None));
    thread::scope(|scope| {
        let third = batch(&metrics, &infos(3));
        let pushing = scope.spawn(|| patient.push(third, None));
        let Some(Item::Batch(first, _)) = patient.pop() else { panic!("there are two") };
        drop(first);
        pushing.join().unwrap();
    });
    assert_eq!(out(&patient).len(), 2);
    assert_eq!(metrics.snapshot().dropped_for(Reason::QueueFull), 10, "no more than before");
}

#[test]
fn a_level_that_blocks_waits_for_the_reserve_while_the_rest_is_dropped() {
    let levels = Levels::new(|level| level >= Severity::ERROR, |level| level >= Severity::ERROR);
    let metrics = Arc::new(Metrics::new());
    let backlog = backlog(Overflow::DropNewest, levels);
    let mut errors = Vec::new();
    thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            (1..=30).for_each(|number| backlog.push(batch(&metrics, &with_error(number)), None));
        });
        while !pushing.is_finished() {
            errors.extend(out(&backlog).into_iter().flatten().filter(|number| *number > 100));
        }
        pushing.join().unwrap();
    });
    errors.extend(out(&backlog).into_iter().flatten().filter(|number| *number > 100));
    assert_eq!(errors, (101..=130).collect::<Vec<_>>(), "not one is lost");
}

#[test]
fn barriers_keep_their_place_when_batches_are_dropped() {
    let metrics = Arc::new(Metrics::new());
    let backlog = backlog(Overflow::DropOldest, Levels::default());
    let (barrier, fallen) = mpsc::sync_channel(0);
    backlog.push(batch(&metrics, &infos(1)), None);
    backlog.push_barrier(barrier);
    (2..=3).for_each(|number| backlog.push(batch(&metrics, &infos(number)), None));
    assert_eq!(fallen.try_recv(), Err(mpsc::TryRecvError::Empty));
    assert!(matches!(backlog.pop(), Some(Item::Barrier(_))), "what was before it is gone");
    assert_eq!(fallen.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    assert_eq!(out(&backlog).len(), 2);
}

#[test]
fn without_a_sender_everything_is_counted_as_lost_to_the_shutdown() {
    let metrics = Arc::new(Metrics::new());
    let backlog = backlog(Overflow::Block, Levels::default());
    let (barrier, fallen) = mpsc::sync_channel(0);
    backlog.push(batch(&metrics, &infos(1)), None);
    backlog.push_barrier(barrier.clone());
    backlog.end_sender();
    backlog.push_barrier(barrier);
    (2..=9).for_each(|number| backlog.push(batch(&metrics, &infos(number)), None));
    assert_eq!(metrics.snapshot().dropped_for(Reason::Shutdown), 90);
    assert_eq!(fallen.try_recv(), Err(mpsc::TryRecvError::Disconnected), "who waits for a flush is let go");
}
