//! Copies, with a look at what is copied: does it need an escape in JSON?

#![allow(unsafe_code, reason = "wide loads and stores; see each SAFETY")]

use super::wide::{WIDTH, Wide};

/// Writes the bytes of a chunk up to the first that needs an escape, and that one escaped. Returns how many bytes those are, and
/// the end of what was written.
///
/// # Safety
/// `to` has room for six bytes for each of those and WIDTH more.
#[inline(always)]
pub(super) unsafe fn escape(chunk: &[u8; WIDTH], to: *mut u8) -> (usize, *mut u8) {
    let wide = Wide::load(chunk);
    let marks = wide.marks();
    // SAFETY: room for WIDTH bytes at the least; behind what precedes the mark, for the seven of an escape, of which at most six
    // count.
    unsafe {
        wide.store(to);
        if marks == 0 {
            return (WIDTH, to.add(WIDTH));
        }
        let before = marks.trailing_zeros() as usize % WIDTH;
        let (text, len) = ESCAPES[usize::from(chunk[before])];
        let end = to.add(before);
        end.cast::<[u8; 7]>().write_unaligned(text);
        (before + 1, end.add(usize::from(len)))
    }
}

/// What stands for a byte in JSON, and how many bytes of it count.
static ESCAPES: [([u8; 7], u8); 256] = {
    let hex = b"0123456789abcdef";
    let mut escapes = [([0; 7], 0); 256];
    let mut byte = 0;
    while byte < 256 {
        let short = match byte as u8 {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => 0,
        };
        escapes[byte] = match short {
            0 => ([b'\\', b'u', b'0', b'0', hex[byte >> 4], hex[byte & 15], 0], 6),
            _ => ([b'\\', short, 0, 0, 0, 0, 0], 2),
        };
        byte += 1;
    }
    escapes
};

/// Copies bytes; short ones without a call.
///
/// # Safety
/// `to` has room for all of them and is not among them.
#[inline]
pub(super) unsafe fn copy(bytes: &[u8], to: *mut u8) {
    let len = bytes.len();
    // SAFETY: loads are within the slice and stores within as many bytes of room: two that overlap where the length is no
    // multiple of their width.
    unsafe {
        if let (Some(first), Some(last)) = (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
            if let (Some(first), Some(last)) = (bytes.first_chunk::<32>(), bytes.last_chunk::<32>()) {
                if len > 64 {
                    return to.copy_from_nonoverlapping(bytes.as_ptr(), len);
                }
                to.cast::<[u8; 32]>().write_unaligned(*first);
                to.add(len - 32).cast::<[u8; 32]>().write_unaligned(*last);
                return;
            }
            to.cast::<[u8; 16]>().write_unaligned(*first);
            to.add(len - 16).cast::<[u8; 16]>().write_unaligned(*last);
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            to.cast::<[u8; 8]>().write_unaligned(*first);
            to.add(len - 8).cast::<[u8; 8]>().write_unaligned(*last);
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            to.cast::<[u8; 4]>().write_unaligned(*first);
            to.add(len - 4).cast::<[u8; 4]>().write_unaligned(*last);
        } else if let [first, .., last] = *bytes {
            to.add(len / 2).write(bytes[len / 2]);
            to.write(first);
            to.add(len - 1).write(last);
        } else if let [only] = *bytes {
            to.write(only);
        }
    }
}

/// Copies bytes up to one that needs an escape, and returns how many; that may be fewer than there are before it, and then some
/// more may have been copied.
///
/// # Safety
/// As [`copy`].
#[inline]
pub(super) unsafe fn copy_plain(bytes: &[u8], to: *mut u8) -> usize {
    let len = bytes.len();
    // SAFETY: as in `copy`.
    let is_plain = unsafe {
        if let (Some(first), Some(last)) = (bytes.first_chunk::<WIDTH>(), bytes.last_chunk::<WIDTH>()) {
            let (first, last) = (Wide::load(first), Wide::load(last));
            first.store(to);
            last.store(to.add(len - WIDTH));
            if first.or_marked(last) {
                return 0;
            }
            let mut at = WIDTH;
            while at + WIDTH < len {
                let chunk = Wide::load(&*bytes.as_ptr().add(at).cast::<[u8; WIDTH]>());
                chunk.store(to.add(at));
                if chunk.marks() != 0 {
                    return at;
                }
                at += WIDTH;
            }
            true
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            to.cast::<[u8; 8]>().write_unaligned(*first);
            to.add(len - 8).cast::<[u8; 8]>().write_unaligned(*last);
            Wide::halves(*first, *last).marks() == 0
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            to.cast::<[u8; 4]>().write_unaligned(*first);
            to.add(len - 4).cast::<[u8; 4]>().write_unaligned(*last);
            let [a, b, c, d] = *first;
            let [e, f, g, h] = *last;
            Wide::halves([a, b, c, d, e, f, g, h], [b' '; 8]).marks() == 0
        } else {
            copy(bytes, to);
            bytes.iter().all(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\')
        }
    };
    if is_plain { len } else { 0 }
}
