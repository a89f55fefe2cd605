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

#[cfg(test)]
mod tests {
    #[test]
    fn has_nine_decimals_always() {
        assert_eq!(super::text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(super::text(1_767_225_600_000_000_001), "2026-01-01T00:00:00.000000001Z");
        assert_eq!(super::text(super::clamp(u64::MAX)), "2262-04-11T23:47:16.854775807Z");
    }
}
