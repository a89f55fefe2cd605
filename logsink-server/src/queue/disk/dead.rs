//! Dead letters on disk: JSON lines, for a person and for `jq`.
//!
//! `dead-letters.jsonl` is appended to and fsynced by the letter; when it is full it becomes `dead-letters.1.jsonl`, and what
//! that held before is gone, with a line in the server's log. Letters are rare: a stream of them is a mistake that someone
//! has to see, not a load to be fast for.

mod archive;

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

pub use archive::DiskDeadArchive;

use crate::{
    otlp::AnyView,
    queue::{BoxFuture, DeadLetters, Headers, Message, Position, QueueError, split},
};

/// The file that is written.
const CURRENT: &str = "dead-letters.jsonl";
/// The one before it.
const PREVIOUS: &str = "dead-letters.1.jsonl";

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskDeadLettersOptions {
    /// Bytes of both files together.
    pub bytes_max: u64,
}

impl Default for DiskDeadLettersOptions {
    /// 256 MiB: a hundred thousand records of two kilobytes.
    fn default() -> Self {
        Self { bytes_max: 256 << 20 }
    }
}

/// Dead letters in a directory. Each line is an object: `time`, `partition`, `offset`, `record` (absent for a whole message),
/// `reason`, `instance`, `sequence`, `rules`, `traceparent` and `appended_ms` (when known) and `bytes`: in base64 the message, or a request with
/// the one record, its resource and scope.
#[derive(Debug)]
pub struct DiskDeadLetters {
    file: Arc<Mutex<Letters>>,
}

#[derive(Debug)]
struct Letters {
    current: PathBuf,
    previous: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<u32>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    appended_ms: Option<i64>,
    bytes: AnyView<'a>,
}

impl DiskDeadLetters {
    /// Opens the letters in `dir`, which is created when missing.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn open(dir: &Path, options: DiskDeadLettersOptions) -> Result<Self, QueueError> {
        let open = || {
            std::fs::create_dir_all(dir)?;
            let current = dir.join(CURRENT);
            let mut file = File::options().create(true).append(true).read(true).open(&current)?;
            end_line(&mut file)?;
            File::open(dir)?.sync_all()?;
            let bytes = file.metadata()?.len();
            let previous = dir.join(PREVIOUS);
            Ok(Letters { current, previous, file, bytes, bytes_max: options.bytes_max })
        };
        let letters = open().map_err(|error: io::Error| {
            QueueError::Failed(format!("cannot open the dead letters in {}: {error}", dir.display()))
        })?;
        Ok(Self { file: Arc::new(Mutex::new(letters)) })
    }
}

/// A line that a kill has cut must not take the next one with it.
fn end_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

impl DeadLetters for DiskDeadLetters {
    fn put(
        &self,
        message: &Message,
        record: Option<u32>,
        reason: &str,
        bytes: &[u8],
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let Position { partition, offset } = message.position;
        let Headers { instance, sequence, rules, appended_ms, .. } = &message.headers;
        let request = record.and_then(|record| split::one(&message.payload, record));
        let bytes = request.as_deref().unwrap_or(bytes);
        let line = serde_json::to_vec(&Line {
            time: jiff::Timestamp::now().to_string(),
            partition,
            offset,
            record,
            reason,
            instance: instance.as_deref(),
            sequence: *sequence,
            rules: rules.as_deref(),
            traceparent: message.headers.traceparent(),
            appended_ms: *appended_ms,
            bytes: AnyView::Bytes(bytes),
        });
        let letters = Arc::clone(&self.file);
        Box::pin(async move {
            let mut line =
                line.map_err(|error| QueueError::Failed(format!("a dead letter cannot be written: {error}")))?;
            line.push(b'\n');
            let put = move || letters.lock().unwrap_or_else(PoisonError::into_inner).put(&line);
            match tokio::task::spawn_blocking(put).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(QueueError::Unavailable(format!("cannot write a dead letter: {error}"))),
                Err(error) => Err(QueueError::Failed(format!("the writer of dead letters: {error}"))),
            }
        })
    }
}

impl Letters {
    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.bytes_max / 2 {
            if self.previous.exists() {
                tracing::warn!(path = %self.previous.display(), "the oldest dead letters are removed: their room is full");
            }
            std::fs::rename(&self.current, &self.previous)?;
            self.file = File::options().create(true).append(true).open(&self.current)?;
            self.bytes = 0;
        }
        // A person may have emptied it.
        let before = self.file.metadata()?.len();
        // A line that was cut by a full disk must not take the next one with it.
        if let Err(error) = self.file.write_all(line).and_then(|()| self.file.sync_data()) {
            self.file.set_len(before)?;
            return Err(error);
        }
        self.bytes = before + line.len() as u64;
        Ok(())
    }
}
