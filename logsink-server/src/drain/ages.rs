//! How old the oldest message is that was read and not committed: the lag in time. Shown when it is asked for, so that it rises
//! while nothing moves.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::queue::{Message, Position};

/// Messages read and not committed, by partition: offset and the time at which the queue took it, Unix milliseconds. As many as
/// the drain's byte budget lets be read.
#[derive(Debug, Default)]
pub(super) struct Ages(Mutex<BTreeMap<i32, VecDeque<(i64, i64)>>>);

impl Ages {
    pub(super) fn begin(&self, message: &Message) {
        let Position { partition, offset } = message.position;
        let mut ages = self.lock();
        let partition = ages.entry(partition).or_default();
        // A partition that was assigned anew is read from the last commit again.
        while partition.back().is_some_and(|&(last, _)| last >= offset) {
            partition.pop_back();
        }
        if let Some(appended) = message.headers.appended_ms {
            partition.push_back((offset, appended));
        }
    }

    /// Everything before `next` is done with. Calls `each` with the age of every message of it, in seconds.
    pub(super) fn commit(&self, next: Position, now_ms: i64, mut each: impl FnMut(f64)) {
        let mut ages = self.lock();
        let Some(partition) = ages.get_mut(&next.partition) else { return };
        while let Some(&(offset, appended)) = partition.front() {
            if offset >= next.offset {
                break;
            }
            partition.pop_front();
            each(seconds(now_ms - appended));
        }
    }

    pub(super) fn forget(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    /// The age of each partition's oldest message, in seconds; 0 where all is committed.
    pub(super) fn oldest(&self, now_ms: i64) -> Vec<(i32, f64)> {
        let age = |messages: &VecDeque<(i64, i64)>| messages.front().map_or(0.0, |(_, at)| seconds(now_ms - at));
        self.lock().iter().map(|(&partition, messages)| (partition, age(messages))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, VecDeque<(i64, i64)>>> {
        // Plain numbers, whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clocks of two machines may differ: nothing is younger than now.
fn seconds(ms: i64) -> f64 {
    ms.max(0) as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Headers;

    fn message(partition: i32, offset: i64, appended_ms: i64) -> Message {
        Message {
            position: Position { partition, offset },
            epoch: 0,
            payload: Default::default(),
            headers: Headers { appended_ms: Some(appended_ms), ..Headers::default() },
            dropped: Vec::new(),
        }
    }

    #[test]
    fn the_oldest_uncommitted_message_is_the_lag() {
        let ages = Ages::default();
        for (partition, offset, at) in [(0, 5, 1_000), (0, 6, 3_000), (1, 0, 2_000)] {
            ages.begin(&message(partition, offset, at));
        }
        assert_eq!(ages.oldest(5_000), [(0, 4.0), (1, 3.0)]);
        let mut delays = Vec::new();
        ages.commit(Position { partition: 0, offset: 6 }, 5_000, |age| delays.push(age));
        assert_eq!((delays, ages.oldest(5_000)), (vec![4.0], vec![(0, 2.0), (1, 3.0)]));
        ages.commit(Position { partition: 1, offset: 1 }, 1_000, |age| assert_eq!(age, 0.0, "another's clock"));
        assert_eq!(ages.oldest(5_000)[1], (1, 0.0));
        // Read again after a rebalance.
        ages.begin(&message(0, 6, 3_000));
        ages.forget(1);
        assert_eq!(ages.oldest(5_000), [(0, 2.0)]);
    }
}
