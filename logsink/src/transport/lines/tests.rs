use std::{fs, time::Duration};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use prost::Message;

use super::*;

fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(value: &str) -> Any {
    Any::StringValue(value.to_owned())
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(value), ..KeyValue::default() }
}

fn payload(log_records: Vec<LogRecord>) -> Bytes {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource = Resource { attributes: vec![pair("service.name", text("shop"))], ..Resource::default() };
    let resource_logs = vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec().into()
}

fn record() -> LogRecord {
    LogRecord {
        time_unix_nano: 1_709_251_199_123_456_789,
        severity_number: 9,
        body: any(text("item\nadded\u{1b}[31m")),
        attributes: vec![
            pair("target", text("shop::cart")),
            pair("code.file.path", text("src/cart.rs")),
            pair("code.line.number", Any::IntValue(12)),
            pair("user_id", Any::IntValue(-42)),
            pair("ratio", Any::DoubleValue(0.5)),
            pair("new", Any::BoolValue(true)),
            pair("name", text("Jo \"J\" Doe")),
            pair("debug", text("Some(\"a b\")")),
            pair("raw", Any::BytesValue(vec![0, 255])),
            pair("target", text("mine")),
            pair(
                "list",
                Any::ArrayValue(ArrayValue {
                    values: vec![AnyValue { value: None }, AnyValue { value: Some(Any::IntValue(1)) }],
                }),
            ),
            pair("map", Any::KvlistValue(KeyValueList { values: vec![pair("k", text("v"))] })),
            pair("span.path", text("request:cart")),
            pair("span.name", text("cart")),
            pair("thread.name", text("main")),
            pair("thread.id", Any::IntValue(1)),
        ],
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        ..LogRecord::default()
    }
}

fn shown(records: Vec<LogRecord>, format: Format, coloured: bool) -> String {
    lines(&payload(records), format, coloured)
}

#[test]
fn a_record_is_a_line() {
    assert_eq!(
        shown(vec![record()], Format::Text, false),
        "2024-02-29T23:59:59.123456Z  INFO request:cart: shop::cart: item\\nadded\\u{1b}[31m user_id=-42 ratio=0.5 \
         new=true name=\"Jo \\\"J\\\" Doe\" debug=Some(\"a b\") raw=00ff target=mine list=[, 1] map={k: v}\n"
    );
}

#[test]
fn colours_are_those_of_fmt_and_nothing_but_colours() {
    let coloured = shown(vec![record()], Format::Text, true);
    assert!(
        coloured.starts_with("\u{1b}[2m2024-02-29T23:59:59.123456Z\u{1b}[0m \u{1b}[32m INFO\u{1b}[0m "),
        "{coloured}"
    );
    let mut plain = String::new();
    for (index, part) in coloured.split('\u{1b}').enumerate() {
        plain.push_str(if index == 0 { part } else { part.split_once('m').unwrap().1 });
    }
    assert_eq!(plain, shown(vec![record()], Format::Text, false));
}

#[test]
fn pretty_shows_a_field_on_each_line_and_where_the_event_is_from() {
    let record = LogRecord {
        attributes: vec![
            pair("target", text("shop")),
            pair("user_id", Any::IntValue(42)),
            pair("code.file.path", text("src/cart.rs")),
            pair("code.line.number", Any::IntValue(12)),
            pair("thread.name", text("main")),
        ],
        ..record()
    };
    assert_eq!(
        shown(vec![record], Format::Pretty, false),
        "2024-02-29T23:59:59.123456Z  INFO shop: item\\nadded\\u{1b}[31m\n    user_id: 42\n    at src/cart.rs:12 on main\n    \
         trace abababababababababababababababab span cdcdcdcdcdcdcdcd\n"
    );
}

