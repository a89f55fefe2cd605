//! Where the cases' events end: counted, and gone.

use std::{
    hint::black_box,
    io::{self, BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

static DELIVERED: AtomicU64 = AtomicU64::new(0);

/// So many events have arrived.
pub(crate) fn delivered() -> u64 {
    DELIVERED.load(Ordering::Acquire)
}

/// These have arrived as well.
pub(crate) fn deliver(events: u64) {
    DELIVERED.fetch_add(events, Ordering::Release);
}

/// A writer that is given one line at a time.
pub(crate) struct CountingWriter;

impl Write for CountingWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        black_box(line);
        deliver(1);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An HTTP/1.1 server on a port of its own that answers every request with `status` and counts the events of which
/// `events` finds so many in its body.
pub(crate) fn http_server(status: &'static str, events: fn(&[u8]) -> u64) -> io::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that breaks shows as loss.
            thread::spawn(move || serve(stream, status, events));
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream, status: &str, events: fn(&[u8]) -> u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 20, stream.try_clone()?);
    while let Some(body) = read_body(&mut reader)? {
        deliver(events(&body));
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
    Ok(())
}

/// The body of the next request; `None` at the end of the connection.
fn read_body(reader: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let (mut length, mut chunked, mut line) = (0, false, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
    }
    let mut body = Vec::new();
    if !chunked {
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        return Ok(Some(body));
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        line.clear();
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(Some(body));
        }
    }
}

/// How many messages lie at this path of protobuf field numbers. What is cut short ends the count.
pub(crate) fn protobuf_messages(mut bytes: &[u8], path: &[u64]) -> u64 {
    let Some((&wanted, below)) = path.split_first() else { return 1 };
    let mut count = 0;
    while let Some(tag) = varint(&mut bytes) {
        let skipped = match tag & 7 {
            0 => varint(&mut bytes).map(|_| &[][..]),
            1 => take(&mut bytes, 8),
            2 => varint(&mut bytes).and_then(|length| take(&mut bytes, length as usize)),
            5 => take(&mut bytes, 4),
            _ => None,
        };
        let Some(value) = skipped else { break };
        if tag >> 3 == wanted {
            count += protobuf_messages(value, below);
        }
    }
    count
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'b>(bytes: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (value, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(value)
}
