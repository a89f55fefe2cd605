//! Whether the client still works. Pure: given what was asked and answered, and when.
//!
//! librdkafka can stay without brokers for good (librdkafka#5301), or without its coordinator, or leave a partition alone.
//! Being without an answer is no proof, since brokers are away now and then: what is suspected here is proved by a fresh client
//! that gets what the old one does not (`probe`).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a client may be without an answer before a fresh one is asked: some reconnections of it, and sooner than
/// producers give their messages up.
const SILENCE_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 8 });
/// How long a partition may stand still though there is something to read.
const STILL_MAX: Duration = Duration::from_secs(if cfg!(test) { 2 } else { 30 });

/// What is suspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspicion {
    /// No broker has answered for so long.
    Silent(Duration),
    /// Nothing was read of the partition for so long, and the offset wanted is in it.
    Still { partition: i32, offset: i64, since: Duration },
}

#[derive(Debug, Default)]
pub(super) struct Pulse {
    silent_since: Option<Instant>,
    /// The offset wanted in each partition, and since when.
    wanted: BTreeMap<i32, (i64, Instant)>,
}

impl Pulse {
    /// The client was asked something that brokers answer.
    pub(super) fn asked(&mut self, is_answered: bool, now: Instant) -> Option<Suspicion> {
        if is_answered {
            self.silent_since = None;
            return None;
        }
        let silent = now.duration_since(*self.silent_since.get_or_insert(now));
        (silent >= SILENCE_MAX).then_some(Suspicion::Silent(silent))
    }

    /// A partition wants this offset and ends at `end`.
    pub(super) fn wants(&mut self, partition: i32, offset: i64, end: i64, now: Instant) -> Option<Suspicion> {
        if offset >= end {
            self.rests(partition);
            return None;
        }
        let wanted = self.wanted.entry(partition).or_insert((offset, now));
        if wanted.0 != offset {
            *wanted = (offset, now);
        }
        let since = now.duration_since(wanted.1);
        (since >= STILL_MAX).then_some(Suspicion::Still { partition, offset, since })
    }

    /// A partition is paused, has gone, or is at its end; or there was nothing to read where it stands.
    pub(super) fn rests(&mut self, partition: i32) {
        self.wanted.remove(&partition);
    }

    /// The suspicion was not confirmed: the brokers are away for everyone.
    pub(super) fn acquit(&mut self) {
        self.silent_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_silence() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        assert_eq!(pulse.asked(false, start), None);
        assert_eq!(pulse.asked(true, start + SILENCE_MAX), None);
        assert_eq!(pulse.asked(false, start + SILENCE_MAX), None, "it begins anew");
        assert_eq!(pulse.asked(false, start + 2 * SILENCE_MAX), Some(Suspicion::Silent(SILENCE_MAX)));
        pulse.acquit();
        assert_eq!(pulse.asked(false, start + 2 * SILENCE_MAX), None);
    }

    #[test]
    fn only_a_partition_with_something_to_read_can_stand_still() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        let late = start + STILL_MAX;
        assert_eq!(pulse.wants(0, 5, 5, start), None);
        assert_eq!(pulse.wants(0, 5, 6, late), None, "since now");
        assert_eq!(pulse.wants(1, 5, 9, start), None);
        assert_eq!(pulse.wants(1, 6, 9, late), None, "it has moved");
        assert_eq!(pulse.wants(2, 5, 9, start), None);
        let still = Suspicion::Still { partition: 2, offset: 5, since: STILL_MAX };
        assert_eq!(pulse.wants(2, 5, 9, late), Some(still));
        pulse.rests(2);
        assert_eq!(pulse.wants(2, 5, 9, late), None);
    }
}
