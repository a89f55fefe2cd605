//! The application of the stories: uses the library as any program would, configured by its environment, and does what it
//! is told over standard input. One line in, one line out.

#![allow(clippy::print_stdout, reason = "standard output is how it answers")]

use std::{
    fmt,
    hint::black_box,
    io::{self, BufRead, Write},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use logsink::Guard;
use tracing_core::{Callsite, Interest, Kind, Level, Metadata, callsite};

/// Rounds and events per round of `cost`. A round is far shorter than a turn of the scheduler, so a busy neighbour spoils
/// few of them and not the median.
const COST_ROUNDS: usize = 101;
const COST_EVENTS: u32 = 200;

fn main() -> ExitCode {
    let guard = match logsink::init() {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("testapp: {error}");
            return ExitCode::from(2);
        }
    };
    callsite::register(&NOISY_TWIN);
    let emitted = Arc::new(AtomicU64::new(0));
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let words: Vec<_> = line.split_whitespace().collect();
        let answer = obey(&words, &guard, &emitted).unwrap_or_else(|error| format!("error: {error}"));
        println!("{answer}");
        // A pipe that is gone means that the story has ended.
        if io::stdout().flush().is_err() || words == ["quit"] {
            break;
        }
    }
    drop(guard);
    ExitCode::SUCCESS
}

fn obey(words: &[&str], guard: &Guard, emitted: &Arc<AtomicU64>) -> Result<String, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match *words {
        ["hello" | "quit"] => {}
        ["emit", run, count, per_second] => {
            let (run, count, per_second) = (run.to_owned(), number(count)?, number(per_second)?);
            let emitted = Arc::clone(emitted);
            thread::spawn(move || emit(&run, count, per_second, &emitted));
        }
        ["emitted"] => return Ok(emitted.load(Relaxed).to_string()),
        ["flush", seconds] => {
            guard.flush(Duration::from_secs(number(seconds)?)).map_err(|error| error.to_string())?;
        }
        ["metrics"] => {
            let now = guard.metrics();
            return Ok(format!(
                r#"{{"sent":{},"lost":{},"retries":{},"drained":{}}}"#,
                now.sent,
                now.lost(),
                now.retries,
                now.drained
            ));
        }
        ["chatter", millis] => {
            let every = Duration::from_millis(number(millis)?);
            thread::spawn(move || chatter(every));
        }
        ["again"] => {
            return match logsink::init() {
                Ok(_) => Err("a second init succeeded".into()),
                Err(error) => Ok(error.to_string()),
            };
        }
        ["interest"] => return Ok(NOISY_TWIN.name().to_owned()),
        ["cost"] => return Ok(cost()),
        _ => return Err(format!("unknown words {words:?}")),
    }
    Ok("ok".into())
}

/// Emits numbered events inside a span, evenly over time.
fn emit(run: &str, count: u64, per_second: u64, emitted: &AtomicU64) {
    let span = tracing::info_span!("load", run);
    let _entered = span.enter();
    let start = Instant::now();
    for _ in 0..count {
        let n = emitted.load(Relaxed);
        tracing::info!(target: "load", n, "event {n} of the load");
        // Counted after the event: what is counted has been handed over.
        emitted.fetch_add(1, Relaxed);
        let due = Duration::from_secs_f64((n + 1) as f64 / per_second as f64);
        if let Some(early) = due.checked_sub(start.elapsed()) {
            thread::sleep(early);
        }
    }
}

fn chatter(every: Duration) {
    loop {
        noisy(0);
        tracing::info!(target: "calm", "a word now and then");
        thread::sleep(every);
    }
}

/// The one callsite that the stories silence.
#[inline(never)]
fn noisy(n: u32) {
    tracing::info!(target: "noisy", n, seen = ?Seen, "the same thing again");
}

/// A callsite that `tracing` itself has off: no filter here asks for `trace`.
#[inline(never)]
fn off(n: u32) {
    tracing::trace!(target: "off", n, seen = ?Seen, "the same thing again");
}

/// A value that counts how often somebody has looked at it.
struct Seen;

static SEEN: AtomicU64 = AtomicU64::new(0);

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SEEN.fetch_add(1, Relaxed);
        f.write_str("seen")
    }
}

/// What `noisy` costs beside `off`: the median over rounds in which the two run next to each other, so that both meet the
/// same neighbours; and how often a value was looked at meanwhile, by anyone.
fn cost() -> String {
    let seen = SEEN.load(Relaxed);
    let mut rounds: Vec<_> = (0..COST_ROUNDS).map(|_| (round(noisy), round(off))).collect();
    let mut median = |key: fn(&(f64, f64)) -> f64| {
        rounds.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&rounds[COST_ROUNDS / 2])
    };
    format!(
        r#"{{"noisy_ns":{:.2},"off_ns":{:.2},"more_ns":{:.2},"seen":{}}}"#,
        median(|round| round.0),
        median(|round| round.1),
        median(|round| round.0 - round.1),
        SEEN.load(Relaxed) - seen
    )
}

/// Nanoseconds per call.
fn round(call: fn(u32)) -> f64 {
    let start = Instant::now();
    for n in 0..COST_EVENTS {
        call(black_box(n));
    }
    start.elapsed().as_nanos() as f64 / f64::from(COST_EVENTS)
}

/// What the macro in [`noisy`] keeps to itself: a callsite with the same target, level and fields, which knows the interest
/// that was registered for it. Written again whenever the interest is rebuilt.
struct Twin(AtomicU64);

static NOISY_TWIN: Twin = Twin(AtomicU64::new(0));
static NOISY_METADATA: Metadata<'static> = tracing_core::metadata! {
    name: "twin of noisy",
    target: "noisy",
    level: Level::INFO,
    fields: &["message", "n", "seen"],
    callsite: &NOISY_TWIN,
    kind: Kind::EVENT,
};

impl Twin {
    fn name(&self) -> &'static str {
        ["unknown", "never", "sometimes", "always"][self.0.load(Relaxed) as usize]
    }
}

impl Callsite for Twin {
    fn set_interest(&self, interest: Interest) {
        let number = if interest.is_never() {
            1
        } else if interest.is_sometimes() {
            2
        } else {
            3
        };
        self.0.store(number, Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        &NOISY_METADATA
    }
}
