//! Segment files: their names, how they begin, and what is left of them after a crash.
//!
//! A name is `<offset of the first frame, 20 digits>-<salt, 16 hexadecimal digits>.log`: what reading the frames needs stands
//! where no damage inside the file reaches it.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};

use super::{
    SpoolError,
    frame::{self, HEADER_BYTES, Header, Step},
};

/// How a file begins, for people who look into it; readers pass over it.
pub(super) const PREAMBLE: &[u8; 16] = b"logsink spool 1\n";
/// Bytes read at a time when a segment is recovered.
const RECOVERY_BYTES: usize = 1 << 20;

/// A segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first frame's offset.
    pub(super) base: u64,
    pub(super) salt: u64,
    /// Its durable bytes: readers go no further.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn path(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{:020}-{:016x}.log", self.base, self.salt))
    }

    fn parse(name: &str) -> Option<Self> {
        let (base, salt) = name.strip_suffix(".log")?.split_once('-')?;
        Some(Self { base: base.parse().ok()?, salt: u64::from_str_radix(salt, 16).ok()?, bytes: 0 })
    }

    /// Creates the file durably.
    pub(super) fn create(dir: &Path, base: u64) -> Result<(Self, File), SpoolError> {
        let mut salt = [0; 8];
        getrandom::fill(&mut salt)
            .map_err(|cause| SpoolError::io("create a segment in", dir)(io::Error::other(cause.to_string())))?;
        let segment = Self { base, salt: u64::from_le_bytes(salt), bytes: PREAMBLE.len() as u64 };
        let path = segment.path(dir);
        let create = || {
            let mut file = File::options().write(true).create_new(true).open(&path)?;
            file.write_all(PREAMBLE)?;
            file.sync_all()?;
            sync_dir(dir)?;
            Ok(file)
        };
        match create() {
            Ok(file) => Ok((segment, file)),
            Err(cause) => {
                // Best effort: an empty segment does no harm.
                let _ = std::fs::remove_file(&path);
                Err(SpoolError::io("create", &path)(cause))
            }
        }
    }
}

/// What a directory holds.
pub(super) struct Recovered {
    /// Oldest first; the last one is the active one.
    pub(super) segments: VecDeque<Segment>,
    /// The file to go on with, at its end; none to begin a new one.
    pub(super) active: Option<File>,
    /// The next frame's offset.
    pub(super) next: u64,
}

/// Finds the segments of a directory and cuts off the last one's torn end.
pub(super) fn recover(dir: &Path, offset_min: u64) -> Result<Recovered, SpoolError> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(SpoolError::io("read", dir))? {
        let entry = entry.map_err(SpoolError::io("read", dir))?;
        if let Some(segment) = entry.file_name().to_str().and_then(Segment::parse) {
            let metadata = entry.metadata().map_err(SpoolError::io("read", dir))?;
            segments.push(Segment { bytes: metadata.len(), ..segment });
        }
    }
    segments.sort_by_key(|segment| segment.base);
    let mut segments = VecDeque::from(segments);
    let Some(last) = segments.back_mut() else {
        return Ok(Recovered { segments, active: None, next: offset_min });
    };
    let path = last.path(dir);
    let (mut file, end) = recover_tail(&path, last).map_err(SpoolError::io("recover", &path))?;
    last.bytes = end.bytes;
    if end.next < offset_min {
        return Ok(Recovered { segments, active: None, next: offset_min });
    }
    file.seek(SeekFrom::End(0)).map_err(SpoolError::io("recover", &path))?;
    Ok(Recovered { segments, active: Some(file), next: end.next })
}

/// Where the good part of the last segment ends.
struct Tail {
    bytes: u64,
    next: u64,
}

fn recover_tail(path: &Path, segment: &Segment) -> io::Result<(File, Tail)> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let tail = find_tail(&mut file, segment)?;
    if tail.bytes != segment.bytes {
        file.set_len(tail.bytes)?;
        // A crash while the file was created may have left less than the preamble.
        file.seek(SeekFrom::Start(0))?;
        file.write_all(PREAMBLE)?;
    }
    // What follows relies on everything before it, also on what a crashed process wrote and never synced.
    file.sync_all()?;
    Ok((file, tail))
}

fn find_tail(file: &mut File, segment: &Segment) -> io::Result<Tail> {
    let start = PREAMBLE.len() as u64;
    let mut scan = Scan::new(segment.salt, start);
    let mut tail = Tail { bytes: start, next: segment.base };
    // Everything in the segments before was durable when this one began.
    let mut durable = segment.base;
    // Where frames are missing that may never have been durable, and the offset of the first of them.
    let mut torn: Option<Tail> = None;
    while scan.at < segment.bytes {
        let chunk = scan.chunk(file, segment.bytes, RECOVERY_BYTES)?;
        for found in &chunk {
            if found.header.offset < tail.next {
                continue;
            }
            durable = durable.max(found.header.durable);
            // A frame that was written after the missing ones were durable: they are damaged, not torn.
            torn.take_if(|torn| torn.next < durable);
            if found.header.offset > tail.next && tail.next >= durable && torn.is_none() {
                torn = Some(Tail { ..tail });
            }
            tail = Tail { bytes: found.end, next: found.header.offset + 1 };
        }
    }
    Ok(torn.unwrap_or(tail))
}

/// A frame in a segment.
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// Where it ends in the file.
    pub(super) end: u64,
}

/// Reads the frames of a segment, one chunk after the other, past any damage.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) salt: u64,
    /// Where the next chunk begins.
    pub(super) at: u64,
}

impl Scan {
    pub(super) fn new(salt: u64, at: u64) -> Self {
        Self { salt, at }
    }

    /// Reads about `bytes_max` bytes, or one frame when that is longer, but nothing at or after `limit`. The chunk may be
    /// empty while there is more to read, when the bytes are damaged.
    pub(super) fn chunk(&mut self, file: &mut File, limit: u64, bytes_max: usize) -> io::Result<Vec<Found>> {
        let left = limit.saturating_sub(self.at);
        let mut bytes = read(file, self.at, left.min(bytes_max.max(HEADER_BYTES) as u64))?;
        if let Step::Partial { needed } = frame::step(&bytes, 0, self.salt)
            && needed as u64 <= left
        {
            bytes = read(file, self.at, needed as u64)?;
        }
        let (start, mut at, mut found) = (self.at, 0, Vec::new());
        loop {
            match frame::step(&bytes, at, self.salt) {
                Step::Frame { header, payload } => {
                    at = payload.end;
                    found.push(Found { header, end: start + at as u64, payload: bytes.slice(payload) });
                }
                Step::Damaged { resume } => at = resume,
                // There is more to read, in the next chunk.
                Step::Partial { needed } if start + (at + needed) as u64 <= limit => break,
                // What ends after the limit is not a frame; but a frame may still begin after its first byte.
                Step::Partial { needed } if needed > HEADER_BYTES => at += 1,
                Step::Partial { .. } => {
                    self.at = limit;
                    return Ok(found);
                }
                Step::End => break,
            }
        }
        self.at = start + at as u64;
        Ok(found)
    }
}

fn read(file: &mut File, at: u64, len: u64) -> io::Result<Bytes> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = BytesMut::zeroed(usize::try_from(len).map_err(io::Error::other)?);
    file.read_exact(&mut bytes)?;
    Ok(bytes.freeze())
}

/// Makes the directory's own entries durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened as a file, and the system keeps its entries by itself.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}
