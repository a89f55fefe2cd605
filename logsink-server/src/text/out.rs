//! The buffer that JSON is written to.

#![allow(unsafe_code, reason = "stores into room that was made just before; see each SAFETY")]

use super::{
    copy::{copy, copy_plain, escape},
    utf8,
    wide::{WIDTH, Wide},
};

/// How many bytes are escaped between two looks at the room that is left: an escape takes six bytes for one.
pub(super) const PIECE: usize = 4_096;

/// A buffer to append to: a `Vec` of bytes that short pieces are copied to without a call.
#[derive(Debug, Default)]
pub(crate) struct Out(Vec<u8>);

impl Out {
    /// Appends to what is there.
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Clears it, and gives its memory back when that is more than so many bytes.
    #[inline]
    pub(crate) fn clear_to(&mut self, kept: usize) {
        self.0.clear();
        if self.0.capacity() > kept {
            self.0 = Vec::new();
        }
    }

    pub(crate) fn reserve(&mut self, more: usize) {
        self.0.reserve(more);
    }

    /// Replaces the byte at `at`, if there is one.
    #[inline]
    pub(crate) fn set(&mut self, at: usize, byte: u8) {
        if let Some(old) = self.0.get_mut(at) {
            *old = byte;
        }
    }

    /// The end, with room for `bytes` behind it.
    #[inline]
    fn room(&mut self, bytes: usize) -> *mut u8 {
        if self.0.capacity() - self.0.len() < bytes {
            self.grow(bytes);
        }
        // SAFETY: the length is within the allocation.
        unsafe { self.0.as_mut_ptr().add(self.0.len()) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, bytes: usize) {
        self.0.reserve(bytes);
    }

    /// Appends one byte.
    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// Appends bytes of which the number is known when this is compiled.
    #[inline]
    pub(crate) fn literal<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.first(bytes, N);
    }

