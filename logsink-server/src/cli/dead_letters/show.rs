//! Dead letters for people and programs.
//!
//! What is shown came from strangers: control characters, which could steer the terminal, are shown and not sent.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    api::time,
    cli::{clean, json_line},
    otlp,
    queue::dead::DeadLetter,
};

/// Bytes of a letter that is no request that are shown as text, when they are text.
const TEXT_BYTES: usize = 4 << 10;

/// So many, in words.
pub(super) fn count(letters: u64) -> String {
    match letters {
        1 => "1 dead letter".into(),
        _ => format!("{letters} dead letters"),
    }
}

/// A line for each.
pub(super) fn table(letters: &[DeadLetter]) -> String {
    let rows = letters.iter().map(|letter| {
        let from = letter.record.map_or_else(|| letter.source.clone(), |record| format!("{}#{record}", letter.source));
        [letter.id.clone(), at(letter.time_ms), from, letter.reason.clone()].map(|cell| clean(&cell.replace('\n', " ")))
    });
    let rows: Vec<_> = [["ID", "TIME", "FROM", "REASON"].map(str::to_owned)].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut out = String::new();
    for [id, time, from, reason] in &rows {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{id:0$}  {time:1$}  {from:2$}  {reason}", widths[0], widths[1], widths[2]);
    }
    out
}

/// A line of JSON for each.
pub(super) fn lines(letters: &[DeadLetter]) -> String {
    // A value has no part that cannot be written.
    letters.iter().filter_map(|letter| json_line(&describe(letter)).ok()).collect()
}

fn at(time_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(time_ms).map_or_else(|_| time_ms.to_string(), |time| time.to_string())
}

fn describe(letter: &DeadLetter) -> Value {
    let others = letter.headers.others.iter();
    let others = others.map(|(key, value)| (key.clone(), Value::from(String::from_utf8_lossy(value).into_owned())));
    json!({
        "id": letter.id,
        "time": at(letter.time_ms),
        "reason": letter.reason,
        "source": letter.source,
        "record": letter.record,
        "instance": letter.headers.instance,
        "sequence": letter.headers.sequence,
        "headers": others.collect::<serde_json::Map<_, _>>(),
        "bytes": letter.bytes.len(),
        "cut_from": letter.cut_from,
        "records": records(letter),
    })
}

/// The records, when the bytes are a request.
fn records(letter: &DeadLetter) -> Option<Vec<Value>> {
    let mut records = Vec::new();
    let read = otlp::for_each_record(&letter.bytes, &mut |record| {
        records.push(json!({
            "time": time::show(i64::try_from(record.time_ns()).unwrap_or(i64::MAX)),
            "level": record.severity.name(),
            "resource": record.resource.attributes().to_json(),
            "scope": record.scope.name,
            "body": record.body.to_json(),
            "attributes": record.attributes().to_json(),
        }));
    });
    read.is_ok().then_some(records)
}

/// All about one, with the first `hex` bytes of it.
pub(super) fn page(letter: &DeadLetter, hex: usize) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let value = value.split('\n').map(clean).collect::<Vec<_>>().join("\n          ");
        let _ = writeln!(out, "{name:<9} {value}");
    };
    line("id", &letter.id);
    line("time", &at(letter.time_ms));
    line("reason", &letter.reason);
    let record = letter.record.map_or_else(|| "the whole message".into(), |record| format!("record {record}"));
    let source = if letter.source.is_empty() { "never was in the queue" } else { &letter.source };
    line("from", &format!("{source}, {record}"));
    if let (Some(instance), sequence) = (&letter.headers.instance, letter.headers.sequence) {
        let sequence = sequence.map_or_else(|| "none".into(), |sequence| sequence.to_string());
        line("sender", &format!("instance {instance}, batch {sequence}"));
    }
    for (key, value) in &letter.headers.others {
        line("header", &format!("{key}: {}", String::from_utf8_lossy(value)));
    }
    match letter.cut_from {
        Some(all) => line("bytes", &format!("{}, the first of {all}", letter.bytes.len())),
        None => line("bytes", &letter.bytes.len().to_string()),
    }
    match records(letter) {
        Some(records) => {
            for record in records {
                let text = serde_json::to_string_pretty(&record).unwrap_or_default();
                line("content", &text);
            }
        }
        None => {
            let error = otlp::for_each_record(&letter.bytes, &mut |_| {}).err();
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            line("content", &format!("not an OTLP request: {error}"));
            let beginning = &letter.bytes[..letter.bytes.len().min(TEXT_BYTES)];
            if let Ok(text) = std::str::from_utf8(beginning) {
                line("text", text);
            }
        }
    }
    out.push_str(&dump(&letter.bytes[..letter.bytes.len().min(hex)]));
    out
}

/// Sixteen bytes a line, with the text that they are.
fn dump(bytes: &[u8]) -> String {
    let mut out = String::new();
    for (index, row) in bytes.chunks(16).enumerate() {
        let hex: String = row.iter().map(|byte| format!("{byte:02x} ")).collect();
        let text: String =
            row.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '.' }).collect();
        let _ = writeln!(out, "{:08x}  {hex:<48} {text}", index * 16);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Headers, dead::Wanted};

    fn letter() -> DeadLetter {
        DeadLetter {
            id: "0/7".into(),
            time_ms: 1_767_225_600_000,
            reason: "not_otlp: byte 0: not\u{1b}[2J a field key".into(),
            source: "logs/3/42".into(),
            record: Some(2),
            headers: Headers::default(),
            bytes: b"\x1b[31mgarbage".to_vec().into(),
            cut_from: None,
        }
    }

    #[test]
    fn what_strangers_wrote_does_not_steer_the_terminal() {
        for text in [table(&[letter()]), page(&letter(), 512), lines(&[letter()])] {
            assert!(!text.contains('\u{1b}'), "{text}");
        }
        let mut tricky = letter();
        tricky.reason = "\u{9b}2J \u{202e}\u{2066} é".into();
        let line = lines(&[tricky.clone()]);
        assert!(line.contains(r"\u009b2J \u202e\u2066 é") && line.lines().count() == 1, "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["reason"], tricky.reason, "the same to a program");
        let page = page(&letter(), 512);
        assert!(page.contains("logs/3/42, record 2") && page.contains("not an OTLP request"), "{page}");
        assert!(page.contains("1b 5b 33 31 6d 67"), "{page}");
    }

    #[test]
    fn a_letter_sent_again_has_the_ids_that_it_would_have_had() {
        let mut own = letter();
        own.headers = Headers { instance: Some("i".into()), sequence: Some(5), first: 100, ..Headers::default() };
        let headers = own.replay_headers();
        assert_eq!((headers.instance.as_deref(), headers.sequence, headers.first), (Some("i"), Some(5), 102));
        let foreign = letter().replay_headers();
        assert_eq!((foreign.instance.as_deref(), foreign.sequence, foreign.first), (Some("dead/logs/3"), Some(42), 2));
    }

    #[test]
    fn filters_find() {
        let has = |wanted: Wanted| wanted.has(&letter());
        assert!(has(Wanted::default()));
        assert!(has(Wanted { reason: Some("NOT_OTLP".into()), source: Some("logs/3".into()), ..Wanted::default() }));
        assert!(!has(Wanted { reason: Some("mapping".into()), ..Wanted::default() }));
        assert!(!has(Wanted { ids: vec!["0/8".into()], ..Wanted::default() }));
        assert!(!has(Wanted { from_ms: Some(1_767_225_600_001), ..Wanted::default() }));
        assert!(!has(Wanted { to_ms: Some(1_767_225_600_000), ..Wanted::default() }));
    }
}
