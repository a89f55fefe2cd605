//! How the benches measure: the best round of many, because neighbours only ever make a round slower.

#![allow(clippy::print_stdout, reason = "a bench reports on standard output")]

use std::{hint::black_box, time::Instant};

/// Runs `rounds` rounds of `calls` calls and prints nanoseconds per call: of the best round and of the median.
pub fn report<T>(name: &str, rounds: usize, calls: u32, mut call: impl FnMut(u32) -> T) {
    let mut round = || {
        let start = Instant::now();
        for n in 0..calls {
            black_box(call(black_box(n)));
        }
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    print(name, (0..rounds.max(1)).map(|_| round()).collect());
}

/// As [`report`], of a function that makes `calls` calls itself; `between` runs after each round and is not measured.
pub fn report_apart(name: &str, rounds: usize, calls: u32, run: impl Fn(u32), between: impl Fn()) {
    let round = || {
        let start = Instant::now();
        run(black_box(calls));
        let time = start.elapsed().as_nanos() as f64 / f64::from(calls);
        between();
        time
    };
    print(name, (0..rounds.max(1)).map(|_| round()).collect());
}

fn print(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    println!("{name:<44} {:>9.1} ns  median {:>9.1} ns", times[0], times[times.len() / 2]);
}
