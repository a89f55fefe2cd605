//! The directories of a sink's spools: numbered slots, each of one process at a time.
//!
//! ```text
//! <dir>/<service>/<sink>/0/   lock, format, cursor, segments
//!                        1/   …
//! ```
//!
//! A process takes the first slot that no other has locked, and with it what a dead one left there. `format` holds the
//! version of what is inside: a slot of a newer version is left alone. `cursor` holds the offset before which everything
//! has been taken by the sink; it is written without a sync, because an older one (after the machine has failed) means only
//! that batches are sent again, which their sequence numbers tell.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{frame, ledger::Ledger};
use crate::spool::{Options, Reader, Releaser, Spool, SpoolError};

/// Slots that are tried: more processes of one service than one machine runs.
const SLOTS_MAX: u32 = 256;
/// A segment is what a start reads of a spool, and what is deleted at a time.
const SEGMENT_BYTES: u64 = 16 << 20;
/// More than a batch ever has: its bound is 4 MiB.
const FRAME_BYTES_MAX: usize = 8 << 20;
/// An offset and its checksum.
const CURSOR_BYTES: usize = 12;

/// Where a sink's batches are spilled to, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Holds the slots.
    pub(crate) dir: PathBuf,
    /// Of one slot.
    pub(crate) bytes_max: u64,
    /// Batches older than this are not sent any more.
    pub(crate) age_max: Duration,
}

/// A slot that this process has locked.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) dir: PathBuf,
    pub(super) spool: Spool,
    releaser: Releaser,
    /// `None` while it reads.
    pub(super) reader: Option<Reader>,
    pub(super) ledger: Ledger,
    cursor: File,
    cursor_at: u64,
    /// The offset up to which everything durable was read.
    pub(super) caught_up: u64,
    /// Frames that the reader missed, as far as they were told of.
    lost: u64,
    /// Where the cursor cannot be read, the first gap is most likely what was done with.
    gap_is_known: bool,
}

/// Why a slot is not to be had.
#[derive(Debug)]
pub(super) enum Refused {
    /// Another process has it.
    Taken,
    /// It was written by this newer version.
    Newer(String),
    Failed(SpoolError),
}

impl Settings {
    /// Takes the first slot that is free.
    pub(super) fn claim(&self) -> Result<Slot, SpoolError> {
        for number in 0..SLOTS_MAX {
            match self.open(&self.dir.join(number.to_string())) {
                Ok(slot) => return Ok(slot),
                // The lane says so when it comes to the others.
                Err(Refused::Taken | Refused::Newer(_)) => {}
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        Err(SpoolError::Locked(self.dir.clone()))
    }

    /// The slots, besides this one, in which there may be something; oldest process first, as far as numbers tell.
    pub(super) fn others(&self, own: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
        let mut slots: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter_map(|path| Some((number(&path)?, path)))
            .filter(|(_, path)| path != own && has_segments(path))
            .collect();
        slots.sort_unstable();
        slots.into_iter().map(|(_, path)| path).collect()
    }

    /// Locks a slot and finds what is in it.
    pub(super) fn open(&self, dir: &Path) -> Result<Slot, Refused> {
        let failed = |action, path: &Path, cause: io::Error| {
            let (path, cause) = (path.to_owned(), cause.to_string());
            Refused::Failed(SpoolError::Io { action, path, cause })
        };
        fs::create_dir_all(dir).map_err(|cause| failed("create", dir, cause))?;
        // Before anything in it is touched.
        if let Some(version) = newer(&dir.join("format")) {
            return Err(Refused::Newer(version));
        }
        let path = dir.join("cursor");
        let cursor = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let cursor = cursor.map_err(|cause| failed("open", &path, cause))?;
        let at = read_cursor(&cursor);
        let options = Options {
            segment_bytes: SEGMENT_BYTES,
            bytes_max: self.bytes_max,
            frame_bytes_max: FRAME_BYTES_MAX,
            offset_min: at.unwrap_or(0),
        };
        let spool = Spool::open(dir, options).map_err(|error| match error {
            SpoolError::Locked(_) => Refused::Taken,
            other => Refused::Failed(other),
        })?;
        let format = dir.join("format");
        if !format.exists() {
            let written = fs::write(&format, format!("{}\n", frame::VERSION));
            written.map_err(|cause| failed("write", &format, cause))?;
        }
        // It may have moved on before the lock was had.
        let mut at = read_cursor(&cursor);
        if at.is_none() && !has_segments(dir) {
            write_cursor(&cursor, 0).map_err(|cause| failed("write", &path, cause))?;
            at = Some(0);
        }
        let from = at.unwrap_or(0);
        Ok(Slot {
            dir: dir.to_owned(),
            releaser: spool.releaser(),
            reader: Some(spool.reader(from)),
            spool,
            ledger: Ledger::new(from),
            cursor,
            cursor_at: from,
            caught_up: from,
            lost: 0,
            gap_is_known: at.is_none(),
        })
    }
}

impl Slot {
    /// Forgets what is done with.
    ///
    /// # Errors
    /// When the disk refuses: then it is sent again after a restart.
    pub(super) fn release(&mut self) -> Result<(), SpoolError> {
        let before = self.ledger.settled_before();
        if before == self.cursor_at {
            return Ok(());
        }
        self.cursor_at = before;
        let written = write_cursor(&self.cursor, before);
        written.map_err(|cause| SpoolError::Io {
            action: "write",
            path: self.dir.join("cursor"),
            cause: cause.to_string(),
        })?;
        // After the cursor, so that no reader misses what was deleted.
        self.releaser.release(before)
    }

    /// How many more frames are missing than were told of, of `lost` in all.
    pub(super) fn lost_since(&mut self, lost: u64) -> u64 {
        let more = lost - std::mem::replace(&mut self.lost, lost);
        if more > 0 && std::mem::take(&mut self.gap_is_known) { 0 } else { more }
    }

    /// Whether everything in it has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.ledger.is_settled() && self.ledger.settled_before() >= self.spool.durable()
    }

    /// Deletes what was sent; nothing may be appended any more. Blocks on the disk.
    pub(super) fn clear(&self) {
        // Best effort: what stays is known to be sent, and goes with the next segment.
        for path in segments(&self.dir) {
            let _ = fs::remove_file(path);
        }
    }
}

fn read_cursor(mut file: &File) -> Option<u64> {
    let mut bytes = [0; CURSOR_BYTES];
    file.rewind().and_then(|()| file.read_exact(&mut bytes)).ok()?;
    let (at, crc) = bytes.split_first_chunk::<8>()?;
    (crc == crc32fast::hash(at).to_le_bytes()).then(|| u64::from_le_bytes(*at))
}

fn write_cursor(mut file: &File, at: u64) -> io::Result<()> {
    let mut bytes = [0; CURSOR_BYTES];
    bytes[..8].copy_from_slice(&at.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32fast::hash(&at.to_le_bytes()).to_le_bytes());
    file.rewind()?;
    file.write_all(&bytes)
}

/// The version in a slot's `format`, when it is not for us.
fn newer(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let known = text.trim().parse::<u8>().is_ok_and(|version| version <= frame::VERSION);
    // Nothing is what a crash leaves of a file that was just made.
    (!known && !text.trim().is_empty()).then(|| text.trim().to_owned())
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

fn has_segments(dir: &Path) -> bool {
    !segments(dir).is_empty()
}
