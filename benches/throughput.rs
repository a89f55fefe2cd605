//! How long does a single call take at worst, and how many events does one process deliver, at what cost in all?
//!
//! `cargo bench -p logsink-benches --bench throughput [-- latency] [-- sustained] [-- swap]`; all of them without arguments.
//!
//! - `latency`: every call timed by itself, at a rate that the worker keeps up with; p50, p99, p99.9 and the worst. The
//!   clock's own time, which is in the figures, is printed beside them. The first call after each pause, which finds its
//!   caches cold (one in a thousand, so that it alone would be the p99.9), has a line of its own.
//! - `sustained`: 1, 2 and 4 threads emit as fast as they are served (where the queue is full they wait for room); until all is
//!   delivered, in batches, to a sink that counts and discards them. Nanoseconds of CPU are the whole process's. Nothing may
//!   be lost.
//! - `swap`: the longest call of a thread that logs while rules, a thousand at a time, are swapped.
//!
//! Environment: `EVENTS`: how many each thread emits (default 4,000,000); `QUEUE_BYTES`: the queue's size (default: the
//! library's). A small queue stays in the processor's cache when producers are faster than the worker.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]

use std::{
    fs,
    hint::black_box,
    path::Path,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use logsink::{
    Guard,
    config::Overflow,
    transport::{Accepted, Batch, Sending, Transport},
};

/// Calls that are timed: enough for a thousand beyond p99.9.
const CALLS: usize = 1_000_000;

/// A pause after so many calls, for a rate of some hundred thousand a second.
const BURST: usize = 1_000;

/// Swaps during `swap`.
const SWAPS: usize = 20;

/// Counts what arrives, and keeps none.
#[derive(Default)]
struct Counting {
    records: AtomicU64,
    batches: AtomicU64,
}

impl Transport for Counting {
    fn send(&self, batch: Batch) -> Sending<'_> {
        self.records.fetch_add(batch.records.into(), Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Accepted::default()) })
    }
}

/// The event that all figures are about.
fn emit() {
    tracing::info!(
        user_id = black_box(42_u64),
        path = black_box("/api/v1/items"),
        latency_ms = black_box(3.5_f64),
        "request finished"
    );
}

fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let rules = dir.path().join("rules.toml");
    fs::write(&rules, "")?;
    let number =
        |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().context(name.to_owned())).transpose();
    let queue_bytes = number("QUEUE_BYTES")?;
    let sink = Arc::new(Counting::default());
    let logsink = logsink::builder()
        .alone()
        .service("bench")
        // Only its name is used.
        .endpoint("stdout:")
        .rules(format!("file:{}", rules.display()))
        .transport(sink.clone())
        .configure(move |config| {
            config.queue.bytes_max = queue_bytes.map_or(config.queue.bytes_max, |bytes| bytes as usize);
            config.queue.overflow = Overflow::Block;
            // Nothing is to be dropped, however busy the machine is.
            config.queue.block_ms_max = 60_000;
        })
        .init()?;
    // So long the worker takes to learn the rate of the processor's counter.
    thread::sleep(Duration::from_secs(2));

    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    if wanted("latency") {
        latency();
    }
    if wanted("sustained") {
        let events = number("EVENTS")?.unwrap_or(4_000_000);
        for threads in [1, 2, 4] {
            sustained(&logsink, &sink, threads, events)?;
        }
    }
    if wanted("swap") {
        swap(&logsink, &rules)?;
    }

    logsink.flush(Duration::from_secs(60))?;
    let lost = logsink.metrics().lost();
    ensure!(lost == 0, "{lost} events were lost: the figures include drops");
    Ok(())
}

/// Nanoseconds of one call.
fn timed(call: impl FnOnce()) -> u64 {
    let start = Instant::now();
    call();
    start.elapsed().as_nanos() as u64
}

fn latency() {
    let line = |name: &str, times: &mut [u64]| {
        times.sort_unstable();
        let at = |share: f64| times[(times.len() as f64 * share) as usize];
        println!(
            "| {name:<40} | p50 {:>5} ns | p99 {:>5} ns | p99.9 {:>6} ns | worst {:>8} ns |",
            at(0.5),
            at(0.99),
            at(0.999),
            times[times.len() - 1]
        );
    };
    let measure = |name: &str, call: fn()| {
        let mut times = Vec::with_capacity(CALLS);
        let mut firsts = Vec::with_capacity(CALLS / BURST);
        while times.len() < CALLS {
            firsts.push(timed(call));
            times.extend((0..BURST).map(|_| timed(call)));
            thread::sleep(Duration::from_millis(1));
        }
        line(name, &mut times);
        line("  its first call after a pause", &mut firsts);
    };
    measure("latency, the clock alone", || ());
    measure("latency, outside a span", emit);
    let _entered = tracing::info_span!("request", user = "ada", attempt = 3_u64).entered();
    measure("latency, in a span", emit);
}

