//! The writer's thread: takes all frames that wait, writes them in one go, syncs once, answers all.

use std::{
    fs::File,
    io::Write,
    mem,
    sync::{Arc, PoisonError},
};

use tokio::sync::watch;

use super::{
    Shared, SpoolError, Waiting,
    frame::{HEADER_BYTES, Header},
    segment::{PREAMBLE, Segment},
};

/// What the group's buffer keeps between groups: a burst's memory goes back to the system.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The active segment's file, at its end; none when the next group begins a new segment.
    file: Option<File>,
    /// The next frame's offset.
    next: u64,
    durable: watch::Sender<u64>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, file: Option<File>, next: u64, durable: watch::Sender<u64>) -> Self {
        Self { shared, file, next, durable }
    }

    /// Ends when the spool is closing and nothing waits any more.
    pub(super) fn run(mut self) {
        let mut bytes = Vec::new();
        let mut frames = Vec::new();
        loop {
            {
                let mut pending = self.shared.pending();
                while pending.frames.is_empty() && !pending.closing {
                    pending = self.shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
                }
                if pending.frames.is_empty() {
                    return;
                }
                mem::swap(&mut pending.bytes, &mut bytes);
                mem::swap(&mut pending.frames, &mut frames);
            }
            let written = self.write(&mut bytes, &frames);
            if written.is_err() {
                let mut log = self.shared.log();
                log.bytes = log.bytes.saturating_sub(bytes.len() as u64);
            }
            for (index, waiting) in frames.drain(..).enumerate() {
                let answer = written.clone().map(|first| first + index as u64);
                // Whoever does not wait for the answer does not want it.
                let _ = waiting.done.send(answer);
            }
            bytes.clear();
            bytes.shrink_to(BUFFER_BYTES_KEPT);
        }
    }

    /// Writes and syncs a group; returns its first frame's offset.
    fn write(&mut self, bytes: &mut [u8], frames: &[Waiting]) -> Result<u64, SpoolError> {
        let (mut file, segment) = self.segment(bytes.len() as u64)?;
        let mut at = 0;
        for (frame, offset) in frames.iter().zip(self.next..) {
            let &Waiting { payload_bytes, payload_crc, .. } = frame;
            let header = Header { payload_bytes, payload_crc, offset, durable: self.next };
            bytes[at..at + HEADER_BYTES].copy_from_slice(&header.encode(segment.salt));
            at += HEADER_BYTES + payload_bytes as usize;
        }
        match file.write_all(bytes).and_then(|()| file.sync_data()) {
            Ok(()) => {
                self.file = Some(file);
                if let Some(active) = self.shared.log().segments.back_mut() {
                    active.bytes += bytes.len() as u64;
                }
                let first = self.next;
                self.next += frames.len() as u64;
                self.durable.send_replace(self.next);
                Ok(first)
            }
            Err(cause) => {
                self.abandon(&file, &segment, frames.len() as u64);
                Err(SpoolError::io("write", &segment.path(&self.shared.dir))(cause))
            }
        }
    }

    /// The segment to write a group of so many bytes to, and its file.
    fn segment(&mut self, group_bytes: u64) -> Result<(File, Segment), SpoolError> {
        if let Some(file) = self.file.take()
            && let Some(&active) = self.shared.log().segments.back()
        {
            let is_empty = active.bytes <= PREAMBLE.len() as u64;
            if is_empty || active.bytes + group_bytes <= self.shared.options.segment_bytes {
                return Ok((file, active));
            }
        }
        let (segment, file) = Segment::create(&self.shared.dir, self.next)?;
        let mut log = self.shared.log();
        log.bytes += segment.bytes;
        log.segments.push_back(segment);
        Ok((file, segment))
    }

    /// Leaves a segment whose file could not be written: what the system made of the group is unknown, and a second sync
    /// would not tell. The next group begins a new segment.
    fn abandon(&mut self, file: &File, segment: &Segment, frames: u64) {
        if file.set_len(segment.bytes).and_then(|()| file.sync_all()).is_err() {
            // The refused frames may come back to life after a restart: their offsets must not be used again.
            self.next += frames;
        }
        if segment.bytes > PREAMBLE.len() as u64 {
            return;
        }
        let path = segment.path(&self.shared.dir);
        let mut log = self.shared.log();
        if std::fs::remove_file(path).is_ok() && log.segments.pop_back().is_some() {
            log.bytes = log.bytes.saturating_sub(segment.bytes);
        }
    }
}
