//! JSON lines: one object for each record, with the names of the OpenTelemetry log data model in the spelling that log tools
//! expect.
//!
//! `{"timestamp":"2026-11-22T18:04:05.123456789Z","severity":"INFO","service":"shop","target":"shop::cart",
//! "message":"item added","attributes":{"user_id":42},"trace_id":"…","span_id":"…"}`
//!
//! Whatever the bytes of a record are, the line is JSON: what is not UTF-8 is replaced, numbers that JSON does not have
//! (`NaN`, `Infinity`) are text as in OTLP's own JSON, bytes are text in hexadecimal.

use std::fmt::Write as _;

use super::record::{Any, Record, elements, entries, put_time};

/// All digits that the record has.
const TIME_DIGITS: usize = 9;

pub(super) fn line(out: &mut String, service: Option<Any<'_>>, record: &Record<'_>) {
    out.push_str("{\"timestamp\":\"");
    put_time(out, record.time, TIME_DIGITS);
    let _ = write!(out, "\",\"severity\":\"{}\"", record.severity.name().to_ascii_uppercase());
    for (key, value) in [("service", service), ("target", record.target), ("message", Some(record.body))] {
        if let Some(value) = value {
            let _ = write!(out, ",\"{key}\":");
            put(out, value);
        }
    }
    out.push_str(",\"attributes\":");
    put_object(out, &record.attributes);
    for (key, id) in [("trace_id", record.trace_id), ("span_id", record.span_id)] {
        if !id.is_empty() {
            let _ = write!(out, ",\"{key}\":");
            put(out, Any::Bytes(id));
        }
    }
    out.push_str("}\n");
}

/// An object in which every name stands once: readers of JSON take one of several, and not all the same. The last wins, as
/// it does with most of them.
fn put_object(out: &mut String, pairs: &[(&[u8], Any<'_>)]) {
    out.push('{');
    let mut separator = "";
    for (index, (key, value)) in pairs.iter().enumerate() {
        if pairs[index + 1..].iter().any(|(later, _)| later == key) {
            continue;
        }
        out.push_str(separator);
        separator = ",";
        put_string(out, &String::from_utf8_lossy(key));
        out.push(':');
        put(out, *value);
    }
    out.push('}');
}

fn put(out: &mut String, value: Any<'_>) {
    // Writing to a string does not fail.
    let _ = match value {
        Any::Empty => write!(out, "null"),
        Any::Text(text) => {
            put_string(out, &String::from_utf8_lossy(text));
            Ok(())
        }
        Any::Bool(value) => write!(out, "{value}"),
        Any::Int(value) => write!(out, "{value}"),
        Any::Double(value) if value.is_finite() => write!(out, "{value:?}"),
        Any::Double(value) if value.is_nan() => write!(out, "\"NaN\""),
        Any::Double(value) => write!(out, "\"{}Infinity\"", if value < 0.0 { "-" } else { "" }),
        Any::Bytes(bytes) => {
            out.push('"');
            let written = bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"));
            out.push('"');
            written
        }
        Any::Deep(bytes) => write!(out, "\"<{bytes} bytes>\""),
        Any::List(list, depth) => {
            out.push('[');
            for (index, element) in elements(list, depth).enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                put(out, element);
            }
            out.push(']');
            Ok(())
        }
        Any::Map(map, depth) => {
            put_object(out, &entries(map, depth).collect::<Vec<_>>());
            Ok(())
        }
    };
}

fn put_string(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    // DEL and what follows it are allowed in JSON, and still nothing for a terminal.
    while let Some(at) = rest.find(|c: char| c == '"' || c == '\\' || c.is_control()) {
        out.push_str(&rest[..at]);
        let mut after = rest[at..].chars();
        let _ = match after.next() {
            Some('\n') => write!(out, "\\n"),
            Some('\r') => write!(out, "\\r"),
            Some('\t') => write!(out, "\\t"),
            Some(c @ ('"' | '\\')) => write!(out, "\\{c}"),
            Some(c) => write!(out, "\\u{:04x}", u32::from(c)),
            None => Ok(()),
        };
        rest = after.as_str();
    }
    out.push_str(rest);
    out.push('"');
}
