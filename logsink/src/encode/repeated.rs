//! The record by which the library says that an event was repeated, when no later one of its kind says it.

use super::{FRAME_BYTES, Scalar, padded, push_attribute, push_delimited, push_text, tag};
use crate::{
    callsite::name,
    filter::rules::{REPEATED, Repeated},
    queue::FRAME_TAG,
};

/// The rule that has dropped the repeats.
const RULE: &str = "logsink.rule";

/// Appends the framed record: `connection refused (repeated 4213 times)`, with the target and severity of what was repeated.
pub(crate) fn push_repeated(out: &mut Vec<u8>, now_ns: u64, repeated: &Repeated) {
    let Repeated { rule, count, severity, target, message } = repeated;
    let times = if *count == 1 { "once" } else { &format!("{count} times") };
    let separator = if message.is_empty() { "" } else { " " };
    let mut body = Vec::new();
    push_delimited(&mut body, tag::STRING, format!("{message}{separator}(repeated {times})").as_bytes());
    let start = out.len();
    out.extend_from_slice(&[FRAME_TAG, 0, 0, 0]);
    for time in [tag::TIME, tag::OBSERVED_TIME] {
        out.push(time);
        out.extend_from_slice(&now_ns.to_le_bytes());
    }
    out.extend_from_slice(&[tag::SEVERITY_NUMBER, severity.0]);
    push_delimited(out, tag::SEVERITY_TEXT, severity.name().to_ascii_uppercase().as_bytes());
    push_text(out, name::TARGET, target);
    push_delimited(out, tag::BODY, &body);
    push_attribute(out, REPEATED, Scalar::int(i64::try_from(*count).unwrap_or(i64::MAX)).as_bytes());
    push_text(out, RULE, rule);
    let length = padded(out.len() - start - FRAME_BYTES);
    out[start + 1..start + FRAME_BYTES].copy_from_slice(&length);
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::ScopeLogs};
    use prost::Message;

    use super::*;
    use crate::{Severity, queue};

    #[test]
    fn says_what_was_repeated_and_how_often() {
        let repeated = |count, message: &str| Repeated {
            rule: "dup".to_owned(),
            count,
            severity: Severity::WARN,
            target: "app::db".to_owned(),
            message: message.to_owned(),
        };
        let mut out = Vec::new();
        push_repeated(&mut out, 7, &repeated(4213, "connection refused"));
        push_repeated(&mut out, 8, &repeated(1, ""));
        assert_eq!(queue::records(&out).map(<[u8]>::len).sum::<usize>(), out.len());
        let records = ScopeLogs::decode(&*out).unwrap().log_records;
        let read: Vec<_> = records
            .into_iter()
            .map(|record| {
                let Some(Value::StringValue(body)) = record.body.unwrap().value else { panic!("no text") };
                let attributes =
                    record.attributes.into_iter().map(|pair| (pair.key, pair.value.unwrap().value.unwrap()));
                (record.time_unix_nano, record.severity_text, body, attributes.collect::<Vec<_>>())
            })
            .collect();
        let text = |text: &str| Value::StringValue(text.to_owned());
        let expected = |time, body: &str, count| {
            let attributes = vec![
                ("target".to_owned(), text("app::db")),
                ("logsink.repeated".to_owned(), Value::IntValue(count)),
                ("logsink.rule".to_owned(), text("dup")),
            ];
            (time, "WARN".to_owned(), body.to_owned(), attributes)
        };
        assert_eq!(
            read,
            [expected(7, "connection refused (repeated 4213 times)", 4213), expected(8, "(repeated once)", 1)]
        );
    }
}
