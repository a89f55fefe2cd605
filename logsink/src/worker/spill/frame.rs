//! A batch as a frame of the spool. Little endian:
//!
//! ```text
//!  0  version, 1
//!  1  length of the instance id
//!  2  length of the rules' revision; 0xffff: there is none
//!  4  records
//!  8  sequence number
//! 16  Unix time of the writing, in nanoseconds
//! 24  where the records begin in the payload
//! 28  instance id, revision, payload
//! ```
//!
//! Everything that a batch is sent with is in it, so that it is sent the same way whoever does it, and however often.

use std::sync::Arc;

use bytes::Bytes;

use crate::{batch::Sealed, worker::backlog::Revision};

pub(super) const VERSION: u8 = 1;
const HEAD_BYTES: usize = 28;
const NO_REVISION: u16 = u16::MAX;

/// A batch with everything that it is sent with.
#[derive(Debug, Clone)]
pub(super) struct Spilled {
    pub(super) instance: Arc<str>,
    pub(super) sequence: u64,
    pub(super) revision: Revision,
    pub(super) time_ns: u64,
    pub(super) sealed: Sealed,
}

impl Spilled {
    /// What stands before the payload.
    pub(super) fn head(&self) -> Vec<u8> {
        // Both are short: an instance id is a UUID, a revision what a source of rules calls a document.
        let instance = &self.instance.as_bytes()[..self.instance.len().min(u8::MAX.into())];
        let revision = self.revision.as_deref().map(str::as_bytes);
        let revision = revision.filter(|revision| revision.len() < NO_REVISION.into());
        let revision_bytes = revision.map_or(NO_REVISION, |revision| revision.len() as u16);

        let mut head = Vec::with_capacity(HEAD_BYTES + instance.len() + revision.map_or(0, <[u8]>::len));
        head.extend_from_slice(&[VERSION, instance.len() as u8]);
        head.extend_from_slice(&revision_bytes.to_le_bytes());
        head.extend_from_slice(&self.sealed.records.to_le_bytes());
        head.extend_from_slice(&self.sequence.to_le_bytes());
        head.extend_from_slice(&self.time_ns.to_le_bytes());
        head.extend_from_slice(&(self.sealed.body_start() as u32).to_le_bytes());
        head.extend_from_slice(instance);
        head.extend_from_slice(revision.unwrap_or_default());
        head
    }

    /// Reads a frame; `None` when it is of another version, or makes no sense.
    pub(super) fn read(frame: &Bytes) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = frame.first_chunk()?;
        if head[0] != VERSION {
            return None;
        }
        let u64_at = |at: usize| head[at..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        let u32_at = |at: usize| head[at..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        let revision_bytes = u16::from_le_bytes([head[2], head[3]]);
        let instance_end = HEAD_BYTES + usize::from(head[1]);
        let revision_end = instance_end + if revision_bytes == NO_REVISION { 0 } else { revision_bytes.into() };
        let text = |from: usize, to: usize| std::str::from_utf8(frame.get(from..to)?).ok();
        let instance = text(HEAD_BYTES, instance_end)?.into();
        let revision = text(instance_end, revision_end)?;
        Some(Self {
            instance,
            sequence: u64_at(8),
            revision: (revision_bytes != NO_REVISION).then(|| revision.into()),
            time_ns: u64_at(16),
            sealed: Sealed::restore(frame.slice(revision_end..), u32_at(24) as usize, u32_at(4))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Envelope;

    #[test]
    fn what_is_written_is_read() {
        let record = [0x12, 2, 0x10, 9];
        let sealed = Envelope::new(&[]).seal(&record, 1);
        for revision in [None, Some(Arc::from("r7")), Some(Arc::from(""))] {
            let (instance, time_ns) = (Arc::from("an-instance"), 77);
            let written = Spilled { instance, sequence: 1 << 40, revision, time_ns, sealed: sealed.clone() };
            let mut frame = written.head();
            frame.extend_from_slice(&sealed.payload);
            let read = Spilled::read(&Bytes::from(frame.clone())).unwrap();
            assert_eq!((&read.instance, read.sequence), (&written.instance, written.sequence));
            assert_eq!((&read.revision, read.time_ns), (&written.revision, written.time_ns));
            assert_eq!((&read.sealed.payload, read.sealed.body()), (&sealed.payload, &record[..]));
            assert_eq!(read.sealed.records, 1);

            frame[0] = VERSION + 1;
            assert!(Spilled::read(&Bytes::from(frame)).is_none(), "not misread");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        proptest::proptest!(|(mut bytes: Vec<u8>)| {
            let _ = Spilled::read(&Bytes::from(bytes.clone()));
            bytes.insert(0, VERSION);
            let _ = Spilled::read(&Bytes::from(bytes));
        });
    }
}
