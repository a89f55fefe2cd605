//! A rate limit without a lock: the generic cell rate algorithm in one atomic word.
//!
//! The word holds the time at which the bucket would be full again ("theoretical arrival time"). An event is admitted
//! when that is not further ahead than the burst, and moves it on by one event's worth.

mod keyed;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

pub(super) use self::keyed::KeyedLimiter;

const SECOND_NS: f64 = 1e9;

/// How much passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// What one event costs.
    step_ns: u64,
    /// How far ahead of now the arrival time may be.
    ahead_ns: u64,
}

impl Rate {
    fn new(per_second: f64, burst: u32) -> Self {
        let step_ns = (SECOND_NS / per_second) as u64;
        Self { step_ns, ahead_ns: step_ns.saturating_mul(u64::from(burst)) }
    }

    fn admit(self, arrival_ns: &AtomicU64, now_ns: u64) -> bool {
        let next = |arrival: u64| {
            let arrival = if self.is_idle(arrival, now_ns) { now_ns } else { arrival };
            let next = arrival.saturating_add(self.step_ns);
            (next - now_ns <= self.ahead_ns).then_some(next)
        };
        arrival_ns.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// Whether the bucket is full, as it is at the beginning. A clock that was set back by more than the bucket holds would
    /// lock everything out: it begins anew.
    fn is_idle(self, arrival_ns: u64, now_ns: u64) -> bool {
        arrival_ns <= now_ns || arrival_ns > now_ns.saturating_add(self.ahead_ns)
    }
}

/// One bucket for all events.
#[derive(Debug)]
pub(super) struct Limiter {
    rate: Rate,
    arrival_ns: AtomicU64,
}

impl Limiter {
    /// `per_second` is above 0, `burst` at least 1: the document's parser has seen to it.
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        Self { rate: Rate::new(per_second, burst), arrival_ns: AtomicU64::new(0) }
    }

    pub(super) fn admit(&self, now_ns: u64) -> bool {
        self.rate.admit(&self.arrival_ns, now_ns)
    }

    /// Whether the other one limits to the same rate.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.rate == other.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_the_burst_then_the_rate() {
        let limiter = Limiter::new(10.0, 3);
        let second = 1_000_000_000;
        let admitted = |from: u64, count: u64| (0..count).filter(|_| limiter.admit(from)).count();
        assert_eq!(admitted(100 * second, 10), 3);
        assert_eq!(admitted(100 * second + second / 10, 10), 1);
        assert_eq!(admitted(100 * second + second / 10 + 1, 10), 0);
        assert_eq!(admitted(200 * second, 10), 3);
        // Ten more seconds, an event each millisecond: ten a second.
        let steady = (1..=10_000).filter(|ms| limiter.admit(200 * second + ms * 1_000_000)).count();
        assert_eq!(steady, 100);
    }

    #[test]
    fn a_clock_set_back_does_not_lock_out() {
        let limiter = Limiter::new(1.0, 1);
        assert!(limiter.admit(5_000_000_000_000));
        assert!(limiter.admit(1_000_000_000));
        assert!(!limiter.admit(1_000_000_001));
    }

    #[test]
    fn threads_together_get_no_more_than_one_would() {
        let limiter = Limiter::new(1.0, 1_000);
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.admit(1_000_000_000)).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1_000);
    }
}
