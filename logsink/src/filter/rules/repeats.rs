//! Repeats: the first event of a key passes, those after it are dropped and counted until the window ends, and how many there
//! were is said.
//!
//! A key's window and count are one atomic word, so that no repeat is counted in two windows or in none. The table has a fixed
//! size: a key that finds no place passes and is not counted. A place becomes free when its window has ended and its
//! count has been said.

use std::sync::{
    Mutex, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{Severity, encode::cut, filter::EventView};

/// Places of a key.
const WAYS: usize = 8;
/// Keys in their windows at a time: 96 KiB a rule, and [`FIRST_BYTES_MAX`] for each key that has been seen.
const KEYS_MAX: usize = 1_024;
/// The longest window, an hour: what repeats less often is worth being seen each time.
pub(super) const WINDOW_MS_MAX: u64 = 3_600_000;

/// What is kept of an event so that its repeats can be spoken of: a line of message, and a target.
const MESSAGE_BYTES_MAX: usize = 192;
const TARGET_BYTES_MAX: usize = 64;
#[cfg(test)]
const FIRST_BYTES_MAX: usize = MESSAGE_BYTES_MAX + TARGET_BYTES_MAX;

/// The low bits of the state; a window in which more repeats come ends early, and says so many.
const COUNT_BITS: u32 = 22;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// In the high bits: the end of the window in Unix milliseconds, at most in the year 2109.
const UNTIL_MAX: u64 = u64::MAX >> COUNT_BITS;

const MS: u64 = 1_000_000;

/// Events that a `dedup` rule dropped because they repeated another one, and of which no later event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// The rule's name.
    pub rule: String,
    /// How many were dropped; at least 1.
    pub count: u64,
    /// The severity of the event that they repeated.
    pub severity: Severity,
    /// Its target, cut when it is long.
    pub target: String,
    /// Its message, cut when it is long.
    pub message: String,
}

/// The keys of one rule.
#[derive(Debug)]
pub(super) struct Repeats {
    rule: String,
    /// Made when the first event comes.
    slots: OnceLock<Box<[Slot]>>,
}

#[derive(Debug, Default)]
struct Slot {
    key: AtomicU64,
    /// Until when repeats are dropped, and how many were: see [`COUNT_BITS`].
    state: AtomicU64,
    first: Mutex<First>,
}

/// The event that is repeated.
#[derive(Debug, Default)]
struct First {
    key: u64,
    severity: Severity,
    target: String,
    message: String,
}

impl Repeats {
    pub(super) fn new(rule: &str) -> Self {
        Self { rule: rule.to_owned(), slots: OnceLock::new() }
    }

    /// `None` for a repeat, which is dropped. Else the event passes and tells how many were dropped before it.
    pub(super) fn see(&self, key: u64, event: &dyn EventView, window_ms: u64, now_ns: u64) -> Option<u64> {
        let now_ms = now_ns / MS;
        let Some(slot) = self.place(key, now_ms) else { return Some(0) };
        loop {
            let state = slot.state.load(Relaxed);
            let (until_ms, count) = unpack(state);
            // A window that ends later than any that begins now is from before the clock was set back, or from a rule
            // with a longer one.
            let open = now_ms < until_ms && until_ms - now_ms <= window_ms && count < COUNT_MAX;
            let next = if open { state + 1 } else { pack(now_ms.saturating_add(window_ms), 0) };
            if slot.state.compare_exchange_weak(state, next, Relaxed, Relaxed).is_ok() {
                if open {
                    return None;
                }
                slot.keep(key, event);
                return Some(count);
            }
        }
    }

