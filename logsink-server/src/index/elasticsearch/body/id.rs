//! The ids of documents.
//!
//! The same record gets the same id however often it is sent or read, and within one sender (or one partition) ids sort in the
//! order of sending: they are the tie-break between events of one nanosecond.
//!
//! A sender that numbers its batches gives a batch sent again the same ids; any other's record has the id of its place, so that a
//! message read again has the same ones. A `:` is in the ids of the first kind and never in those of the second.
//!
//! Numbers are written in signs of six bits each: those of base64 for URLs, in an order of their own, so that ids sort as the
//! numbers do. An id of a place is 32 such signs, which Elasticsearch stores as the 24 bytes that they can stand for.

use crate::{
    queue::{Headers, Message},
    text::Out,
};

/// In the order of their codes.
const SIGNS: &[u8; 64] = b"-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
/// Of the numbers before a record's index, so many bits share their sign with its first.
const SHARED_BITS: u32 = 4;

/// A longer instance id does not fit into a document's id (512 bytes) with what follows it; no sender of ours has one.
const INSTANCE_BYTES_MAX: usize = 256;

/// The ids of a message's records.
#[derive(Default)]
pub(super) struct Ids {
    /// What all begin with, as it stands in JSON, and the quote before it.
    start: Out,
    /// The bits that come before the index, where it stands.
    shared: u64,
    /// The index of the message's first record in the sender's batch.
    first: u32,
    /// Whether they are those of a sender that numbers its batches.
    pub(super) are_numbered: bool,
}

impl Ids {
    pub(super) fn follow_message(&mut self, message: &Message, origin: u64) {
        let Headers { instance, sequence, first, .. } = &message.headers;
        let (text, bytes) = match (instance, sequence) {
            (Some(instance), Some(sequence)) if instance.len() <= INSTANCE_BYTES_MAX => {
                self.are_numbered = true;
                (format!("{instance}:"), sequence.to_be_bytes().to_vec())
            }
            _ => {
                self.are_numbered = false;
                // A topic that is made anew begins at offset 0 again: its messages are told from the old ones by their time.
                let origin = origin ^ message.headers.appended_ns();
                let (partition, offset) = (message.position.partition, message.position.offset);
                let bytes = [&partition.to_be_bytes()[..], &offset.to_be_bytes(), &origin.to_be_bytes()].concat();
                (String::new(), bytes)
            }
        };
        self.first = *first;
        self.start.clear();
        self.start.byte(b'"');
        self.start.escaped(&text);
        // Eight bytes, or twenty: of both, four bits are over.
        let (mut bits, mut count) = (0_u64, 0);
        for byte in bytes {
            (bits, count) = (bits << 8 | u64::from(byte), count + 8);
            while count >= 6 {
                count -= 6;
                self.start.byte(sign(bits >> count));
            }
        }
        self.shared = (bits & ((1 << SHARED_BITS) - 1)) << u32::BITS;
    }

    /// Writes the id of the message's record with this index, in quotes.
    #[inline]
    pub(super) fn write(&self, out: &mut Out, index: u32) {
        let bits = self.shared | u64::from(self.first.saturating_add(index));
        let signs = [30, 24, 18, 12, 6, 0]
            .iter()
            .rev()
            .fold(u64::from(b'"'), |signs, &at| signs << 8 | u64::from(sign(bits >> at)));
        out.put(self.start.as_bytes());
        out.first(&signs.to_le_bytes(), 7);
    }
}

/// The sign of a number's lowest six bits.
#[inline]
fn sign(bits: u64) -> u8 {
    SIGNS[(bits & 63) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Position;

    fn id(headers: Headers, partition: i32, offset: i64, index: u32) -> String {
        let position = Position { partition, offset };
        let message = Message { position, epoch: 1, payload: bytes::Bytes::new(), headers, dropped: Vec::new() };
        let (mut ids, mut out) = (Ids::default(), Out::default());
        ids.follow_message(&message, 0x1234_5678_9abc_def0);
        ids.write(&mut out, index);
        serde_json::from_slice(out.as_bytes()).unwrap()
    }

    /// The number whose signs these are.
    fn number(signs: &str) -> u128 {
        signs
            .bytes()
            .fold(0, |number, byte| number << 6 | SIGNS.iter().position(|sign| *sign == byte).expect("a sign") as u128)
    }

    #[test]
    fn signs_sort_as_what_they_stand_for() {
        assert!(SIGNS.is_sorted());
        assert!(SIGNS.iter().all(|sign| sign.is_ascii_alphanumeric() || b"-_".contains(sign)));
    }

    #[test]
    fn a_place_is_32_signs_and_sorts_by_partition_offset_and_index() {
        let place = |partition, offset, index| id(Headers::default(), partition, offset, index);
        let ids = [
            place(0, 0, 0),
            place(0, 0, 1),
            place(0, 0, u32::MAX),
            place(0, 1, 0),
            place(0, i64::MAX, 7),
            place(3, 255, 0),
            place(3, 255, 1 << 24),
            place(i32::MAX, 0, 0),
        ];
        assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]), "{ids:?}");
        assert!(ids.iter().all(|id| id.len() == 32));
        let id = place(3, 255, 0x89ab_cdef);
        // 192 bits, 16 signs each half.
        assert_eq!(number(&id[..16]), 3 << 64 | 255);
        assert_eq!(number(&id[16..]), 0x1234_5678_9abc_def0 << 32 | 0x89ab_cdef);
    }

    #[test]
    fn a_numbered_batch_has_its_senders_name_and_sorts_by_number_and_index() {
        let of = |instance: &str, sequence, first, index| {
            let instance = Some(instance.to_owned());
            id(Headers { instance, sequence: Some(sequence), first, ..Headers::default() }, 3, 255, index)
        };
        let ids = [of("a", 0, 0, 0), of("a", 0, 0, 1), of("a", 0, 5, 1), of("a", 1, 0, 0), of("a", u64::MAX, 0, 0)];
        assert!(ids.is_sorted() && ids.windows(2).all(|two| two[0] != two[1]), "{ids:?}");
        assert_eq!(number(of("a\"b", 77, 2, 3).strip_prefix("a\"b:").unwrap()), 77 << 32 | 5);
        // A name that is too long is none.
        assert_eq!(of(&"x".repeat(257), 1, 0, 0).len(), 32);
    }
}
