//! The time of an event.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, from the system's clock (a vDSO call on Linux, no system call); 0 when that stands before 1970.
///
/// It follows every correction of the clock at once. A scaled time-stamp counter would be some 25 ns cheaper and needs
/// re-anchoring to stay as honest.
#[inline]
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_clock_is_the_systems() {
        let before = std::time::SystemTime::now();
        let now = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(super::now());
        assert!(before <= now && now <= std::time::SystemTime::now());
    }
}
