//! Where a span's fields are kept: inside the value as long as they fit, which spares an allocation, else on the heap.

use std::ops::Range;

use crate::{
    encode::{Scalar, push_attribute, push_text, tag},
    queue::{COPY_SHORT_MAX, copy_short},
};

/// Room for what most spans have.
const INLINE_BYTES: usize = 192;
const INLINE_FIELDS: usize = 4;

/// A key and a text that are written at once: together short enough for lengths of one byte.
const SHORT_KEY_MAX: usize = 32;
const SHORT_TEXT_MAX: usize = COPY_SHORT_MAX;

/// `32 L 0a L key 12 L` and a value, `0a L text` or a scalar.
const SHORT_BYTES_MAX: usize = 4 + SHORT_KEY_MAX + 2 + 2 + SHORT_TEXT_MAX;
const _: () = assert!(SHORT_BYTES_MAX <= 127 && 2 + SHORT_TEXT_MAX >= Scalar::SIZE && SHORT_KEY_MAX <= COPY_SHORT_MAX);

/// Items that stay inside while there are at most `N` of them, and go to the heap all at once.
pub(super) struct Inline<T, const N: usize> {
    /// How many of `inside` count; none when there is something in `heap`.
    inside_len: usize,
    inside: [T; N],
    heap: Vec<T>,
}

/// Names of fields, and where each ends in the bytes.
pub(super) type Table = Inline<(&'static str, u32), INLINE_FIELDS>;

/// Encoded fields.
pub(super) type Bytes = Inline<u8, INLINE_BYTES>;

impl<T: Copy + Default, const N: usize> Inline<T, N> {
    pub(super) fn new() -> Self {
        Self { inside_len: 0, inside: [T::default(); N], heap: Vec::new() }
    }

    #[inline]
    pub(super) fn as_slice(&self) -> &[T] {
        if self.heap.is_empty() { &self.inside[..self.inside_len] } else { &self.heap }
    }

    #[inline]
    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        if self.heap.is_empty() { &mut self.inside[..self.inside_len] } else { &mut self.heap }
    }

    /// Appends `more` items, for the caller to fill.
    #[inline]
    pub(super) fn extend(&mut self, more: usize) -> &mut [T] {
        let start = self.inside_len;
        if start + more > N || !self.heap.is_empty() {
            self.inside_len = 0;
            return extend_heap(&mut self.heap, &self.inside[..start], more);
        }
        self.inside_len += more;
        &mut self.inside[start..self.inside_len]
    }

    #[inline]
    pub(super) fn push(&mut self, item: T) {
        if self.inside_len < N && self.heap.is_empty() {
            self.inside[self.inside_len] = item;
            self.inside_len += 1;
        } else {
            self.extend(1).fill(item);
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        // One of the two is 0.
        self.inside_len + self.heap.len()
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.inside_len = 0;
        self.heap.clear();
    }

    #[inline]
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<T>()
    }

    #[cold]
    pub(super) fn remove(&mut self, range: Range<usize>) {
        if self.heap.is_empty() {
            self.inside.copy_within(range.end..self.inside_len, range.start);
            self.inside_len -= range.len();
        } else {
            self.heap.drain(range);
        }
    }
}

/// The items inside, if any, are the heap's first.
#[cold]
#[inline(never)]
fn extend_heap<'h, T: Copy + Default>(heap: &'h mut Vec<T>, inside: &[T], more: usize) -> &'h mut [T] {
    heap.extend_from_slice(inside);
    let start = heap.len();
    heap.resize(start + more, T::default());
    &mut heap[start..]
}

impl Bytes {
    /// Appends an attribute that holds text.
    #[inline]
    pub(super) fn put_text(&mut self, key: &str, text: &str) {
        let short = text.len() <= SHORT_TEXT_MAX
            && self.put_short(key, |place| {
                [place[0], place[1]] = [tag::STRING, text.len() as u8];
                copy_short(&mut place[2..2 + text.len()], text.as_bytes());
                2 + text.len()
            });
        if !short {
            self.put_elsewhere(|out| push_text(out, key, text));
        }
    }

    /// Appends an attribute that holds a scalar.
    #[inline]
    pub(super) fn put_scalar(&mut self, key: &str, value: &Scalar) {
        let short = self.put_short(key, |place| {
            place[..Scalar::SIZE].copy_from_slice(value.padded());
            value.as_bytes().len()
        });
        if !short {
            self.put_elsewhere(|out| push_attribute(out, key, value.as_bytes()));
        }
    }

    /// Appends an attribute whose key and value are short, inside: one check, and places of constant size. Else `false`.
    #[inline(always)]
    fn put_short(&mut self, key: &str, write: impl FnOnce(&mut [u8; 2 + SHORT_TEXT_MAX]) -> usize) -> bool {
        let start = self.inside_len;
        let Some(place) = self.inside.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<SHORT_BYTES_MAX>) else {
            return false;
        };
        if key.len() > SHORT_KEY_MAX || !self.heap.is_empty() {
            return false;
        }
        let value_at = 4 + key.len() + 2;
        copy_short(&mut place[4..4 + key.len()], key.as_bytes());
        let Some(value) = place[value_at..].first_chunk_mut() else { return false };
        let any = write(value);
        [place[value_at - 2], place[value_at - 1]] = [tag::VALUE, any as u8];
        place[..4].copy_from_slice(&[tag::ATTRIBUTE, (value_at - 2 + any) as u8, tag::KEY, key.len() as u8]);
        self.inside_len = start + value_at + any;
        true
    }

    /// Appends an attribute of any length.
    #[cold]
    #[inline(never)]
    pub(super) fn put_elsewhere(&mut self, push: impl FnOnce(&mut Vec<u8>)) {
        let mut encoded = Vec::new();
        push(&mut encoded);
        self.extend(encoded.len()).copy_from_slice(&encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain vector, across the bound in both directions.
    #[test]
    fn items_stay_what_they_were_wherever_they_are() {
        let mut inline = Inline::<u32, 4>::new();
        let mut plain = Vec::new();
        let mut next = 0;
        for (more, taken) in
            [(0, 0..0), (3, 0..1), (2, 1..3), (9, 0..2), (1, 0..0), (0, 0..10), (4, 0..4), (1, 0..1), (5, 2..3)]
        {
            for place in inline.extend(more) {
                *place = next;
                plain.push(next);
                next += 1;
            }
            assert_eq!(inline.as_slice(), plain);
            inline.remove(taken.clone());
            plain.drain(taken);
            assert_eq!(inline.as_slice(), plain);
            assert_eq!(inline.as_mut_slice(), plain);
        }
    }

    #[test]
    fn attributes_of_every_length_are_encoded_alike() {
        for length in (0..300).chain([16_000, 70_000]) {
            let (key, text) = ("k".repeat(length % 140), "v".repeat(length));
            for value in [0, 1, -1, i64::MAX] {
                let (mut bytes, mut expected) = (Bytes::new(), Vec::new());
                for _ in 0..4 {
                    bytes.put_text(&key, &text);
                    bytes.put_scalar(&key, &Scalar::int(value));
                    push_text(&mut expected, &key, &text);
                    push_attribute(&mut expected, &key, Scalar::int(value).as_bytes());
                }
                assert_eq!(bytes.as_slice(), expected, "{length}");
            }
        }
    }
}
