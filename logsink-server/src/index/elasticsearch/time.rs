//! Unix nanoseconds as the text of a `date_nanos` field: RFC 3339 in UTC with nine decimals.

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));

/// What `date_nanos` can hold of a wire time: up to April 2262.
pub(super) fn clamp(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

/// The time as text.
pub(super) fn text(ns: i64) -> String {
    // Every i64 of nanoseconds is within jiff's range of years.
    PRINTER.timestamp_to_string(&Timestamp::from_nanosecond(i128::from(ns)).unwrap_or_default())
}

/// Writes times that mostly lie in the same second, whose text it keeps.
#[derive(Debug)]
pub(super) struct Clock {
    second: i64,
    /// Up to the decimal point and with it.
    text: [u8; 20],
}

impl Default for Clock {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00." }
    }
}

impl Clock {
    /// Writes what [`text`] makes of a time from 1970 on.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, ns: i64) {
        const SECOND: i64 = 1_000_000_000;
        if ns.div_euclid(SECOND) != self.second {
            match text(ns).as_bytes().first_chunk() {
                Some(start) if ns >= 0 => (self.second, self.text) = (ns / SECOND, *start),
                _ => return out.extend_from_slice(text(ns).as_bytes()),
            }
        }
        let mut rest = ns.rem_euclid(SECOND) as u32;
        let mut decimals = *b"000000000Z";
        for digit in decimals[..9].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&self.text);
        out.extend_from_slice(&decimals);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_clock_writes_what_text_makes() {
        let mut clock = super::Clock::default();
        let second = 1_767_225_600_000_000_000;
        for ns in [0, 999_999_999, second, second + 1, second + 999_999_999, second - 1, second, -1, i64::MAX, i64::MIN]
        {
            let mut out = Vec::new();
            clock.write(&mut out, ns);
            assert_eq!(String::from_utf8(out).unwrap(), super::text(ns));
        }
    }

    #[test]
    fn has_nine_decimals_always() {
        assert_eq!(super::text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(super::text(1_767_225_600_000_000_001), "2026-01-01T00:00:00.000000001Z");
        assert_eq!(super::text(super::clamp(u64::MAX)), "2262-04-11T23:47:16.854775807Z");
    }
}