    /// Appends the first `len` of these bytes.
    #[inline]
    pub(crate) fn first<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        let to = self.room(N);
        // SAFETY: there is room for all N bytes, and no more than those become part of the buffer.
        unsafe {
            to.cast::<[u8; N]>().write_unaligned(*bytes);
            self.0.set_len(self.0.len() + len.min(N));
        }
    }

    /// Appends bytes.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let to = self.room(bytes.len());
        // SAFETY: there is room for all of the bytes, which are written, and a borrowed slice is not in the buffer.
        unsafe {
            copy(bytes, to);
            self.0.set_len(self.0.len() + bytes.len());
        }
    }

    /// Appends the first `len` of these digits, in quotes. What was put together before it came here would be read back from
    /// stores narrower than the load, which waits for all of them.
    #[inline]
    pub(crate) fn digits<const N: usize>(&mut self, digits: [[u8; WIDTH]; N], len: usize) {
        let len = len.min(N * WIDTH);
        let to = self.room(N * WIDTH + 2);
        // SAFETY: there is room for all digits and both quotes, and no more than `len` of the digits count.
        unsafe {
            to.write(b'"');
            to.add(1).cast::<[[u8; WIDTH]; N]>().write_unaligned(digits);
            to.add(1 + len).write(b'"');
            self.0.set_len(self.0.len() + len + 2);
        }
    }

    /// Appends `"text"` of the first `len` of these bytes as [`Self::string`] does, if they are UTF-8. False when they are not;
    /// then something may have been appended.
    #[inline(always)]
    pub(crate) fn string_of(&mut self, bytes: &[u8], len: usize) -> bool {
        let Some(wide) = bytes.get(..len.max(WIDTH)) else { return self.any_string_of(bytes, len) };
        let to = self.room(wide.len() + 2);
        // SAFETY: there is room for the text, or sixteen bytes where it has fewer, between two quotes. Of sixteen bytes only those of
        // the text count, which are looked at for what needs an escape or is not ASCII.
        let is_plain = unsafe {
            to.write(b'"');
            let (chunks, _) = wide.as_chunks::<WIDTH>();
            let mut unfit = Wide::load(&[0; WIDTH]);
            for (at, chunk) in (0..).step_by(WIDTH).zip(chunks) {
                let chunk = Wide::load(chunk);
                chunk.store(to.add(1 + at));
                unfit = unfit.or(chunk.unfit());
            }
            // What is left of it, with some of what was copied before.
            if let Some(last) = wide.last_chunk().filter(|_| len > WIDTH) {
                let last = Wide::load(last);
                last.store(to.add(1 + len - WIDTH));
                unfit = unfit.or(last.unfit());
            }
            to.add(1 + len).write(b'"');
            unfit.high() & !(u32::MAX << len.min(WIDTH)) == 0
        };
        if !is_plain {
            return self.any_string_of(bytes, len);
        }
        // SAFETY: as much was written.
        unsafe { self.0.set_len(self.0.len() + len + 2) };
        true
    }

    #[cold]
    #[inline(never)]
    fn any_string_of(&mut self, bytes: &[u8], len: usize) -> bool {
        let text = bytes.get(..len).and_then(|text| utf8(text).ok());
        text.is_some_and(|text| {
            self.string(text);
            true
        })
    }

    /// Appends `"text"`, byte for byte as serde_json writes it.
    #[inline]
    pub(crate) fn string(&mut self, text: &str) {
        self.text(b"\"", text, b"\"");
    }

    /// Appends text between two others, as it stands in JSON.
    #[inline(always)]
    pub(crate) fn text<const B: usize, const A: usize>(&mut self, before: &[u8; B], text: &str, after: &[u8; A]) {
        let plain = self.begin(before, text, A);
        if plain == text.len() {
            // SAFETY: there is room for what comes after, and all before it was written.
            unsafe { self.end(B + plain, after) };
        } else {
            // SAFETY: as much was written.
            unsafe { self.0.set_len(self.0.len() + B + plain) };
            self.rest(&text.as_bytes()[plain..], after);
        }
    }

    #[inline(never)]
    fn rest(&mut self, text: &[u8], after: &[u8]) {
        self.escape_all(text);
        self.put(after);
    }

    /// Appends text between two others when it needs no escape in JSON; else says so and appends nothing.
    #[inline]
    pub(crate) fn plain<const B: usize, const A: usize>(
        &mut self,
        before: &[u8; B],
        text: &str,
        after: &[u8; A],
    ) -> bool {
        let is_plain = self.begin(before, text, A) == text.len();
        if is_plain {
            // SAFETY: there is room for what comes after, and all before it was written.
            unsafe { self.end(B + text.len(), after) };
        }
        is_plain
    }

    /// Writes what comes before a text, and of the text as much as needs no escape, beyond the end of what counts; with room for
    /// all of the text and `more`. Returns how much of the text that is.
    #[inline(always)]
    fn begin<const B: usize>(&mut self, before: &[u8; B], text: &str, more: usize) -> usize {
        let to = self.room(B + text.len() + more);
        // SAFETY: there is room for both.
        unsafe {
            to.cast::<[u8; B]>().write_unaligned(*before);
            copy_plain(text.as_bytes(), to.add(B))
        }
    }

    /// Takes in what was written beyond the end, and what comes after it.
    ///
    /// # Safety
    /// `written` bytes were, and there is room for `after` behind them.
    #[inline(always)]
    unsafe fn end<const A: usize>(&mut self, written: usize, after: &[u8; A]) {
        // SAFETY: the caller's.
        unsafe {
            let end = self.0.as_mut_ptr().add(self.0.len() + written);
            end.cast::<[u8; A]>().write_unaligned(*after);
            self.0.set_len(self.0.len() + written + A);
        }
    }

    /// Appends what stands between the quotes.
    pub(crate) fn escaped(&mut self, text: &str) {
        self.escape_all(text.as_bytes());
    }

    #[inline(never)]
    fn escape_all(&mut self, text: &[u8]) {
        for piece in text.chunks(PIECE) {
            // Of the last escape's seven bytes one may go beyond the six, and of a wide store up to sixteen.
            let start = self.room(piece.len() * 6 + WIDTH);
            let mut end = start;
            // SAFETY: each byte of the piece moves the end on by six at the most, and a store reaches no more than WIDTH
            // beyond it: all lies in the room made above. Everything up to `end` was written.
            unsafe {
                let mut left = piece;
                while let Some(chunk) = left.first_chunk() {
                    let (read, after) = escape(chunk, end);
                    (left, end) = (&left[read..], after);
                }
                // Of the piece's last chunk, those bytes that are left; mostly none of them needs an escape.
                let is_plain =
                    piece.last_chunk().is_some_and(|last| Wide::load(last).marks() >> (WIDTH - left.len()) == 0);
                if is_plain {
                    copy(left, end);
                    (left, end) = (&[], end.add(left.len()));
                }
                // With blanks behind them, so that a whole chunk can be looked at from each of them on.
                let mut last = [b' '; 2 * WIDTH];
                copy(left, last.as_mut_ptr());
                let mut at = 0;
                while at < left.len()
                    && let Some(chunk) = last[at..].first_chunk()
                {
                    let (read, after) = escape(chunk, end);
                    // Of blanks that were read, none counts.
                    end = after.sub((at + read).saturating_sub(left.len()));
                    at += read;
                }
                let written = end.offset_from(start) as usize;
                self.0.set_len(self.0.len() + written);
            }
        }
    }
}
