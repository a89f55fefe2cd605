//! The time-stamp counter as a clock.
//!
//! Over a second the system's clock is a straight line above the counter. The worker compares the two every second, from the
//! tightest of many reads, and draws the next line so that it starts where the last one ended and meets the system's clock
//! a second later: time goes on without jumps, and the clock's own corrections are followed. Only when the clock was set
//! (or the machine slept) does time jump, as the system's does. A line ends two seconds after it was drawn: when the worker
//! does not run, [`now`] has no answer.

use std::{
    arch::x86_64::{__cpuid, _rdtsc},
    fs,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{Duration, Instant},
};

/// Between two comparisons; a tick that comes early waits for the next.
const KEEP_EVERY: Duration = Duration::from_millis(900);

/// The first comparison of the rates comes sooner: until then there is no line.
const FIRST_AFTER: Duration = Duration::from_millis(100);

/// How long a line may be used: a second, and as much again for a worker that is late.
const LINE_NS_MAX: f64 = 2e9;

/// An error is taken out over this time.
const STEER_NS: f64 = 1e9;

/// A larger error is a clock that was set: it is followed at once. Smaller than what people see, and small enough that taking
/// it out changes the rate by a thousandth.
const ERROR_NS_MAX: i64 = 1_000_000;

/// A rate that changes by more is not a clock being steered (at most 500 ppm): the counter has been stopped or set.
const RATE_CHANGE_MAX: f64 = 0.002;

/// Reads of which the tightest counts: one that was interrupted must not.
const READS: usize = 50;

/// A pair of reads that took longer is not worth having.
const READ_NS_MAX: f64 = 10_000.0;

/// The line in force.
static LINE: Shared = Shared {
    version: AtomicU64::new(0),
    ticks: AtomicU64::new(0),
    unix_ns: AtomicU64::new(0),
    scale: AtomicU64::new(0),
    ticks_max: AtomicU64::new(0),
};

/// Who draws the lines; several workers in one process take turns.
static FOLLOWER: Mutex<Follower> = Mutex::new(Follower { last: None, rate: None, line: None });

/// The time by the counter; `None` when there is no line to go by.
#[inline]
pub(super) fn now() -> Option<u64> {
    LINE.load().at(counter())
}

/// Draws the next line when it is time to.
pub(super) fn keep() {
    let Ok(mut follower) = FOLLOWER.try_lock() else { return };
    if !follower.is_due(Instant::now()) {
        return;
    }
    if !is_trusted() {
        LINE.store(NO_LINE);
    } else if let Some(reading) = Reading::take() {
        LINE.store(follower.follow(reading).unwrap_or(NO_LINE));
    }
}

#[inline]
fn counter() -> u64 {
    // SAFETY: every x86_64 processor has the instruction; it touches no memory.
    unsafe { _rdtsc() }
}

/// Whether the counter runs at one rate, in all states of the processor, and on all cores alike. The kernel watches over the
/// latter, and changes its clock source when it is not so; where it cannot be asked, the answer is no.
#[allow(unused_unsafe, reason = "`__cpuid` is safe to call since a later Rust than the oldest that we build with")]
fn is_trusted() -> bool {
    const POWER_MANAGEMENT: u32 = 0x8000_0007;
    const INVARIANT_TSC: u32 = 1 << 8;
    // SAFETY: every x86_64 processor has the instruction; it touches no memory.
    let cpuid = |leaf| unsafe { __cpuid(leaf) };
    cpuid(0x8000_0000).eax >= POWER_MANAGEMENT
        && cpuid(POWER_MANAGEMENT).edx & INVARIANT_TSC != 0
        && fs::read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .is_ok_and(|name| name.trim_ascii() == b"tsc")
}

/// The clocks at one moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    ticks: u64,
    unix_ns: u64,
    /// For the rate: it is steered as the system's clock is, but never set.
    monotonic: Instant,
}

impl Reading {
    /// `None` when the reads took too long.
    fn take() -> Option<Self> {
        let (begun, first) = (Instant::now(), counter());
        let mut best = None;
        let mut best_width = u64::MAX;
        for _ in 0..READS {
            let before = counter();
            let unix_ns = super::system();
            let monotonic = Instant::now();
            let after = counter();
            let width = after.wrapping_sub(before);
            if width < best_width {
                best_width = width;
                best = Some(Self { ticks: before.wrapping_add(width / 2), unix_ns, monotonic });
            }
        }
        let rate = begun.elapsed().as_nanos() as f64 / counter().wrapping_sub(first) as f64;
        best.filter(|_| best_width as f64 * rate <= READ_NS_MAX)
    }
}

