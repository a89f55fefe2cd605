//! The contiguous watermark: up to where each partition of the queue is done with. Pure.
//!
//! Writes to the index finish in any order; a position may be committed only when every message before it is finished too.
//! Each partition is tracked under the epoch it was assigned in, so what was read before a rebalance can neither hold back
//! nor push forward what is read after it. Memory: 16 bytes for each message that is under way, which the drain's byte
//! budget bounds.

use std::collections::{HashMap, VecDeque};

use crate::queue::Position;

/// Up to where every partition is done with.
#[derive(Debug, Default)]
pub struct Watermark {
    partitions: HashMap<i32, Track>,
}

#[derive(Debug)]
struct Track {
    epoch: u32,
    /// Offsets read and not yet below the watermark, ascending; they may have gaps (compaction, transactions).
    pending: VecDeque<(i64, State)>,
    /// The offset after the last message of the unbroken run of finished ones; none until the first has finished.
    next: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    UnderWay,
    Done,
}

impl Watermark {
    /// Notes that a message was read. Within a partition and epoch, messages come in ascending order; one that does not rise
    /// above the last is ignored, since it is tracked already. A higher epoch forgets what the lower one had.
    pub fn begin(&mut self, position: Position, epoch: u32) {
        let track = self.partitions.entry(position.partition).or_insert_with(|| Track::new(epoch));
        if epoch > track.epoch {
            *track = Track::new(epoch);
        }
        let last = track.pending.back().map(|&(offset, _)| offset).or(track.next.map(|next| next - 1));
        if epoch == track.epoch && last.is_none_or(|last| position.offset > last) {
            track.pending.push_back((position.offset, State::UnderWay));
        }
    }

    /// Notes that a message is done with. One of another epoch, or of a partition that was revoked, is ignored.
    pub fn finish(&mut self, position: Position, epoch: u32) {
        let Some(track) = self.partitions.get_mut(&position.partition).filter(|track| track.epoch == epoch) else {
            return;
        };
        if let Ok(at) = track.pending.binary_search_by_key(&position.offset, |&(offset, _)| offset) {
            track.pending[at].1 = State::Done;
        }
        while let Some(&(offset, State::Done)) = track.pending.front() {
            track.pending.pop_front();
            track.next = Some(offset + 1);
        }
    }

    /// Forgets a partition: it went to another reader.
    pub fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// The offset to commit in each partition that has one: everything before it is done with.
    pub fn positions(&self) -> impl Iterator<Item = Position> + '_ {
        self.partitions.iter().filter_map(|(&partition, track)| track.next.map(|offset| Position { partition, offset }))
    }

    /// Messages read and not yet below the watermark, in `partition`.
    pub fn pending(&self, partition: i32) -> usize {
        self.partitions.get(&partition).map_or(0, |track| track.pending.len())
    }
}

impl Track {
    fn new(epoch: u32) -> Self {
        Self { epoch, pending: VecDeque::new(), next: None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(partition: i32, offset: i64) -> Position {
        Position { partition, offset }
    }

    fn next(watermark: &Watermark, partition: i32) -> Option<i64> {
        watermark.positions().find(|position| position.partition == partition).map(|position| position.offset)
    }

    #[test]
    fn waits_for_the_message_before() {
        let mut watermark = Watermark::default();
        for offset in [5, 6, 9] {
            watermark.begin(at(0, offset), 1);
        }
        watermark.finish(at(0, 6), 1);
        watermark.finish(at(0, 9), 1);
        assert_eq!(next(&watermark, 0), None, "5 is still under way");
        watermark.finish(at(0, 5), 1);
        assert_eq!(next(&watermark, 0), Some(10), "gaps in the offsets hold nothing back");
        assert_eq!(watermark.pending(0), 0);
    }

    #[test]
    fn forgets_what_was_read_before_a_rebalance() {
        let mut watermark = Watermark::default();
        watermark.begin(at(3, 7), 1);
        watermark.forget(3);
        watermark.finish(at(3, 7), 1);
        assert_eq!(next(&watermark, 3), None, "a revoked partition commits nothing");
        watermark.begin(at(3, 4), 2);
        watermark.finish(at(3, 4), 1);
        assert_eq!(next(&watermark, 3), None, "an ack of the old epoch does not count in the new one");
        watermark.finish(at(3, 4), 2);
        assert_eq!(next(&watermark, 3), Some(5));
        watermark.begin(at(3, 2), 3);
        assert_eq!(next(&watermark, 3), None, "a new epoch begins from nothing");
        watermark.begin(at(3, 9), 2);
        watermark.finish(at(3, 2), 3);
        assert_eq!(next(&watermark, 3), Some(3), "a straggler of an old epoch is not tracked");
    }

    #[test]
    fn a_message_seen_twice_is_tracked_once() {
        let mut watermark = Watermark::default();
        watermark.begin(at(0, 1), 1);
        watermark.begin(at(0, 1), 1);
        watermark.finish(at(0, 1), 1);
        watermark.begin(at(0, 1), 1);
        assert_eq!((next(&watermark, 0), watermark.pending(0)), (Some(2), 0));
    }

    proptest! {
        /// Whatever the order of acks, the watermark is what the definition says: the longest finished run.
        #[test]
        fn is_the_longest_finished_run(
            gaps in prop::collection::vec(1_i64..4, 1..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |offset, gap| { *offset += gap; Some(*offset) }).collect();
            let mut watermark = Watermark::default();
            for &offset in &offsets {
                watermark.begin(at(0, offset), 1);
            }
            let mut done = std::collections::HashSet::new();
            for index in order {
                let offset = offsets[index.index(offsets.len())];
                done.insert(offset);
                watermark.finish(at(0, offset), 1);
                let run = offsets.iter().take_while(|&offset| done.contains(offset)).last();
                prop_assert_eq!(next(&watermark, 0), run.map(|last| last + 1));
            }
        }
    }
}
