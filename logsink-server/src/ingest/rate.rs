//! A token bucket as a value: how much may come a second, and how much at once. Is given `now`.
//!
//! What finds tokens in the bucket is taken whole, however large it is, and the bucket is in debt afterwards: a batch larger
//! than the bucket gets in, and the rate holds over time. A refusal says when the next one will find a token.

use std::time::Duration;

/// What a bucket gets, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens a second; not 0.
    pub per_second: u64,
    /// The bucket holds what comes in this time.
    pub burst: Duration,
}

/// The state of a bucket: when it will be full, in nanoseconds of any clock that goes forward. A new one is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    full_at: u64,
}

impl Bucket {
    /// How long until there is a token; zero: there is one.
    pub(super) fn wait(self, rate: Rate, now: u64) -> Duration {
        let missing = self.full_at.saturating_sub(now);
        match nanos(rate.burst) {
            burst if missing < burst => Duration::ZERO,
            burst => Duration::from_nanos((missing - burst).saturating_add(1)),
        }
    }

    /// Takes tokens, those that are not there too.
    pub(super) fn take(&mut self, rate: Rate, tokens: u64, now: u64) {
        self.full_at = self.full_at.max(now).saturating_add(time_of(rate, tokens));
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&mut self, rate: Rate, tokens: u64) {
        self.full_at = self.full_at.saturating_sub(time_of(rate, tokens));
    }

    /// A full bucket is as good as a new one.
    pub(super) fn is_full(self, now: u64) -> bool {
        self.full_at <= now
    }
}

/// The time in which so many tokens come.
fn time_of(rate: Rate, tokens: u64) -> u64 {
    let time = u128::from(tokens) * 1_000_000_000 / u128::from(rate.per_second.max(1));
    u64::try_from(time).unwrap_or(u64::MAX)
}

/// 584 years at most.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(per_second: u64, burst_ms: u64) -> Rate {
        Rate { per_second, burst: Duration::from_millis(burst_ms) }
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = rate(100, 500);
        let (mut bucket, now) = (Bucket::default(), 7 * SECOND);
        for _ in 0..50 {
            assert_eq!(bucket.wait(rate, now), Duration::ZERO);
            bucket.take(rate, 1, now);
        }
        let wait = bucket.wait(rate, now);
        assert!(wait <= Duration::from_millis(10) && !wait.is_zero(), "{wait:?}");
        assert_eq!(bucket.wait(rate, now + nanos(wait)), Duration::ZERO, "the wait that it said is enough");
        assert_ne!(bucket.wait(rate, now + nanos(wait) - 1), Duration::ZERO, "and no longer than it takes");
        assert!(!bucket.is_full(now + SECOND / 4) && bucket.is_full(now + SECOND / 2));
    }

    #[test]
    fn what_is_larger_than_the_bucket_gets_in_and_is_paid_for() {
        let (rate, mut bucket) = (rate(100, 1000), Bucket::default());
        bucket.take(rate, 1_000, 0);
        // Ten seconds' worth were taken, and the bucket begins to have tokens when it lacks less than one second's.
        assert_eq!(bucket.wait(rate, 0), Duration::from_nanos(9 * SECOND + 1));
        bucket.give_back(rate, 1_000);
        assert_eq!(bucket.wait(rate, 0), Duration::ZERO);
    }

    proptest! {
        /// Against a bucket that counts its tokens in floating point.
        #[test]
        fn agrees_with_counting(
            per_second in 1u64..100_000,
            burst_ms in 1u64..5_000,
            steps in prop::collection::vec((0u64..2 * SECOND, 1u64..20_000), 1..60),
        ) {
            let rate = rate(per_second, burst_ms);
            let size = per_second as f64 * burst_ms as f64 / 1e3;
            let (mut bucket, mut tokens, mut now) = (Bucket::default(), size, 0u64);
            let (mut taken, mut largest) = (0u64, 0u64);
            for (passed, wanted) in steps {
                now += passed;
                tokens = (tokens + passed as f64 * per_second as f64 / 1e9).min(size);
                let wait = bucket.wait(rate, now);
                // Where the two differ by rounding, either may be right.
                if tokens.abs() > 1e-2 {
                    prop_assert_eq!(wait.is_zero(), tokens > 0.0, "{} tokens, {:?}", tokens, wait);
                }
                if wait.is_zero() {
                    bucket.take(rate, wanted, now);
                    tokens -= wanted as f64;
                    taken += wanted;
                    largest = largest.max(wanted);
                } else {
                    prop_assert_eq!(bucket.wait(rate, now + nanos(wait)), Duration::ZERO);
                }
            }
            // Over any time: the rate, one bucket, and the debt of one request.
            let most = now as f64 / 1e9 * per_second as f64 + size + largest as f64 + 1.0;
            prop_assert!(taken as f64 <= most, "{} taken, {} at most", taken, most);
        }

        #[test]
        fn no_numbers_make_it_fail(per_second: u64, burst_ms: u64, tokens: u64, now: u64, later: u64) {
            let (rate, mut bucket) = (rate(per_second, burst_ms), Bucket::default());
            bucket.take(rate, tokens, now);
            bucket.take(rate, tokens, later);
            _ = (bucket.wait(rate, later), bucket.is_full(now));
            bucket.give_back(rate, tokens);
        }
    }
}