#[test]
fn json_lines_hold_everything() {
    let mut record = record();
    record.attributes.push(pair("nan", Any::DoubleValue(f64::NAN)));
    record.attributes.push(pair("low", Any::DoubleValue(f64::NEG_INFINITY)));
    record.attributes.push(pair("user_id", Any::IntValue(7)));
    let line = shown(vec![record], Format::Json, true);
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
    assert_eq!(line.matches("\"user_id\"").count(), 1, "a name stands once: {line}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        value,
        serde_json::json!({
            "timestamp": "2024-02-29T23:59:59.123456789Z",
            "severity": "INFO",
            "service": "shop",
            "target": "shop::cart",
            "message": "item\nadded\u{1b}[31m",
            "attributes": {
                "code.file.path": "src/cart.rs", "code.line.number": 12, "user_id": 7, "ratio": 0.5, "new": true,
                "name": "Jo \"J\" Doe", "debug": "Some(\"a b\")", "raw": "00ff", "target": "mine", "list": [null, 1],
                "map": {"k": "v"}, "span.path": "request:cart", "span.name": "cart", "thread.name": "main",
                "thread.id": 1, "nan": "NaN", "low": "-Infinity",
            },
            "trace_id": "abababababababababababababababab",
            "span_id": "cdcdcdcdcdcdcdcd",
        })
    );
}

#[test]
fn any_bytes_make_whole_lines_of_json() {
    // Nested deeper than any reader follows.
    let mut deep = AnyValue { value: Some(text("bottom")) };
    for _ in 0..200 {
        deep = AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![deep] })) };
    }
    let line = shown(vec![LogRecord { body: Some(deep), ..record() }], Format::Json, false);
    assert!(serde_json::from_str::<serde_json::Value>(&line).unwrap()["message"].is_array());

    proptest::proptest!(|(name: Vec<u8>, value: Vec<u8>, number: f64, bytes: Vec<u8>)| {
        // A record as OTLP has it, its texts of any bytes, which the official types could not hold.
        let field = |tag: u8, bytes: &[u8]| {
            let mut field = Vec::new();
            crate::encode::push_delimited(&mut field, tag, bytes);
            field
        };
        let attribute = |any: Vec<u8>| field(0x32, &[field(0x0a, &name), field(0x12, &any)].concat());
        let double = [&[0x21][..], &number.to_le_bytes()].concat();
        let record = [field(0x2a, &field(0x0a, &value)), attribute(field(0x0a, &value)), attribute(double)].concat();
        let payload = field(0x0a, &field(0x12, &field(0x12, &record)));
        let line = lines(&payload, Format::Json, false);
        proptest::prop_assert_eq!(line.matches('\n').count(), 1);
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        proptest::prop_assert_eq!(&json["message"], &String::from_utf8_lossy(&value).into_owned());
        for format in [Format::Text, Format::Pretty, Format::Json] {
            lines(&bytes, format, true);
        }
        let line = lines(&payload, Format::Text, false);
        proptest::prop_assert!(line.ends_with('\n') && !line[..line.len() - 1].chars().any(char::is_control));
    });
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
        record::put_time(&mut text, seconds * 1_000_000_000, 6);
        assert_eq!(text, expected);
    }
}

fn batch(sequence: u64, message: &str) -> Batch {
    let payload = payload(vec![LogRecord { body: any(text(message)), ..LogRecord::default() }]);
    Batch { payload, records: 1, sequence, headers: Vec::new() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn messages(path: &std::path::Path) -> Vec<String> {
    let lines = fs::read_to_string(path).unwrap();
    lines.lines().map(|line| line.rsplit(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn a_file_that_was_rotated_or_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("app.log"), dir.path().join("app.log.1"));
    let transport = Lines::new(Destination::File(path.clone()), Format::Text, Colour::Auto);
    let runtime = runtime();
    let send = |sequence, message: &str| runtime.block_on(transport.send(batch(sequence, message)));

    send(1, "one").unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & !0o640, 0, "{mode:o}: at most what the owner and its group may read");
    }
    fs::rename(&path, &moved).unwrap();
    send(2, "two").unwrap();
    send(3, "three").unwrap();
    assert_eq!(
        (messages(&moved), messages(&path)),
        (vec!["one".to_owned()], vec!["two".to_owned(), "three".to_owned()])
    );
    fs::remove_file(&path).unwrap();
    send(4, "four").unwrap();
    assert_eq!(messages(&path), ["four"]);

    // Emptied in place, as `copytruncate` does.
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    send(5, "five").unwrap();
    assert_eq!(messages(&path), ["five"]);
}

#[test]
fn a_file_that_cannot_be_opened_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("missing").join("app.log");
    let transport = Lines::new(Destination::File(path.clone()), Format::Text, Colour::Auto);
    let runtime = runtime();
    let error = runtime.block_on(transport.send(batch(1, "one"))).unwrap_err();
    assert!(matches!(&error, SendError::Retryable { .. }) && error.to_string().contains("app.log"), "{error}");
    fs::create_dir(path.parent().unwrap()).unwrap();
    runtime.block_on(transport.send(batch(1, "one"))).unwrap();
    assert_eq!(messages(&path), ["one"]);
}

