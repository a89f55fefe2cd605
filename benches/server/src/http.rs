//! One HTTP/1.1 request after the other over a connection that stays: as much as asking the sink and Elasticsearch takes.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, ensure};

/// No answer here takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// To `host:port`.
    pub(crate) fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| address.to_owned())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    /// The body of the answer, which has to be a good one.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/x-ndjson\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let (mut line, mut status, mut length) = (String::new(), String::new(), 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "{method} {path}: the connection was closed");
            let header = line.trim_end().to_ascii_lowercase();
            if status.is_empty() {
                status = header;
            } else if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            } else if header.is_empty() {
                break;
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        ensure!(status.contains(" 200 "), "{method} {path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(answer)
    }

    /// The same as text, of a GET.
    pub(crate) fn get(&mut self, path: &str) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.call("GET", path, b"")?)?)
    }
}