    /// The key's place. A thread that has seen a place become free before the others did gives the key a second one: then two
    /// events of it pass. Between finding and using a place, another key may take it over: its first event counts as a repeat.
    fn place(&self, key: u64, now_ms: u64) -> Option<&Slot> {
        let slots = self.slots.get_or_init(|| std::iter::repeat_with(Slot::default).take(KEYS_MAX).collect());
        let first = (key as usize % (KEYS_MAX / WAYS)) * WAYS;
        let slots = &slots[first..first + WAYS];
        if let Some(slot) = slots.iter().find(|slot| slot.key.load(Relaxed) == key) {
            return Some(slot);
        }
        slots.iter().find(|slot| {
            let held = slot.key.load(Relaxed);
            let (until_ms, count) = unpack(slot.state.load(Relaxed));
            count == 0
                && has_ended(until_ms, now_ms)
                && match slot.key.compare_exchange(held, key, Relaxed, Relaxed) {
                    Ok(_) => true,
                    Err(now_held) => now_held == key,
                }
        })
    }

    /// The repeats whose window has ended, each told once.
    pub(super) fn due(&self, now_ns: u64) -> impl Iterator<Item = Repeated> {
        let now_ms = now_ns / MS;
        let slots = self.slots.get().map(|slots| &**slots).unwrap_or_default();
        slots.iter().filter_map(move |slot| {
            let (mut first, mut key) = (None, 0);
            loop {
                let state = slot.state.load(Relaxed);
                let (until_ms, count) = unpack(state);
                if count == 0 || !has_ended(until_ms, now_ms) {
                    return None;
                }
                // Read before the count is taken: while there is one, no other key gets the place.
                if first.is_none() {
                    key = slot.key.load(Relaxed);
                    first = Some(slot.read());
                }
                if slot.state.compare_exchange_weak(state, pack(until_ms, 0), Relaxed, Relaxed).is_ok() {
                    let First { severity, target, message, .. } =
                        first.filter(|first| first.key == key).unwrap_or_default();
                    return Some(Repeated { rule: self.rule.clone(), count, severity, target, message });
                }
            }
        })
    }

    /// Whether there is nothing to say.
    pub(super) fn is_silent(&self) -> bool {
        let slots = self.slots.get().map(|slots| &**slots).unwrap_or_default();
        slots.iter().all(|slot| unpack(slot.state.load(Relaxed)).1 == 0)
    }
}

impl Slot {
    /// Who cannot have the lock at once does without: the repeats are then said without their message.
    fn keep(&self, key: u64, event: &dyn EventView) {
        let Ok(mut first) = self.first.try_lock() else { return };
        first.key = key;
        first.severity = event.severity();
        put(&mut first.target, event.target(), TARGET_BYTES_MAX);
        put(&mut first.message, &event.message(), MESSAGE_BYTES_MAX);
    }

    fn read(&self) -> First {
        // Text that was written in part is worth no more than none; nothing panics while it is written.
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let First { key, severity, target, message } = &*first;
        First { key: *key, severity: *severity, target: target.clone(), message: message.clone() }
    }
}

/// Replaces a text; allocates only for the first one.
fn put(place: &mut String, text: &str, bytes_max: usize) {
    place.clear();
    place.reserve_exact(bytes_max);
    place.push_str(cut(text, bytes_max));
}

fn pack(until_ms: u64, count: u64) -> u64 {
    until_ms.min(UNTIL_MAX) << COUNT_BITS | count
}

fn unpack(state: u64) -> (u64, u64) {
    (state >> COUNT_BITS, state & COUNT_MAX)
}

