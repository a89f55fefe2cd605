//! Reading the log, behind the writer: only what is durable.

use std::{fs::File, sync::Arc};

use bytes::Bytes;
use tokio::sync::watch;

use super::{
    Shared, SpoolError,
    segment::{PREAMBLE, Scan, Segment},
};

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its place in the log: each frame's is above those before it, and by one unless frames were lost.
    pub offset: u64,
    /// What was appended. Shares memory with the frames that were read together with it.
    pub payload: Bytes,
}

/// A place in the log. Each reader has its own.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    durable: watch::Receiver<u64>,
    next: u64,
    lost: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    segment: Segment,
    file: File,
    scan: Scan,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, from: u64) -> Self {
        let durable = shared.durable.clone();
        Self { shared, durable, next: from, lost: 0, open: None }
    }

    /// Waits until there is something to read; `false` when nothing will come any more. Cancel-safe.
    pub async fn wait(&mut self) -> bool {
        self.durable.wait_for(|&durable| durable > self.next).await.is_ok()
    }

    /// Reads up to about `bytes_max` bytes, at least one frame; empty when everything durable has been read. Blocks on the
    /// disk, not on the writer.
    ///
    /// # Errors
    /// When the disk refuses. The reader stays where it was.
    pub fn read(&mut self, bytes_max: usize) -> Result<Vec<Frame>, SpoolError> {
        loop {
            // Before the segments' sizes are looked at: what is durable here is in them there.
            let durable = *self.durable.borrow();
            if self.next >= durable {
                return Ok(Vec::new());
            }
            if !self.stand(durable)? {
                continue;
            }
            let Some(open) = &mut self.open else { continue };
            let found = open.scan.chunk(&mut open.file, open.segment.bytes, bytes_max);
            let found = found.map_err(SpoolError::io("read", &open.segment.path(&self.shared.dir)))?;
            let mut frames = Vec::with_capacity(found.len());
            for found in found {
                let offset = found.header.offset;
                if offset >= self.next {
                    self.pass(offset);
                    self.next = offset + 1;
                    frames.push(Frame { offset, payload: found.payload });
                }
            }
            if !frames.is_empty() {
                return Ok(frames);
            }
        }
    }

    /// Frames that the reader should have met and that were not there: deleted, or damaged on the disk.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Opens the segment to read from; `false` when the reader has moved past what is not there.
    fn stand(&mut self, durable: u64) -> Result<bool, SpoolError> {
        let segment = {
            let log = self.shared.log();
            let open = self.open.as_ref().map(|open| (open.segment.salt, open.scan.at));
            let current = open.and_then(|(salt, at)| {
                let index = log.segments.iter().position(|segment| segment.salt == salt)?;
                Some(if at < log.segments[index].bytes { index } else { index + 1 })
            });
            let before = || log.segments.iter().rposition(|segment| segment.base <= self.next).unwrap_or(0);
            log.segments.get(current.unwrap_or_else(before)).copied()
        };
        let Some(segment) = segment else {
            self.pass(durable);
            return Ok(false);
        };
        self.pass(segment.base);
        match &mut self.open {
            Some(open) if open.segment.salt == segment.salt => open.segment = segment,
            open => {
                let path = segment.path(&self.shared.dir);
                let file = File::open(&path).map_err(SpoolError::io("open", &path))?;
                let scan = Scan::new(segment.salt, PREAMBLE.len() as u64);
                *open = Some(Open { segment, file, scan });
            }
        }
        Ok(true)
    }

    /// Moves on to `offset`, when that is ahead: what stood before it is lost.
    fn pass(&mut self, offset: u64) {
        self.lost += offset.saturating_sub(self.next);
        self.next = self.next.max(offset);
    }
}
