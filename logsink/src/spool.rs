//! The on-disk log: an append-only sequence of frames in segment files, bounded in bytes, that survives a crash at any point.
//!
//! - **Durable**: an append resolves once its frame is fsynced. One fsync serves all appends that wait (group commit).
//! - **Torn or damaged**: every frame has checksums and its offset. What a crash left half written is cut off on open; a
//!   frame that the disk damaged later is skipped and counted as lost, and takes no other with it.
//! - **Bounded**: past `bytes_max` an append fails at once with [`SpoolError::Full`]; whole segments are deleted as readers
//!   [release](Releaser::release) them.
//! - **One user**: a second process that opens the directory is refused.

mod frame;
mod reader;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fs::{File, TryLockError},
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread::JoinHandle,
};

use tokio::sync::{oneshot, watch};

pub use reader::{Frame, Reader};

use segment::Segment;

/// Bytes that may wait for the disk. Twice the largest request that the server takes (16 MiB), so that one can be written
/// while another waits; a disk that cannot keep up is felt as [`SpoolError::Busy`] rather than as memory.
const PENDING_BYTES_MAX: usize = 32 << 20;
/// The least number of segments that the byte limit is made of: deleting one frees this share of the room.
const SEGMENTS_MIN: u64 = 8;

/// How a spool is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A new segment is begun before this one grows past so many bytes.
    pub segment_bytes: u64,
    /// Bytes on disk, all segments together.
    pub bytes_max: u64,
    /// Bytes of one frame.
    pub frame_bytes_max: usize,
    /// The next frame's offset is at least this: for a directory that was lost while its reader's position was not.
    pub offset_min: u64,
}

impl Default for Options {
    /// Segments of 64 MiB, 4 GiB in all, frames of up to 20 MiB.
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, bytes_max: 4 << 30, frame_bytes_max: 20 << 20, offset_min: 0 }
    }
}

/// What a spool cannot do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpoolError {
    /// The byte limit is reached: nothing goes in before something was released.
    #[error("the log on disk is full ({bytes_max} bytes)")]
    Full {
        /// The limit.
        bytes_max: u64,
    },
    /// The disk does not keep up with what is appended.
    #[error("the disk does not keep up")]
    Busy,
    /// The frame is over its limit.
    #[error("a frame of {bytes} bytes is over the limit of {bytes_max}")]
    TooLarge {
        /// The frame's size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The disk refuses.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// The spool was closed.
    #[error("the log on disk is closed")]
    Closed,
}

impl SpoolError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |cause| Self::Io { action, path: path.to_owned(), cause: cause.to_string() }
    }
}

/// The writing end. Dropping it writes what waits and ends the log for its readers.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the appenders, the writer's thread and the readers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    options: Options,
    pending: Mutex<Pending>,
    /// Something was appended, or the spool is closing.
    wake: Condvar,
    log: Mutex<Log>,
    /// The offset before which every frame is durable; closed when the writer has ended.
    durable: watch::Receiver<u64>,
    /// Held for its lock.
    _lock: File,
}

/// Frames that wait for the writer.
#[derive(Debug, Default)]
struct Pending {
    /// Frames with blank headers.
    bytes: Vec<u8>,
    frames: Vec<Waiting>,
    closing: bool,
}

#[derive(Debug)]
struct Waiting {
    payload_bytes: u32,
    payload_crc: u32,
    done: oneshot::Sender<Result<u64, SpoolError>>,
}

/// What is on disk.
#[derive(Debug, Default)]
struct Log {
    /// Oldest first; the writer appends to the last one.
    segments: VecDeque<Segment>,
    /// Bytes in the segments and on the way there.
    bytes: u64,
}