/// Time as a straight line above the counter.
#[derive(Debug, Clone, Copy)]
struct Line {
    ticks: u64,
    unix_ns: u64,
    /// Nanoseconds per tick, times 2^32.
    scale: u64,
    /// Ticks from the start to the end; 0 for no line at all.
    ticks_max: u64,
}

const NO_LINE: Line = Line { ticks: 0, unix_ns: 0, scale: 0, ticks_max: 0 };

impl Line {
    fn new(ticks: u64, unix_ns: u64, rate: f64) -> Self {
        Self { ticks, unix_ns, scale: (rate * (1_u64 << 32) as f64) as u64, ticks_max: (LINE_NS_MAX / rate) as u64 }
    }

    /// A counter before the start (set back, or read on a core some ticks behind) is beyond the end, too.
    #[inline]
    fn at(&self, ticks: u64) -> Option<u64> {
        let since = ticks.wrapping_sub(self.ticks);
        (since < self.ticks_max).then(|| self.unix_ns + ((u128::from(since) * u128::from(self.scale)) >> 32) as u64)
    }
}

/// Draws lines; pure.
struct Follower {
    last: Option<Reading>,
    /// Nanoseconds per tick.
    rate: Option<f64>,
    line: Option<Line>,
}

impl Follower {
    fn is_due(&self, now: Instant) -> bool {
        let every = if self.line.is_some() { KEEP_EVERY } else { FIRST_AFTER };
        self.last.is_none_or(|last| now.saturating_duration_since(last.monotonic) >= every)
    }

    /// The line to go by from now on; `None` when nothing can be said before the next reading.
    fn follow(&mut self, reading: Reading) -> Option<Line> {
        let last = self.last.replace(reading);
        let (rate_before, line) = (self.rate.take(), self.line.take());
        let last = last?;
        let elapsed = reading.monotonic.saturating_duration_since(last.monotonic).as_nanos() as f64;
        let ticks = reading.ticks.wrapping_sub(last.ticks) as f64;
        let rate = elapsed / ticks;
        // Counters run at 0.5 to 10 GHz.
        if !(0.1..=2.0).contains(&rate) {
            return None;
        }
        if rate_before.is_some_and(|before| (rate / before - 1.0).abs() > RATE_CHANGE_MAX) {
            return None;
        }
        self.rate = Some(rate);
        let shown = line.and_then(|line| line.at(reading.ticks));
        let error = shown.map(|shown| reading.unix_ns.wrapping_sub(shown) as i64);
        self.line = Some(match (shown, error) {
            (Some(shown), Some(error)) if error.abs() <= ERROR_NS_MAX => {
                Line::new(reading.ticks, shown, rate * (1.0 + error as f64 / STEER_NS))
            }
            _ => Line::new(reading.ticks, reading.unix_ns, rate),
        });
        self.line
    }
}

/// A line that is replaced while others read it.
struct Shared {
    /// Odd while it is being replaced.
    version: AtomicU64,
    ticks: AtomicU64,
    unix_ns: AtomicU64,
    scale: AtomicU64,
    ticks_max: AtomicU64,
}

impl Shared {
    /// No line when it is just being replaced: the caller need not wait.
    #[inline]
    fn load(&self) -> Line {
        let version = self.version.load(Ordering::Acquire);
        let mut line = Line {
            ticks: self.ticks.load(Ordering::Relaxed),
            unix_ns: self.unix_ns.load(Ordering::Relaxed),
            scale: self.scale.load(Ordering::Relaxed),
            ticks_max: self.ticks_max.load(Ordering::Relaxed),
        };
        // What was read above was read before the version is looked at again.
        fence(Ordering::Acquire);
        if !version.is_multiple_of(2) || self.version.load(Ordering::Relaxed) != version {
            line.ticks_max = 0;
        }
        line
    }

