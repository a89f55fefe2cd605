//! The application of the stories: uses the library as any program would, configured by its environment, and does what it
//! is told over standard input. One line in, one line out.

#![allow(clippy::print_stdout, reason = "standard output is how it answers")]

use std::{
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

/// Rounds and events per round of `cost`: enough that the best round is not disturbed by neighbours.
const COST_ROUNDS: usize = 20;
const COST_EVENTS: u32 = 200;

fn main() -> ExitCode {
    let guard = match logsink::init() {
        Ok(guard) => guard,
        Err(error) => {
            eprintln!("testapp: {error}");
            return ExitCode::from(2);
        }
    };
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
        ["cost"] => {
            return Ok(format!(r#"{{"noisy_ns":{:.2},"off_ns":{:.2}}}"#, cost(noisy), cost(off)));
        }
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
    tracing::info!(target: "noisy", n, "the same thing again");
}

/// A callsite that `tracing` itself has off: no filter here asks for `trace`.
#[inline(never)]
fn off(n: u32) {
    tracing::trace!(target: "off", n, "the same thing again");
}

/// Nanoseconds per call, of the best round.
fn cost(call: fn(u32)) -> f64 {
    let round = || {
        let start = Instant::now();
        for n in 0..COST_EVENTS {
            call(black_box(n));
        }
        start.elapsed().as_nanos() as f64 / f64::from(COST_EVENTS)
    };
    (0..COST_ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
}
