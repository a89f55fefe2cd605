//! Backoff and giving up, as values: given what failed and `now`, says when to try again. Sleeps nowhere.

use std::time::{Duration, Instant};

/// No sink may park a batch for longer than this, whatever its `RetryInfo` says: a wrong unit in a server must not silence a
/// service for days.
const AFTER_MAX: Duration = Duration::from_secs(300);

/// How to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The delay after the first failure.
    pub(crate) delay_min: Duration,
    /// Doubling ends here.
    pub(crate) delay_max: Duration,
    /// A batch is given up when it has been tried for this long; `None`: never before the shutdown.
    pub(crate) elapsed_max: Option<Duration>,
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try again after this long.
    Again {
        delay: Duration,
        /// The sink asked for the delay: a flush must not cut it short.
        asked: bool,
    },
    /// The batch has been tried for long enough.
    GiveUp,
}

/// The story of one batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    policy: Policy,
    first: Instant,
    failures: u32,
}

impl Retry {
    pub(crate) fn new(policy: Policy, now: Instant) -> Self {
        Self { policy, first: now, failures: 0 }
    }

    /// The next failure counts as the first again, so the delays start small.
    pub(crate) fn restart(&mut self) {
        self.failures = 0;
    }

    /// Takes a failure. `after` is the sink's own wish; `random` is uniform in 0..1.
    pub(crate) fn failed(&mut self, now: Instant, after: Option<Duration>, random: f64) -> Next {
        let backoff = self.backoff(random);
        self.failures = self.failures.saturating_add(1);
        let (delay, asked) = match after {
            // The jitter goes on top: all clients were told the same moment, and none may come before it.
            Some(after) => (after.min(AFTER_MAX) + self.policy.delay_min.mul_f64(random), true),
            None => (backoff, false),
        };
        match self.policy.elapsed_max {
            Some(max) if now.duration_since(self.first) + delay > max => Next::GiveUp,
            _ => Next::Again { delay, asked },
        }
    }

    /// Doubles with every failure; of each delay the upper half is random, so that clients which failed together come back
    /// apart.
    fn backoff(&self, random: f64) -> Duration {
        let doubled = self.policy.delay_min.saturating_mul(1 << self.failures.min(20));
        let full = doubled.min(self.policy.delay_max);
        full.mul_f64(0.5 + random / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy =
        Policy { delay_min: Duration::from_millis(100), delay_max: Duration::from_secs(5), elapsed_max: None };

    fn delay(next: Next) -> Duration {
        match next {
            Next::Again { delay, .. } => delay,
            Next::GiveUp => panic!("gave up"),
        }
    }

    #[test]
    fn delays_double_up_to_the_bound_and_never_end() {
        let now = Instant::now();
        let mut retry = Retry::new(POLICY, now);
        let delays: Vec<_> = (0..8).map(|_| delay(retry.failed(now, None, 1.0)).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        for _ in 0..1000 {
            assert_eq!(delay(retry.failed(now + Duration::from_secs(1 << 30), None, 1.0)), POLICY.delay_max);
        }
        retry.restart();
        assert_eq!(delay(retry.failed(now, None, 0.0)), POLICY.delay_min / 2);
    }

    #[test]
    fn the_sink_s_wish_comes_first_within_reason() {
        let now = Instant::now();
        let mut retry = Retry::new(POLICY, now);
        let asked = Duration::from_secs(7);
        assert_eq!(retry.failed(now, Some(asked), 0.0), Next::Again { delay: asked, asked: true });
        assert!(delay(retry.failed(now, Some(asked), 0.9)) > asked);
        assert!(delay(retry.failed(now, Some(Duration::MAX), 0.9)) < AFTER_MAX * 2);
    }

    #[test]
    fn gives_up_when_the_next_try_would_be_too_late() {
        let now = Instant::now();
        let policy = Policy { elapsed_max: Some(Duration::from_secs(1)), ..POLICY };
        let mut retry = Retry::new(policy, now);
        assert_eq!(delay(retry.failed(now, None, 1.0)), Duration::from_millis(100));
        assert_eq!(retry.failed(now + Duration::from_millis(900), None, 1.0), Next::GiveUp);
    }
}
