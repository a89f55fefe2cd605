//! Unix nanoseconds as the text of a `date_nanos` field: RFC 3339 in UTC with nine decimals.

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};

use crate::text::Out;

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
    second: u64,
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
    #[inline]
    pub(super) fn write(&mut self, out: &mut Out, ns: i64) {
        let (second, rest) = (ns.cast_unsigned() / SECOND, ns.cast_unsigned() % SECOND);
        if second != self.second || ns < 0 {
            match text(ns).as_bytes().first_chunk() {
                Some(start) if ns >= 0 => (self.second, self.text) = (second, *start),
                _ => return out.put(text(ns).as_bytes()),
            }
        }
        let rest = rest as u32;
        out.literal(&self.text);
        out.literal(&eight_digits(rest / 10));
        out.literal(&[b'0' + (rest % 10) as u8, b'Z']);
    }
}

const SECOND: u64 = 1_000_000_000;

/// The digits of a number below 100,000,000, made side by side in one word.
#[inline]
fn eight_digits(number: u32) -> [u8; 8] {
    let number = u64::from(number);
    // Two numbers of four digits, then four of two, then eight of one, the first lowest in the word.
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let hundreds = ((fours * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let twos = hundreds | ((fours - hundreds * 100) << 16);
    let tens = ((twos * 103) >> 10) & 0x000f_000f_000f_000f;
    let ones = tens | ((twos - tens * 10) << 8);
    (ones + 0x3030_3030_3030_3030).to_le_bytes()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_clock_writes_what_text_makes() {
        let mut clock = super::Clock::default();
        let second = 1_767_225_600_000_000_000;
        for ns in [0, 999_999_999, second, second + 1, second + 999_999_999, second - 1, second, -1, i64::MAX, i64::MIN]
        {
            let mut out = crate::text::Out::default();
            clock.write(&mut out, ns);
            assert_eq!(String::from_utf8(out.into_bytes()).unwrap(), super::text(ns));
        }
    }

    #[test]
    fn eight_digits_are_right() {
        for number in (0..100_000_000).step_by(997).chain([0, 9, 10, 99_999_999, 9_999, 10_000, 12_345_678]) {
            assert_eq!(super::eight_digits(number), *format!("{number:08}").as_bytes());
        }
    }

    #[test]
    fn has_nine_decimals_always() {
        assert_eq!(super::text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(super::text(1_767_225_600_000_000_001), "2026-01-01T00:00:00.000000001Z");
        assert_eq!(super::text(super::clamp(u64::MAX)), "2262-04-11T23:47:16.854775807Z");
    }
}
