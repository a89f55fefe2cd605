//! Which messages the store has: by their place in the log, and by (instance, sequence) for a batch that its sender sent
//! twice because the answer to the first was lost.
//!
//! The live state covers the open block; the state of the moment when a block is sealed goes into the manifest with it, so
//! that after a crash a replayed message of the block that was open is new again. What a bound makes it forget can at
//! worst be stored twice, never be lost.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::ranges::Ranges;

/// Instances remembered: each start of a process is a new one, so this is days of a large fleet's restarts. About 100
/// bytes each in the manifest.
const INSTANCES_MAX: usize = 8_192;
/// Holes remembered in one instance's sequence. A sender has four batches under way and a hole stays only where it gave a
/// batch up, so hundreds are a sender in deep trouble.
const INSTANCE_RANGES_MAX: usize = 256;
/// Holes remembered in the log's offsets. Drain has a few messages under way; what else is missing was never in the log.
const OFFSET_RANGES_MAX: usize = 4_096;

/// The messages that the store has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Seen {
    offsets: Ranges,
    instances: HashMap<String, Instance>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Instance {
    sequences: Ranges,
    /// The log offset of its last message: the instance that was silent for longest is forgotten first.
    last: u64,
}

/// What the store knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Novelty {
    /// Not seen before.
    New,
    /// This place of the log was read before.
    Replayed,
    /// Another place of the log holds the same batch.
    Resent,
}

impl Seen {
    /// Notes a message and says what was known of it.
    pub(super) fn note(&mut self, offset: u64, batch: Option<(&str, u64)>) -> Novelty {
        if !self.offsets.insert(offset) {
            return Novelty::Replayed;
        }
        self.offsets.forget_lowest(OFFSET_RANGES_MAX);
        let Some((instance, sequence)) = batch else { return Novelty::New };
        if !self.instances.contains_key(instance) {
            self.make_room();
            self.instances.insert(instance.to_owned(), Instance::default());
        }
        let Some(known) = self.instances.get_mut(instance) else { return Novelty::New };
        known.last = known.last.max(offset);
        if !known.sequences.insert(sequence) {
            return Novelty::Resent;
        }
        known.sequences.forget_lowest(INSTANCE_RANGES_MAX);
        Novelty::New
    }

    fn make_room(&mut self) {
        if self.instances.len() < INSTANCES_MAX {
            return;
        }
        // An eighth at a time: choosing is linear, so it must not happen for each new instance.
        let mut lasts: Vec<u64> = self.instances.values().map(|instance| instance.last).collect();
        let (_, &mut bound, _) = lasts.select_nth_unstable(INSTANCES_MAX / 8);
        self.instances.retain(|_, instance| instance.last > bound);
    }

    /// Where to read the log from so that nothing is missed.
    pub(super) fn first_missing(&self) -> u64 {
        self.offsets.first_missing()
    }

    /// One more than the highest offset seen.
    pub(super) fn end(&self) -> u64 {
        self.offsets.end()
    }

    /// Whether this place of the log was read before.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.offsets.contains(offset)
    }

    pub(super) fn is_valid(&self) -> bool {
        self.offsets.is_valid() && self.instances.values().all(|instance| instance.sequences.is_valid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_new_once_whatever_its_place() {
        let mut seen = Seen::default();
        assert_eq!(seen.note(0, Some(("a", 1))), Novelty::New);
        assert_eq!(seen.note(1, Some(("b", 1))), Novelty::New);
        assert_eq!(seen.note(2, Some(("a", 1))), Novelty::Resent);
        assert_eq!(seen.note(0, Some(("a", 1))), Novelty::Replayed);
        assert_eq!(seen.note(3, None), Novelty::New);
        assert_eq!(seen.note(4, None), Novelty::New);
        assert_eq!(seen.first_missing(), 5);
    }

    #[test]
    fn the_instance_silent_for_longest_is_forgotten_first() {
        let mut seen = Seen::default();
        for n in 0..INSTANCES_MAX as u64 + 1 {
            seen.note(n, Some((&format!("i{n}"), 1)));
        }
        assert!(seen.instances.len() <= INSTANCES_MAX);
        let next = seen.end();
        assert_eq!(seen.note(next, Some((&format!("i{INSTANCES_MAX}"), 1))), Novelty::Resent);
        assert_eq!(seen.note(next + 1, Some(("i0", 1))), Novelty::New);
    }
}
