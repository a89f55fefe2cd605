//! An Elasticsearch that counts: takes `_bulk`, counts lines by two, answers like Elasticsearch, keeps nothing.
//!
//! As little as possible is done, because it runs on the same cores: bodies are counted as they are read and not put
//! together, unless they are compressed; answers are made once per size.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use memchr::{memchr_iter, memmem};

use crate::{figures, plan::Arguments};

/// What is read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// A request's head is shorter.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The one body that is kept is about as large as the drain makes them under load.
const KEEP_BYTES_MIN: usize = 1 << 20;

/// What is counted, and how bulks are answered.
struct Sink {
    started: Instant,
    delay: Duration,
    /// Where one body is kept for the limits, while there is none yet.
    keep: Mutex<Option<PathBuf>>,
    records: AtomicU64,
    bulks: AtomicU64,
    /// Of bodies as JSON, and as they came.
    body_bytes: AtomicU64,
    wire_bytes: AtomicU64,
    /// When the first bulk had been read and how many records it had, and when the last had been; nanoseconds.
    first_ns: AtomicU64,
    first_records: AtomicU64,
    last_ns: AtomicU64,
}

/// `sink --port N [--delay-ms N] [--keep FILE]`: runs until it is killed.
pub(crate) fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", arguments.number("--port")?))?;
    let delay_ms = arguments.get("--delay-ms").map_or(Ok(0), str::parse).context("--delay-ms")?;
    let sink: &'static Sink = Box::leak(Box::new(Sink {
        started: Instant::now(),
        delay: Duration::from_millis(delay_ms),
        keep: Mutex::new(arguments.get("--keep").map(PathBuf::from)),
        records: AtomicU64::new(0),
        bulks: AtomicU64::new(0),
        body_bytes: AtomicU64::new(0),
        wire_bytes: AtomicU64::new(0),
        first_ns: AtomicU64::new(0),
        first_records: AtomicU64::new(0),
        last_ns: AtomicU64::new(0),
    }));
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks shows as records that are missing.
        thread::spawn(move || Connection::new(sink, stream).and_then(Connection::serve));
    }
    Ok(())
}

/// What the head of a request says.
struct Head {
    method: String,
    path: String,
    body: Length,
    encoding: String,
    expects: bool,
}

enum Length {
    Bytes(usize),
    Chunked,
}

struct Connection {
    sink: &'static Sink,
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and not taken.
    from: usize,
    to: usize,
    /// The last bulk's answer and what it answered.
    answer: Vec<u8>,
    answered: Option<(usize, String, bool)>,
}

impl Connection {
    fn new(sink: &'static Sink, stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let buffer = vec![0; BUFFER_BYTES];
        Ok(Self { sink, stream, buffer, from: 0, to: 0, answer: Vec::new(), answered: None })
    }

    fn serve(mut self) -> io::Result<()> {
        while let Some(head) = self.head()? {
            if head.expects {
                self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if head.path.split('?').next().is_some_and(|path| path.ends_with("/_bulk")) {
                self.bulk(&head)?;
            } else {
                self.body(&head, |_| ())?;
                self.other(&head)?;
            }
        }
        Ok(())
    }

    /// Reads more; false at the end of the connection.
    fn fill(&mut self) -> io::Result<bool> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let read = self.stream.read(&mut self.buffer[self.to..])?;
        self.to += read;
        Ok(read > 0)
    }