    /// One thread at a time.
    fn store(&self, line: Line) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Who sees one of the values below sees the odd version, too.
        fence(Ordering::Release);
        self.ticks.store(line.ticks, Ordering::Relaxed);
        self.unix_ns.store(line.unix_ns, Ordering::Relaxed);
        self.scale.store(line.scale, Ordering::Relaxed);
        self.ticks_max.store(line.ticks_max, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A counter at 2.5 GHz and a clock, in seconds.
    struct World {
        start: Instant,
        follower: Follower,
    }

    impl World {
        fn new() -> Self {
            Self { start: Instant::now(), follower: Follower { last: None, rate: None, line: None } }
        }

        fn ticks(at: f64) -> u64 {
            // It wraps around on the way.
            (u64::MAX - 3_000_000_000).wrapping_add((at * 2.5e9) as u64)
        }

        /// The worker's turn at `at`, when the system's clock shows `unix` and the monotonic clock `at`.
        fn follow(&mut self, at: f64, unix: f64) -> Option<Line> {
            let reading = Reading {
                ticks: Self::ticks(at),
                unix_ns: (unix * 1e9) as u64,
                monotonic: self.start + Duration::from_secs_f64(at),
            };
            self.follower.follow(reading)
        }
    }

    #[track_caller]
    fn assert_near(shown: Option<u64>, unix: f64, within_ns: f64) {
        let shown = shown.expect("there is a line") as f64;
        assert!((shown - unix * 1e9).abs() <= within_ns, "{shown} instead of {unix} s");
    }

    #[test]
    fn time_is_on_the_line_until_it_ends() {
        let mut world = World::new();
        assert!(world.follow(0.0, 1000.0).is_none(), "one reading has no rate");
        let line = world.follow(1.0, 1001.0).unwrap();
        for since in [0.0, 0.3, 1.0, 1.9] {
            assert_near(line.at(World::ticks(1.0 + since)), 1001.0 + since, 10.0);
        }
        assert_eq!(line.at(World::ticks(3.1)), None, "the worker is late");
        assert_eq!(line.at(World::ticks(0.9)), None, "the counter was set back");
        assert_eq!(NO_LINE.at(0), None);
    }

    #[test]
    fn a_small_error_is_steered_out_without_a_jump() {
        let mut world = World::new();
        world.follow(0.0, 1000.0);
        let first = world.follow(1.0, 1001.0).unwrap();
        let second = world.follow(2.0, 1002.0001).unwrap();
        assert_eq!(first.at(World::ticks(2.0)), second.at(World::ticks(2.0)));
        assert_near(second.at(World::ticks(3.0)), 1003.0001, 10.0);
        let third = world.follow(3.0, 1003.0).unwrap();
        assert_eq!(second.at(World::ticks(3.0)), third.at(World::ticks(3.0)));
        assert!(third.at(World::ticks(3.1)) > third.at(World::ticks(3.0)), "time never goes back");
        assert_near(third.at(World::ticks(4.0)), 1004.0, 10.0);
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_once() {
        let mut world = World::new();
        world.follow(0.0, 1000.0);
        world.follow(1.0, 1001.0);
        let line = world.follow(2.0, 5.0).unwrap();
        assert_near(line.at(World::ticks(2.5)), 5.5, 10.0);
    }

    #[test]
    fn a_counter_that_was_stopped_is_measured_anew() {
        let mut world = World::new();
        world.follow(0.0, 1000.0);
        world.follow(1.0, 1001.0);
        // The machine slept: the monotonic clock did not run, the counter and the clock did.
        world.start -= Duration::from_secs_f64(7.0);
        assert!(world.follow(9.0, 1009.0).is_none());
        let line = world.follow(10.0, 1010.0).unwrap();
        assert_near(line.at(World::ticks(10.5)), 1010.5, 10.0);
    }

    #[test]
    fn a_line_is_replaced_whole() {
        let shared = Shared {
            version: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            unix_ns: AtomicU64::new(0),
            scale: AtomicU64::new(0),
            ticks_max: AtomicU64::new(0),
        };
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut whole = 0;
                while whole < 10_000 {
                    let line = shared.load();
                    if line.ticks_max != 0 {
                        assert_eq!((line.unix_ns, line.scale, line.ticks_max), (line.ticks, line.ticks, line.ticks));
                        whole += 1;
                    }
                }
            });
            let mut n = 0;
            while !reader.is_finished() {
                n += 1;
                shared.store(Line { ticks: n, unix_ns: n, scale: n, ticks_max: n });
            }
        });
    }

    /// The real clocks for three seconds, kept by this test or another's worker.
    #[test]
    fn the_counter_keeps_to_the_systems_clock() {
        if !is_trusted() {
            eprintln!("SKIPPED: this machine's counter is not its clock");
            return;
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut errors = Vec::new();
        let mut last = 0;
        while Instant::now() < deadline {
            super::keep();
            // The tightest of some: this thread may be interrupted between the two clocks.
            let error = (0..20)
                .filter_map(|_| {
                    let before = crate::clock::system();
                    let now = super::now()?;
                    let after = crate::clock::system();
                    assert!(now >= last, "time went back by {} ns", last - now);
                    last = now;
                    Some(before.saturating_sub(now).max(now.saturating_sub(after)))
                })
                .min();
            errors.extend(error);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(errors.len() > 50, "only {} readings in three seconds", errors.len());
        let worst = errors.iter().max();
        assert!(worst < Some(&20_000), "{worst:?} ns from the system's clock");
    }
}
