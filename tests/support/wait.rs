//! Waiting for a condition with a deadline.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Between two attempts: short beside every deadline here, long beside the cost of an attempt.
const PAUSE: Duration = Duration::from_millis(50);

/// Tries until it succeeds and returns what it got.
///
/// # Panics
/// When the deadline passes; with the last attempt's words.
pub fn until<T>(what: &str, deadline: Duration, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > deadline => panic!("{what}: not within {deadline:?}: {last}"),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
