//! Points in time as people write them in a search, and as answers show them.

use std::time::SystemTime;

use jiff::{Timestamp, civil, tz::TimeZone};

use crate::config::units::Span;

/// Reads a point in time as Unix nanoseconds.
///
/// | form | example |
/// |---|---|
/// | the present | `now` |
/// | before it, with ms, s, m, h, d or w | `-15m`, `now-2h` |
/// | RFC 3339 | `2026-03-01T12:30:00Z`, `2026-03-01 12:30:00.25+02:00` |
/// | the same without a zone (UTC), or only the day | `2026-03-01T12:30`, `2026-03-01` |
/// | Unix time; seconds, or by their size milli-, micro- or nanoseconds | `1772368200`, `1772368200.5`, `1772368200000` |
///
/// # Errors
/// When it is none of these, or lies outside the years 1678 to 2262, which 64-bit nanoseconds can say.
pub fn parse(text: &str, now_ns: i64) -> Result<i64, String> {
    let trimmed = text.trim();
    let relative = trimmed.strip_prefix("now").unwrap_or(trimmed);
    if relative.is_empty() && !trimmed.is_empty() {
        return Ok(now_ns);
    }
    if let Some(span) = relative.strip_prefix('-') {
        let span = span.parse::<Span>().map_err(|error| format!("after the minus sign: {error}"))?;
        let ns = i64::try_from(span.0.as_nanos()).ok().and_then(|ns| now_ns.checked_sub(ns));
        return ns.ok_or_else(|| format!("`{text}` is too long ago"));
    }
    if trimmed.starts_with(|c: char| c.is_ascii_digit()) && trimmed.bytes().all(|c| c.is_ascii_digit() || c == b'.') {
        return unix(trimmed).ok_or_else(|| unreadable(text));
    }
    // A `+` that was not escaped in a URL arrives as a space: `…T10:00:00 02:00`.
    let zoned = trimmed.rsplit_once(' ').map(|(time, zone)| format!("{time}+{zone}"));
    let timestamp = trimmed.parse::<Timestamp>().ok();
    let timestamp = timestamp.or_else(|| trimmed.parse::<civil::DateTime>().ok().and_then(utc));
    let timestamp = timestamp.or_else(|| trimmed.parse::<civil::Date>().ok().and_then(|day| utc(day.into())));
    let timestamp = timestamp.or_else(|| zoned.and_then(|text| text.parse::<Timestamp>().ok()));
    let ns = timestamp.ok_or_else(|| unreadable(text))?.as_nanosecond();
    i64::try_from(ns).map_err(|_| format!("`{text}` is not between the years 1678 and 2262"))
}

/// RFC 3339 in UTC with nine decimals.
pub fn show(ns: i64) -> String {
    match Timestamp::from_nanosecond(ns.into()) {
        Ok(time) => format!("{time:.9}"),
        // Every i64 is within jiff's years -9999 to 9999.
        Err(_) => ns.to_string(),
    }
}

/// The present, Unix nanoseconds.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn utc(time: civil::DateTime) -> Option<Timestamp> {
    TimeZone::UTC.to_timestamp(time).ok()
}

/// Whole numbers from 1e11 on cannot be seconds (the year 5138): each further factor of 1000 is the next smaller unit.
fn unix(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number: i128 = whole.parse().ok()?;
    let scale: i128 = match number {
        0..=99_999_999_999 => 1_000_000_000,
        100_000_000_000..=99_999_999_999_999 => 1_000_000,
        100_000_000_000_000..=99_999_999_999_999_999 => 1_000,
        _ => 1,
    };
    let digits = &fraction[..fraction.len().min(9)];
    let fraction: i128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let fraction = fraction * scale / 10_i128.pow(u32::try_from(digits.len()).ok()?);
    i64::try_from(number * scale + fraction).ok()
}

fn unreadable(text: &str) -> String {
    format!("`{text}` is not a time: write -15m, now, 2026-03-01T12:30:00Z or Unix seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_772_368_200_000_000_000; // 2026-03-01T12:30:00Z

    #[test]
    fn reads_what_people_write() {
        for (text, ns) in [
            ("now", NOW),
            ("-15m", NOW - 900_000_000_000),
            ("now-2h", NOW - 7_200_000_000_000),
            ("2026-03-01T12:30:00Z", NOW),
            ("2026-03-01T14:30:00+02:00", NOW),
            ("2026-03-01T14:30:00 02:00", NOW),
            ("2026-03-01 12:30:00.25Z", NOW + 250_000_000),
            ("2026-03-01T12:30", NOW),
            ("2026-03-01", NOW - 45_000_000_000_000),
            ("1772368200", NOW),
            ("1772368200.5", NOW + 500_000_000),
            ("1772368200000", NOW),
            ("1772368200000000", NOW),
            ("1772368200000000000", NOW),
            ("0", 0),
        ] {
            assert_eq!(parse(text, NOW), Ok(ns), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest_with_examples() {
        for text in
            ["", "yesterday", "-15", "-15 bananas", "12:30", "2026-13-01", "9999-01-01", "1.2.3", "-99999999w", "now+"]
        {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
        assert!(parse("tomorrow", NOW).unwrap_err().contains("write -15m, now"));
    }

    #[test]
    fn shows_nine_decimals() {
        assert_eq!(show(NOW + 1), "2026-03-01T12:30:00.000000001Z");
        assert_eq!(parse(&show(i64::MAX), 0), Ok(i64::MAX));
        assert_eq!(parse(&show(i64::MIN), 0), Ok(i64::MIN));
    }
}