    /// Up to and with `end`, which is taken out of the buffer.
    fn until(&mut self, end: &[u8]) -> io::Result<Option<String>> {
        loop {
            let seen = &self.buffer[self.from..self.to];
            if let Some(at) = memmem::find(seen, end) {
                let text = String::from_utf8_lossy(&seen[..at]).into_owned();
                self.from += at + end.len();
                return Ok(Some(text));
            }
            if seen.len() > HEAD_BYTES_MAX {
                return Err(io::Error::other("a head without an end"));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn head(&mut self) -> io::Result<Option<Head>> {
        let Some(text) = self.until(b"\r\n\r\n")? else { return Ok(None) };
        let mut lines = text.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut head = Head { method, path, body: Length::Bytes(0), encoding: String::new(), expects: false };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => head.body = Length::Bytes(value.parse().map_err(io::Error::other)?),
                "transfer-encoding" => head.body = Length::Chunked,
                "content-encoding" => head.encoding = value.to_owned(),
                "expect" => head.expects = true,
                _ => {}
            }
        }
        Ok(Some(head))
    }

    /// Shows the body to `take`, in pieces.
    fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        match head.body {
            Length::Bytes(length) => self.exactly(length, &mut take),
            Length::Chunked => loop {
                let size = self.until(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
                self.exactly(size, &mut take)?;
                self.until(b"\r\n")?;
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    fn exactly(&mut self, mut length: usize, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while length > 0 {
            if self.from == self.to && !self.fill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = self.to.min(self.from + length);
            take(&self.buffer[self.from..end]);
            length -= end - self.from;
            self.from = end;
        }
        Ok(())
    }

    fn bulk(&mut self, head: &Head) -> io::Result<()> {
        let keeping = self.sink.keep.lock().is_ok_and(|keep| keep.is_some());
        let whole = keeping || !head.encoding.is_empty();
        let (mut lines, mut wire, mut body, mut is_create) = (0, 0, Vec::new(), None);
        self.body(head, |piece| {
            wire += piece.len();
            if whole {
                body.extend_from_slice(piece);
            } else {
                lines += memchr_iter(b'\n', piece).count();
            }
            is_create.get_or_insert_with(|| piece.starts_with(b"{\"create"));
        })?;
        let mut length = wire;
        if whole {
            let body = decoded(&head.encoding, body)?;
            lines = memchr_iter(b'\n', &body).count();
            length = body.len();
            is_create = Some(body.starts_with(b"{\"create"));
            if keeping && length >= KEEP_BYTES_MIN {
                self.sink.keep(&body)?;
            }
        }
        let records = lines / 2;
        self.sink.count(records, length, wire);
        if !self.sink.delay.is_zero() {
            thread::sleep(self.sink.delay);
        }
        let asked = (records, filter(&head.path), is_create == Some(true));
        if self.answered.as_ref() != Some(&asked) {
            self.answer = answer(200, &bulk_answer(asked.0, &asked.1, asked.2));
            self.answered = Some(asked);
        }
        self.stream.write_all(&self.answer)
    }

    /// What is asked before and beside bulks.
    fn other(&mut self, head: &Head) -> io::Result<()> {
        let path = head.path.split('?').next().unwrap_or_default();
        let answer = match (head.method.as_str(), path) {
            ("GET", "/_bench") => answer(200, &self.sink.figures()),
            ("GET", "/") => answer(
                200,
                r#"{"name":"sink","cluster_name":"sink","cluster_uuid":"c2luaw","version":{"number":"9.5.3","build_flavor":"default","build_type":"docker","build_hash":"0","build_date":"2026-01-01T00:00:00Z","build_snapshot":false,"lucene_version":"10.3.0","minimum_wire_compatibility_version":"8.19.0","minimum_index_compatibility_version":"8.0.0"},"tagline":"You Know, for Search"}"#,
            ),
            ("GET", "/_cluster/health") => answer(200, r#"{"cluster_name":"sink","status":"green","timed_out":false}"#),
            // The status line and no body.
            ("HEAD", _) => b"HTTP/1.1 200 OK\r\nX-elastic-product: Elasticsearch\r\ncontent-length: 0\r\n\r\n".to_vec(),
            ("GET", _) => {
                answer(404, r#"{"error":{"type":"resource_not_found_exception","reason":"none"},"status":404}"#)
            }
            _ => answer(200, r#"{"acknowledged":true,"shards_acknowledged":true}"#),
        };
        self.stream.write_all(&answer)
    }
}

impl Sink {
    fn count(&self, records: usize, body_bytes: usize, wire_bytes: usize) {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if self.first_ns.compare_exchange(0, now, Relaxed, Relaxed).is_ok() {
            self.first_records.store(records as u64, Relaxed);
        }
        self.last_ns.fetch_max(now, Relaxed);
        self.bulks.fetch_add(1, Relaxed);
        self.body_bytes.fetch_add(body_bytes as u64, Relaxed);
        self.wire_bytes.fetch_add(wire_bytes as u64, Relaxed);
        self.records.fetch_add(records as u64, Relaxed);
    }

    fn keep(&self, body: &[u8]) -> io::Result<()> {
        let Some(path) = self.keep.lock().ok().and_then(|mut keep| keep.take()) else { return Ok(()) };
        // Under its name only when it is whole.
        let part = path.with_extension("part");
        fs::write(&part, body)?;
        fs::rename(part, path)
    }

    fn figures(&self) -> String {
        let figures = [
            ("records", &self.records),
            ("bulks", &self.bulks),
            ("body_bytes", &self.body_bytes),
            ("wire_bytes", &self.wire_bytes),
            ("first_ns", &self.first_ns),
            ("first_records", &self.first_records),
            ("last_ns", &self.last_ns),
        ];
        figures::line(&figures.map(|(name, value)| (name, value.load(Relaxed) as f64)))
    }
}

fn decoded(encoding: &str, body: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match encoding {
        "" | "identity" => return Ok(body),
        "gzip" => flate2::read::MultiGzDecoder::new(&body[..]).read_to_end(&mut plain)?,
        "zstd" => zstd::stream::read::Decoder::new(&body[..])?.read_to_end(&mut plain)?,
        other => return Err(io::Error::other(format!("content-encoding: {other}"))),
    };
    Ok(plain)
}

/// The value of `filter_path`, with its commas as they are meant.
fn filter(path: &str) -> String {
    let (_, query) = path.split_once('?').unwrap_or_default();
    let value = query.split('&').find_map(|pair| pair.strip_prefix("filter_path="));
    value.map(|value| value.replace("%2C", ",").replace("%2A", "*")).unwrap_or_default()
}

/// What Elasticsearch answers when all are stored: with `filter_path`, only what it names of that.
fn bulk_answer(records: usize, filter: &str, is_create: bool) -> String {
    let action = if is_create { "create" } else { "index" };
    let wanted = |part: &str| filter.is_empty() || filter.split(',').any(|path| path == part);
    let item = if filter.is_empty() {
        format!(
            r#"{{"{action}":{{"_index":".ds-logs-logsink-default-2026.01.01-000001","_id":"AAAAAAAAAAAAAAAAAAAA","_version":1,"result":"created","_shards":{{"total":2,"successful":1,"failed":0}},"_seq_no":1,"_primary_term":1,"status":201}}}}"#
        )
    } else {
        format!(r#"{{"{action}":{{"status":201}}}}"#)
    };
    let mut members = Vec::new();
    if wanted("errors") {
        members.push(r#""errors":false"#.to_owned());
    }
    if wanted("took") {
        members.push(r#""took":1"#.to_owned());
    }
    if filter.is_empty() || ["items", "items.*", "items.*.status", "items.*.*"].into_iter().any(wanted) {
        members.push(format!(r#""items":[{}]"#, vec![item; records].join(",")));
    }
    format!("{{{}}}", members.join(","))
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    let reason = if status == 200 { "OK" } else { "Not Found" };
    format!(
        "HTTP/1.1 {status} {reason}\r\nX-elastic-product: Elasticsearch\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_what_filter_path_names() {
        assert_eq!(bulk_answer(2, "errors", true), r#"{"errors":false}"#);
        assert_eq!(filter("/x/_bulk?filter_path=errors%2Citems.*.status"), "errors,items.*.status");
        let answer = bulk_answer(2, "errors,items.*.status,items.*.error.type", true);
        assert_eq!(answer, r#"{"errors":false,"items":[{"create":{"status":201}},{"create":{"status":201}}]}"#);
        let whole: serde_json::Value = serde_json::from_str(&bulk_answer(3, "", false)).unwrap();
        assert_eq!((whole["errors"].as_bool(), whole["items"].as_array().unwrap().len()), (Some(false), 3));
        assert_eq!(bulk_answer(1, "items.*.error", true), "{}");
    }
}
