//! `Retry-After`: seconds, or a date as HTTP writes it (RFC 9110, 5.6.7).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long to wait; `None` when the text is neither. A date that has passed is no wait.
pub(super) fn delay(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        // More digits than a number has: for ever, which the retries bound.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(date(text)?.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that may still be sent.
fn date(text: &str) -> Option<SystemTime> {
    let mut words = text.split_once(", ")?.1.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let (time, zone) = (words.next()?, words.next()?);
    if zone != "GMT" || words.next().is_some() {
        return None;
    }
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let number = |text: &str, max: u64| text.parse::<u64>().ok().filter(|number| *number <= max);
    let (day, year) = (number(day, 31)?, number(year, 9999).filter(|year| *year >= 1970)?);
    let mut parts = time.split(':');
    let (hour, minute, second) = (number(parts.next()?, 23)?, number(parts.next()?, 59)?, number(parts.next()?, 60)?);
    // Howard Hinnant's `days_from_civil`: years begin in March, so that the leap day is the last.
    let year_from_march = year - u64::from(month <= 2);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?;
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let seconds = days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // The example of RFC 9110.
        let now = at(784_111_777 - 10);
        for (text, expected) in [
            ("0", Some(Duration::ZERO)),
            (" 120 ", Some(Duration::from_secs(120))),
            ("99999999999999999999999", Some(Duration::from_secs(u64::MAX))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_secs(10))),
            ("Sun, 06 Nov 1994 08:49:20 GMT", Some(Duration::ZERO)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(Duration::from_secs(1_709_251_199 - 784_111_767))),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(delay(text, now), expected, "{text:?}");
        }
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(at(0)));
    }

    #[test]
    fn no_text_makes_it_panic() {
        proptest::proptest!(|(text: String)| { delay(&text, SystemTime::now()); });
    }
}
