//! The format of a frame: a header of 32 bytes, then the payload. Little endian.
//!
//! ```text
//!  0  magic
//!  4  payload bytes
//!  8  offset of the frame
//! 16  offset before which everything was durable when the frame was written
//! 24  CRC-32 of the payload
//! 28  CRC-32 of the salt and of bytes 0..28
//! ```
//!
//! The salt is the segment's own random number. Payloads come from outside: without it, one could hold a frame that would be
//! taken for a real one when the search for the next header, after a damaged one, runs through it.

use std::ops::Range;

pub(super) const HEADER_BYTES: usize = 32;
const MAGIC: [u8; 4] = *b"\xf7Lsk";

/// What stands in a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) payload_bytes: u32,
    pub(super) payload_crc: u32,
    pub(super) offset: u64,
    /// Damage at or after this offset may be what a crash left; damage before it is damage.
    pub(super) durable: u64,
}

impl Header {
    pub(super) fn encode(&self, salt: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.durable.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = header_crc(salt, &bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_BYTES], salt: u64) -> Option<Self> {
        let u32_at = |at| bytes[at..].first_chunk().copied().map_or(0, u32::from_le_bytes);
        let u64_at = |at| bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        if !bytes.starts_with(&MAGIC) || u32_at(28) != header_crc(salt, &bytes[..28]) {
            return None;
        }
        Some(Self { payload_bytes: u32_at(4), offset: u64_at(8), durable: u64_at(16), payload_crc: u32_at(24) })
    }
}

fn header_crc(salt: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

/// What stands at a place in a segment's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A whole frame.
    Frame { header: Header, payload: Range<usize> },
    /// The bytes end before the frame does; so many are needed from its start.
    Partial { needed: usize },
    /// Neither; a header may stand at `resume` or after it.
    Damaged { resume: usize },
    /// Nothing.
    End,
}

/// Looks at what stands at `at`.
pub(super) fn step(bytes: &[u8], at: usize, salt: u64) -> Step {
    let rest = &bytes[at..];
    if rest.is_empty() {
        return Step::End;
    }
    let Some(head) = rest.first_chunk::<HEADER_BYTES>() else { return Step::Partial { needed: HEADER_BYTES } };
    let Some(header) = Header::decode(head, salt) else {
        let from = at + 1;
        let resume = match memchr::memmem::find(&bytes[from..], &MAGIC) {
            Some(found) => from + found,
            // The magic may have begun in the last bytes.
            None => bytes.len().saturating_sub(MAGIC.len() - 1).max(from),
        };
        return Step::Damaged { resume };
    };
    let end = HEADER_BYTES + header.payload_bytes as usize;
    match rest.get(HEADER_BYTES..end) {
        None => Step::Partial { needed: end },
        Some(payload) if crc32fast::hash(payload) != header.payload_crc => Step::Damaged { resume: at + end },
        Some(_) => Step::Frame { header, payload: at + HEADER_BYTES..at + end },
    }
}
