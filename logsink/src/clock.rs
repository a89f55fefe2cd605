//! The time of an event: nanoseconds since 1970.
//!
//! Where the kernel itself keeps time by the processor's time-stamp counter, events read the counter too and place it on a
//! line that the worker draws anew every second (see `tsc.rs`); that is some 25 ns cheaper than the system's clock. Wherever
//! that cannot be had, or nobody has drawn the line lately, they ask the system's clock.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod tsc;

use std::time::{SystemTime, UNIX_EPOCH};

/// The time, within some microseconds of the system's clock; after that has been set, within a second.
#[inline]
pub(crate) fn now() -> u64 {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    if let Some(now) = tsc::now() {
        return now;
    }
    system()
}

/// Keeps the counter's line at the system's clock. To be called several times a second; does something once in a second.
pub(crate) fn keep() {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    tsc::keep();
}

/// From the system's clock (a vDSO call on Linux, no system call); 0 when that stands before 1970.
#[inline]
fn system() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
