//! What the polling thread, the watching thread and drain share, under one lock: messages that wait for drain, positions that
//! wait for a commit, and which partitions are ours. No I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use crate::queue::{Fetched, Message, Position, QueueError};

/// After so many refusals in a row the pause between commits does not grow any more: 32 times the usual one.
const REFUSED_MAX: u32 = 5;

#[derive(Default)]
pub(super) struct State {
    events: VecDeque<Event>,
    /// Bytes of the buffered messages, with all that they take.
    bytes: usize,
    /// The partitions that are ours.
    assigned: BTreeMap<i32, Assigned>,
    /// Some of them came since the last look at those that are [unasked](State::unasked).
    has_new: bool,
    /// How often each partition was assigned.
    epochs: BTreeMap<i32, u32>,
    /// Counts changes of the assignment.
    pub(super) rebalances: u64,
    /// Offsets to commit, by partition.
    positions: BTreeMap<i32, i64>,
    is_dirty: bool,
    /// Commits that Kafka refused, in a row.
    refused: u32,
    /// Partitions that were revoked, as often as drain was not told yet: it may still commit what they were before.
    untold: BTreeMap<i32, u32>,
    /// Places where the offsets jump ahead: retention, compaction or a transaction.
    pub(super) jumps: Vec<Jump>,
    /// Whether the partitions are paused because drain does not take what was read.
    pub(super) is_paused: bool,
    /// The topic's id, as far as brokers have told.
    pub(super) topic_id: Option<u128>,
    /// The topic is another one under the same name: its partitions are to be read from their beginning.
    pub(super) is_anew: bool,
    /// Why the client is to be replaced.
    pub(super) verdict: Option<String>,
    /// The client shall stop fetching.
    #[cfg(all(test, feature = "real-servers"))]
    pub(super) stall: bool,
    pub(super) closing: bool,
    pub(super) ended: bool,
}

/// A partition that is ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Assigned {
    pub(super) epoch: u32,
    /// The offset after the last message read since it came.
    pub(super) next: Option<i64>,
    /// Where the group stood when it came is not known yet. Until it is, nothing is committed: it would be overwritten.
    pub(super) is_unasked: bool,
}

/// Offsets that were not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) partition: i32,
    /// The offset wanted.
    pub(super) from: i64,
    /// The offset that came.
    pub(super) to: i64,
}

enum Event {
    Message(Message),
    Revoked(Vec<i32>),
    Error(QueueError),
}

impl State {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Partitions came.
    pub(super) fn assign(&mut self, partitions: &[i32]) {
        for &partition in partitions {
            let epoch = self.epochs.entry(partition).or_default();
            *epoch += 1;
            self.assigned.insert(partition, Assigned { epoch: *epoch, next: None, is_unasked: true });
        }
        self.has_new |= !partitions.is_empty();
        self.rebalances += 1;
    }

    /// Partitions went: what was read of them and waits is forgotten. Returns their last positions, to commit.
    pub(super) fn revoke(&mut self, partitions: &[i32]) -> BTreeMap<i32, i64> {
        let revoked = |partition: &i32| partitions.contains(partition);
        self.assigned.retain(|partition, _| !revoked(partition));
        self.jumps.retain(|jump| !revoked(&jump.partition));
        let (last, kept): (BTreeMap<_, _>, _) =
            mem::take(&mut self.positions).into_iter().partition(|(partition, _)| revoked(partition));
        self.positions = kept;
        self.rebalances += 1;
        self.events.retain(|event| match event {
            Event::Message(message) if revoked(&message.position.partition) => {
                self.bytes -= message.bytes();
                false
            }
            _ => true,
        });
        if !partitions.is_empty() {
            for &partition in partitions {
                *self.untold.entry(partition).or_default() += 1;
            }
            self.events.push_back(Event::Revoked(partitions.to_vec()));
        }
        last
    }

    /// All our partitions begin anew, under the same name: for drain it is as if they had gone and come again.
    pub(super) fn begin_anew(&mut self) -> Vec<i32> {
        let partitions = self.partitions();
        self.revoke(&partitions);
        self.assign(&partitions);
        partitions
    }

