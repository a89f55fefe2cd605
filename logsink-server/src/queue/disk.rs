//! The standalone queue: one partition, on the on-disk log of the library ([`logsink::spool`]).
//!
//! An append resolves when its frame is fsynced. When the log is full, or the disk does not keep up, an append fails with
//! [`QueueError::Unavailable`] and the sender is told to try again. The position to read from is not kept here: the
//! embedded store keeps it in the manifest that also holds what was read.

mod dead;
mod header;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use logsink::spool::{self, Frame, Reader, Releaser, Spool, SpoolError};
use tokio::task::JoinHandle;

use super::{Batch, BoxFuture, Fetched, Message, Position, QueueError, QueueReader, QueueWriter};
use crate::metrics::Metrics;

pub use dead::{DiskDeadArchive, DiskDeadLetters, DiskDeadLettersOptions};

/// The log's only partition.
pub const PARTITION: i32 = 0;

/// More than the log puts around a frame. Too much makes the queue unready a few bytes before it is full.
const FRAME_OVERHEAD_BYTES: u64 = 64;

/// How the disk queue is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskOptions {
    /// Bytes that the log may hold before appends are refused.
    pub bytes_max: u64,
    /// The offset of the first message to read. The next message appended gets at least this offset.
    pub from: i64,
}

impl Default for DiskOptions {
    /// 4 GiB, read from the oldest.
    fn default() -> Self {
        Self { bytes_max: 4 << 30, from: 0 }
    }
}

/// Opens the queue in `dir`; its two ends go to ingest and to drain. Dropping the writer closes the queue: the reader gets
/// what is left and then [`Fetched::Closed`].
///
/// # Errors
/// When another process uses the directory, or the disk refuses.
pub fn open(dir: &Path, options: DiskOptions, metrics: Arc<Metrics>) -> Result<(DiskWriter, DiskReader), QueueError> {
    let from = u64::try_from(options.from).unwrap_or(0);
    let layout = spool::Options { bytes_max: options.bytes_max, offset_min: from, ..spool::Options::default() };
    let spool = Arc::new(Spool::open(dir, layout)?);
    let committed = Arc::new(AtomicU64::new(from));
    // Weak: the metrics must not keep the log open.
    let (shown, before) = (Arc::downgrade(&spool), Arc::clone(&committed));
    metrics.ask_before_showing(move |metrics| {
        if let Some(spool) = shown.upgrade() {
            metrics.queue_disk_bytes.set(gauge(spool.bytes()));
            metrics.lag(PARTITION, Some(gauge(spool.durable().saturating_sub(before.load(Relaxed)))));
        }
    });
    let (reader, releaser) = (Some(spool.reader(from)), spool.releaser());
    let bytes_max = options.bytes_max;
    let reader = DiskReader { reader, reading: None, releaser, committed, lost: 0, metrics };
    Ok((DiskWriter { spool, bytes_max, refused_bytes: AtomicU64::new(0) }, reader))
}

/// The writing end.
#[derive(Debug)]
pub struct DiskWriter {
    spool: Arc<Spool>,
    bytes_max: u64,
    /// What the last frame needs that found the log full; 0 when one was taken after it.
    refused_bytes: AtomicU64,
}

impl QueueWriter for DiskWriter {
    fn append(&self, mut batch: Batch) -> BoxFuture<'_, Result<(), QueueError>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        batch.headers.appended_ms = i64::try_from(now.as_millis()).ok();
        let header = header::encode(&batch.headers);
        // The log copies: nothing of the batch is held while the disk works.
        let appended = self.spool.append(&[&header, &batch.payload]);
        let bytes = (header.len() + batch.payload.len()) as u64 + FRAME_OVERHEAD_BYTES;
        self.refused_bytes.store(if matches!(appended, Err(SpoolError::Full { .. })) { bytes } else { 0 }, Relaxed);
        Box::pin(async move {
            appended?.await?;
            Ok(())
        })
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        // Senders stay away from a server that is not ready, so it cannot be an append that shows that there is room again.
        let refused = self.refused_bytes.load(Relaxed);
        let is_full = refused > 0 && self.spool.bytes() + refused >= self.bytes_max;
        Box::pin(
            async move { if is_full { Err(SpoolError::Full { bytes_max: self.bytes_max }.into()) } else { Ok(()) } },
        )
    }
}

