//! When a line says that it happened.

use jiff::{Timestamp, civil::DateTime};

use super::tree::Json;

/// Below, a number is seconds since 1970; a thousand times that in ms, and so on. Seconds reach the year 5138, and
/// milliseconds begin in 1973.
const SECONDS_MAX: f64 = 1e11;

/// Unix nanoseconds; none when it is no time from 1970 to 2554.
pub(super) fn nanoseconds(value: &Json) -> Option<u64> {
    match value {
        Json::Text(text) => of_text(text.trim()),
        Json::Int(number) => of_decimal(&number.to_string()),
        Json::Large(number) => of_decimal(&number.to_string()),
        // The shortest text that reads back as this double is what stood in the line.
        Json::Double(number) => of_decimal(&format!("{number}")),
        _ => None,
    }
}

fn of_text(text: &str) -> Option<u64> {
    if text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.'))
    {
        return of_decimal(text);
    }
    // `2026-11-26T14:13:02.5Z`, with any offset, `T` or a blank between; without an offset it is UTC.
    let time = text.parse::<Timestamp>().ok();
    let time =
        time.or_else(|| text.parse::<DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| at.timestamp()));
    u64::try_from(time?.as_nanosecond()).ok()
}

/// A number of seconds, ms, µs or ns, digit by digit: a double has not the precision.
fn of_decimal(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let number: u64 = whole.parse().ok()?;
    let (mut places, mut limit) = (9_usize, SECONDS_MAX);
    while number as f64 >= limit && places > 0 {
        (places, limit) = (places - 3, limit * 1e3);
    }
    let mut below = fraction
        .as_bytes()
        .get(..places.min(fraction.len()))
        .map(|digits| String::from_utf8_lossy(digits).into_owned())?;
    while below.len() < places {
        below.push('0');
    }
    let below: u64 = if below.is_empty() { 0 } else { below.parse().ok()? };
    number.checked_mul(10_u64.pow(u32::try_from(places).ok()?))?.checked_add(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 1_767_225_600_123_456_789;

    #[test]
    fn reads_what_shippers_write() {
        for (value, expected) in [
            (Json::Text("2026-01-01T00:00:00.123456789Z".into()), AT),
            (Json::Text("2026-01-01T01:30:00.123456789+01:30".into()), AT),
            (Json::Text("2026-01-01 00:00:00.123456789".into()), AT),
            (Json::Text("2026-01-01T00:00:00,123456789Z".into()), AT),
            (Json::Text("1767225600.123456789".into()), AT),
            (Json::Int(1_767_225_600), 1_767_225_600_000_000_000),
            (Json::Int(1_767_225_600_123), 1_767_225_600_123_000_000),
            (Json::Int(1_767_225_600_123_456), 1_767_225_600_123_456_000),
            (Json::Int(AT as i64), AT),
            (Json::Double(1_767_225_600.123456), 1_767_225_600_123_456_000),
            (Json::Double(1_767_225_600_123.5), 1_767_225_600_123_500_000),
            (Json::Int(0), 0),
        ] {
            assert_eq!(nanoseconds(&value), Some(expected), "{value:?}");
        }
    }

    #[test]
    fn no_time_is_none() {
        for text in ["", "Nov 26 14:13:02", "yesterday", "2026-13-01T00:00:00Z", "-5", "1.2.3", "1969-12-31T23:59:59Z"]
        {
            assert_eq!(nanoseconds(&Json::Text(text.into())), None, "{text}");
        }
        assert_eq!(nanoseconds(&Json::Int(-1)), None);
        assert_eq!(nanoseconds(&Json::Double(1e300)), None);
        assert_eq!(nanoseconds(&Json::Bool(true)), None);
    }
}
