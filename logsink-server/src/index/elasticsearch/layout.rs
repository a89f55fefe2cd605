//! Which indices events lie in: the backing indices of a data stream, or an index for each day.
//!
//! A day is that of the event's own time, in UTC: an event that is written again meets its first copy. Times far from when
//! the message came into the queue go to one index beside the days, so that no clock and no sender can make indices without end.
//! How far is reckoned from the queue's time, which is the same when a message is read again, and not from this moment.

use jiff::Timestamp;

use super::time;

/// What the cluster has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    DataStream,
    Daily,
}

const DAY_NS: i64 = 86_400_000_000_000;
/// Days before the queue's time that have an index of their own: a month of late events. With the days after, no more than
/// this many indices can come from one message.
const DAYS_BACK: i64 = 31;
/// Days after it: senders' clocks are not that wrong by accident.
const DAYS_AHEAD: i64 = 1;
/// How far the queue's time may lie from this moment: whoever writes to Kafka directly chooses it. Brokers keep a week.
const QUEUE_DAYS: i64 = 35;
/// What follows a stream's name for events of all other times.
pub(super) const OUTSIDE: &str = "outside";

/// Days since 1970.
pub(super) fn day(ns: i64) -> i64 {
    ns.div_euclid(DAY_NS)
}

/// `2026.11.26`
pub(super) fn date(day: i64) -> String {
    let ns = day.saturating_mul(DAY_NS);
    time::text(ns)[..10].replace('-', ".")
}

/// The day that a name of [`date`] stands for; nothing for what only looks like one.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'.' || bytes[7] != b'.' {
        return None;
    }
    let time: Timestamp = format!("{}T00:00:00Z", text.replace('.', "-")).parse().ok()?;
    let day = time.as_second().div_euclid(86_400);
    (date(day) == text).then_some(day)
}

/// What the names of a stream's indices begin with, as patterns for templates and policies. They spell the years out: `shop-2*.*.*` would
/// take `shop-2fa-2026.01.01` along.
pub(super) fn patterns(stream: &str) -> Vec<String> {
    // Days lie around the queue's time, and that around this moment: none is earlier, and after these years there is time to add some.
    const YEARS: std::ops::Range<u32> = 2020..2070;
    YEARS.map(|year| format!("{stream}-{year}.*")).chain([format!("{stream}-{OUTSIDE}")]).collect()
}

/// Whether an index of this name is one of the stream's days, or what lies outside them.
pub(super) fn is_of(index: &str, stream: &str) -> bool {
    let suffix = index.strip_prefix(stream).and_then(|rest| rest.strip_prefix('-'));
    suffix.is_some_and(|suffix| suffix == OUTSIDE || parse_date(suffix).is_some())
}

/// The days that have an index of their own, for the events of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Days {
    first: i64,
    last: i64,
}

impl Days {
    /// For a message that came into the queue at `appended_ns` (0: nobody knows), read at `now_ns`, where events are kept for
    /// `kept_days`, rounded up: older days would be made only to be removed. One more has an index: a batch that is sent again after
    /// midnight meets its first copy there.
    pub(super) fn around(appended_ns: i64, now_ns: i64, kept_days: Option<i64>) -> Self {
        let at = day(appended_ns);
        if (at - day(now_ns)).abs() > QUEUE_DAYS {
            return Self { first: 1, last: 0 };
        }
        let back = kept_days.map_or(DAYS_BACK, |days| days.saturating_add(1)).min(DAYS_BACK);
        Self { first: at - back, last: at + DAYS_AHEAD }
    }

    /// What follows the stream's name for an event of this day.
    pub(super) fn suffix(self, day: i64) -> String {
        if (self.first..=self.last).contains(&day) { date(day) } else { OUTSIDE.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_703_042_000_000_000;

    #[test]
    fn a_day_is_that_of_utc() {
        let new_year = 1_767_225_600_000_000_000;
        assert_eq!(date(day(new_year)), "2026.01.01");
        assert_eq!(date(day(new_year - 1)), "2025.12.31");
        assert_eq!(parse_date("2026.01.01"), Some(day(new_year)));
        for text in ["2026.13.01", "2026.02.30", "2026-01-01", "2026.1.01", "2026.01.011", "", "outside", "20é6.01.01"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn patterns_fit_the_days_and_no_longer_names_of_other_streams() {
        let fits = |index: &str| {
            patterns("shop").iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => index.starts_with(prefix),
                None => index == pattern,
            })
        };
        for day in (day(NOW) - 2_000..day(NOW) + 15_000).step_by(100) {
            assert!(fits(&format!("shop-{}", date(day))), "{}", date(day));
        }
        assert!(fits("shop-outside"));
        for other in ["shop-2fa-2026.01.01", "shop-2-2026.01.01", "shop-eu-2026.01.01", "shop"] {
            assert!(!fits(other) && !is_of(other, "shop"), "{other}");
        }
    }

    #[test]
    fn an_event_has_the_same_index_whenever_it_is_read() {
        let event = day(NOW - 3 * DAY_NS);
        let first = Days::around(NOW, NOW, Some(30)).suffix(event);
        assert_eq!(first, date(event));
        assert_eq!(Days::around(NOW, NOW + 20 * DAY_NS, Some(30)).suffix(event), first);
    }

    #[test]
    fn far_times_share_one_index() {
        let days = Days::around(NOW, NOW, None);
        let suffixes: std::collections::BTreeSet<String> =
            (0..=day(i64::MAX)).step_by(3).map(|day| days.suffix(day)).collect();
        assert!(suffixes.len() <= (DAYS_BACK + DAYS_AHEAD + 2) as usize && suffixes.contains(OUTSIDE));
        for appended in [0, i64::MAX, NOW - 400 * DAY_NS] {
            assert_eq!(Days::around(appended, NOW, None).suffix(day(appended)), OUTSIDE);
        }
        assert_eq!(Days::around(NOW, NOW, Some(2)).suffix(day(NOW) - 4), OUTSIDE, "not kept that long");
    }

    #[test]
    fn what_is_sent_again_after_midnight_has_the_index_of_its_first_copy() {
        let midnight = (day(NOW) + 1) * DAY_NS;
        let event = day(midnight - DAY_NS);
        for kept_days in [Some(1), Some(30), None] {
            let suffixes = [midnight - 1, midnight + DAY_NS - 1]
                .map(|appended| Days::around(appended, appended, kept_days).suffix(event));
            assert_eq!(suffixes, [date(event), date(event)], "{kept_days:?}");
        }
    }
}