/// Windows that would last longer than any does are from before the clock was set back.
fn has_ended(until_ms: u64, now_ms: u64) -> bool {
    until_ms <= now_ms || until_ms - now_ms > WINDOW_MS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::expr::tests::Sample;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1_800_000_000 * SECOND;

    fn event() -> Sample {
        Sample { severity: Severity::WARN, target: "app", message: "refused", ..Sample::default() }
    }

    fn counts(repeats: &Repeats, now_ns: u64) -> Vec<u64> {
        repeats.due(now_ns).map(|repeated| repeated.count).collect()
    }

    #[test]
    fn the_first_passes_and_the_next_window_tells_of_the_repeats() {
        let repeats = Repeats::new("dup");
        let see = |key, ms: u64| repeats.see(key, &event(), 1_000, START + ms * MS);
        assert_eq!([see(1, 0), see(1, 1), see(2, 2), see(1, 999)], [Some(0), None, Some(0), None]);
        assert_eq!(counts(&repeats, START + 999 * MS), [0; 0]);
        assert_eq!([see(1, 1_000), see(1, 1_001), see(1, 2_000)], [Some(2), None, Some(1)]);
        assert!(repeats.is_silent());
    }

    #[test]
    fn what_no_event_tells_is_due_once() {
        let repeats = Repeats::new("dup");
        (0..4).for_each(|_| _ = repeats.see(7, &event(), 1_000, START));
        let expected = Repeated {
            rule: "dup".to_owned(),
            count: 3,
            severity: Severity::WARN,
            target: "app".to_owned(),
            message: "refused".to_owned(),
        };
        assert_eq!(repeats.due(START + SECOND).collect::<Vec<_>>(), [expected]);
        assert_eq!(counts(&repeats, START + SECOND), [0; 0]);
        // At the end of the process the windows end too.
        (0..2).for_each(|_| _ = repeats.see(7, &event(), 1_000, START + 2 * SECOND));
        assert_eq!(counts(&repeats, u64::MAX), [1]);
    }

    #[test]
    fn a_clock_set_back_ends_the_window() {
        let repeats = Repeats::new("dup");
        let see = |now_ns| repeats.see(7, &event(), 1_000, now_ns);
        assert_eq!([see(START), see(START)], [Some(0), None]);
        assert_eq!([see(START - 60 * SECOND), see(START - 60 * SECOND)], [Some(1), None]);
        assert_eq!(counts(&repeats, START - 2 * 3_600 * SECOND), [1], "none of the windows can be this far ahead");
    }

    #[test]
    fn more_keys_than_places_pass_uncounted() {
        let repeats = Repeats::new("dup");
        let keys = (0..100_000_u64).map(|key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20);
        let dropped = keys
            .map(|key| (0..2).filter(|_| repeats.see(key, &event(), 1_000, START).is_none()).count())
            .sum::<usize>();
        assert_eq!(dropped, KEYS_MAX);
        // The places are in use until their counts have been said.
        assert_eq!(
            (repeats.see(1, &event(), 1_000, START + SECOND), counts(&repeats, START + SECOND).len()),
            (Some(0), KEYS_MAX)
        );
        assert_eq!([1; 2].map(|key| repeats.see(key, &event(), 1_000, START + SECOND)), [Some(0), None]);
    }

    #[test]
    fn what_is_kept_of_an_event_is_bounded() {
        let repeats = Repeats::new("dup");
        let long: &'static str = "žluťoučký kůň ".repeat(100).leak();
        let event = Sample { target: long, message: long, ..event() };
        (0..2).for_each(|_| _ = repeats.see(7, &event, 1_000, START));
        let Some(Repeated { target, message, .. }) = repeats.due(u64::MAX).next() else { panic!("nothing is due") };
        assert!(long.starts_with(&target) && long.starts_with(&message));
        assert!((FIRST_BYTES_MAX - 4..=FIRST_BYTES_MAX).contains(&(target.len() + message.len())));
    }

    #[test]
    fn threads_lose_no_count() {
        const EVENTS: u64 = 20_000;
        let repeats = Repeats::new("dup");
        let (mut passed, mut told) = (0, 0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3_u64)
                .map(|_| {
                    let repeats = &repeats;
                    scope.spawn(move || {
                        let seen = (0..EVENTS).map(|step| repeats.see(step % 5, &event(), 1, START + step * MS / 50));
                        seen.flatten().fold((0, 0), |(passed, told), count| (passed + 1, told + count))
                    })
                })
                .collect();
            for step in 0..1_000 {
                told += repeats.due(START + step * MS / 3).map(|repeated| repeated.count).sum::<u64>();
            }
            for thread in threads {
                let (more_passed, more_told) = thread.join().unwrap();
                passed += more_passed;
                told += more_told;
            }
        });
        told += repeats.due(u64::MAX).map(|repeated| repeated.count).sum::<u64>();
        assert_eq!(passed + told, 3 * EVENTS, "each event has passed or been told of");
    }
}