fn sustained(logsink: &Guard, sink: &Counting, threads: u64, events: u64) -> anyhow::Result<()> {
    // What is still on its way does not count.
    logsink.flush(Duration::from_secs(60))?;
    let before = sink.records.load(Ordering::Relaxed);
    let batches = sink.batches.load(Ordering::Relaxed);
    let begin = Barrier::new(threads as usize + 1);
    let (mut start, mut used) = (Instant::now(), Used::now());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                begin.wait();
                (0..events).for_each(|_| emit());
            });
        }
        used = Used::now();
        start = Instant::now();
        begin.wait();
    });
    logsink.flush(Duration::from_secs(60))?;
    let (wall, now) = (start.elapsed(), Used::now());
    let emitted = threads * events;
    let delivered = sink.records.load(Ordering::Relaxed) - before;
    ensure!(delivered == emitted, "{delivered} of {emitted} events were delivered");
    println!(
        "| {threads} producers | {:>6.2} M/s delivered | {:>6.1} ns of CPU per event | {} lost | per million {:>6.1} page faults, {} \
         batches |",
        emitted as f64 / wall.as_secs_f64() / 1e6,
        (now.cpu - used.cpu).as_nanos() as f64 / emitted as f64,
        logsink.metrics().lost(),
        (now.page_faults - used.page_faults) as f64 / emitted as f64 * 1e6,
        (sink.batches.load(Ordering::Relaxed) - batches) * 1_000_000 / emitted
    );
    Ok(())
}

/// What the whole process has used so far.
struct Used {
    cpu: Duration,
    page_faults: i64,
}

impl Used {
    fn now() -> Self {
        // SAFETY: the structure is plain numbers, for which zero is a value, and the call writes nothing else.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &mut usage);
            usage
        };
        let duration = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
        Self { cpu: duration(usage.ru_utime) + duration(usage.ru_stime), page_faults: usage.ru_minflt }
    }
}

/// A call that was interrupted by the system is long whatever happens: windows without a swap, in turn with the others, are shown
/// beside.
fn swap(logsink: &Guard, rules: &Path) -> anyhow::Result<()> {
    let document = |turn: usize| -> String {
        let rule = |number: usize| {
            format!(
                "[[rule]]\nname = \"{turn}-{number}\"\nwhen = 'target=other latency_ms>{number}'\nthen = \"drop\"\n"
            )
        };
        (0..1_000).map(rule).collect()
    };
    let mut longest = [Vec::new(), Vec::new()];
    for turn in 0..2 * SWAPS {
        let swaps = turn % 2 == 1;
        let next = rules.with_extension("next");
        fs::write(&next, document(turn))?;
        let revision = logsink.rules().revision;
        let done = AtomicBool::new(false);
        let worst = thread::scope(|scope| {
            let caller = scope.spawn(|| {
                let mut worst = 0;
                while !done.load(Ordering::Relaxed) {
                    worst = worst.max(timed(emit));
                    // The queue is to stay nearly empty.
                    (0..200).for_each(|_| std::hint::spin_loop());
                }
                worst
            });
            let swapped = (|| -> anyhow::Result<()> {
                thread::sleep(Duration::from_millis(20));
                if !swaps {
                    // About as long as a swap takes to be noticed and done.
                    thread::sleep(Duration::from_millis(100));
                    return Ok(());
                }
                fs::rename(&next, rules)?;
                let deadline = Instant::now() + Duration::from_secs(20);
                while logsink.rules().revision == revision {
                    ensure!(Instant::now() < deadline, "the rules were not swapped: {:?}", logsink.rules());
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            })();
            done.store(true, Ordering::Relaxed);
            let worst = caller.join().unwrap_or(0);
            swapped.map(|()| worst)
        })?;
        longest[usize::from(swaps)].push(worst);
    }
    for (what, mut longest) in ["no swap", "a swap of 1,000 rules"].into_iter().zip(longest) {
        longest.sort_unstable();
        println!(
            "| longest call during {what:<21} | of {SWAPS} times: least {:>6} ns | median {:>8} ns | most {:>8} ns |",
            longest[0],
            longest[SWAPS / 2],
            longest[SWAPS - 1]
        );
    }
    Ok(())
}