impl Spool {
    /// Opens the log in `dir`, which is created when missing, and cuts off what a crash left half written.
    ///
    /// # Errors
    /// When another process uses the directory, or the disk refuses.
    pub fn open(dir: &Path, options: Options) -> Result<Self, SpoolError> {
        std::fs::create_dir_all(dir).map_err(SpoolError::io("create", dir))?;
        let lock = lock(&dir.join("lock"))?;
        let recovered = segment::recover(dir, options.offset_min)?;
        let (durable_at, durable) = watch::channel(recovered.next);
        let bytes = recovered.segments.iter().map(|segment| segment.bytes).sum();
        let segment_bytes = options.segment_bytes.min(options.bytes_max / SEGMENTS_MIN);
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            options: Options { segment_bytes, ..options },
            pending: Mutex::default(),
            wake: Condvar::new(),
            log: Mutex::new(Log { segments: recovered.segments, bytes }),
            durable,
            _lock: lock,
        });
        let writer = writer::Writer::new(Arc::clone(&shared), recovered.active, recovered.next, durable_at);
        let thread = std::thread::Builder::new().name("logsink-spool".into()).spawn(move || writer.run());
        let thread = thread.map_err(SpoolError::io("start the writer for", dir))?;
        Ok(Self { shared, writer: Some(thread) })
    }

    /// Appends one frame, whose content is `parts` put together; resolves to its offset when it is durable. The frame is
    /// written whether or not the answer is waited for.
    ///
    /// # Errors
    /// At once when the log is full, the disk does not keep up or the frame is too large; later when the disk refuses it. A
    /// refused frame is not in the log.
    pub fn append(&self, parts: &[&[u8]]) -> Result<Appended, SpoolError> {
        let Options { bytes_max, frame_bytes_max, .. } = self.shared.options;
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        let payload_bytes = match u32::try_from(payload) {
            Ok(bytes) if payload <= frame_bytes_max => bytes,
            _ => return Err(SpoolError::TooLarge { bytes: payload, bytes_max: frame_bytes_max }),
        };
        let mut crc = crc32fast::Hasher::new();
        parts.iter().for_each(|part| crc.update(part));

        let frame_bytes = frame::HEADER_BYTES + payload;
        let (done, answer) = oneshot::channel();
        let mut pending = self.shared.pending();
        // An empty buffer takes a frame of any allowed size.
        if !pending.bytes.is_empty() && pending.bytes.len() + frame_bytes > PENDING_BYTES_MAX {
            return Err(SpoolError::Busy);
        }
        {
            let mut log = self.shared.log();
            if log.bytes + frame_bytes as u64 > bytes_max {
                return Err(SpoolError::Full { bytes_max });
            }
            log.bytes += frame_bytes as u64;
        }
        pending.bytes.extend_from_slice(&[0; frame::HEADER_BYTES]);
        parts.iter().for_each(|part| pending.bytes.extend_from_slice(part));
        pending.frames.push(Waiting { payload_bytes, payload_crc: crc.finalize(), done });
        drop(pending);
        self.shared.wake.notify_one();
        Ok(Appended(answer))
    }

    /// A reader that begins at the frame with this offset, or at the oldest one when that is gone already.
    pub fn reader(&self, from: u64) -> Reader {
        Reader::new(Arc::clone(&self.shared), from)
    }

    /// The end that forgets.
    pub fn releaser(&self) -> Releaser {
        Releaser(Arc::clone(&self.shared))
    }

    /// Bytes on disk and on the way there.
    pub fn bytes(&self) -> u64 {
        self.shared.log().bytes
    }

    /// The offset before which every frame is durable: that of the next frame.
    pub fn durable(&self) -> u64 {
        *self.shared.durable.borrow()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shared.pending().closing = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has dropped its senders: every append has had its answer.
            let _ = writer.join();
        }
    }
}

/// Deletes what is done with.
#[derive(Debug, Clone)]
pub struct Releaser(Arc<Shared>);

impl Releaser {
    /// Every frame before this offset may be forgotten: segments that hold nothing else are deleted.
    ///
    /// # Errors
    /// When the disk refuses; what was not deleted is tried again the next time.
    pub fn release(&self, before: u64) -> Result<(), SpoolError> {
        self.0.release(before)
    }
}

// === impl Shared ===

impl Shared {
    // A panic while a lock is held leaves these plain values usable.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Taken after `pending` where both are.
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, before: u64) -> Result<(), SpoolError> {
        let mut log = self.log();
        // The last one is the writer's; the one before it ends where the next begins.
        while log.segments.len() > 1 && log.segments[1].base <= before {
            let path = log.segments[0].path(&self.dir);
            match std::fs::remove_file(&path) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                    return Err(SpoolError::io("delete", &path)(cause));
                }
                _ => {}
            }
            let bytes = log.segments[0].bytes;
            log.bytes = log.bytes.saturating_sub(bytes);
            log.segments.pop_front();
        }
        Ok(())
    }
}

// === impl Appended ===

/// An append under way.
#[derive(Debug)]
pub struct Appended(oneshot::Receiver<Result<u64, SpoolError>>);

impl Appended {
    /// Waits, blocking the thread.
    ///
    /// # Errors
    /// When the disk refused the frame.
    ///
    /// # Panics
    /// Inside an asynchronous runtime: await it there.
    pub fn wait(self) -> Result<u64, SpoolError> {
        self.0.blocking_recv().unwrap_or(Err(SpoolError::Closed))
    }
}

impl Future for Appended {
    type Output = Result<u64, SpoolError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(SpoolError::Closed)))
    }
}

/// Takes the directory's lock, which the system gives back when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, SpoolError> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(SpoolError::io("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked(path.parent().unwrap_or(path).to_owned())),
        Err(TryLockError::Error(cause)) => Err(SpoolError::io("lock", path)(cause)),
    }
}
