//! The ways to measure a case that is set up.

use std::{
    hint::black_box,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use crate::{
    cases::{Case, Running},
    figures,
};

/// Before anything is measured: callsites are registered, templates built, buffers taken.
const WARM: u32 = 300;
/// A sink that has taken nothing for so long gets nothing more: the rest was lost.
const QUIET: Duration = Duration::from_millis(1500);
/// No sink here needs longer for what a queue holds.
const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Between two looks at the clock while producers run.
const STEP: u32 = 500;

/// A case that is set up, and how many events it has been given.
pub struct Subject<'c> {
    case: &'c Case,
    running: &'c Running,
    emit: fn(u32),
    emitted: u64,
}

impl<'c> Subject<'c> {
    /// A warm case.
    pub fn new(case: &'c Case, running: &'c Running, inside: bool) -> Self {
        let emit = if inside { running.inside } else { running.outside };
        let mut subject = Self { case, running, emit, emitted: 0 };
        subject.emit(WARM);
        subject.drain();
        subject
    }

    fn emit(&mut self, events: u32) {
        (self.emit)(black_box(events));
        self.emitted += u64::from(events);
    }

    /// Waits until everything has arrived, or nothing more does. Tells when the last arrived.
    fn drain(&self) -> Instant {
        let start = Instant::now();
        if !self.case.queued {
            return start;
        }
        (self.running.flush)();
        let (mut arrived, mut last) = ((self.running.delivered)(), Instant::now());
        while arrived < self.emitted && last.elapsed() < QUIET && start.elapsed() < DRAIN_MAX {
            thread::sleep(Duration::from_micros(500));
            let now = (self.running.delivered)();
            if now != arrived {
                (arrived, last) = (now, Instant::now());
            }
        }
        last
    }

    /// Nanoseconds per event, in bursts that fit the queue; what is queued is delivered between them and not measured.
    pub fn bursts(&mut self, duration: Duration) {
        let (end, mut ns) = (Instant::now() + duration, Vec::new());
        while Instant::now() < end || ns.len() < 5 {
            let start = Instant::now();
            self.emit(self.case.burst);
            ns.push(start.elapsed().as_nanos() as f64 / f64::from(self.case.burst));
            self.drain();
        }
        ns.sort_by(f64::total_cmp);
        let lost = if self.case.queued { self.emitted.saturating_sub((self.running.delivered)()) } else { 0 };
        figures::print(&[("best", ns[0]), ("median", ns[ns.len() / 2]), ("lost", lost as f64)]);
    }

    /// Nanoseconds of single calls. Reading the clock, some ten of them, is in it.
    pub fn tail(&mut self, duration: Duration) {
        let clock = Ticks::calibrated();
        let (end, mut ticks) = (Instant::now() + duration, Vec::new());
        while Instant::now() < end {
            for _ in 0..self.case.burst {
                let start = Ticks::now();
                (self.emit)(black_box(1));
                ticks.push(Ticks::now() - start);
            }
            self.emitted += u64::from(self.case.burst);
            self.drain();
        }
        ticks.sort_unstable();
        let ns = |share: f64| ticks[((ticks.len() - 1) as f64 * share) as usize] as f64 * clock.ns_per_tick;
        figures::print(&[("p50", ns(0.5)), ("p99", ns(0.99)), ("p99.9", ns(0.999))]);
    }

    /// One burst for callgrind, which counts what is called from [`measured`].
    pub fn instructions(&mut self) {
        measured(self.emit, black_box(self.case.burst));
        figures::print(&[("events", f64::from(self.case.burst))]);
    }

    /// Allocations per event on the caller.
    pub fn allocations(&mut self, count: fn() -> u64) {
        let before = count();
        self.emit(self.case.burst);
        let allocations = count() - before;
        figures::print(&[("allocations", allocations as f64 / f64::from(self.case.burst))]);
    }

    /// As fast as `producers` threads can, and what of it arrives.
    pub fn sustained(&mut self, producers: u32, duration: Duration) {
        let delivered_before = (self.running.delivered)();
        let (barrier, emit, cpu) = (Barrier::new(producers as usize), self.emit, cpu_time());
        let start = Instant::now();
        let emitted: u64 = thread::scope(|scope| {
            let produce = || {
                barrier.wait();
                let (start, mut emitted) = (Instant::now(), 0);
                while start.elapsed() < duration {
                    emit(black_box(STEP));
                    emitted += u64::from(STEP);
                }
                emitted
            };
            let threads: Vec<_> = (0..producers).map(|_| scope.spawn(produce)).collect();
            // A producer that panicked shows as events that were never emitted.
            threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
        });
        self.emitted += emitted;
        let seconds = (self.drain() - start).as_secs_f64();
        let cpu = cpu_time() - cpu;
        let delivered = (self.running.delivered)() - delivered_before;
        figures::print(&[
            ("delivered_per_s", delivered as f64 / seconds),
            ("lost", emitted.saturating_sub(delivered) as f64 / emitted.max(1) as f64),
            ("cpu_ns", cpu.as_nanos() as f64 / delivered.max(1) as f64),
        ]);
    }
}

/// Callgrind counts from here on.
#[inline(never)]
#[unsafe(no_mangle)]
fn measured(emit: fn(u32), events: u32) {
    emit(events);
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    // SAFETY: all zeros is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a `rusage` that lives through the call. It cannot fail with these arguments.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let time = |value: libc::timeval| Duration::from_micros(value.tv_sec as u64 * 1_000_000 + value.tv_usec as u64);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// The cheapest clock there is: the processor's counter, else the standard library's.
struct Ticks {
    ns_per_tick: f64,
}

impl Ticks {
    fn calibrated() -> Self {
        let (start, ticks) = (Instant::now(), Self::now());
        thread::sleep(Duration::from_millis(50));
        Self { ns_per_tick: start.elapsed().as_nanos() as f64 / (Self::now() - ticks) as f64 }
    }

    #[cfg(target_arch = "x86_64")]
    fn now() -> u64 {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { std::arch::x86_64::_rdtsc() }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn now() -> u64 {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}