/// The reading end.
#[derive(Debug)]
pub struct DiskReader {
    /// Away while `reading`.
    reader: Option<Reader>,
    /// A read under way. It outlives a `next` that was dropped, and the next one takes its answer.
    reading: Option<JoinHandle<Read>>,
    releaser: Releaser,
    /// The offset before which everything is done with.
    committed: Arc<AtomicU64>,
    /// Lost messages that were reported.
    lost: u64,
    metrics: Arc<Metrics>,
}

/// The reader comes back with what it read.
type Read = (Reader, Result<Vec<Frame>, SpoolError>);

impl DiskReader {
    async fn fetch(&mut self, bytes_max: usize) -> Result<Fetched, QueueError> {
        loop {
            let reading = match &mut self.reading {
                Some(reading) => reading,
                None => {
                    let Some(reader) = &mut self.reader else {
                        return Err(QueueError::Failed("the disk queue's reader has failed".into()));
                    };
                    if !reader.wait().await {
                        return Ok(Fetched::Closed);
                    }
                    let Some(mut reader) = self.reader.take() else { continue };
                    self.reading.insert(tokio::task::spawn_blocking(move || {
                        let frames = reader.read(bytes_max);
                        (reader, frames)
                    }))
                }
            };
            let read = reading.await;
            self.reading = None;
            let (reader, frames) =
                read.map_err(|error| QueueError::Failed(format!("the disk queue's reader: {error}")))?;
            let lost = reader.lost();
            self.reader = Some(reader);
            self.report(lost);
            let messages: Vec<Message> = frames?.into_iter().filter_map(|frame| self.message(frame)).collect();
            if !messages.is_empty() {
                return Ok(Fetched::Messages(messages));
            }
        }
    }

    fn message(&self, frame: Frame) -> Option<Message> {
        let offset = i64::try_from(frame.offset).unwrap_or(i64::MAX);
        let Some((headers, payload)) = header::decode(frame.payload) else {
            // Its checksum is right: another version of the server wrote it.
            tracing::error!(
                offset,
                "a message of the disk queue has a header that this version does not know: it is lost"
            );
            self.metrics.queue_lost.inc();
            return None;
        };
        let position = Position { partition: PARTITION, offset };
        Some(Message { position, epoch: 0, payload, headers, dropped: Vec::new() })
    }

    fn report(&mut self, lost: u64) {
        let new = lost - self.lost;
        if new > 0 {
            tracing::error!(messages = new, "messages of the disk queue are damaged or deleted: they are lost");
            self.metrics.queue_lost.inc_by(new);
            self.lost = lost;
        }
    }
}

impl QueueReader for DiskReader {
    fn next(&mut self, bytes_max: usize) -> BoxFuture<'_, Result<Fetched, QueueError>> {
        Box::pin(self.fetch(bytes_max))
    }

    fn commit(&mut self, next: &[Position]) -> Result<(), QueueError> {
        for position in next.iter().filter(|position| position.partition == PARTITION) {
            let offset = u64::try_from(position.offset).unwrap_or(0);
            self.committed.fetch_max(offset, Relaxed);
            self.releaser.release(offset)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        Box::pin(async { Ok(()) })
    }
}

impl From<SpoolError> for QueueError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge { bytes, bytes_max } => Self::TooLarge { bytes, bytes_max },
            // What the disk refuses today (no space left) it may take tomorrow, and the batch is not lost: its sender has it.
            SpoolError::Full { .. } | SpoolError::Busy | SpoolError::Io { .. } => Self::Unavailable(error.to_string()),
            SpoolError::Locked(_) | SpoolError::Closed => Self::Failed(error.to_string()),
        }
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