    /// All partitions that are ours.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.assigned.keys().copied().collect()
    }

    /// The epoch of each partition that is ours.
    pub(super) fn epochs(&self) -> BTreeMap<i32, u32> {
        self.assigned.iter().map(|(&partition, assigned)| (partition, assigned.epoch)).collect()
    }

    pub(super) fn assigned(&self, partition: i32) -> Option<&Assigned> {
        self.assigned.get(&partition)
    }

    /// Partitions of which it is not known where the group stood, ascending. None of them is new from then on.
    pub(super) fn unasked(&mut self) -> Vec<(i32, u32)> {
        self.has_new = false;
        let unasked = self.assigned.iter().filter(|(_, assigned)| assigned.is_unasked);
        unasked.map(|(&partition, assigned)| (partition, assigned.epoch)).collect()
    }

    /// Whether there are partitions that nobody has asked about yet, not even in vain.
    pub(super) fn has_new(&self) -> bool {
        self.has_new
    }

    pub(super) fn asked(&mut self, partition: i32, epoch: u32) {
        if let Some(assigned) = self.assigned.get_mut(&partition).filter(|assigned| assigned.epoch == epoch) {
            assigned.is_unasked = false;
        }
    }

    /// Takes over what was read since the last call. What was read of a partition that has gone meanwhile is not kept. Offsets
    /// that go back are of another topic of the same name, or of a partition that has lost its end: for drain it is as if the
    /// partition had gone and come again. Returns these.
    pub(super) fn push(&mut self, messages: &mut Vec<Message>) -> Vec<Jump> {
        let mut back = Vec::new();
        for mut message in messages.drain(..) {
            let Position { partition, offset } = message.position;
            if let Some(from) = self.next(&message).filter(|next| offset < *next) {
                back.push(Jump { partition, from, to: offset });
                // Not to be committed: they are not this log's.
                self.revoke(&[partition]);
                self.assign(&[partition]);
            }
            if back.iter().any(|jump| jump.partition == partition)
                && let Some(own) = self.assigned.get(&partition)
            {
                message.epoch = own.epoch;
            }
            let next = self.next(&message);
            let Some(assigned) = self.assigned.get_mut(&partition).filter(|own| own.epoch == message.epoch) else {
                continue;
            };
            if let Some(next) = next.filter(|next| offset > *next) {
                self.jumps.push(Jump { partition, from: next, to: offset });
            }
            assigned.next = Some(offset + 1);
            self.bytes += message.bytes();
            self.events.push_back(Event::Message(message));
        }
        back
    }

    /// The offset that should come next in a message's partition, as far as it is known.
    fn next(&self, message: &Message) -> Option<i64> {
        let assigned = self.assigned.get(&message.position.partition)?;
        assigned.next.filter(|_| assigned.epoch == message.epoch)
    }

    pub(super) fn fail(&mut self, error: QueueError) {
        self.events.push_back(Event::Error(error));
    }

    /// Forgets what waits: nobody will ask for it.
    pub(super) fn forget(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    /// Takes messages up to the next event of another kind; none when there is nothing and more may come.
    pub(super) fn take(&mut self, bytes_max: usize) -> Option<Result<Fetched, QueueError>> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Message(message) if messages.is_empty() || bytes + message.bytes() <= bytes_max => {
                    bytes += message.bytes();
                    messages.push(message);
                }
                other if !messages.is_empty() => {
                    self.events.push_front(other);
                    break;
                }
                Event::Message(_) => {}
                Event::Revoked(partitions) => {
                    for partition in &partitions {
                        if let Some(times) = self.untold.get_mut(partition) {
                            *times -= 1;
                        }
                    }
                    self.untold.retain(|_, times| *times > 0);
                    return Some(Ok(Fetched::Revoked(partitions)));
                }
                Event::Error(error) => return Some(Err(error)),
            }
        }
        if messages.is_empty() {
            return self.ended.then_some(Ok(Fetched::Closed));
        }
        self.bytes -= bytes;
        Some(Ok(Fetched::Messages(messages)))
    }

    /// Notes positions to commit. What went to another reader is that one's to commit, and a position from before a change that
    /// drain was not told of may even be of another topic of the same name.
    pub(super) fn commit(&mut self, next: &[Position]) {
        for position in next {
            if self.assigned.contains_key(&position.partition) && !self.untold.contains_key(&position.partition) {
                self.positions.insert(position.partition, position.offset);
                self.is_dirty = true;
            }
        }
    }

    /// What drain has said to commit, of one partition.
    pub(super) fn position(&self, partition: i32) -> Option<i64> {
        self.positions.get(&partition).copied()
    }

    /// Positions to commit, when some have changed. The last time all, because the commit before it may have failed.
    pub(super) fn due(&mut self, is_last: bool) -> BTreeMap<i32, i64> {
        if !self.is_dirty && !is_last {
            return BTreeMap::new();
        }
        let is_known = |partition: &i32| self.assigned.get(partition).is_some_and(|own| is_last || !own.is_unasked);
        let due: BTreeMap<i32, i64> = self
            .positions
            .iter()
            .filter(|(partition, _)| is_known(partition))
            .map(|(&p, &offset)| (p, offset))
            .collect();
        self.is_dirty = due.len() < self.positions.len();
        due
    }

    /// Kafka's answer to a commit. What it refused is due again, with pauses that grow up to a few seconds.
    pub(super) fn committed(&mut self, is_done: bool) {
        self.refused = if is_done { 0 } else { (self.refused + 1).min(REFUSED_MAX) };
        self.is_dirty |= !is_done;
    }

    /// How many times the usual pause lies before the next commit.
    pub(super) fn pauses(&self) -> u32 {
        1 << self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(partition: i32, offset: i64, epoch: u32) -> Message {
        Message {
            position: Position { partition, offset },
            epoch,
            payload: vec![0; 10].into(),
            headers: crate::queue::Headers::default(),
            dropped: Vec::new(),
        }
    }

    fn state() -> State {
        let mut state = State::default();
        state.assign(&[0, 1]);
        state
    }

    fn offsets(fetched: Option<Result<Fetched, QueueError>>) -> Vec<(i32, i64)> {
        match fetched {
            Some(Ok(Fetched::Messages(messages))) => {
                messages.iter().map(|message| (message.position.partition, message.position.offset)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_read_of_a_partition_that_went_is_forgotten() {
        let mut state = state();
        state.push(&mut vec![message(0, 0, 1), message(1, 0, 1)]);
        state.revoke(&[0]);
        // Read before and brought after.
        state.push(&mut vec![message(0, 1, 1), message(1, 1, 1)]);
        assert_eq!(state.bytes(), 2 * message(1, 0, 1).bytes());
        assert_eq!(offsets(state.take(1_000)), [(1, 0)]);
        assert!(matches!(state.take(1_000), Some(Ok(Fetched::Revoked(partitions))) if partitions == [0]));
        assert_eq!(offsets(state.take(1_000)), [(1, 1)]);
        state.assign(&[0]);
        state.push(&mut vec![message(0, 0, 1), message(0, 0, 2)]);
        assert_eq!(offsets(state.take(1_000)), [(0, 0)], "the one of this assignment only");
    }

    #[test]
    fn a_position_from_before_a_rebalance_is_not_committed_after_it() {
        let mut state = state();
        state.unasked().iter().for_each(|&(partition, epoch)| state.asked(partition, epoch));
        state.commit(&[Position { partition: 0, offset: 300 }, Position { partition: 1, offset: 7 }]);
        assert_eq!(state.due(false), BTreeMap::from([(0, 300), (1, 7)]));
        assert_eq!(state.due(false), BTreeMap::new(), "once");
        // The topic was made anew: the partition goes and comes before drain hears of it.
        assert_eq!(state.revoke(&[0]), BTreeMap::from([(0, 300)]));
        state.assign(&[0]);
        state.asked(0, 2);
        state.commit(&[Position { partition: 0, offset: 301 }]);
        assert_eq!(state.due(true), BTreeMap::from([(1, 7)]));
        assert!(matches!(state.take(1_000), Some(Ok(Fetched::Revoked(_)))));
        state.commit(&[Position { partition: 0, offset: 2 }]);
        assert_eq!(state.due(false), BTreeMap::from([(0, 2), (1, 7)]));
    }

    #[test]
    fn nothing_is_committed_before_it_is_known_where_the_group_stood() {
        let mut state = state();
        state.commit(&[Position { partition: 0, offset: 3 }]);
        assert_eq!(state.due(false), BTreeMap::new());
        state.asked(0, 0);
        assert_eq!(state.due(false), BTreeMap::new(), "that was an older assignment");
        state.asked(0, 1);
        assert_eq!(state.due(false), BTreeMap::from([(0, 3)]));
    }

    #[test]
    fn what_was_asked_in_vain_is_not_new() {
        let mut state = state();
        assert!(state.has_new());
        assert_eq!(state.unasked(), [(0, 1), (1, 1)]);
        state.asked(1, 1);
        assert!(!state.has_new(), "it is to be asked again, but not at once");
        state.assign(&[]);
        assert!(!state.has_new(), "a rebalance that brought none");
        assert_eq!(state.unasked(), [(0, 1)]);
        state.assign(&[2]);
        assert!(state.has_new());
        assert_eq!(state.unasked(), [(0, 1), (2, 1)]);
    }

    #[test]
    fn jumps_are_noted() {
        let mut state = state();
        state.push(&mut vec![message(0, 5, 1), message(0, 6, 1), message(0, 9, 1), message(1, 0, 1)]);
        assert_eq!(state.jumps, [Jump { partition: 0, from: 7, to: 9 }]);
        assert_eq!(state.assigned(0).and_then(|own| own.next), Some(10));
    }

    #[test]
    fn offsets_that_go_back_begin_anew() {
        let mut state = state();
        state.asked(0, 1);
        assert_eq!(state.push(&mut vec![message(0, 5, 1), message(0, 6, 1)]), []);
        state.commit(&[Position { partition: 0, offset: 6 }]);
        let back = state.push(&mut vec![message(0, 7, 1), message(0, 0, 1), message(0, 1, 1), message(1, 3, 1)]);
        assert_eq!(back, [Jump { partition: 0, from: 8, to: 0 }]);
        // What waited of the old log is forgotten with it: a read of the new one must not be counted there.
        assert!(matches!(state.take(1_000), Some(Ok(Fetched::Revoked(partitions))) if partitions == [0]));
        let Some(Ok(Fetched::Messages(messages))) = state.take(1_000) else { panic!() };
        let read: Vec<_> = messages.iter().map(|m| (m.position.partition, m.position.offset, m.epoch)).collect();
        assert_eq!(read, [(0, 0, 2), (0, 1, 2), (1, 3, 1)]);
        assert_eq!(state.due(true), BTreeMap::new(), "the old position is not committed");
        assert_eq!(state.bytes(), 0);
    }
}
