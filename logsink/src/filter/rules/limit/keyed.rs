//! A rate limit for each key, in a table of fixed size.
//!
//! A bucket that is full says nothing, so its place can be given to another key at any time, and is as the new key needs it
//! already. Where all places that a key could have are in use, the key shares one bucket of the same rate with the others
//! that found none: too many keys are limited together rather than not at all.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Rate;

/// Places of a key: two cache lines.
const WAYS: usize = 8;
/// Keys in use at a time: with their buckets 32 KiB a rule.
const KEYS_MAX: usize = 2_048;

#[derive(Debug)]
pub(in super::super) struct KeyedLimiter {
    rate: Rate,
    /// Made when the first event comes: many services are told of a rule that few have events for.
    slots: OnceLock<Box<[Slot]>>,
    /// The bucket of all keys that have no place.
    others: AtomicU64,
}

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    arrival_ns: AtomicU64,
}

impl KeyedLimiter {
    /// As [`super::Limiter::new`], for each key.
    pub(in super::super) fn new(per_second: f64, burst: u32) -> Self {
        Self { rate: Rate::new(per_second, burst), slots: OnceLock::new(), others: AtomicU64::new(0) }
    }

    /// Events without a key share the bucket of those that found no place.
    pub(in super::super) fn admit(&self, key: Option<u64>, now_ns: u64) -> bool {
        let Some(key) = key else { return self.rate.admit(&self.others, now_ns) };
        let slots = self.slots.get_or_init(|| std::iter::repeat_with(Slot::default).take(KEYS_MAX).collect());
        let first = (key as usize % (KEYS_MAX / WAYS)) * WAYS;
        let arrival = self.place(&slots[first..first + WAYS], key, now_ns).unwrap_or(&self.others);
        self.rate.admit(arrival, now_ns)
    }

    /// The key's bucket among these. Threads that race for a place agree, but for the rare case that one of them has seen a
    /// place become free that the others have not: then the key has two buckets until one of them is full again.
    fn place<'s>(&self, slots: &'s [Slot], key: u64, now_ns: u64) -> Option<&'s AtomicU64> {
        if let Some(slot) = slots.iter().find(|slot| slot.key.load(Relaxed) == key) {
            return Some(&slot.arrival_ns);
        }
        let slot = slots.iter().find(|slot| {
            let held = slot.key.load(Relaxed);
            self.rate.is_idle(slot.arrival_ns.load(Relaxed), now_ns)
                && match slot.key.compare_exchange(held, key, Relaxed, Relaxed) {
                    Ok(_) => true,
                    Err(now_held) => now_held == key,
                }
        })?;
        Some(&slot.arrival_ns)
    }

    /// Whether the other one limits to the same rate.
    pub(in super::super) fn is_like(&self, other: &Self) -> bool {
        self.rate == other.rate
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Spreads keys as hashes are spread.
    fn hash(key: u64) -> u64 {
        key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
    }

    #[test]
    fn each_key_has_its_own_burst_and_rate() {
        let limiter = KeyedLimiter::new(10.0, 3);
        for round in 1..=3 {
            for key in 0..100 {
                let admitted = (0..10).filter(|_| limiter.admit(Some(hash(key)), round * 100 * SECOND)).count();
                assert_eq!(admitted, 3, "{key}");
            }
        }
        assert!(limiter.admit(Some(hash(5)), 300 * SECOND + SECOND / 10));
        assert!(!limiter.admit(Some(hash(5)), 300 * SECOND + SECOND / 10));
    }

    #[test]
    fn keys_that_find_no_place_share_one_bucket() {
        let limiter = KeyedLimiter::new(1.0, 1);
        let all = |from: u64, now| (from..from + 100_000).filter(|key| limiter.admit(Some(hash(*key)), now)).count();
        let first = all(0, 10 * SECOND);
        assert!((KEYS_MAX..=KEYS_MAX + 1).contains(&first), "{first}");
        // Not one of the new keys finds a place while the others are in use; a second later all buckets are full again.
        assert_eq!(all(200_000, 10 * SECOND), 0);
        assert_eq!(all(300_000, 11 * SECOND), first);
    }

    #[test]
    fn agrees_with_a_map_of_limiters_where_there_is_room() {
        let limiter = KeyedLimiter::new(5.0, 2);
        let mut map: HashMap<u64, super::super::Limiter> = HashMap::new();
        for step in 0..20_000_u64 {
            let (key, now) = (hash(step * 7919 % 97), SECOND + step * 3_000_000);
            let expected = map.entry(key).or_insert_with(|| super::super::Limiter::new(5.0, 2)).admit(now);
            assert_eq!(limiter.admit(Some(key), now), expected, "step {step}");
        }
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let limiter = KeyedLimiter::new(1.0, 100);
        let admitted: usize = std::thread::scope(|scope| {
            let count = || (0..4_000_u64).filter(|step| limiter.admit(Some(hash(step % 4)), SECOND)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // Two buckets for a key are possible, not likely.
        assert!((400..=800).contains(&admitted), "{admitted}");
    }
}