/// A named pipe stands for what is slow, full or gone.
#[cfg(unix)]
mod pipes {
    use std::{
        io::{ErrorKind, Read as _},
        os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    };

    use super::*;

    fn pipe(dir: &std::path::Path) -> std::path::PathBuf {
        let path = dir.join("pipe");
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a C string that lives through the call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        path
    }

    fn reader(path: &std::path::Path) -> fs::File {
        fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
    }

    #[test]
    fn a_stuck_pipe_holds_up_nothing_but_its_own_sink() {
        let dir = tempfile::tempdir().unwrap();
        let path = pipe(dir.path());
        let mut reader = reader(&path);
        let transport = Arc::new(Lines::new(Destination::File(path), Format::Text, Colour::Auto));
        let runtime = runtime();
        // More than a pipe holds, and nobody reads.
        let large = "x".repeat(1 << 20);
        let sending = runtime.spawn({
            let transport = transport.clone();
            async move { transport.send(batch(1, &large)).await }
        });
        let sending_next = runtime.spawn(async move { transport.send(batch(2, "next")).await });
        runtime.block_on(async {
            // The runtime has one thread, and it still runs timers and other tasks.
            let waited = tokio::time::timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
            assert!(waited.is_err() && !sending.is_finished() && !sending_next.is_finished());
        });
        let drain = std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut buffer = [0; 64 << 10];
            while !all.ends_with(b" next\n") {
                match reader.read(&mut buffer) {
                    Ok(bytes) => all.extend_from_slice(&buffer[..bytes]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            all
        });
        runtime.block_on(async {
            sending.await.unwrap().unwrap();
            sending_next.await.unwrap().unwrap();
        });
        assert_eq!(drain.join().unwrap().iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn what_was_written_in_part_is_continued_behind_its_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = pipe(dir.path());
        let mut reader = reader(&path);
        let mut output = Output::new(Destination::File(path.clone()));
        // A pipe that does not wait when it is full gives the errors of a full disk.
        output.open_for_test(fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap());
        let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        let mut seen = Vec::new();
        let mut failures = 0;
        while let Err(error) = output.write(7, lines.as_bytes()) {
            assert!(matches!(error, SendError::Retryable { .. }), "{error}");
            failures += 1;
            let mut buffer = [0; 16 << 10];
            let bytes = reader.read(&mut buffer).unwrap();
            seen.extend_from_slice(&buffer[..bytes]);
            output.open_for_test(fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap());
        }
        let mut buffer = [0; 64 << 10];
        while let Ok(bytes) = reader.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..bytes]);
        }
        assert!(failures > 2, "the pipe was never full");
        // A line that was torn is there once more, whole.
        let seen = String::from_utf8(seen).unwrap();
        let mut expected = 0;
        for line in seen.lines() {
            if line == format!("line {expected}") {
                expected += 1;
            } else {
                assert!(format!("line {expected}").starts_with(line), "{line:?} where line {expected} is due");
            }
        }
        assert_eq!(expected, 20_000);
    }

    #[test]
    fn a_pipe_whose_reader_has_gone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = pipe(dir.path());
        let reader = reader(&path);
        let mut output = Output::new(Destination::File(path));
        output.write(1, b"one\n").unwrap();
        drop(reader);
        let error = output.write(2, b"two\n").unwrap_err();
        assert!(matches!(&error, SendError::Retryable { .. }), "{error}");
        assert!(error.to_string().to_lowercase().contains("pipe"), "{error}");
    }
}
