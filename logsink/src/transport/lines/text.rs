//! Lines for people, much as `tracing_subscriber::fmt` writes them.
//!
//! `2026-11-22T18:04:05.123456Z  INFO request:cart: shop::cart: item added user_id=42`
//!
//! Spans are shown by their path; their fields stand among the event's, as everywhere in this library. Nothing in a value
//! can end a line or steer a terminal: what does not print is escaped.

use std::fmt::Write as _;

use super::record::{Any, Record, elements, entries, put_time};
use crate::Severity;

/// Digits of a second's fraction: what `tracing_subscriber::fmt` shows.
const TIME_DIGITS: usize = 6;

const DIM: &str = "\u{1b}[2m";
const BOLD: &str = "\u{1b}[1m";
const RESET: &str = "\u{1b}[0m";

/// One line.
pub(super) fn line(out: &mut String, record: &Record<'_>, coloured: bool) {
    head(out, record, coloured);
    for (key, value) in record.fields() {
        out.push(' ');
        put_plain(out, &key);
        out.push('=');
        put_value(out, value);
    }
    out.push('\n');
}

/// A line, and one more for each field and for where the event is from.
pub(super) fn pretty(out: &mut String, record: &Record<'_>, coloured: bool) {
    head(out, record, coloured);
    out.push('\n');
    for (key, value) in record.fields() {
        out.push_str("    ");
        put_plain(out, &key);
        out.push_str(": ");
        put_value(out, value);
        out.push('\n');
    }
    dim(out, coloured, |out| {
        if let Some(file) = record.file {
            out.push_str("    at ");
            put(out, file);
            if let Some(line) = record.line {
                out.push(':');
                put(out, line);
            }
            if let Some(thread) = record.thread {
                out.push_str(" on ");
                put(out, thread);
            }
            out.push('\n');
        }
        if !record.trace_id.is_empty() {
            out.push_str("    trace ");
            put(out, Any::Bytes(record.trace_id));
            out.push_str(" span ");
            put(out, Any::Bytes(record.span_id));
            out.push('\n');
        }
    });
}

/// Time, level, spans, target and message.
fn head(out: &mut String, record: &Record<'_>, coloured: bool) {
    dim(out, coloured, |out| put_time(out, record.time, TIME_DIGITS));
    let level = record.severity.name().to_ascii_uppercase();
    if coloured {
        let _ = write!(out, " {}{level:>5}{RESET} ", colour(record.severity));
    } else {
        let _ = write!(out, " {level:>5} ");
    }
    if let Some(path) = record.span_path {
        out.push_str(if coloured { BOLD } else { "" });
        put(out, path);
        out.push_str(if coloured { RESET } else { "" });
        out.push_str(": ");
    }
    if let Some(target) = record.target {
        dim(out, coloured, |out| {
            put(out, target);
            out.push(':');
        });
        out.push(' ');
    }
    put(out, record.body);
}

fn dim(out: &mut String, coloured: bool, write: impl FnOnce(&mut String)) {
    out.push_str(if coloured { DIM } else { "" });
    write(out);
    out.push_str(if coloured { RESET } else { "" });
}

/// The colours of `tracing_subscriber::fmt`.
fn colour(severity: Severity) -> &'static str {
    match severity.floor() {
        Severity::TRACE => "\u{1b}[35m",
        Severity::DEBUG => "\u{1b}[34m",
        Severity::INFO => "\u{1b}[32m",
        Severity::WARN => "\u{1b}[33m",
        Severity::ERROR | Severity::FATAL => "\u{1b}[31m",
        _ => "",
    }
}

/// A field's value: text is quoted where one could not see its end, except where it brackets itself, as most `Debug` does.
fn put_value(out: &mut String, value: Any<'_>) {
    if let Any::Text(text) = value {
        let text = String::from_utf8_lossy(text);
        let brackets = text.ends_with([')', ']', '}', '"']);
        if text.is_empty() || (!brackets && text.contains(|c: char| c.is_whitespace() || c == '"')) {
            out.push('"');
            for (index, part) in text.split('"').enumerate() {
                out.push_str(if index > 0 { "\\\"" } else { "" });
                put_plain(out, part);
            }
            out.push('"');
            return;
        }
    }
    put(out, value);
}

fn put(out: &mut String, value: Any<'_>) {
    // Writing to a string does not fail.
    let _ = match value {
        Any::Empty => Ok(()),
        Any::Text(text) => {
            put_plain(out, &String::from_utf8_lossy(text));
            Ok(())
        }
        Any::Bool(value) => write!(out, "{value}"),
        Any::Int(value) => write!(out, "{value}"),
        Any::Double(value) => write!(out, "{value}"),
        Any::Bytes(bytes) => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
        Any::Deep(bytes) => write!(out, "<{bytes} bytes>"),
        Any::List(list, depth) => {
            out.push('[');
            for (index, element) in elements(list, depth).enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                put_value(out, element);
            }
            out.push(']');
            Ok(())
        }
        Any::Map(map, depth) => {
            out.push('{');
            for (index, (key, value)) in entries(map, depth).enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                put_plain(out, &String::from_utf8_lossy(key));
                out.push_str(": ");
                put_value(out, value);
            }
            out.push('}');
            Ok(())
        }
    };
}

/// Text in which nothing ends the line or moves the cursor, nor turns the direction of what follows.
fn put_plain(out: &mut String, text: &str) {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut rest = text;
    while let Some(at) = rest.find(steers) {
        out.push_str(&rest[..at]);
        let mut after = rest[at..].chars();
        out.extend(after.next().into_iter().flat_map(char::escape_default));
        rest = after.as_str();
    }
    out.push_str(rest);
}
