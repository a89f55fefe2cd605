//! Text that is met again and again at the beginning of a field: where the same bytes stand once more, they are text without
//! another look.

use super::wide::{WIDTH, Wide};

/// So many bytes are compared at once: the key of nearly every attribute with what stands around it.
const WINDOW: usize = 2 * WIDTH;

/// A text between two pieces of bytes.
#[derive(Debug, Clone)]
pub(crate) struct Familiar {
    /// What all of it begins with, and zeros.
    window: [u8; WINDOW],
    /// A bit for each byte of the window that counts.
    mask: u32,
    /// How many bytes it is.
    len: u32,
    /// What does not fit into the window.
    rest: Box<[u8]>,
}

/// Bytes before the text.
const BEFORE: usize = 2;
/// Bytes after it.
const AFTER: usize = 1;

impl Familiar {
    /// Nothing begins with it.
    pub(crate) fn nothing() -> Self {
        Self { window: [0; WINDOW], mask: u32::MAX, len: u32::MAX, rest: Box::default() }
    }

    /// This text between these bytes.
    pub(crate) fn new(before: [u8; BEFORE], text: &str, after: [u8; AFTER]) -> Self {
        let bytes = [&before, text.as_bytes(), &after].concat();
        let mut window = [0; WINDOW];
        let first = bytes.len().min(WINDOW);
        window[..first].copy_from_slice(&bytes[..first]);
        let mask = u32::MAX >> (WINDOW - first);
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        Self { window, mask, len, rest: bytes[first..].into() }
    }

    /// How many bytes it is, with those around the text.
    #[inline(always)]
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// What follows it in `bytes`, which begin with it; none when they do not, or when too little stands there to compare a whole
    /// window.
    #[inline(always)]
    pub(crate) fn strip<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let window: &[u8; WINDOW] = bytes.first_chunk()?;
        if same(window, &self.window) & self.mask != self.mask {
            return None;
        }
        let (all, after) = bytes.split_at_checked(self.len as usize)?;
        if all.len() > WINDOW && all[WINDOW..] != *self.rest {
            return None;
        }
        Some(after)
    }
}

/// A bit for each byte that both have.
#[inline(always)]
fn same(one: &[u8; WINDOW], other: &[u8; WINDOW]) -> u32 {
    let half = |bytes: &[u8; WINDOW]| {
        let (chunks, _) = bytes.as_chunks::<WIDTH>();
        (Wide::load(&chunks[0]), Wide::load(&chunks[1]))
    };
    let (one, other) = (half(one), half(other));
    one.0.same(other.0) | one.1.same(other.1) << WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_the_same_bytes_begins_with_the_text() {
        for len in 0..100 {
            let text: String = ('a'..='z').cycle().take(len).collect();
            let familiar = Familiar::new([1, 2], &text, [3]);
            let mut bytes = [&[1, 2], text.as_bytes(), &[3], b"what follows is thirty-two bytes or more"].concat();
            assert_eq!(familiar.strip(&bytes), Some(&b"what follows is thirty-two bytes or more"[..]));
            assert_eq!(familiar.len() as usize, len + BEFORE + AFTER);
            for at in 0..len + BEFORE + AFTER {
                bytes[at] ^= 0x80;
                assert_eq!(familiar.strip(&bytes), None, "{len} {at}");
                bytes[at] ^= 0x80;
            }
            for short in 0..(len + BEFORE + AFTER).max(WINDOW) {
                assert_eq!(familiar.strip(&bytes[..short]), None, "{len} {short}");
            }
        }
    }

    #[test]
    fn nothing_begins_with_nothing() {
        for bytes in [&[0; 200][..], &[0xff; 200], &[]] {
            assert_eq!(Familiar::nothing().strip(bytes), None);
        }
    }
}
