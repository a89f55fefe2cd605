//! Events as lines for people, on stdout: for a laptop without a sink, and to look at what would be sent.
//!
//! `2026-11-22T18:04:05.123456Z  INFO shop::cart: item added user_id=42`

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::Duration,
};

use super::{
    Accepted, Batch, SendError, Sending, Transport,
    wire::{Value, field, fields},
};
use crate::Severity;

/// Writes one line per record to stdout.
#[derive(Debug, Default)]
pub struct Stdout;

impl Transport for Stdout {
    fn send(&self, batch: Batch) -> Sending<'_> {
        Box::pin(async move {
            // One write per batch, so that lines of other writers do not come between. It may block, and with it the
            // worker: then the queue fills, as with any slow sink.
            io::stdout()
                .lock()
                .write_all(lines(&batch.payload).as_bytes())
                .map(|()| Accepted::default())
                .map_err(|error| SendError::Permanent { message: format!("cannot write to stdout: {error}") })
        })
    }
}

/// `ExportLogsServiceRequest.resource_logs = 1`, `ResourceLogs.scope_logs = 2`, `ScopeLogs.log_records = 2`.
fn lines(payload: &[u8]) -> String {
    let mut text = String::new();
    let nested = |message, number| {
        fields(message).filter(move |(have, _)| *have == number).map(|(_, value): (u64, Value<'_>)| value.bytes())
    };
    for resource_logs in nested(payload, 1) {
        for scope_logs in nested(resource_logs, 2) {
            for record in nested(scope_logs, 2) {
                line(&mut text, record);
            }
        }
    }
    text
}

/// `LogRecord`: time_unix_nano = 1, severity_number = 2, body = 5, attributes = 6.
fn line(text: &mut String, record: &[u8]) {
    put_time(text, field(record, 1).map_or(0, Value::number));
    let severity = Severity(field(record, 2).map_or(0, Value::number) as u8);
    let _ = write!(text, " {:>5} ", severity.name().to_ascii_uppercase());

    let mut pairs = String::new();
    for (_, pair) in fields(record).filter(|(number, _)| *number == 6) {
        let key = field(pair.bytes(), 1).map(Value::text).unwrap_or_default();
        let value = field(pair.bytes(), 2).map_or(&[][..], Value::bytes);
        match key.as_str() {
            "target" => {
                put_any(text, value);
                text.push_str(": ");
            }
            // What a person finds by the message.
            "code.file.path" | "code.line.number" | "thread.name" | "thread.id" => {}
            _ => {
                let _ = write!(pairs, " {key}=");
                put_any(&mut pairs, value);
            }
        }
    }
    put_any(text, field(record, 5).map_or(&[][..], Value::bytes));
    text.push_str(&pairs);
    text.push('\n');
}

/// `AnyValue`: string = 1, bool = 2, int = 3, double = 4, array = 5, kvlist = 6, bytes = 7.
fn put_any(text: &mut String, any: &[u8]) {
    let _ = match fields(any).next() {
        // A line stays a line, and nothing in it can steer a terminal.
        Some((1, value)) => value.text().chars().try_for_each(|c| match c {
            c if c.is_control() => write!(text, "{}", c.escape_default()),
            c => text.write_char(c),
        }),
        Some((2, value)) => write!(text, "{}", value.number() != 0),
        Some((3, value)) => write!(text, "{}", value.number() as i64),
        Some((4, value)) => write!(text, "{}", f64::from_bits(value.number())),
        Some((7, value)) => value.bytes().iter().try_for_each(|byte| write!(text, "{byte:02x}")),
        Some((_, value)) => write!(text, "<{} bytes>", value.bytes().len()),
        None => Ok(()),
    };
}

/// RFC 3339 in UTC with microseconds.
fn put_time(text: &mut String, unix_nano: u64) {
    let time = Duration::from_nanos(unix_nano);
    let (days, second) = (time.as_secs() / 86_400, time.as_secs() % 86_400);
    // Howard Hinnant's `civil_from_days`, for days from 1970 on: years begin in March, so that the leap day is the last.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = time.subsec_micros();
    let _ = write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value as Any},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;

    use super::*;

    #[test]
    fn a_record_is_a_line() {
        let any = |value| Some(AnyValue { value: Some(value) });
        let pair = |key: &str, value| KeyValue { key: key.to_owned(), value: any(value), ..KeyValue::default() };
        let record = LogRecord {
            time_unix_nano: 1_709_251_199_123_456_789,
            severity_number: 9,
            body: any(Any::StringValue("item\nadded\u{1b}[31m".to_owned())),
            attributes: vec![
                pair("user_id", Any::IntValue(-42)),
                pair("target", Any::StringValue("shop::cart".to_owned())),
                pair("ratio", Any::DoubleValue(0.5)),
                pair("new", Any::BoolValue(true)),
            ],
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
        let resource_logs = vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }];
        assert_eq!(
            lines(&ExportLogsServiceRequest { resource_logs }.encode_to_vec()),
            "2024-02-29T23:59:59.123456Z  INFO shop::cart: item\\nadded\\u{1b}[31m user_id=-42 ratio=0.5 new=true\n"
        );
    }

    #[test]
    fn times_are_civil() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut text = String::new();
            put_time(&mut text, seconds * 1_000_000_000);
            assert_eq!(text, expected);
        }
    }
}
